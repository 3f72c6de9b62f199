"""One sale: its book, its ledger, its hall and its waiting room, and the rules between them.

Every method that changes something checks all of it first and then cannot fail; it says in the
ledger what it did. What frees units or room lets the next in line in at once. Nothing acts on time
by itself: the registry's timer calls `fire`, and a hold is expired from its deadline on, whether or
not that has happened yet.

States of a sale: scheduled (only its queue takes joins), open, paused (no admissions and no
reserves), closed (no joins and no reserves; holds may finish).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from rtserver.compiled import twin
from rtserver.errors import CONFLICT, INVALID_PARAMS, NOT_FOUND, NOT_OPEN, RtError
from rtserver.state.growth import Growth
from rtserver.state.sales import book as plain_book
from rtserver.state.sales import ledger as plain_ledger
from rtserver.state.sales.book import (
    CANCELLED,
    EXPIRED,
    HELD,
    HOLD_STATES,
    Book,
    Hold,
    Item,
)
from rtserver.state.sales.hall import Hall
from rtserver.state.sales.ledger import STEPS, Ledger
from rtserver.state.sales.room import WaitingRoom
from rtserver.state.sales.terms import ItemTerms, SaleTerms

__all__ = ["PlaceChanged", "Sale"]

_ENDED_PER_FIRE = 400  # holds and items in them, whose time is over
_RELEASED_AT_ONCE = 2_000
_NO_PLACE: Final = {
    "state": "none",
    "position": None,
    "eta_ms": None,
    "pass_id": None,
    "pass_expires_at": None,
}
_step = {name: place for place, name in enumerate(STEPS)}
_books = twin(plain_book.__name__) or plain_book
_ledgers = twin(plain_ledger.__name__) or plain_ledger


class PlaceChanged(NamedTuple):
    """An event: a user's place in a queue is another, and not by her own command."""

    sale: str
    user: str


