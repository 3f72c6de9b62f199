"""The same load on rtserver and redis, in alternating rounds, by the same generator.

Both servers run throughout, pinned to one core; only one of them has load at a time. After the
warm-up the rounds are rtserver, redis, rtserver, redis, ... A round that ends with an error reply
is a failure of the run, and a workload may check after each of ours that the server holds what it
acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from bench.load import Audience, Outcome, Plan, Supply
from bench.peers import Canned, Redis, Rtserver
from bench.report import OURS, THEIRS, Measure, Result
from bench.requests import command, frame, reply_frame
from bench.run import Run
from bench.supplies import increments, name_of

__all__ = [
    "FRAMING",
    "KEYS",
    "Check",
    "Load",
    "Peers",
    "Round",
    "Rounds",
    "Shape",
    "WrongState",
    "alternate",
    "canned",
    "check_counters",
    "check_members",
    "contest",
    "plan",
    "rates",
    "servers",
]

KEYS = 100_000
FRAMING = {OURS: "frames", THEIRS: "resp"}
_SAMPLE = {  # a request, and a reply of usual size
    OURS: (frame(0, "counter.add", name_of(0)), reply_frame(0, 100)),
    THEIRS: (command("INCR", name_of(0)), b":100\r\n"),
}
_CANNED_S = 1.0
_BUSY_SHARE_MAX = 0.95  # above, the generator may be what was measured


class WrongState(Exception):
    """The server does not hold what it acknowledged: its numbers are worth nothing."""


@dataclass(frozen=True, slots=True)
class Round:
    """What the generator saw, and how many operations that were."""

    outcome: Outcome
    operations: int

    @property
    def rate(self) -> float:
        return self.operations / self.outcome.seconds

    @property
    def per_cpu_s(self) -> float:
        """By processor time: what a core of its own would give, if it was busy."""
        return self.operations / self.outcome.peer_ran_s


Rounds = dict[str, list[Round]]  # by subject
Check = Callable[[Round], None]  # raises WrongState


@dataclass(frozen=True, slots=True)
class Shape:
    """How the load comes: so many connections, each with up to `depth` requests under way."""

    connections: int
    depth: int

    def __str__(self) -> str:
        noun = "connection" if self.connections == 1 else "connections"
        return f"{self.connections} {noun}, depth {self.depth}"


@dataclass(frozen=True, slots=True)
class Load:
    """What one server gets, and what a round of it counts."""

    supply: Supply
    shape: Shape
    audience: Audience | None = None
    rate: float | None = None  # batches a second: open loop
    count: Callable[[Outcome], int] = lambda outcome: outcome.replies
    expected: bytes = b""  # how replies begin that are to be refusals


@dataclass(frozen=True, slots=True)
class Peers:
    """Both servers; without redis only ours."""

    ours: Rtserver
    theirs: Redis | None

    def items(self) -> Iterator[tuple[str, Rtserver | Redis]]:
        """By subject."""
        yield OURS, self.ours
        if self.theirs is not None:
            yield THEIRS, self.theirs


@contextmanager
def servers(
    run: Run, settings: Sequence[str] = (), fsync: str = "everysec", data: str = "data"
) -> Iterator[Peers]:
    """Both, on data of their own, until the block ends."""
    with ExitStack() as stack:
        ours = Rtserver(run.directory / data / "ours", run.cores.server, settings)
        theirs = None
        if Redis.version() is not None:
            theirs = Redis(run.directory / data / "theirs", run.cores.server, fsync)
            stack.enter_context(theirs)
        yield Peers(stack.enter_context(ours), theirs)


def contest(
    run: Run,
    title: str,
    peers: Peers,
    loads: Callable[[str], Load],
    check: Check | None = None,
) -> Rounds:
    """The rounds by subject. `loads` is what a subject gets; `check` sees each round of ours."""

    def one(subject: str, peer: Rtserver | Redis) -> Round:
        load = loads(subject)
        outcome = run.generator.run(plan(run, subject, peer, load))
        return Round(outcome, load.count(outcome))

    return alternate(run, title, peers, one, check)


def alternate(
    run: Run,
    title: str,
    peers: Peers,
    one: Callable[[str, Rtserver | Redis], Round],
    check: Check | None = None,
) -> Rounds:
    """The same of rounds that are made in another way: `one` makes that of a subject."""
    rounds: Rounds = {subject: [] for subject, _ in peers.items()}
    for number in range(1 - run.warmups, run.rounds + 1):
        for subject, peer in peers.items():
            done = one(subject, peer)
            run.say(f"{title}, round {number}, {subject}: {done.rate:,.0f}/s")
            if subject == OURS and check is not None:
                check(done)
            if number > 0:
                rounds[subject].append(done)
    return rounds


def plan(run: Run, subject: str, peer: Rtserver | Redis | Canned, load: Load) -> Plan:
    """A timed round for the generator."""
    return Plan(
        peer.address,
        load.supply,
        FRAMING[subject],
        load.shape.connections,
        load.shape.depth,
        run.seconds,
        load.rate,
        load.audience,
        peer.pid,
        load.expected,
    )


def canned(run: Run, subject: str, shape: Shape) -> Outcome | None:
    """The generator alone: the same requests against a process that answers without thought."""
    if run.generator.program is None:
        return None
    request, reply = _SAMPLE[subject]
    load = Load(partial(increments, subject, run.sized(KEYS), shape.depth), shape)
    with Canned(run.generator, len(request), reply, run.cores.server) as sink:
        alone = plan(run, subject, sink, load)
        return run.generator.run(replace(alone, seconds=min(run.seconds, _CANNED_S)))


# --- what rounds say ---


def rates(result: Result, quantity: str, rounds: Rounds, unit: str = "ops/s") -> None:
    """Adds the rates of a contest, and who had the processors meanwhile."""
    views: dict[str, Callable[[Round], float]] = {
        quantity: lambda one: one.rate,
        f"{quantity}, by processor time": lambda one: one.per_cpu_s,
    }
    for name, value in views.items():
        result.measures += [
            Measure(name, subject, unit if name == quantity else "/cpu s", [*map(value, done)])
            for subject, done in rounds.items()
        ]
    result.notes.append(_disturbed(quantity, rounds))


def _disturbed(quantity: str, rounds: Rounds) -> str:
    """Who else may be in the numbers: the generator, and others on the server's core."""
    shares, is_limit = [], False
    for subject, done in rounds.items():
        busy = max(one.outcome.busy_share for one in done)
        taken = max(one.outcome.peer_waited_s / one.outcome.seconds for one in done)
        shares.append(f"{subject}: generator busy {busy:.0%}, core taken by others {taken:.0%}")
        is_limit |= busy > _BUSY_SHARE_MAX
    note = f"{quantity}, of a round at most: {'; '.join(shares)}"
    return f"{note}; THE GENERATOR WAS THE LIMIT" if is_limit else note


# --- what the server must hold afterwards ---


def check_counters(ours: Rtserver, keys: int, share: float = 1) -> Check:
    """After each round: the sum of all counters is what was acknowledged since now.

    share: of the operations that are increments.
    """
    acknowledged = _state(ours)[0]

    def check(done: Round) -> None:
        nonlocal acknowledged
        acknowledged += round(done.operations * share)
        total, state = _state(ours)
        if total != acknowledged:
            raise WrongState(f"{acknowledged} was acknowledged, the counters hold {total}")
        if state["counters"] > keys:
            raise WrongState(f"{state['counters']} counters, expected {keys}")

    return check


def check_members(ours: Rtserver, count: int) -> Check:
    """After each round: the board has its members and nothing was refused."""

    def check(_done: Round) -> None:
        _, state = _state(ours)
        if state["members"] != count:
            raise WrongState(f"{state['members']} members, expected {count}")

    return check


def _state(ours: Rtserver) -> tuple[int, dict[str, int]]:
    """The sum of all counters, and what else the server holds."""
    stats = ours.ask("server.stats")
    if stats["errors"]:
        raise WrongState(f"errors: {stats['errors']}")
    return int(stats["state"]["counter_total"]), stats["state"]
