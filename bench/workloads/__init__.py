"""The workloads, by the name that the command line takes, in the order in which all of them run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.report import Result
from bench.run import Run
from bench.workloads import (
    board,
    counter,
    cuts,
    fanout,
    idle,
    latency,
    mixed,
    pubsub,
    recovery,
    resume,
    sale,
    sdk,
    stall,
    synced,
    turns,
    waiting,
)

__all__ = ["WORKLOADS"]

WORKLOADS: Mapping[str, Callable[[Run], Result]] = {
    "counter": counter.measure,
    "counter-hot": counter.one,
    "counter-many": counter.many,
    "board": board.measure,
    "rank": board.rank,
    "pubsub": pubsub.measure,
    "latency": latency.measure,
    "sdk": sdk.measure,
    "synced": synced.measure,
    "mixed": mixed.measure,
    "recovery": recovery.measure,
    "snapshot-stall": stall.measure,
    "turns": turns.measure,
    "fanout": fanout.measure,
    "idle": idle.measure,
    "cuts": cuts.measure,
    "resume": resume.measure,
    "sale-soldout": sale.soldout,
    "sale-pairs": sale.pairs,
    "sale-synced": sale.synced,
    "sale-queue": waiting.measure,
}
