"""What a ranking costs, in both forms: bytes a member and microseconds an operation, by size.

`python -m bench.ranking [--sizes 1000,1000000,10000000] [--forms pure,compiled]` prints one row a
form and size, each measured in a process of its own. Members have names of 10 bytes and random
40-bit keys and come in random order. Memory is the growth of the resident set over all places,
names included, of as many rankings as hold 1,000,000 members together; `moved` is the same after
each member has moved twice, which leaves blocks less full. Times are processor time, the mean of
up to 100,000 operations on random members, called from Python with names and keys made before, the
best of five rounds; `move` is what a board update is: both ranks, and a new place. `worst` is the
longest single move of a round, in milliseconds, the least of five rounds.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from bench.skiplist import resident_bytes, worst_ms
from rtserver.structs.ranking import Ranking, new_ranking

MEMORY_MEMBERS = 1_000_000
OPERATIONS_MAX = 100_000
MOVES_EACH = 2
ROUNDS = 5
KEY_BITS = 40
OPERATIONS = ("move", "rank", "find", "rank_of_key", "distinct_before", "slice 10", "remove+place")


def name_of(number: int) -> str:
    return f"m{number:09}"


def mean_us(operation: Callable[..., object], calls: Sequence[tuple[Any, ...]]) -> float:
    started = time.thread_time_ns()
    for call in calls:
        operation(*call)
    return (time.thread_time_ns() - started) / len(calls) / 1e3


def filled(compiled: bool, size: int, draw: random.Random) -> Ranking:
    made = new_ranking() if compiled else Ranking()
    for number in draw.sample(range(size), size):
        made.place(name_of(number), draw.getrandbits(KEY_BITS))
    return made


def one_round(made: Ranking, draw: random.Random) -> list[float]:
    """The mean of each of OPERATIONS."""
    size = len(made)
    count = min(size, OPERATIONS_MAX)
    names = [(name_of(draw.randrange(size)),) for _ in range(count)]
    keys = [(draw.getrandbits(KEY_BITS),) for _ in range(count)]
    updates = [(name_of(draw.randrange(size)), draw.getrandbits(KEY_BITS)) for _ in range(count)]
    gone = [(name_of(number),) for number in draw.sample(range(size), count)]
    back = [(name, draw.getrandbits(KEY_BITS)) for (name,) in gone]
    return [
        mean_us(made.move, updates),
        mean_us(made.rank, names),
        mean_us(made.find, names),
        mean_us(made.rank_of_key, keys),
        mean_us(made.distinct_before, keys),
        mean_us(made.slice, [(draw.randrange(size), 10) for _ in range(count)]),
        mean_us(made.remove, gone) + mean_us(made.place, back),
    ]


def worst_round(made: Ranking, draw: random.Random) -> float:
    size = len(made)
    count = min(size, OPERATIONS_MAX)
    updates = [(name_of(draw.randrange(size)), draw.getrandbits(KEY_BITS)) for _ in range(count)]
    return worst_ms(made.move, updates)


def measure(form: str, size: int) -> list[float]:
    """One row of the table."""
    gc.disable()
    draw = random.Random(size)
    before = resident_bytes()
    count = max(1, MEMORY_MEMBERS // size)
    rankings = [filled(form == "compiled", size, draw) for _ in range(count)]
    fresh = (resident_bytes() - before) / (size * count)
    for made in rankings:
        for _ in range(MOVES_EACH * size):
            made.move(name_of(draw.randrange(size)), draw.getrandbits(KEY_BITS))
    moved = (resident_bytes() - before) / (size * count)
    rounds = [one_round(rankings[0], draw) for _ in range(ROUNDS)]
    worst = min(worst_round(rankings[0], draw) for _ in range(ROUNDS))
    return [fresh, moved, *map(min, zip(*rounds, strict=True)), worst]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--sizes", default="1000,1000000,10000000", help="members, by comma")
    parser.add_argument("--forms", default="pure,compiled", help="by comma")
    asked = parser.parse_args()
    if "compiled" in asked.forms and isinstance(new_ranking(), Ranking):
        parser.error("the compiled ranking is not built, or RTSERVER_PURE is set")
    rows = [(form, int(size)) for form in asked.forms.split(",") for size in asked.sizes.split(",")]
    heads = ("members", "B/member", "moved", *OPERATIONS, "worst ms")
    sys.stdout.write(f"{'form':<10}" + "".join(f"{head:>16}" for head in heads) + "\n")
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        measured = fresh.map(measure, *zip(*rows, strict=True))
        for (form, size), cells in zip(rows, measured, strict=True):
            line = "".join(f"{cell:>16.2f}" for cell in cells)
            sys.stdout.write(f"{form:<10}{size:>16,}{line}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
