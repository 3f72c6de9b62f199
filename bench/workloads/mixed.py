"""What an application sends: increments, scores, ranks, messages and reads, in one pipeline."""

from __future__ import annotations

from functools import partial

from bench.contest import (
    KEYS,
    Check,
    Load,
    Round,
    Shape,
    check_counters,
    check_members,
    contest,
    rates,
)
from bench.peers import Rtserver
from bench.report import Result
from bench.run import Run
from bench.supplies import MIX, mixed
from bench.workloads.board import stocked
from bench.workloads.pubsub import audience

__all__ = ["measure"]

_MEMBERS = 100_000
_SUBSCRIBERS = 10
_BATCHES = 4_000
_SHAPE = Shape(connections=16, depth=sum(MIX.values()))


def measure(run: Run) -> Result:
    """Workload `mixed`."""
    shares = ", ".join(f"{number} {kind}" for kind, number in MIX.items())
    result = Result(
        "mixed",
        f"of {_SHAPE.depth} requests {shares}; {KEYS:,} counters, {_MEMBERS:,} members,"
        f" {_SUBSCRIBERS} subscribers; {_SHAPE}",
    )
    members = run.sized(_MEMBERS)
    with stocked(run, members) as (peers, _):
        check = _check(peers.ours, run.sized(KEYS), members)
        rates(result, "requests", contest(run, "mixed", peers, partial(_load, run), check))
    result.notes.append("after every round counters and board held what had been acknowledged")
    if run.generator.program is None:
        result.notes.append("without subscribers: they need the compiled generator")
    return result


def _load(run: Run, subject: str) -> Load:
    supply = partial(mixed, subject, run.sized(KEYS), run.sized(_MEMBERS), run.sized(_BATCHES))
    listeners = audience(subject, _SUBSCRIBERS) if run.generator.program else None
    return Load(supply, _SHAPE, listeners)


def _check(ours: Rtserver, keys: int, members: int) -> Check:
    counters = check_counters(ours, keys, share=MIX["add"] / _SHAPE.depth)
    board = check_members(ours, members)

    def check(done: Round) -> None:
        counters(done)
        board(done)

    return check
