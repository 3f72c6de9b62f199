"""The workloads, by the name that the command line takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.report import Result
from bench.run import Run
from bench.workloads import counter, latency, recovery, turns

__all__ = ["WORKLOADS"]

WORKLOADS: Mapping[str, Callable[[Run], Result]] = {
    "counter": counter.measure,
    "latency": latency.measure,
    "recovery": recovery.measure,
    "turns": turns.measure,
}
