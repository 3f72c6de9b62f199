"""What the project promises itself of each measure, and whether a run reached it.

The only place of these numbers: workloads measure, reports print the verdict beside the measure.
Ratios are to the peer in the same run, of the medians; a bound on a time holds for the worst round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["WANTED", "Wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One bound, and the one to reach for beyond it."""

    bound: float
    reach: float | None = None
    is_ratio: bool = True
    at_most: bool = False

    def __str__(self) -> str:
        what = "ratio " if self.is_ratio else ""
        bound = f"{self.bound:,.0f}" if self.bound >= 1_000 else f"{self.bound:g}"
        further = "" if self.reach is None else f", reach for {self.reach:g}"
        return f"{what}{'<=' if self.at_most else '>='} {bound}{further}"

    def verdict(self, samples: Sequence[float], median: float, ratio: float | None) -> str:
        """`reached`, `missed`, or why that cannot be said."""
        if self.is_ratio and ratio is None:
            return "not compared"
        found = ratio if self.is_ratio else max(samples) if self.at_most else median
        assert found is not None, "a ratio was asked for above"
        if not self._holds(found, self.bound):
            return "missed"
        if self.reach is not None and self._holds(found, self.reach):
            return "reached, and beyond"
        return "reached"

    def _holds(self, found: float, bound: float) -> bool:
        return found <= bound if self.at_most else found >= bound


def _at_most(bound: float) -> list[Wanted]:
    return [Wanted(bound, is_ratio=False, at_most=True)]


def _at_least(bound: float) -> Wanted:
    return Wanted(bound, is_ratio=False)


# By workload and quantity.
WANTED: Mapping[tuple[str, str], Sequence[Wanted]] = {
    ("counter", "increments"): [Wanted(2.0)],
    ("counter-hot", "increments"): [_at_least(1_000_000), Wanted(1.5)],
    ("counter-many", "updates of 1,000 counters"): [_at_least(5_000_000)],
    ("counter-many", "updates of 100,000 counters"): [_at_least(2_500_000)],
    ("board", "submits, 1,000,000 members"): [Wanted(2.0, reach=3.0)],
    ("board", "memory of one of 1,000,000 members"): [Wanted(1.5, reach=1.0, at_most=True)],
    ("rank", "ranks, 1,000,000 members"): [Wanted(1.5, reach=3.0)],
    ("pubsub", "deliveries, 1 to 1,000"): [Wanted(1.0)],
    ("latency", "50 connections, depth 1: requests"): [Wanted(1.0)],
    ("sdk", "blocking, batches of 100"): [Wanted(3.0)],
    ("sdk", "blocking, batches of 1,000"): [Wanted(3.0)],
    ("sdk", "asyncio, batches of 100"): [Wanted(3.0)],
    ("sdk", "asyncio, batches of 1,000"): [Wanted(3.0)],
    ("sdk", "asyncio, 50 tasks of single calls"): [Wanted(5.0)],
    ("sdk", "blocking, single calls"): [Wanted(1.0)],
    ("sdk", "asyncio, single calls"): [Wanted(1.0)],
    ("recovery", "counter.add: replayed"): [Wanted(1.0)],
    ("recovery", "counter.set: replayed"): [Wanted(1.0)],
    ("recovery", "board.submit, new members: replayed"): [Wanted(1.0)],
    ("recovery", "board.submit, existing members: replayed"): [Wanted(1.0)],
    ("snapshot-stall", "longest turn, with a snapshot"): _at_most(5),
    ("synced", "increments, 16 connections, depth 128"): [Wanted(2.0)],
    ("synced", "increments, 16 connections, depth 1024"): [Wanted(2.0)],
    ("turns", "counter.add: longest turn"): _at_most(20),
    ("turns", "counter.delete: longest turn"): _at_most(20),
    ("turns", "counter.add_many of 1,000: longest turn"): _at_most(20),
    ("turns", "board.submit: longest turn"): _at_most(20),
    ("turns", "board.submit_many of 1,000: longest turn"): _at_most(20),
    ("turns", "board.delete: longest turn"): _at_most(20),
    ("fanout", "1 to 2,000: p99"): _at_most(50),
    ("fanout", "1 to 10,000: last byte, p50"): [Wanted(1.3, at_most=True)],
    ("fanout", "deliveries, 1 to 1,000"): [_at_least(300_000), Wanted(2.0)],
    ("fanout", "deliveries, 1 to 10,000"): [_at_least(300_000), Wanted(2.0)],
    ("idle", "resident, of each of 10,000"): _at_most(12),
    ("idle", "share of a core"): _at_most(5),
    ("resume", "10,000 sessions resumed"): _at_most(3),
    ("resume", "history reads of a channel"): _at_most(1),
    ("sale-soldout", "refusals"): [_at_least(1_000_000)],
    ("sale-pairs", "pairs"): [_at_least(200_000), Wanted(4.0)],
    ("sale-synced", "reserves"): [_at_least(20_000)],
    ("sale-synced", "reserve, p99"): _at_most(200),
    ("sale-queue", "joins, before the opening"): [_at_least(200_000)],
    ("sale-queue", "joins, after the opening"): [_at_least(200_000)],
    ("sale-queue", "memory of one who waits, before the opening"): _at_most(400),
    ("sale-queue", "memory of one who waits, after the opening"): _at_most(400),
    **{
        ("cuts", f"{event}: {quantity}"): [wanted]
        for event in ("cuts of 2 s", "restart by SIGTERM", "restart by kill -9")
        for quantity, wanted in {
            "delivered": _at_least(100),
            "out of order": _at_most(0)[0],
            "duplicates": _at_most(0)[0],
        }.items()
    },
}
