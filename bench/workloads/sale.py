"""Sales of one item: refusals when all is sold, reserves with their confirms, and synced ones."""

from __future__ import annotations

from functools import partial

from bench.buyers import Buyers
from bench.contest import Load, Peers, Round, Rounds, Shape, alternate, contest, rates, servers
from bench.load import LoadFailed
from bench.peers import Redis, Rtserver
from bench.report import Measure, Result
from bench.run import Run
from bench.sales import (
    REFUSED,
    open_sale,
    refusals,
    sell_out,
    verify_ours,
    verify_theirs,
    visit,
)
from bench.supplies import DRAWS

__all__ = ["pairs", "soldout", "synced"]

_PIPELINED = Shape(connections=16, depth=128)
_CROWD = Shape(connections=1_000, depth=1)
_UNITS = 100
_PLENTY = 1_000_000_000


def soldout(run: Run) -> Result:
    """Workload `sale-soldout`."""
    users = run.sized(DRAWS)
    result = Result(
        "sale-soldout",
        f"sale.reserve by {users:,} users, one after the other, when all {_UNITS} units are sold,"
        f" against EVALSHA; {_PIPELINED}",
    )
    with servers(run) as peers:
        for _, peer in peers.items():
            open_sale(peer, _UNITS)
            sell_out(peer, _UNITS)
        rounds = contest(
            run,
            result.workload,
            peers,
            partial(_refused, users),
            lambda _: verify_ours(peers.ours, _UNITS, sold=_UNITS),
        )
        _verify_theirs(peers, _UNITS)
    rates(result, "refusals", rounds)
    result.notes.append("every reply was the refusal, and nothing was sold beyond the stock")
    return result


def _refused(users: int, subject: str) -> Load:
    supply = partial(refusals, subject, users, _PIPELINED.depth)
    return Load(supply, _PIPELINED, expected=REFUSED[subject])


def pairs(run: Run) -> Result:
    """Workload `sale-pairs`."""
    result = Result(
        "sale-pairs",
        "sale.reserve and then sale.confirm by one user after another (ack logged), against two"
        f" scripts called by EVALSHA; {_PIPELINED}",
    )
    rounds = _sold(run, result, _PIPELINED, "everysec", "logged", confirms=True)
    if rounds is not None:
        rates(result, "pairs", rounds, "pairs/s")
        result.notes.append("a confirm leaves when the reply to its reserve has told the hold")
    return result


def synced(run: Run) -> Result:
    """Workload `sale-synced`."""
    crowd = Shape(run.sized(_CROWD.connections), _CROWD.depth)
    result = Result(
        "sale-synced",
        f"sale.reserve (ack synced) by {crowd.connections:,} concurrent buyers, one user after"
        " another each, against EVALSHA with appendfsync always",
    )
    rounds = _sold(run, result, crowd, "always", "synced", confirms=False)
    if rounds is not None:
        rates(result, "reserves", rounds)
        for name, share in (("p50", "p50_us"), ("p99", "p99_us"), ("longest", "max_us")):
            result.measures += [
                Measure(
                    f"reserve, {name}",
                    subject,
                    "ms",
                    [getattr(one.outcome, share) / 1e3 for one in done],
                )
                for subject, done in rounds.items()
            ]
        result.notes.append("times run from the send of a request to its reply")
    return result


def _sold(
    run: Run, result: Result, shape: Shape, fsync: str, ack: str, confirms: bool
) -> Rounds | None:
    """The rounds of buyers; None without the program that makes them."""
    try:
        buyers = Buyers(run.cores.load, run.directory / "buyers")
    except LoadFailed as error:
        result.notes.append(f"SKIPPED: {error}")
        return None
    taken = 0  # of our stock

    def one(subject: str, peer: Rtserver | Redis) -> Round:
        asked = visit(subject, ack, confirms)
        outcome = buyers.run(peer.address, asked, shape, run.seconds, peer.pid)
        return Round(outcome, outcome.batches)

    def check(done: Round) -> None:
        nonlocal taken
        taken += done.operations
        held, sold = (0, taken) if confirms else (taken, 0)
        verify_ours(peers.ours, _PLENTY, held, sold)

    with servers(run, fsync=fsync) as peers:
        for _, peer in peers.items():
            open_sale(peer, _PLENTY)
        rounds = alternate(run, result.workload, peers, one, check)
        _verify_theirs(peers, _PLENTY)
    result.notes.append(
        "no user comes twice, and both servers look whether she did; after every round of ours the"
        " sale held what had been acknowledged"
    )
    return rounds


def _verify_theirs(peers: Peers, stock: int) -> None:
    if peers.theirs is not None:
        verify_theirs(peers.theirs, stock)
