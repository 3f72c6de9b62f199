"""Pipelined increments, against redis INCR: how many a second does one core take?"""

from __future__ import annotations

from collections.abc import Callable

from bench.contest import KEYS, Round, Shape, contest
from bench.report import OURS, Measure, Result, ratio
from bench.run import Run

__all__ = ["SHAPE", "measure"]

SHAPE = Shape(connections=16, depth=128)
RATE_WANTED = 200_000
RATIO_WANTED = 0.25
WAITED_PERCENT_MAX = 10.0  # above it the machine was not ours: a comparison means little
_INCREMENTS = "increments"
_WAITED = "waited for the core"
_SHARE = "% of time"


def measure(run: Run) -> Result:
    result = Result(
        "counter",
        f"counter.add of one of {run.sized(KEYS):,} counters against INCR; {SHAPE}",
    )
    for _, by_subject in contest(run, [SHAPE]):
        for quantity, unit, value in _VALUES:
            result.measures += [
                Measure(quantity, subject, unit, [value(one) for one in rounds], unit != _SHARE)
                for subject, rounds in by_subject.items()
            ]
    result.notes = [
        "after every round the counters held exactly what had been acknowledged",
        "processor time and waiting are of the server's main thread (/proc/PID/schedstat)",
        _verdict(result.measures),
    ]
    return result


_VALUES: list[tuple[str, str, Callable[[Round], float]]] = [
    (_INCREMENTS, "ops/s", lambda one: one.outcome.rate),
    (f"{_INCREMENTS} by processor time", "ops/cpu s", lambda one: one.per_cpu_s),
    (_WAITED, _SHARE, lambda one: 100 * one.waited_share),
]


def _verdict(measures: list[Measure]) -> str:
    asked = f"wanted: {RATE_WANTED:,} ops/s on one core, or {RATIO_WANTED} of redis"
    rate = next(made.median for made in measures if made.subject == OURS)
    if rate >= RATE_WANTED:
        return f"{asked}: reached"
    waited = max(made.median for made in measures if made.quantity == _WAITED)
    if waited > WAITED_PERCENT_MAX:
        return f"{asked}: undecided, other threads had the core for {waited:.0f} % of a round"
    compared = ratio(measures, _INCREMENTS)
    reached = compared is not None and compared[0] >= RATIO_WANTED
    return f"{asked}: {'reached' if reached else 'missed'}"
