"""Increments one at a time, against redis INCR: how long does one take?"""

from __future__ import annotations

from collections.abc import Callable

from bench.contest import KEYS, Shape, canned, contest
from bench.load import Outcome
from bench.report import OURS, Measure, Result
from bench.run import Run

__all__ = ["measure"]

SHAPES = (Shape(connections=1, depth=1), Shape(connections=50, depth=1))


def measure(run: Run) -> Result:
    result = Result(
        "latency",
        f"counter.add of one of {run.sized(KEYS):,} counters against INCR, not pipelined",
    )
    for shape, by_subject in contest(run, SHAPES):
        outcomes = {name: [one.outcome for one in rounds] for name, rounds in by_subject.items()}
        outcomes["canned replies"] = [canned(run, OURS, shape)]
        for unit, value in _VALUES.items():
            result.measures += [
                Measure(f"{shape}: {unit}", subject, unit.split()[-1], [value(o) for o in rounds])
                for subject, rounds in outcomes.items()
            ]
    result.notes = [
        "times are the load generator's, from before the send to after the last byte of the reply;"
        " a ratio of times above 1 is slower than redis",
        "canned replies: the same requests against a process that answers without thought, so what"
        " generator and kernel take of each number",
    ]
    return result


_VALUES: dict[str, Callable[[Outcome], float]] = {
    "ops/s": lambda outcome: outcome.rate,
    "p50 us": lambda outcome: outcome.p50_us,
    "p99 us": lambda outcome: outcome.p99_us,
}
