"""Increments one at a time, against redis INCR: how many, and how long does one take?

First in closed loop, which finds the capacity; then in open loop at half of the lower capacity of
the two, with times from when each request was due.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

from bench.contest import (
    KEYS,
    Check,
    Load,
    Peers,
    Rounds,
    Shape,
    canned,
    check_counters,
    contest,
    rates,
    servers,
)
from bench.load import Outcome
from bench.report import OURS, Measure, Result
from bench.run import Run
from bench.supplies import increments

__all__ = ["measure"]

_SHAPES = (Shape(connections=1, depth=1), Shape(connections=50, depth=1))
_SHARE = 0.5  # of the lower capacity


def measure(run: Run) -> Result:
    """Workload `latency`."""
    keys = run.sized(KEYS)
    result = Result(
        "latency", f"counter.add of one of {keys:,} counters against INCR, not pipelined"
    )
    with servers(run) as peers:
        check = check_counters(peers.ours, keys)
        for shape in _SHAPES:
            load = partial(_load, keys, shape, None)
            rounds = contest(run, str(shape), peers, load, check)
            rates(result, f"{shape}: requests", rounds)
            alone = canned(run, OURS, shape)
            if alone is not None:
                measured = Measure(f"{shape}: requests", "canned replies", "ops/s", [alone.rate])
                result.measures.append(measured)
                _open(run, result, peers, shape, _capacity(rounds), check)
    result.notes += [
        f"open loop: at {_SHARE:.0%} of the lower capacity of the two; a request's time begins when"
        " it was due, whether or not it could be sent then, and ends with its reply; a ratio of"
        " times above 1 is slower than redis",
        "canned replies: the same requests against a process that answers without thought, so what"
        " generator and kernel take of each number",
    ]
    if run.generator.program is None:
        result.notes.append("SKIPPED: open loop needs the compiled generator, so a C compiler")
    return result


def _load(keys: int, shape: Shape, rate: float | None, subject: str) -> Load:
    return Load(partial(increments, subject, keys, 1), shape, rate=rate)


def _capacity(rounds: Rounds) -> float:
    return min(median(one.rate for one in done) for done in rounds.values())


def _open(
    run: Run, result: Result, peers: Peers, shape: Shape, capacity: float, check: Check
) -> None:
    rate = _SHARE * capacity
    noun = str(shape).partition(",")[0]
    title = f"{noun}, open loop"
    load = partial(_load, run.sized(KEYS), shape, rate)
    rounds = contest(run, title, peers, load, check)
    for name, value in _TIMES.items():
        result.measures += [
            Measure(f"{title}: {name}", subject, "us", [value(one.outcome) for one in done])
            for subject, done in rounds.items()
        ]
    late = max(one.outcome.late_p99_us for done in rounds.values() for one in done)
    result.notes.append(
        f"{title}: {rate:,.0f} requests/s; the generator itself was late by at most"
        f" {late:.0f} us with 99% of its sends"
    )


_TIMES: dict[str, Callable[[Outcome], float]] = {
    "p50": lambda outcome: outcome.p50_us,
    "p99": lambda outcome: outcome.p99_us,
    "p99.9": lambda outcome: outcome.p999_us,
    "longest": lambda outcome: outcome.max_us,
}
