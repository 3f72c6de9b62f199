"""Boards of many members: moving one, against ZADD; its rank, against ZREVRANK; its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from bench.contest import FRAMING, Load, Peers, Shape, check_members, contest, rates, servers
from bench.load import Plan, Supply
from bench.peers import Redis, Rtserver
from bench.report import Measure, Result
from bench.requests import Batch
from bench.run import Run
from bench.supplies import BOARD, DRAWS, members, moves, ranks

__all__ = ["fill", "measure", "rank", "stocked"]

MEMBERS = 1_000_000
SHAPE = Shape(connections=16, depth=128)
_SIZES = (1_000, MEMBERS)
_HUGE = 10_000_000
_LOADERS = 4  # connections


def measure(run: Run) -> Result:
    """Workload `board`."""
    result = Result(
        "board",
        f"board.submit of a random score for a random member of a board with mode last, against"
        f" ZADD; {SHAPE}",
    )
    for nominal in (*_SIZES, *([_HUGE] if run.huge else [])):
        count = run.sized(nominal)
        title = f"submits, {nominal:,} members"
        with stocked(run, count) as (peers, grown):
            if nominal >= MEMBERS:
                result.measures += [
                    Measure(f"memory of one of {nominal:,} members", subject, "bytes", [each])
                    for subject, each in grown.items()
                ]
            check = check_members(peers.ours, count)
            rounds = contest(run, title, peers, partial(_load, run, moves, count), check)
        rates(result, title, rounds)
    result.notes.append(
        "memory: growth of the resident set (/proc/PID/statm) while the members were added, by"
        f" {_LOADERS} connections with vectors of 1,000; all that the server keeps for them"
    )
    result.notes.append("after every round the board had its members and no request was refused")
    return result


def rank(run: Run) -> Result:
    """Workload `rank`."""
    count = run.sized(MEMBERS)
    result = Result("rank", f"board.rank of a random member, against ZREVRANK; {SHAPE}")
    title = f"ranks, {MEMBERS:,} members"
    with stocked(run, count) as (peers, _):
        check = check_members(peers.ours, count)
        rounds = contest(run, title, peers, partial(_load, run, ranks, count), check)
    rates(result, title, rounds)
    return result


def _load(
    run: Run, supply: Callable[[str, int, int, int], Iterable[Batch]], count: int, subject: str
) -> Load:
    return Load(partial(supply, subject, count, run.sized(DRAWS), SHAPE.depth), SHAPE)


@contextmanager
def stocked(run: Run, count: int) -> Iterator[tuple[Peers, dict[str, float]]]:
    """Both servers with a board of `count` members; and their growth in bytes, by member."""
    with servers(run, data=f"board-{count}") as peers:
        grown = {}
        for subject, peer in peers.items():
            before = peer.resident_bytes()
            fill(run, subject, peer, count)
            grown[subject] = (peer.resident_bytes() - before) / count
            run.say(f"{count:,} members, {subject}: {grown[subject]:.0f} bytes each")
        yield peers, grown


def fill(run: Run, subject: str, peer: Rtserver | Redis, count: int) -> None:
    """Adds the members. Ours go to a board that every score of theirs will move."""
    if isinstance(peer, Rtserver):
        peer.ask(f"board.create {BOARD} mode=last")
    supply: Supply = partial(members, subject, count)
    run.generator.run(Plan(peer.address, supply, FRAMING[subject], _LOADERS, 1))
