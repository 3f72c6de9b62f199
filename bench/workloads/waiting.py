"""A million users in one waiting room: how fast they come, what each takes, who is where."""

from __future__ import annotations

from functools import partial

from bench.contest import FRAMING, Load, Peers, Round, Rounds, Shape, contest, rates, servers
from bench.load import Plan
from bench.report import OURS, Measure, Result
from bench.run import Run
from bench.sales import joins, open_queue, places, verify_waiting
from bench.supplies import DRAWS

__all__ = ["measure"]

_USERS = 1_000_000
_SHAPE = Shape(connections=16, depth=128)
_ROUNDS_MAX = 3
_PHASES = {"before the opening": True, "after the opening": False}


def measure(run: Run) -> Result:
    """Workload `sale-queue`."""
    result = Result(
        "sale-queue",
        f"sale.join of {run.sized(_USERS):,} users, each once (ack logged), against ZADD NX;"
        f" sale.place of random ones of them, against ZRANK; {_SHAPE}",
    )
    for phase in _PHASES:
        _measure(run, result, phase)
    result.notes += [
        "before the opening the queue is in the order of its seed, after it as users come",
        "memory: growth of the resident set (/proc/PID/statm) while the users joined; all that the"
        " server keeps for them",
        "each round of joins has servers of its own; afterwards all who joined were there",
    ]
    return result


def _measure(run: Run, result: Result, phase: str) -> None:
    joined: Rounds = {}
    grown: dict[str, list[float]] = {}
    longest_ms = []
    found: Rounds = {}
    for number in range(min(run.rounds, _ROUNDS_MAX)):
        with servers(run, data=f"{phase}-{number}") as peers:
            _join(run, phase, peers, joined, grown)
            longest_ms.append(peers.ours.ask("server.stats")["turns"]["max_us"] / 1e3)
            if not found:
                found = contest(run, f"places, {phase}", peers, partial(_places, run))
    rates(result, f"joins, {phase}", joined)
    result.measures += [
        Measure(f"memory of one who waits, {phase}", subject, "bytes", each)
        for subject, each in grown.items()
    ]
    result.measures.append(Measure(f"longest turn, joins {phase}", OURS, "ms", longest_ms))
    rates(result, f"places, {phase}", found)


def _join(
    run: Run, phase: str, peers: Peers, joined: Rounds, grown: dict[str, list[float]]
) -> None:
    """One round of both, and the bytes that each user took."""
    users = run.sized(_USERS)
    for subject, peer in peers.items():
        open_queue(peer, _PHASES[phase])
        before = peer.resident_bytes()
        outcome = run.generator.run(
            Plan(
                peer.address,
                partial(joins, subject, users, _SHAPE.depth),
                FRAMING[subject],
                _SHAPE.connections,
                _SHAPE.depth,
                watched=peer.pid,
            )
        )
        each = (peer.resident_bytes() - before) / users
        verify_waiting(peer, users)
        run.say(f"joins, {phase}, {subject}: {outcome.rate:,.0f}/s, {each:.0f} bytes each")
        joined.setdefault(subject, []).append(Round(outcome, outcome.replies))
        grown.setdefault(subject, []).append(each)


def _places(run: Run, subject: str) -> Load:
    supply = partial(places, subject, run.sized(_USERS), run.sized(DRAWS), _SHAPE.depth)
    return Load(supply, _SHAPE)
