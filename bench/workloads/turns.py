"""A million new entities as fast as they come, and their end: how long does one turn take?

Each phase has a server process of its own, because the server reports its longest turn since
its start; what deletes begins with a restart on the data of the phase before.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from bench.contest import FRAMING, WrongState
from bench.load import Plan, Supply
from bench.peers import Rtserver
from bench.report import OURS, Measure, Result
from bench.run import Run
from bench.supplies import BOARD, VECTOR, add_many, added, deleted, submit_many, submitted

__all__ = ["measure"]

ENTITIES = 1_000_000
ROUNDS_MAX = 3
CONNECTIONS = 16
DEPTH = 128
_SETTLE_S = 0.1
_IDLE_TURNS = 10  # fewer in _SETTLE_S: nothing is left to free


@dataclass(frozen=True, slots=True)
class _Phase:
    """One server's life. `supply` None: one `board.delete`, and what it leaves to be freed."""

    title: str
    data: str  # phases with the same data follow one another
    supply: Supply | None
    holds: tuple[int, int]  # counters and members afterwards


def _phases(count: int) -> list[_Phase]:
    return [
        _Phase("counter.add", "a", partial(added, OURS, count, count, DEPTH), (count, 0)),
        _Phase("counter.delete", "a", partial(deleted, count, DEPTH), (0, 0)),
        _Phase(f"counter.add_many of {VECTOR:,}", "b", partial(add_many, count), (count, 0)),
        _Phase("board.submit", "c", partial(submitted, OURS, count, count, DEPTH), (0, count)),
        _Phase(f"board.submit_many of {VECTOR:,}", "d", partial(submit_many, count), (0, count)),
        _Phase("board.delete", "d", None, (0, 0)),
    ]


def measure(run: Run) -> Result:
    count = run.sized(ENTITIES)
    result = Result(
        "turns",
        f"{count:,} new counters, {count:,} new members, and their deletion;"
        f" {CONNECTIONS} connections, depth {DEPTH} (vectors: 1)",
    )
    rounds = range(min(run.rounds, ROUNDS_MAX))
    for phase in _phases(count):
        done = [_life(run, phase, number, count) for number in rounds]
        rates, longest, waited = zip(*done, strict=True)
        result.measures += [
            Measure(f"{phase.title}: entities", OURS, "/s", rates),
            Measure(f"{phase.title}: longest turn", OURS, "ms", longest),
            Measure(f"{phase.title}: waited for its core", OURS, "ms", waited),
        ]
    result.notes = [
        "turns are the server's own measurement (server.stats) and include what it waited for its"
        " core; that wait is the sum over the phase (/proc/PID/schedstat)",
        f"board.delete: until the last member's memory is free, to {_SETTLE_S} s",
    ]
    return result


def _life(run: Run, phase: _Phase, number: int, count: int) -> tuple[float, float, float]:
    """-> entities a second, longest turn in ms, wait for the core in ms."""
    directory = run.directory / f"turns-{phase.data}-{number}"
    with Rtserver(directory, run.cores.server) as server:
        before = server.usage()
        seconds = _delete_board(server) if phase.supply is None else _send(run, server, phase)
        waited_ms = server.usage().since(before).waited_s * 1_000
        stats = server.ask("server.stats")
    state, turns = stats["state"], stats["turns"]
    if (state["counters"], state["members"]) != phase.holds or stats["errors"]:
        raise WrongState(f"{phase.title}: {state}, errors: {stats['errors']}")
    longest_ms = turns["max_us"] / 1_000
    run.say(f"{phase.title}: {count / seconds:,.0f}/s, longest turn {longest_ms:.1f} ms")
    return count / seconds, longest_ms, waited_ms


def _send(run: Run, server: Rtserver, phase: _Phase) -> float:
    assert phase.supply is not None, "board.delete sends nothing else"
    plan = Plan(server.address, phase.supply, FRAMING[OURS], CONNECTIONS, DEPTH)
    return run.generator.run(plan).seconds


def _delete_board(server: Rtserver) -> float:
    """Turns follow one another until all memory is free; then only the questions make turns."""
    started = time.perf_counter()
    server.ask(f"board.delete {BOARD}")
    turns = _turns(server)
    while True:
        asked = time.perf_counter()
        time.sleep(_SETTLE_S)
        before, turns = turns, _turns(server)
        if turns - before < _IDLE_TURNS:
            return asked - started


def _turns(server: Rtserver) -> int:
    return int(server.ask("server.stats")["turns"]["count"])
