"""The time from a process's start to its first connection, on a log without a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bench.contest import KEYS, WrongState
from bench.load import Plan
from bench.peers import Rtserver
from bench.report import OURS, Measure, Result
from bench.requests import Batch, count_frames
from bench.run import Run
from bench.supplies import added, set_values, submitted

__all__ = ["measure"]

OPERATIONS = 1_000_000
CONNECTIONS = 16
DEPTH = 128


def measure(run: Run) -> Result:
    count, keys = run.sized(OPERATIONS), run.sized(KEYS)
    result = Result("recovery", f"a start on a log of {count:,} operations, by their kind")
    kinds: dict[str, Callable[[], Sequence[Batch]]] = {
        "counter.add (summed up per turn)": partial(added, count, keys, DEPTH),
        "counter.set": partial(set_values, count, keys, DEPTH),
        "board.submit (new members)": partial(submitted, count, DEPTH),
    }
    for kind, supply in kinds.items():
        server = Rtserver(run.directory / kind.partition(" ")[0], run.cores.server)
        with server:
            empty_s = server.start_s
            run.generator.run(Plan(server.address, supply, count_frames, CONNECTIONS))
            state = server.ask("server.stats")["state"]
        starts = [_start(run, server, kind, state) for _ in range(run.rounds)]
        records, size = server.recovered
        result.measures += [
            Measure(f"{kind}: start", OURS, "s", starts),
            Measure(f"{kind}: replayed", OURS, "ops/s", [count / taken for taken in starts]),
            Measure(f"{kind}: replayed", OURS, "records/s", [records / taken for taken in starts]),
        ]
        result.notes.append(
            f"{kind}: {records:,} records, {size:,} bytes; an empty start took {empty_s:.2f} s"
        )
    result.notes.append("rates are of the whole start, the interpreter's own included")
    return result


def _start(run: Run, server: Rtserver, kind: str, expected: object) -> float:
    with server:
        state = server.ask("server.stats")["state"]
    if state != expected:
        raise WrongState(f"{kind}: recovered {state}, expected {expected}")
    run.say(f"{kind}: started in {server.start_s:.2f} s")
    return server.start_s
