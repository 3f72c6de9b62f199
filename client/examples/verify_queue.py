"""Was the queue of a sale fair? Proves it from what the server tells everybody, or shows where not.

    python verify_queue.py rt://127.0.0.1:7370 SALE [--published HEX] [--save FILE]
    python verify_queue.py --file FILE [--published HEX]

The promise: `sale.create` publishes seed_sha256 and the opening reveals the seed. Whoever joined
before the opening is admitted in the order of SHA-256(f"{seed}:{user}"), whose first 63 bits are
compared as a number; whoever joined later, in the order of arrival and behind all of them. Who left
meanwhile is passed over.

This asks for the sale's status and its ledger (that takes the role service; RT_TOKEN has the token)
and finds the order anew with the standard library. `--published` is the seed_sha256 that you noted
when the sale was announced: without it, the one that the status tells now is believed. `--save`
keeps what was read as JSON lines, the status first, for `--file`: so others can check it without a
server, and without rtclient. The exit code is the verdict: 0 proved, 1 not.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

Step = Mapping[str, Any]  # of the ledger: {seq, at, step, user, ...}

_SHOWN_MAX = 10
_PAGE = 1_000


def start_key(seed: str, user: str) -> int:
    """Where a user stands who joined before the opening: smaller is earlier. Two with the same 63
    bits, of whom there are none on this planet, would stand in the order of their joins."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{user}".encode()).digest()[:8], "big") >> 1


class Line:
    """Who waits, as the promise says."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._early: list[tuple[int, int, str]] = []  # a heap of (key, seq of the join, user)
        self._late: deque[tuple[int, str]] = deque()  # (seq of the join, user)
        self.waiting: dict[str, int] = {}  # user -> seq of her join

    def join(self, seq: int, user: str, *, opened: bool) -> None:
        self.waiting[user] = seq
        if opened:
            self._late.append((seq, user))
        else:
            heapq.heappush(self._early, (start_key(self._seed, user), seq, user))

    def next(self) -> str | None:
        """Whose turn it is."""
        while self._early:
            _, seq, user = self._early[0]
            if self.waiting.get(user) == seq:
                return user
            heapq.heappop(self._early)
        while self._late:
            seq, user = self._late[0]
            if self.waiting.get(user) == seq:
                return user
            self._late.popleft()
        return None


def problems(seed: str, steps: Iterable[Step], counts: Counter[str] | None = None) -> Iterator[str]:
    """Each step of a ledger that breaks the promise, in words. `counts` hears what happened."""
    line = Line(seed)
    counts = Counter() if counts is None else counts
    opened = False
    last = 0
    for step in steps:
        seq, what, user = step["seq"], step["step"], step["user"]
        if seq != last + 1:
            yield f"step {seq} follows step {last}: the ledger has a hole"
        last = seq
        if what == "opened":
            opened = True
        elif what == "joined":
            counts["joined late" if opened else "joined early"] += 1
            if user in line.waiting:
                yield f"step {seq}: {user} joined and waited already, since {line.waiting[user]}"
            line.join(seq, user, opened=opened)
        elif what in ("left", "abandoned"):
            counts["left"] += line.waiting.pop(user, None) is not None
        elif what == "admitted":
            counts["admitted"] += 1
            due = line.next()
            if not opened:
                yield f"step {seq}: {user} was admitted before the opening"
            elif user not in line.waiting:
                yield f"step {seq}: {user} was admitted, and did not wait"
            elif user != due:
                yield f"step {seq}: {user} was admitted, and it was the turn of {due}"
            line.waiting.pop(user, None)
    counts["waiting"] = len(line.waiting)


def verdict(
    status: Mapping[str, Any], steps: Iterable[Step], published: str | None = None
) -> tuple[bool, list[str]]:
    """Whether the promise was kept, and what there is to say about it."""
    seed, told = status["seed"], status["seed_sha256"]
    if seed is None:
        return False, ["the sale has not opened yet: its seed is not known, nothing can be proved"]
    found = hashlib.sha256(seed.encode()).hexdigest()
    for whose, expected in (("that the sale tells", told), ("that was published", published)):
        if expected is not None and found != expected.lower():
            return False, [f"the seed {seed!r} gives {found}, not the hash {whose}, {expected}"]
    counts: Counter[str] = Counter()
    broken = list(problems(seed, steps, counts))
    said = [
        f"seed {seed!r}, its hash is the one {'told' if published is None else 'published'}",
        f"{counts['joined early']} joined before the opening and {counts['joined late']} after,"
        f" {counts['admitted']} were admitted, {counts['left']} gave up, {counts['waiting']} wait",
        *broken[:_SHOWN_MAX],
    ]
    if len(broken) > _SHOWN_MAX:
        said.append(f"and {len(broken) - _SHOWN_MAX} more like these")
    return not broken, said


Rows = Iterator[dict[str, Any]]  # the status of a sale, then all steps of its ledger


def read_sale(url: str, name: str) -> Rows:
    import rtclient.sync  # here, because a file can be checked without it

    with rtclient.sync.connect(url, token=os.environ.get("RT_TOKEN")) as rt:
        yield asdict(rt.sale.status(name, limit=1))
        after: int | None = 0
        while after is not None:
            page = rt.sale.ledger(name, after, _PAGE)
            yield from map(asdict, page.items)
            after = page.next


def read_file(path: Path) -> Rows:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def kept_in(path: Path, rows: Rows) -> Rows:
    """The rows, and a file with what has passed."""
    with path.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(row) + "\n")
            yield row


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Proves that the queue of a sale was fair, or shows where it was not."
    )
    parser.add_argument("url", nargs="?", help="such as rt://127.0.0.1:7370")
    parser.add_argument("sale", nargs="?")
    parser.add_argument("--file", type=Path, help="JSON lines instead of a server")
    parser.add_argument("--save", type=Path, help="keep what was read as JSON lines")
    parser.add_argument("--published", help="the seed_sha256 noted when the sale was announced")
    asked = parser.parse_args(arguments)
    if (asked.file is None) == (asked.sale is None):
        parser.error("give a url and a sale, or --file")
    rows = read_sale(asked.url, asked.sale) if asked.file is None else read_file(asked.file)
    if asked.save is not None:
        rows = kept_in(asked.save, rows)
    kept, said = verdict(next(rows), rows, asked.published)
    deque(rows, 0)  # what a verdict did not need is kept as well
    said.append("PROVED: everybody was admitted in order" if kept else "NOT PROVED")
    sys.stdout.write("\n".join(said) + "\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
