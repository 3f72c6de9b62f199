"""Operations that a start replays a second, against redis loading its appendonly file."""

from __future__ import annotations

from functools import partial

from bench.contest import FRAMING, KEYS, Peers, WrongState, servers
from bench.load import Plan
from bench.peers import Rtserver
from bench.report import OURS, THEIRS, Measure, Result
from bench.run import Run
from bench.supplies import BOARD, added, set_values, submitted

__all__ = ["measure"]

_OPERATIONS = 1_000_000
_ROUNDS_MAX = 3
_CONNECTIONS = 16
_DEPTH = 128


def measure(run: Run) -> Result:
    """Workload `recovery`."""
    count, keys = run.sized(_OPERATIONS), run.sized(KEYS)
    result = Result(
        "recovery",
        f"a start on {count:,} operations over {keys:,} entities, by their kind; against the"
        " appendonly file (aof-use-rdb-preamble no) of as many INCR, SET, ZADD",
    )
    kinds = {
        "counter.add": (added, keys),
        "counter.set": (set_values, keys),
        "board.submit, new members": (submitted, count),
        "board.submit, existing members": (submitted, keys),
    }
    for number, (kind, (supply, entities)) in enumerate(kinds.items()):
        with servers(run, data=str(number)) as peers:
            empty_s = peers.ours.start_s
            peers.ours.ask(f"board.create {BOARD} mode=last")
            for subject, peer in peers.items():
                once = partial(supply, subject, count, entities, _DEPTH)
                plan = Plan(peer.address, once, FRAMING[subject], _CONNECTIONS, _DEPTH)
                run.generator.run(plan)
            _kind(run, result, kind, peers, empty_s, count)
    result.notes.append(
        "times are the servers' own: rtserver's line `recovered ... in S s` (where it gives none,"
        " its whole start less an empty one), redis's `DB loaded from append only file`"
    )
    return result


def _kind(run: Run, result: Result, kind: str, peers: Peers, empty_s: float, count: int) -> None:
    expected = peers.ours.ask("server.stats")["state"]
    taken: dict[str, list[float]] = {subject: [] for subject, _ in peers.items()}
    starts = []
    for number in range(min(run.rounds, _ROUNDS_MAX)):
        taken[OURS].append(_restart(peers.ours, kind, expected, empty_s))
        starts.append(peers.ours.start_s)
        if peers.theirs is not None:
            peers.theirs.stop()
            peers.theirs.start()
            taken[THEIRS].append(peers.theirs.loaded_s)
        told = ", ".join(f"{subject} {seconds[-1]:.2f} s" for subject, seconds in taken.items())
        run.say(f"{kind}, start {number + 1}: {told}")
    result.measures += [
        Measure(f"{kind}: replayed", subject, "ops/s", [count / max(s, 1e-3) for s in seconds])
        for subject, seconds in taken.items()
    ]
    result.measures.append(Measure(f"{kind}: whole start", OURS, "s", starts))
    if peers.ours.recovered is not None:
        records, size = peers.ours.recovered.records, peers.ours.recovered.bytes
        result.notes.append(
            f"{kind}: {records:,} records, {size:,} bytes; an empty start took {empty_s:.2f} s"
        )


def _restart(server: Rtserver, kind: str, expected: object, empty_s: float) -> float:
    """-> seconds that the recovery took."""
    server.stop()
    server.start()
    state = server.ask("server.stats")["state"]
    if state != expected:
        raise WrongState(f"{kind}: recovered {state}, expected {expected}")
    if server.recovered is None:
        return server.start_s - empty_s
    return server.recovered.seconds