class Sale:
    """`seed` (a text) orders the queue and is told when the sale opens; `secret` (a text too) makes
    ids unguessable, and is never told. `emit` takes events; `arm` is asked to have `fire` called
    at a time."""

    __slots__ = (
        "_arm",
        "_emit",
        "_released_at",
        "armed",
        "book",
        "closed",
        "created_at",
        "declared",
        "growth",
        "hall",
        "items_max",
        "ledger",
        "name",
        "number",
        "opened",
        "paused",
        "refused",
        "room",
        "secret",
        "seed",
        "seed_sha256",
        "terms",
        "waiting_max",
    )

    def __init__(
        self,
        number: int,
        name: str,
        terms: SaleTerms,
        seed: str,
        secret: str,
        created_at: int,
        *,
        growth: Growth,
        emit: Callable[[Any], None],
        arm: Callable[[Sale, int], None],
    ) -> None:
        self.number = number
        self.name = name
        self.terms = terms
        self.declared = terms  # as created
        self.seed = seed
        self.secret = secret
        self.seed_sha256 = hashlib.sha256(seed.encode()).hexdigest()
        self.created_at = created_at
        self.opened = False  # at any time
        self.paused = False
        self.closed = False
        self.armed: tuple[int, int] | None = None  # (due, id) of its timer
        self.items_max: int | None = None
        self.waiting_max: int | None = None
        self.growth = growth
        self.refused: dict[str, int] = {}  # {error name: how often}; no state
        self.book: Book = _books.Book(number, secret.encode())
        self.ledger: Ledger = _ledgers.Ledger()
        self.hall = Hall()
        self.room: WaitingRoom | None = None
        self._released_at: int | None = None  # when all that was held began to go back
        self._emit = emit
        self._arm = arm
        self._set_queue(terms)

    # --- the life of a sale ---

    @property
    def phase(self) -> str:
        if self.closed:
            return "closed"
        if not self.opened:
            return "scheduled"
        return "paused" if self.paused else "open"

    @property
    def asks_challenge(self) -> bool:
        return self.terms.queue is not None and self.terms.queue.challenge

    def begin(self, now: int, items: dict[str, ItemTerms], by: str | None) -> None:
        """What follows the creation, in the same command."""
        self.note("created", now, by, items={name: row.stock for name, row in items.items()})
        if self.terms.opens_at is None or self.terms.opens_at <= now:
            self._open(now, by)
        self._tell_book()
        self.look_ahead(now)

    def configure(self, now: int, terms: SaleTerms, by: str | None) -> None:
        """Raises RtError invalid_params, conflict."""
        self.check_not_closed()
        self.check_terms(terms)
        if self.opened and terms.opens_at != self.terms.opens_at:
            raise RtError(CONFLICT, f"the sale {self.name!r} has opened; opens_at is past")
        self.terms = terms
        self._set_queue(terms)
        self.note("configured", now, by)
        if not self.opened and terms.opens_at is not None and terms.opens_at <= now:
            self._open(now, by)
        if terms.closes_at is not None and terms.closes_at <= now:
            self._close(now, by)
        self._tell_book()
        self.proceed(now)

    def check_terms(self, terms: SaleTerms) -> None:
        """Raises RtError invalid_params."""
        opens_at, closes_at = terms.opens_at, terms.closes_at
        if closes_at is not None and opens_at is not None and closes_at <= opens_at:
            raise RtError(
                INVALID_PARAMS,
                f"closes_at is {closes_at}, expected a time after opens_at, {opens_at}",
                {"param": "closes_at"},
            )

    def check_not_closed(self) -> None:
        if self.closed:
            raise RtError(CONFLICT, f"the sale {self.name!r} is closed, for good")

    def _tell_book(self) -> None:
        """What the short way of a reserve asks the book only."""
        self.book.quick = self.phase == "open" and self.room is None
        self.book.per_user = self.terms.per_user
        self.book.hold_ms = self.terms.hold_ms

    def _set_queue(self, terms: SaleTerms) -> None:
        if terms.queue is None:
            return
        if self.room is None:
            self.room = WaitingRoom(terms.queue, self.seed, self.secret, started=self.opened)
        else:
            self.room.terms = terms.queue

    def open(self, now: int, by: str | None) -> None:
        """Raises RtError conflict."""
        self.check_not_closed()
        if not self.opened:
            self._open(now, by)
        elif self.paused:
            self.paused = False
            self.note("opened", now, by)
            self._tell_book()
        self.proceed(now)

    def _open(self, now: int, by: str | None) -> None:
        self.opened = True
        self.note("opened", now, by)
        if self.room is not None:
            self.room.start(now)
        self._tell_book()

    def pause(self, now: int, by: str | None) -> None:
        """Raises RtError conflict."""
        self.check_not_closed()
        if not self.opened:
            raise RtError(CONFLICT, f"the sale {self.name!r} has not opened yet")
        if not self.paused:
            self.paused = True
            self.note("paused", now, by)
            self._tell_book()

    def close(self, now: int, release: bool, by: str | None) -> None:
        if not self.closed:
            self._close(now, by)
        if release and self._released_at is None:
            self._released_at = now
            self._release_holds(now, _RELEASED_AT_ONCE)
        self.look_ahead(now)

    def _close(self, now: int, by: str | None) -> None:
        self.closed = True
        self.note("closed", now, by)
        self._tell_book()

    # --- items ---

    def enter_hall(self, item: Item) -> None:
        """A new item takes its place, if it is a seat."""
        terms = item.terms
        if terms.seat is not None:
            assert terms.row is not None, "a seat has a row"
            self.hall.add(item.name, terms.zone, terms.row, terms.seat)
            self.seat(item)

    def seat(self, item: Item) -> None:
        """The hall hears of an item whose units moved."""
        if item.terms.seat is not None and self.hall.is_free(item.name) != (item.free > 0):
            move = self.hall.free if item.free else self.hall.take
            move(item.name)

    def seat_all(self, items: tuple[Item, ...]) -> None:
        for item in items:
            self.seat(item)

    def items_of(self, basket: dict[str, int]) -> tuple[Item, ...]:
        """Raises RtError not_found."""
        found = []
        for name in basket:
            item = self.book.items.get(name)
            if item is None:
                raise RtError(
                    NOT_FOUND, f"the sale {self.name!r} has no item {name!r}", {"item": name}
                )
            found.append(item)
        return tuple(found)

    def item_names(self, after: str | None, limit: int) -> list[str]:
        return self.book.item_names(after, limit)

    def balance(self, name: str) -> dict[str, int]:
        item = self.book.items.get(name)
        assert item is not None, f"{name!r} is an item"
        return _balance(item)

    def total(self) -> dict[str, int]:
        return _balance(self.book)

    # --- the waiting room ---

    def join(self, now: int, user: str, *, tied: bool, address: str | None, by: str | None) -> None:
        """A place for a user who has none. Raises RtError not_open, limit_reached."""
        if self.closed:
            raise self.not_open()
        if self.room is None:
            return
        self.growth.check()
        self.room.join(now, user, tied=tied, address=address, waiting_max=self.waiting_max)
        self.note("joined", now, by, user)
        self.proceed(now)

    def leave(self, now: int, user: str, by: str | None) -> bool:
        if self.room is None or not self.room.leave(user):
            return False
        self.note("left", now, by, user)
        self.proceed(now)
        return True

    def abandon(self, now: int, users: list[str]) -> None:
        """Users who lost their connection too long ago; who does not wait any more is no matter."""
        if self.room is None:
            return
        for user in users:
            if self.room.abandon(user):
                self.note("abandoned", now, None, user)
                self._emit(PlaceChanged(self.name, user))
        self.proceed(now)

    def place(self, now: int, user: str) -> dict[str, Any]:
        if self.room is None:
            place = {**_NO_PLACE, "state": self._state_without_queue(user)}
        else:
            place = self.room.place(now, user)
            if place["state"] == "none":  # her visit is over, or the queue is younger than it
                buyer = self.book.buyers.get(user)
                if buyer is not None:
                    place["state"] = "holding" if buyer.held else "done"
        if place["state"] == "waiting":
            if self._is_sold_out():
                return {**_NO_PLACE, "state": "sold_out"}
            if self.closed:
                return {**_NO_PLACE, "state": "closed"}
        return place

    def _state_without_queue(self, user: str) -> str:
        buyer = self.book.buyers.get(user)
        if buyer is not None and buyer.held:
            return "holding"
        if self._is_sold_out():
            return "done" if buyer is not None else "sold_out"
        return "admitted" if self.phase == "open" else "waiting"

    def _is_sold_out(self) -> bool:
        """Whether nothing is left, and nothing can come back by itself."""
        return self.opened and self.book.free == 0 and self.book.held == 0

    def proceed(self, now: int) -> None:
        """Lets the next in line in, as far as there is something for them."""
        if self.room is not None and self.phase == "open" and self.book.free:
            for user in self.room.admit(now, self.book.free):
                self.note("admitted", now, None, user)
                self._emit(PlaceChanged(self.name, user))
        self.look_ahead(now)

    # --- holds ---

    def give_back(self, hold: Hold, state: int, now: int, step: str, by: str | None) -> None:
        self.book.give_back(hold, state, now)
        self.seat_all(hold.items)
        self.note(step, now, by, hold.user, hold.number, hold.basket())
        buyer = self.book.buyers.get(hold.user)
        if self.room is not None and (buyer is None or not buyer.held):
            self.room.emptied(now, hold.user, expired=state == EXPIRED)
            if by is None:
                self._emit(PlaceChanged(self.name, hold.user))

    def is_released(self, hold: Hold) -> bool:
        """Whether it goes back with the end of the sale, if not yet. What had expired by then stays
        so, whether or not its timer had fired."""
        since = self._released_at
        return since is not None and hold.state == HELD and since < hold.expires_at

    def state_of(self, now: int, hold: Hold) -> str:
        if hold.state == HELD:
            if self.is_released(hold):
                return "cancelled"
            if now >= hold.expires_at:
                return "expired"
        return HOLD_STATES[hold.state]

    def hold_map(self, hold: Hold) -> dict[str, Any]:
        return {
            "hold": self.book.id_of(hold, "h"),
            "items": hold.basket(),
            "expires_at": hold.expires_at,
        }

    # --- lists ---

    def steps(self, after: int, limit: int) -> Iterator[dict[str, Any]]:
        """At most `limit` steps of the ledger after a sequence number, each made when it is asked
        for."""
        rows = self.ledger.rows(after, limit)
        return (self.step_map(seq, row) for seq, row in enumerate(rows, after + 1))

    def step_map(self, seq: int, row: list[Any]) -> dict[str, Any]:
        """One step as it is told."""
        step, at, caller, user, number, items, reference = row
        hold = None if number is None else f"h{self.number:x}-{number:x}-{self._tag(number):016x}"
        return {
            "seq": seq,
            "at": at,
            "step": step,
            "caller": caller,
            "user": user,
            "hold": hold,
            "items": items,
            "reference": reference,
        }

    def _tag(self, number: int) -> int:
        return self.book.tag_of(number)

    def summary(self) -> dict[str, Any]:
        room = self.room
        refused = dict(self.refused)
        if self.book.sold_out_refusals:
            refused["sold_out"] = refused.get("sold_out", 0) + self.book.sold_out_refusals
        return {
            "state": self.phase,
            "total": self.total(),
            "waiting": 0 if room is None else len(room),
            "active": 0 if room is None else room.active,
            "refused": dict(sorted(refused.items())),
            "opens_at": self.terms.opens_at,
            "closes_at": self.terms.closes_at,
            "seed_sha256": self.seed_sha256,
            "seed": self.seed if self.opened else None,
        }

    # --- refusals ---

    def count_refusal(self, error: RtError) -> None:
        """By reason."""
        name = error.kind.name
        self.refused[name] = self.refused.get(name, 0) + 1

    def check_open(self) -> None:
        """Raises RtError not_open where nothing can be reserved now."""
        if self.phase != "open":
            raise self.not_open()

    def not_open(self) -> RtError:
        return RtError(
            NOT_OPEN,
            f"the sale {self.name!r} is {self.phase}",
            {"state": self.phase, "opens_at": self.terms.opens_at},
        )

    # --- time ---

    def fire(self, now: int) -> None:
        """Does what is due; called at the time that `arm` was asked for, or later."""
        terms = self.terms
        if not self.opened and not self.closed and _is_due(terms.opens_at, now):
            self._open(now, None)
        if not self.closed and _is_due(terms.closes_at, now):
            self._close(now, None)
        if self._released_at is not None:
            self._release_holds(now, _ENDED_PER_FIRE)
        self._expire_holds(now)
        if self.room is not None:
            for user in self.room.expire(now):
                self.note("pass_expired", now, None, user)
                self._emit(PlaceChanged(self.name, user))
        self.proceed(now)

    def _expire_holds(self, now: int) -> None:
        left = _ENDED_PER_FIRE
        while left > 0:
            hold = self.book.next_due()
            if hold is None or hold.expires_at > now:
                return
            left -= 1 + len(hold.items)
            self.give_back(hold, EXPIRED, now, "expired", None)

    def _release_holds(self, now: int, left: int) -> None:
        while left > 0:
            hold = self.book.next_due()
            if hold is None:
                return
            left -= 1 + len(hold.items)
            if self.is_released(hold):
                self.give_back(hold, CANCELLED, now, "released", None)
            else:
                self.give_back(hold, EXPIRED, now, "expired", None)

    def look_ahead(self, now: int) -> None:
        """Asks for the next `fire`; an earlier one that is asked for already does as well."""
        due = self._next_due(now)
        if due is not None and (self.armed is None or due < self.armed[0]):
            self._arm(self, due)

    def _next_due(self, now: int) -> int | None:
        hold = self.book.next_due()
        dues = [] if hold is None else [hold.expires_at if self._released_at is None else 0]
        if not self.closed:
            if self.terms.closes_at is not None:
                dues.append(self.terms.closes_at)
            if not self.opened and self.terms.opens_at is not None:
                dues.append(self.terms.opens_at)
        if self.room is not None:
            waits = self.room.next_due(now, self.book.free if self.phase == "open" else 0)
            if waits is not None:
                dues.append(waits)
        return min(dues, default=None)

    # --- the ledger ---

    def note(
        self,
        step: str,
        now: int,
        by: str | None,
        user: str | None = None,
        number: int | None = None,
        items: dict[str, int] | None = None,
        reference: str | None = None,
    ) -> None:
        self.ledger.append(_step[step], now, by, user, number, items, reference)

    # --- snapshots and memory ---

    def as_row(self) -> list[Any]:
        """All but what its parts dump."""
        return [
            self.number,
            self.name,
            self.terms.as_row(),
            self.seed,
            self.secret,
            self.created_at,
            self.declared.as_row(),
            [self.opened, self.paused, self.closed, self._released_at],
            self.armed,
        ]

    def load_row(self, rest: list[Any]) -> None:
        """What `as_row` has beyond the creation. The room, if any, dumps itself."""
        declared, flags, armed = rest
        self.declared = SaleTerms.of_row(declared)
        self.opened, self.paused, self.closed, self._released_at = flags
        self.armed = None if armed is None else (armed[0], armed[1])
        self._tell_book()

    def release(self, entries_max: int) -> bool:
        """Frees a slice; True when nothing is left."""
        done = self.book.release(entries_max)
        done = self.ledger.release(entries_max) and done
        done = self.hall.release(entries_max) and done
        return (self.room is None or self.room.release(entries_max)) and done


def _balance(units: Item | Book) -> dict[str, int]:
    return {"stock": units.stock, "free": units.free, "held": units.held, "sold": units.sold}


def _is_due(at: int | None, now: int) -> bool:
    return at is not None and at <= now
