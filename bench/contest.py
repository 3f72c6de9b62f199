"""Increments against rtserver and redis, in alternating rounds, by the same generator.

Both servers run throughout, pinned to one core; only one of them has load at a time. A round of
a shape is one warm-up and then rtserver, redis, rtserver, redis, ... After each of its rounds
rtserver must hold exactly the increments that it acknowledged and have refused none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from bench.load import Outcome, Plan
from bench.peers import Address, Canned, Redis, Rtserver, Usage
from bench.report import OURS, THEIRS
from bench.requests import (
    CountReplies,
    command,
    count_frames,
    count_lines,
    frame,
    reply_frame,
)
from bench.run import Run
from bench.supplies import increments, name_of

__all__ = ["KEYS", "Round", "Shape", "WrongState", "canned", "contest"]

KEYS = 100_000
_COUNT: dict[str, CountReplies] = {OURS: count_frames, THEIRS: count_lines}
_SAMPLE = {  # a request, and a reply of usual size
    OURS: (frame(0, "counter.add", name_of(0)), reply_frame(0, 100)),
    THEIRS: (command("INCR", name_of(0)), b":100\r\n"),
}
_CANNED_S = 1.0


class WrongState(Exception):
    """The server does not hold what it acknowledged: its numbers are worth nothing."""


@dataclass(frozen=True, slots=True)
class Round:
    """What the generator saw, and what the server had of its core meanwhile."""

    outcome: Outcome
    usage: Usage

    @property
    def per_cpu_s(self) -> float:
        """Replies a second of processor time: what a core of its own would give, if it was busy."""
        return self.outcome.replies / self.usage.ran_s

    @property
    def waited_share(self) -> float:
        """Of the round: the server could have run but others had its core."""
        return self.usage.waited_s / self.outcome.seconds


@dataclass(frozen=True, slots=True)
class Shape:
    """How the load comes: so many connections, each with up to `depth` requests under way."""

    connections: int
    depth: int

    def __str__(self) -> str:
        noun = "connection" if self.connections == 1 else "connections"
        return f"{self.connections} {noun}, depth {self.depth}"


def contest(run: Run, shapes: Sequence[Shape]) -> Iterator[tuple[Shape, dict[str, list[Round]]]]:
    """For each shape the rounds by subject; without redis only ours."""
    with ExitStack() as stack:
        ours = stack.enter_context(Rtserver(run.directory / "ours", run.cores.server))
        servers: dict[str, Rtserver | Redis] = {OURS: ours}
        if Redis.version() is not None:
            theirs = Redis(run.directory / "theirs", run.cores.server)
            servers[THEIRS] = stack.enter_context(theirs)
        acknowledged = 0
        for shape in shapes:
            rounds: dict[str, list[Round]] = {subject: [] for subject in servers}
            for number in range(run.rounds + 1):
                for subject, server in servers.items():
                    done = _round(run, subject, server, shape)
                    run.say(f"{shape}, round {number}, {subject}: {done.outcome.rate:,.0f} ops/s")
                    if number > 0:  # the first one warms up
                        rounds[subject].append(done)
                    if subject == OURS:
                        acknowledged += done.outcome.replies
                        _verify(ours, acknowledged, run.sized(KEYS))
            yield shape, rounds


def _round(run: Run, subject: str, server: Rtserver | Redis, shape: Shape) -> Round:
    before = server.usage()
    outcome = run.generator.run(_plan(run, subject, server.address, shape))
    return Round(outcome, server.usage().since(before))


def canned(run: Run, subject: str, shape: Shape) -> Outcome:
    """The generator alone: the same requests against a process that answers without thought."""
    request, reply = _SAMPLE[subject]
    with Canned(len(request), reply, run.cores.server) as sink:
        plan = _plan(run, subject, sink.address, shape, _CANNED_S)
        run.generator.run(plan)  # warms up: the process may still be starting
        return run.generator.run(plan)


def _plan(
    run: Run, subject: str, address: Address, shape: Shape, seconds_max: float = float("inf")
) -> Plan:
    return Plan(
        address,
        partial(increments, subject, run.sized(KEYS), shape.depth),
        _COUNT[subject],
        shape.connections,
        min(run.seconds, seconds_max),
    )


def _verify(ours: Rtserver, acknowledged: int, keys: int) -> None:
    stats = ours.ask("server.stats")
    found = int(stats["state"]["counter_total"])
    if found != acknowledged or stats["errors"]:
        raise WrongState(
            f"{acknowledged} increments were acknowledged, the counters hold {found};"
            f" errors: {stats['errors']}"
        )
    if stats["state"]["counters"] > keys:
        raise WrongState(f"{stats['state']['counters']} counters, expected {keys}")
