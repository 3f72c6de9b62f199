"""Pipelined increments, against redis INCR: of many counters, of one, and in vectors."""

from __future__ import annotations

from functools import partial

from bench.contest import KEYS, Load, Shape, check_counters, contest, rates, servers
from bench.report import OURS, Result
from bench.run import Run
from bench.supplies import increments, vectors

__all__ = ["SHAPE", "many", "measure", "one"]

SHAPE = Shape(connections=16, depth=128)
_VECTOR_SHAPE = Shape(connections=16, depth=8)
_ITEMS = 100  # of a vector
_HELD = "after every round the counters held exactly what had been acknowledged"


def measure(run: Run) -> Result:
    """Workload `counter`."""
    keys = run.sized(KEYS)
    return _increments(run, Result("counter", f"counter.add of one of {keys:,} against INCR"), keys)


def one(run: Run) -> Result:
    """Workload `counter-hot`."""
    return _increments(run, Result("counter-hot", "counter.add of one counter against INCR"), 1)


def _increments(run: Run, result: Result, keys: int) -> Result:
    result.summary += f"; {SHAPE}"
    with servers(run) as peers:
        check = check_counters(peers.ours, keys)
        rounds = contest(run, result.workload, peers, partial(_singly, keys), check)
    rates(result, "increments", rounds)
    result.notes.append(_HELD)
    return result


def many(run: Run) -> Result:
    """Workload `counter-many`."""
    result = Result(
        "counter-many",
        f"counter.add_many of {_ITEMS}, {_VECTOR_SHAPE}, against as many INCR, {SHAPE}",
    )
    with servers(run) as peers:
        check = check_counters(peers.ours, run.sized(KEYS))
        for keys in (1_000, KEYS):
            title = f"updates of {keys:,} counters"
            rounds = contest(run, title, peers, partial(_grouped, run.sized(keys)), check)
            rates(result, title, rounds)
    result.notes.append(_HELD)
    return result


def _singly(keys: int, subject: str) -> Load:
    return Load(partial(increments, subject, keys, SHAPE.depth), SHAPE)


def _grouped(keys: int, subject: str) -> Load:
    if subject != OURS:
        return _singly(keys, subject)
    supply = partial(vectors, keys, _ITEMS, _VECTOR_SHAPE.depth)
    return Load(supply, _VECTOR_SHAPE, count=lambda outcome: outcome.replies * _ITEMS)
