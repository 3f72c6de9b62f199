"""A sale as the specification tells it, in the simplest way: lists, loops, everything counted anew.

Holds are known by their number. What a command answers is what `sale.*` answers, with numbers in
the place of ids; what it refuses is raised as No.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LIVES = 5
HOLDS_MAX = 100
STOCK_MAX = 2**40


class No(Exception):
    """A refusal: its error, or errors of which each may be told."""

    def __init__(self, *names: str) -> None:
        super().__init__(" or ".join(names))
        self.names = names


@dataclass
class Item:
    free: int
    per_user: int = 0
    place: tuple[str, str, int] | None = None  # zone, row, seat
    out: int = 0  # sold and withdrawn: no part of the stock any more


@dataclass
class Hold:
    number: int
    user: str
    items: dict[str, int]
    reserved_at: int
    expires_at: int
    state: str = "held"  # or sold, cancelled, expired; expired from the deadline on, see Sale.state
    ended_at: int | None = None
    reference: str | None = None
    refunds: list[tuple[str | None, dict[str, int]]] = field(default_factory=list)

    def refunded(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for _, items in self.refunds:
            for sku, units in items.items():
                total[sku] = total.get(sku, 0) + units
        return total

    def kept(self) -> dict[str, int]:
        """What is sold and was not given back."""
        back = self.refunded()
        left = {sku: units - back.get(sku, 0) for sku, units in self.items.items()}
        return {sku: units for sku, units in left.items() if units}


class Sale:
    """The whole sale. `now` is set from outside; `fire` is what the timers do."""

    def __init__(self, now: int, per_user: int, hold_ms: int, items: dict[str, Item]) -> None:
        self.now = now
        self.per_user = per_user
        self.hold_ms = hold_ms
        self.items = items
        self.phase = "open"
        self.holds: list[Hold] = []
        self.steps: list[tuple[Any, ...]] = []  # step, at, user, hold, items, reference

    # --- looking ---

    def held(self, sku: str) -> int:
        """Units that wait for their buyer, also past the deadline until the timer fires."""
        return sum(hold.items.get(sku, 0) for hold in self.holds if hold.state == "held")

    def sold(self, sku: str) -> int:
        return sum(hold.kept().get(sku, 0) for hold in self.holds if hold.state == "sold")

    def balance(self, sku: str) -> dict[str, int]:
        free, held, sold = self.items[sku].free, self.held(sku), self.sold(sku)
        return {"stock": free + held + sold, "free": free, "held": held, "sold": sold}

    def has(self, user: str, without: Hold | None = None) -> dict[str, int]:
        """What counts against a user's limits."""
        total: dict[str, int] = {}
        for hold in self.holds:
            if hold.user == user and hold is not without and hold.state in ("held", "sold"):
                for sku, units in (hold.items if hold.state == "held" else hold.kept()).items():
                    total[sku] = total.get(sku, 0) + units
        return total

    def state(self, hold: Hold) -> str:
        if hold.state == "held" and self.now >= hold.expires_at:
            return "expired"
        return "refunded" if hold.state == "sold" and not hold.kept() else hold.state

    def find(self, number: int) -> Hold:
        if not 1 <= number <= len(self.holds):
            raise No("not_found")
        return self.holds[number - 1]

    def open_hold(self, number: int) -> Hold:
        """A hold that may still become something else."""
        hold = self.find(number)
        ended = {
            "sold": "already_confirmed",
            "refunded": "already_confirmed",
            "cancelled": "already_cancelled",
            "expired": "expired",
        }
        state = self.state(hold)
        if state in ended:
            raise No(ended[state])
        return hold

    def get(self, hold: int) -> dict[str, Any]:
        found = self.find(hold)
        state = self.state(found)
        return {
            "sale": "s",
            "state": state,
            "hold": hold,
            "order": hold if found.state == "sold" else None,
            "user": found.user,
            "items": found.items,
            "reserved_at": found.reserved_at,
            "expires_at": found.expires_at,
            "ended_at": found.ended_at,
            "reference": found.reference,
            "refunded": found.refunded(),
        }

    def order(self, hold: Hold) -> dict[str, Any]:
        return {
            "order": hold.number,
            "state": self.state(hold),
            "user": hold.user,
            "items": hold.items,
            "at": hold.ended_at,
            "reference": hold.reference,
            "refunded": hold.refunded(),
        }

    def orders(self, state: str | None = None, user: str | None = None) -> list[dict[str, Any]]:
        """From the oldest hold on."""
        found = [self.order(hold) for hold in self.holds if hold.state == "sold"]
        return [
            row
            for row in found
            if (state is None or row["state"] == state) and (user is None or row["user"] == user)
        ]

    def open_holds(self, user: str) -> list[dict[str, Any]]:
        return [
            {"hold": hold.number, "items": hold.items, "expires_at": hold.expires_at}
            for hold in self.holds
            if hold.user == user and self.state(hold) == "held"
        ]

    # --- time ---

    def fire(self) -> None:
        """All timers that are due."""
        due = [h for h in self.holds if h.state == "held" and self.now >= h.expires_at]
        for hold in due:
            self._expire(hold)

    def _expire(self, hold: Hold) -> None:
        self._end(hold, "expired")
        self._step("expired", hold, hold.items)

    def _end(self, hold: Hold, state: str) -> None:
        for sku, units in hold.items.items():
            self.items[sku].free += units
        hold.state = state
        hold.ended_at = self.now

    def _step(
        self,
        step: str,
        hold: Hold | None = None,
        items: dict[str, int] | None = None,
        reference: str | None = None,
    ) -> None:
        user, number = (None, None) if hold is None else (hold.user, hold.number)
        self.steps.append((step, self.now, user, number, dict(items or {}), reference))

    # --- buying ---

    def reserve(self, user: str, items: dict[str, int], hold: int | None = None) -> dict[str, Any]:
        old, why = None, ()
        if hold is not None:
            try:
                old = self.open_hold(hold)
            except No as refusal:
                why = refusal.names
            if 1 <= hold <= len(self.holds) and self.holds[hold - 1].user != user:
                old, why = None, ("not_found",)
        others = self._why_not(user, items, old)
        if why or others:
            raise No(*why, *others[:1])
        if old is not None:
            self._step("replaced", old, old.items)
            for sku, units in old.items.items():
                self.items[sku].free += units
            old.items = dict(items)
        else:
            old = Hold(len(self.holds) + 1, user, dict(items), self.now, self.now + self.hold_ms)
            self.holds.append(old)
        for sku, units in items.items():
            self.items[sku].free -= units
        self._step("reserved", old, items)
        return {"hold": old.number, "items": items, "expires_at": old.expires_at}

    def _why_not(self, user: str, items: dict[str, int], old: Hold | None) -> list[str]:
        """All reasons against a reserve, in the order in which they are told."""
        if any(sku not in self.items for sku in items):
            return ["not_found"]
        reasons = []
        if self.phase != "open":
            reasons.append("not_open")
        mine = {} if old is None else old.items
        if any(self.items[sku].free + mine.get(sku, 0) < n for sku, n in items.items()):
            reasons.append("sold_out")
        if self.over_limits(user, items, old):
            reasons.append("limit_reached")
        open_now = [h for h in self.holds if h.user == user and h.state == "held"]
        if old is None and len(open_now) >= HOLDS_MAX:
            reasons.append("limit_reached")
        return reasons

    def over_limits(self, user: str, items: dict[str, int], without: Hold | None) -> bool:
        has = self.has(user, without)
        if self.per_user and sum(has.values()) + sum(items.values()) > self.per_user:
            return True
        for sku, units in items.items():
            most = self.items[sku].per_user
            if most and has.get(sku, 0) + units > most:
                return True
        return False

    def runs(self, zone: str | None, count: int) -> list[list[str]]:
        """All sets of adjacent free seats."""
        seats = {item.place: sku for sku, item in self.items.items() if item.place and item.free}
        found = []
        for in_zone, row, seat in seats:
            run = [seats.get((in_zone, row, seat + further)) for further in range(count)]
            if None not in run and zone in (None, in_zone):
                found.append(run)
        return found

    def confirm(
        self,
        hold: int,
        reference: str | None = None,
        items: dict[str, int] | None = None,
        late: str = "refuse",
    ) -> dict[str, Any]:
        found = self.find(hold)
        if found.state == "sold":
            if found.reference != reference:
                raise No("already_confirmed")
            return {"order": hold, "items": found.items, "already": True}
        state = self.state(found)
        if state == "cancelled":
            raise No("already_cancelled")
        if state == "expired" and late == "refuse":
            raise No("expired")
        part = found.items if items is None else items
        if any(units > found.items.get(sku, 0) for sku, units in part.items()):
            raise No("out_of_range")
        if state == "expired":
            self._retake(found, part)
            step = "retaken"
        else:
            self._free_rest(found, part)
            step = "confirmed"
        found.items = dict(part)
        found.state, found.ended_at, found.reference = "sold", self.now, reference
        self._step(step, found, part, reference)
        return {"order": hold, "items": part, "already": False}

    def _retake(self, hold: Hold, part: dict[str, int]) -> None:
        overdue = hold.items if hold.state == "held" else {}
        if any(self.items[sku].free + overdue.get(sku, 0) < n for sku, n in part.items()):
            raise No("sold_out")
        if self.over_limits(hold.user, part, hold):
            raise No("limit_reached")
        if overdue:
            self._expire(hold)
        for sku, units in part.items():
            self.items[sku].free -= units

    def _free_rest(self, hold: Hold, part: dict[str, int]) -> None:
        rest = {sku: units - part.get(sku, 0) for sku, units in hold.items.items()}
        rest = {sku: units for sku, units in rest.items() if units}
        if rest:
            self._step("freed", hold, rest)
        for sku, units in rest.items():
            self.items[sku].free += units

    def cancel(self, hold: int) -> dict[str, Any]:
        found = self.open_hold(hold)
        self._end(found, "cancelled")
        self._step("cancelled", found, found.items)
        return {"cancelled": True, "items": found.items}

    def extend(self, hold: int, ms: int) -> dict[str, Any]:
        found = self.open_hold(hold)
        if found.expires_at + ms > found.reserved_at + LIVES * self.hold_ms:
            raise No("out_of_range")
        found.expires_at += ms
        self._step("extended", found)
        return {"hold": hold, "items": found.items, "expires_at": found.expires_at}

    def refund(
        self,
        order: int,
        items: dict[str, int] | None = None,
        reference: str | None = None,
        restock: bool = True,
    ) -> dict[str, Any]:
        found = self.find(order)
        if found.state != "sold":
            raise No("not_found")
        for earlier, basket in found.refunds:
            if reference is not None and earlier == reference:
                if items is not None and items != basket:
                    raise No("conflict")
                return {"order": order, "items": basket, "already": True}
        left = found.kept()
        if not left:
            raise No("already_refunded")
        part = left if items is None else items
        if any(units > left.get(sku, 0) for sku, units in part.items()):
            raise No("out_of_range")
        found.refunds.append((reference, dict(part)))
        for sku, units in part.items():
            if restock:
                self.items[sku].free += units
            else:
                self.items[sku].out += units
        self._step("refunded" if restock else "withdrawn", found, part, reference)
        return {"order": order, "items": part, "already": False}

    # --- the staff ---

    def restock(self, items: dict[str, int]) -> dict[str, Any]:
        self._not_closed()
        for sku, units in items.items():
            known = self.items.get(sku)
            free = 0 if known is None else known.free
            stock = 0 if known is None else self.balance(sku)["stock"]
            most = 1 if known is not None and known.place else STOCK_MAX
            if free + units < 0 or stock + units > most:
                raise No("out_of_range")
        for sku, units in items.items():
            self.items.setdefault(sku, Item(0)).free += units
        self._step("restocked", None, items)
        return {"items": {sku: self.balance(sku) for sku in items}}

    def configure(self, per_user: int | None = None, hold_ms: int | None = None) -> dict[str, Any]:
        self._not_closed()
        self.per_user = self.per_user if per_user is None else per_user
        self.hold_ms = self.hold_ms if hold_ms is None else hold_ms
        self._step("configured")
        return {"state": self.phase}

    def open(self) -> dict[str, Any]:
        self._not_closed()
        self._to("open", "opened")
        return {"state": self.phase}

    def pause(self) -> dict[str, Any]:
        self._not_closed()
        self._to("paused", "paused")
        return {"state": self.phase}

    def close(self, release: bool = False) -> dict[str, Any]:
        self._to("closed", "closed")
        if release:
            self.fire()  # what has expired is not released
        for hold in self.holds:
            if release and hold.state == "held":
                self._end(hold, "cancelled")
                self._step("released", hold, hold.items)
        return {"state": self.phase}

    def _not_closed(self) -> None:
        if self.phase == "closed":
            raise No("conflict")

    def _to(self, phase: str, step: str) -> None:
        if self.phase != phase:
            self.phase = phase
            self._step(step)
