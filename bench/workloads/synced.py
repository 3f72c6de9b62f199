"""Pipelined increments that are on the disk before they are answered, on both sides."""

from __future__ import annotations

from functools import partial

from bench.contest import KEYS, Load, Shape, check_counters, contest, rates, servers
from bench.report import Result
from bench.run import Run
from bench.supplies import increments

__all__ = ["measure"]

_SHAPES = (Shape(connections=16, depth=128), Shape(connections=16, depth=1024))


def measure(run: Run) -> Result:
    """Workload `synced`."""
    keys = run.sized(KEYS)
    result = Result(
        "synced",
        f"counter.add of one of {keys:,} with ack synced, against INCR with appendfsync always",
    )
    with servers(run, fsync="always") as peers:
        check = check_counters(peers.ours, keys)
        for shape in _SHAPES:
            load = partial(_load, keys, shape)
            rounds = contest(run, str(shape), peers, load, check)
            rates(result, f"increments, {shape}", rounds)
    result.notes.append("one disk for both; what a sync costs on it decides much of this")
    return result


def _load(keys: int, shape: Shape, subject: str) -> Load:
    return Load(partial(increments, subject, keys, shape.depth, "synced"), shape)
