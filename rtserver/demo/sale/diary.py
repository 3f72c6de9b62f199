"""What the buyers were told, and nothing else: the demo's side of the reconciliation.

Promises: an entry is made when an answer or a push has arrived, never from what was asked. An
answer that contradicts an earlier one is a line in `contradictions`. Costs: a few entries a buyer.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Final

__all__ = ["Diary", "Fate", "Held", "Latencies", "payment_of", "refund_of"]


class Fate(Enum):
    """How a hold stands, as its buyer knows it."""

    HELD = "held"  # never heard of again: she walked away, or it ran out while she looked
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SOLD = "sold"


class Held:
    """A hold, and the order that it became."""

    __slots__ = ("bought", "fate", "id", "items", "order", "reference", "refunded", "user")

    def __init__(self, hold: str, user: str, items: dict[str, int]) -> None:
        self.id = hold
        self.user = user
        self.items = items
        self.fate = Fate.HELD
        self.order: str | None = None
        self.reference: str | None = None
        self.bought: dict[str, int] = {}
        self.refunded: Counter[str] = Counter()


def payment_of(hold: str) -> str:
    """The reference under which a hold is paid."""
    return f"pay-{hold}"


def refund_of(held: Held) -> str:
    """The reference under which the money goes back."""
    return f"back-{held.order}"


class Latencies:
    """Of one kind of call: how many, and how long the answers took."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._last = 0.0

    def __len__(self) -> int:
        return len(self._seconds)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def at(self, share: float) -> float:
        """The milliseconds within which that share of the answers came; 0.0 without any."""
        if not self._seconds:
            return 0.0
        ordered = sorted(self._seconds)
        return 1_000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Diary:
    """Of all buyers together."""

    def __init__(self) -> None:
        self.seed_sha256 = ""  # published when the sale was created
        self.joined: Counter[str] = Counter()  # places taken, by user
        self.admitted: Counter[str] = Counter()
        self.holds: dict[str, Held] = {}
        self.sold_out: set[str] = set()  # users whom their place told so
        self.refused: Counter[str] = Counter()  # by the name of the error
        self.retries = 0  # requests that were sent twice and answered twice
        self.reserves: Final = Latencies()
        self.confirms: Final = Latencies()
        self.joins: Final = Latencies()
        self.contradictions: list[str] = []

    def reserved(self, user: str, hold: str, items: dict[str, int]) -> Held:
        """A hold, or other seats in the place of those of an earlier one."""
        known = self.holds.get(hold)
        if known is None:
            known = self.holds[hold] = Held(hold, user, items)
        elif known.user != user:
            self.contradictions.append(f"{hold} was given to {known.user} and to {user}")
        known.items = items
        return known

    def confirmed(self, hold: Held, order: str, items: dict[str, int], reference: str) -> None:
        if hold.order not in (None, order):
            self.contradictions.append(f"{hold.id} became {hold.order}, then {order}")
        hold.fate = Fate.SOLD
        hold.order = order
        hold.bought = items
        hold.reference = reference

    def count(self, fate: Fate) -> int:
        return sum(hold.fate is fate for hold in self.holds.values())
