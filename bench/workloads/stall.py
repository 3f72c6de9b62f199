"""The longest turn of the loop while a snapshot of a large board is made under load.

The server reports its longest turn since its start, so each life of it counts one thing: it is
started on a copy of the same data, gets the load, makes the snapshot or does not, and is asked. The
load is in open loop at half of the capacity, because a server without a free moment has no time for
a snapshot either; its latencies tell what clients feel.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from bench.contest import Load, Shape, WrongState, plan
from bench.load import Outcome
from bench.peers import Rtserver
from bench.report import OURS, Measure, Result
from bench.run import Run
from bench.supplies import DRAWS, moves
from bench.workloads.board import MEMBERS, fill

__all__ = ["measure"]

_ROUNDS_MAX = 3
_SHARE = 0.5  # of the capacity
_BATCH = 8
_SHAPE = Shape(connections=16, depth=128)
_PREPARED = "prepared"
_SNAPSHOT_S_MAX = 240
_WITHOUT_S_MAX = 20
_LEAD_S = 0.2  # of load before the snapshot begins


def measure(run: Run) -> Result:
    """Workload `snapshot-stall`."""
    count = run.sized(MEMBERS)
    result = Result(
        "snapshot-stall",
        f"board.submit to {count:,} members in open loop at {_SHARE:.0%} of the capacity, with and"
        " without server.snapshot",
    )
    if run.generator.program is None:
        result.notes.append("SKIPPED: open loop needs the compiled generator, so a C compiler")
        return result
    with Rtserver(run.directory / _PREPARED, run.cores.server) as server:
        fill(run, OURS, server, count)
        capacity = _capacity(run, server, count)
        server.ask("server.snapshot", _SNAPSHOT_S_MAX)  # from here on starts are short
    load = Load(
        partial(moves, OURS, count, run.sized(DRAWS), _BATCH),
        _SHAPE,
        rate=_SHARE * capacity / _BATCH,
    )
    lives: dict[str, list[_Life]] = {"with a snapshot": [], "without": []}
    for _ in range(min(run.rounds, _ROUNDS_MAX)):
        loaded = _life(run, load, count, _snapshot)
        seconds = min(loaded.outcome.seconds, _WITHOUT_S_MAX)
        lives["with a snapshot"].append(loaded)
        lives["without"].append(_life(run, load, count, partial(_nothing, seconds)))
    for how, done in lives.items():
        result.measures += _measures(how, done)
    result.notes += [
        f"the load was {_SHARE * capacity:,.0f} submits/s; turns are the server's own measurement"
        " (server.stats) and include what it waited for its core, which it shares with the process"
        " that makes the snapshot",
        f"without: the same load for as long, but {_WITHOUT_S_MAX} s at most",
    ]
    return result


class _Life:
    """What one life of the server brought."""

    def __init__(self, outcome: Outcome, longest_us: int, snapshot_s: float) -> None:
        self.outcome = outcome
        self.longest_ms = longest_us / 1e3
        self.waited_ms = outcome.peer_waited_s * 1e3
        self.snapshot_s = snapshot_s


def _measures(how: str, lives: Sequence[_Life]) -> list[Measure]:
    made = [
        Measure(f"longest turn, {how}", OURS, "ms", [life.longest_ms for life in lives]),
        Measure(f"latency p99, {how}", OURS, "us", [life.outcome.p99_us for life in lives]),
        Measure(f"latency longest, {how}", OURS, "us", [life.outcome.max_us for life in lives]),
        Measure(f"waited for the core, {how}", OURS, "ms", [life.waited_ms for life in lives]),
    ]
    if all(life.snapshot_s for life in lives):
        made.append(Measure("snapshot took", OURS, "s", [life.snapshot_s for life in lives]))
    return made


def _capacity(run: Run, server: Rtserver, count: int) -> float:
    load = Load(partial(moves, OURS, count, run.sized(DRAWS), _SHAPE.depth), _SHAPE)
    return run.generator.run(plan(run, OURS, server, load)).rate


def _life(run: Run, load: Load, count: int, act: Callable[[Rtserver], float]) -> _Life:
    directory = run.directory / "life"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(run.directory / _PREPARED, directory)
    with Rtserver(directory, run.cores.server) as server:
        timed = plan(run, OURS, server, load)
        going = run.generator.start(replace(timed, seconds=_SNAPSHOT_S_MAX))
        try:
            time.sleep(_LEAD_S)
            took_s = act(server)
        finally:
            going.stop()
            outcome = going.result()
        stats = server.ask("server.stats")
    if stats["state"]["members"] != count or stats["errors"]:
        raise WrongState(f"{stats['state']}, errors: {stats['errors']}")
    life = _Life(outcome, stats["turns"]["max_us"], took_s)
    run.say(f"{outcome.seconds:.1f} s of load, longest turn {life.longest_ms:.1f} ms")
    return life


def _snapshot(server: Rtserver) -> float:
    """-> the seconds that it took."""
    started = time.perf_counter()
    try:
        is_made = server.ask("server.snapshot", _SNAPSHOT_S_MAX)["created"]
    except TimeoutError:
        is_made = False
    if not is_made:
        raise WrongState(f"no snapshot was made within {_SNAPSHOT_S_MAX} s under load")
    return time.perf_counter() - started


def _nothing(seconds: float, _server: Rtserver) -> float:
    time.sleep(max(0.0, seconds - _LEAD_S))
    return 0.0
