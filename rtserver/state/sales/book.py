# cython: language_level=3, annotation_typing=False
"""The book of a sale: who holds and who has bought how many of what.

Owns the items with their balances, the holds with their deadlines, and what each user has. Every
unit is in one of three places, so stock = free + held + sold for each item and in sum, and each
movement asserts it. The book decides nothing: whether a sale is open, whether a user has a pass and
whether a limit allows something is asked by the sale (sale.py) before it moves anything here.

A hold becomes at most one order, so both are one object with one number, and their ids differ in
their first letter. An id names the sale, the number and 64 bits that only the sale's secret gives:
finding a hold is a look at a place in a list, and guessing one is hopeless. A hold is found at any
age; of those that ended unsold the oldest beyond ENDED_HOLDS_KEPT are forgotten.

One source, two forms: _book.pxd gives this module the types of C for its compiled form.
"""

from __future__ import annotations

import hashlib
from collections import deque
from struct import unpack
from typing import Any

from rtserver.errors import SOLD_OUT, RtError
from rtserver.limits import ENDED_HOLDS_KEPT
from rtserver.state.sales.terms import ItemTerms
from rtserver.structs.ordered_names import OrderedNames
from rtserver.structs.sharded_map import ShardedMap, new_map
from rtserver.structs.skiplist import Skiplist

__all__ = [
    "CANCELLED",
    "EXPIRED",
    "HELD",
    "HOLD_STATES",
    "REFUNDED",
    "SOLD",
    "Book",
    "Buyer",
    "Hold",
    "Item",
]

HELD, SOLD, CANCELLED, EXPIRED, REFUNDED = range(5)
HOLD_STATES = ("held", "sold", "cancelled", "expired", "refunded")

_PAGE = 4_096  # holds a list
_TAGS = 8  # of one digest


class Item:
    """One item (SKU) and where its units are."""

    __slots__ = (
        "free",
        "held",
        "name",
        "per_user",
        "quick",
        "refusal",
        "refusal_packed",
        "sold",
        "stock",
        "terms",
    )

    def __init__(self, name: str, terms: ItemTerms) -> None:
        self.name = name
        self.terms = terms  # as declared; the stock may be another by now
        self.per_user = terms.per_user
        self.quick = terms.per_user == 0 and terms.seat is None  # what the short way can reserve
        self.stock = terms.stock
        self.free = terms.stock
        self.held = 0
        self.sold = 0
        self.refusal: RtError | None = None  # prepared: most requests of a sale are this refusal
        self.refusal_packed: bytes | None = None  # for the short way

    def sold_out(self) -> RtError:
        """The refusal of whoever wants more than is free. It is kept until a unit moves, but not of
        a seat: there are many of them, and few want the same."""
        if self.refusal is not None:
            return self.refusal
        final = self.held == 0
        hope = "and none is held" if final else f"{self.held} are held and may come back"
        refusal = RtError(
            SOLD_OUT,
            f"{self.free} of {self.name!r} are free, {hope}",
            {"item": self.name, "free": self.free, "final": final},
        )
        if self.terms.seat is None:
            self.refusal = refusal
        return refusal

    def _moved(self) -> None:
        self.refusal = None
        self.refusal_packed = None
        assert self.free >= 0, f"{self.free} of {self.name} are free"
        assert self.held >= 0, f"{self.held} of {self.name} are held"
        assert self.sold >= 0, f"{self.sold} of {self.name} are sold"
        placed = self.free + self.held + self.sold
        assert self.stock == placed, f"{self.name}: {self.stock} units, and {placed} of them placed"


class Hold:
    """Units of some items for one user until a deadline; then an order, or gone."""

    __slots__ = (
        "after",
        "amounts",
        "before",
        "buyer",
        "ended_at",
        "expires_at",
        "items",
        "moved",
        "number",
        "reference",
        "refunds",
        "reserved_at",
        "state",
        "tag",
        "user",
    )

    def __init__(self) -> None:
        """Fields one by one are cheaper in compiled form than arguments: `Book.new_hold`."""
        self.number = 0
        self.tag = 0
        self.user = ""
        self.buyer: Buyer = _NOBODY  # known while it is held, and once it is sold
        self.items: tuple[Item, ...] = ()
        self.amounts: tuple[int, ...] = ()
        self.state = HELD
        self.moved = False  # its deadline is out of the order in which holds are made
        self.before: Hold | None = None  # what expires before it, and after it: while it is held,
        self.after: Hold | None = None  # and has not moved
        self.reserved_at = 0
        self.expires_at = 0
        self.ended_at = 0
        self.reference: str | None = None
        # [[{item: units}, reference, at, restocked]] of an order
        self.refunds: list[list[Any]] | None = None

    def basket(self) -> dict[str, int]:
        """{item: units}"""
        return {item.name: n for item, n in zip(self.items, self.amounts, strict=True)}

    def refunded(self) -> dict[str, int]:
        """{item: units} of all refunds together."""
        total: dict[str, int] = {}
        for items, *_ in self.refunds or ():
            for name, n in items.items():
                total[name] = total.get(name, 0) + n
        return total


class Buyer:
    """What one user has: open holds, orders, and how many units count against the limits."""

    __slots__ = ("held", "orders", "taken", "taken_of", "user")

    def __init__(self, user: str) -> None:
        self.user = user
        self.taken = 0  # units held or sold, and not refunded
        self.held: list[Hold] = []
        self.orders: list[int] | None = None  # numbers of holds, oldest first
        # the same as `taken`, of items with a limit of their own
        self.taken_of: dict[str, int] | None = None

    def taken_of_item(self, name: str) -> int:
        return 0 if self.taken_of is None else self.taken_of.get(name, 0)


_NOBODY = Buyer("")


class Book:
    """`sale` is the number of its sale; `secret` (16 to 64 bytes) makes the ids of holds
    unguessable. The sale says in `quick`, `per_user` and `hold_ms` what the short way of a reserve
    has to know of it."""

    __slots__ = (
        "_first",
        "_last",
        "_names",
        "_others",
        "_prefix",
        "_secret",
        "_tag_block",
        "_tags",
        "buyers",
        "ended",
        "free",
        "held",
        "hold_ms",
        "holds",
        "holds_max",
        "items",
        "last_number",
        "order_pages",
        "orders",
        "pages",
        "per_user",
        "quick",
        "sale",
        "sequence",
        "sold",
        "sold_out_refusals",
        "stock",
    )

    def __init__(self, sale: int, secret: bytes) -> None:
        self.sale = sale
        self.quick = False  # the sale is open, and has no queue
        self.per_user = 0
        self.hold_ms = 0
        self.holds_max = -1  # -1: as many as there is memory for
        self.items: ShardedMap[Item] = new_map()
        self.sequence: list[Item] = []  # the items in the order of their declaration
        self.buyers: ShardedMap[Buyer] = new_map()
        self.stock = 0
        self.free = 0
        self.held = 0
        self.sold = 0
        self.holds = 0  # that are open
        self.last_number = 0  # of a hold
        self.orders = 0
        self.order_pages: list[list[int]] = [[]]  # numbers of holds in the order of their sale
        self.sold_out_refusals = 0  # of the short way; no state
        self._names = OrderedNames()
        self.pages: list[list[Hold | None]] = [[None]]  # by number; there is no number 0
        self._first: Hold | None = None  # of the open holds, linked by (expires_at, number) as
        self._last: Hold | None = None  # they were made; what ends is unlinked at once
        self._others: Skiplist[Hold] = Skiplist()  # those whose deadlines are out of that order
        self.ended: deque[int] = deque()  # numbers of holds that were not sold, by when they ended
        self._prefix = f"{sale:x}-"
        self._secret = secret
        self._tag_block = -1
        self._tags: tuple[int, ...] = ()

    # --- items ---

    def add_item(self, name: str, terms: ItemTerms) -> Item:
        item = Item(name, terms)
        self.items.insert(name, item)
        self.sequence.append(item)
        self._names.add(name)
        self.stock += item.stock
        self.free += item.stock
        return item

    def restock(self, item: Item, units: int) -> None:
        """`units` may be below 0: so many free ones are taken away."""
        item.stock += units
        item.free += units
        item._moved()
        self.stock += units
        self.free += units

    def item_names(self, after: str | None, limit: int) -> list[str]:
        return self._names.page("", after, limit)

    # --- holds ---

    def tag_of(self, number: int) -> int:
        """64 bits that only the secret gives; eight numbers share one digest."""
        block = number // _TAGS
        if block != self._tag_block:
            digest = hashlib.blake2b(
                block.to_bytes(8, "big"), key=self._secret, digest_size=8 * _TAGS
            ).digest()
            self._tags = unpack(f">{_TAGS}Q", digest)
            self._tag_block = block
        return self._tags[number - block * _TAGS]

    def id_of(self, hold: Hold, kind: str) -> str:
        """`kind`: h of a hold, o of an order."""
        return f"{kind}{self._prefix}{hold.number:x}-{hold.tag:016x}"

    def find(self, number: int, tag: int) -> Hold | None:
        """The hold of an id; None where there is none, or it was forgotten."""
        if not 0 < number <= self.last_number:
            return None
        hold = self.pages[number // _PAGE][number % _PAGE]
        return hold if hold is not None and hold.tag == tag else None

    def at(self, number: int) -> Hold:
        """A hold that is known to be there."""
        hold = self.pages[number // _PAGE][number % _PAGE]
        assert hold is not None, f"hold {number} is gone"
        return hold

    def kept(self, number: int) -> Hold | None:
        """The hold of a number that was given out; None where it was forgotten."""
        hold: Hold | None = self.pages[number // _PAGE][number % _PAGE]
        return hold

    def buyer(self, user: str) -> Buyer:
        buyer = self.buyers.get(user)
        if buyer is None:
            buyer = Buyer(user)
            self.buyers.insert(user, buyer)
        return buyer

    def reserve(
        self,
        now: int,
        user: str,
        items: tuple[Item, ...],
        amounts: tuple[int, ...],
        expires_at: int,
        buyer: Buyer | None,
    ) -> Hold:
        """Free units become held ones. `buyer`: who the user is, if anybody."""
        hold = self.new_hold(self.last_number + 1, user, items, amounts, now, expires_at)
        self.hold_units(self.buyer(user) if buyer is None else buyer, hold)
        self.expect_expiry(hold)
        return hold

    def new_hold(
        self,
        number: int,
        user: str,
        items: tuple[Item, ...],
        amounts: tuple[int, ...],
        reserved_at: int,
        expires_at: int,
    ) -> Hold:
        """A hold in its place, whose units are not held yet; numbers in between are forgotten."""
        self.skip_to(number)
        hold = Hold()
        hold.number = number
        hold.tag = self.tag_of(number)
        hold.user = user
        hold.items = items
        hold.amounts = amounts
        hold.reserved_at = reserved_at
        hold.expires_at = expires_at
        self.put(number, hold)
        return hold

    def put(self, number: int, hold: Hold | None) -> None:
        """The hold of the next number; None for one that is forgotten."""
        if len(self.pages[-1]) == _PAGE:
            self.pages.append([])
        self.pages[-1].append(hold)
        self.last_number = number

    def skip_to(self, number: int) -> None:
        """Numbers below this one that are not there are of holds that are forgotten."""
        while self.last_number + 1 < number:
            self.put(self.last_number + 1, None)

    def hold_units(self, buyer: Buyer, hold: Hold) -> None:
        for place in range(len(hold.items)):
            item = hold.items[place]
            n = hold.amounts[place]
            item.free -= n
            item.held += n
            item._moved()
            self.free -= n
            self.held += n
            self.take(buyer, item, n)
        buyer.held.append(hold)
        hold.buyer = buyer
        self.holds += 1

    def give_back(self, hold: Hold, state: int, now: int) -> None:
        """Held units become free; the hold ended as CANCELLED or EXPIRED."""
        self._expect_no_more(hold)
        self._unhold(hold)
        hold.state = state
        hold.ended_at = now
        self.ended.append(hold.number)
        if len(self.ended) > ENDED_HOLDS_KEPT:
            self._forget_oldest()

    def _unhold(self, hold: Hold) -> None:
        """Its units are free again, and nobody's."""
        buyer = hold.buyer
        for place in range(len(hold.items)):
            item = hold.items[place]
            n = hold.amounts[place]
            item.free += n
            item.held -= n
            item._moved()
            self.free += n
            self.held -= n
            self._untake(buyer, item, n)
        self._let_go(hold)

    def take(self, buyer: Buyer, item: Item, n: int) -> None:
        """So many units count against the limits of a buyer."""
        buyer.taken += n
        if item.per_user:
            if buyer.taken_of is None:
                buyer.taken_of = {}
            buyer.taken_of[item.name] = buyer.taken_of.get(item.name, 0) + n

    def _untake(self, buyer: Buyer, item: Item, n: int) -> None:
        buyer.taken -= n
        if buyer.taken_of is not None and item.per_user:
            buyer.taken_of[item.name] -= n

    def _let_go(self, hold: Hold) -> None:
        """The hold is open no more; of a user who has nothing nothing is kept."""
        buyer = hold.buyer
        buyer.held.remove(hold)
        self.holds -= 1
        if not buyer.held and buyer.orders is None:
            self.buyers.pop(buyer.user)

    def _forget_oldest(self) -> None:
        number = self.ended.popleft()
        hold = self.pages[number // _PAGE][number % _PAGE]
        if hold is not None and (hold.state == CANCELLED or hold.state == EXPIRED):
            self.pages[number // _PAGE][number % _PAGE] = None

    def replace(self, hold: Hold, items: tuple[Item, ...], amounts: tuple[int, ...]) -> None:
        """Another basket under the same id and deadline. What it held is free before the new
        units are taken, so the caller has asked whether there are enough of both."""
        place = hold.buyer.held.index(hold)
        self._unhold(hold)
        hold.items = items
        hold.amounts = amounts
        self.hold_units(self.buyer(hold.user), hold)
        hold.buyer.held.insert(place, hold.buyer.held.pop())

    def split(self, hold: Hold, amounts: dict[str, int]) -> dict[str, int]:
        """Keeps a part of a basket in the hold, and frees the rest, which is the answer."""
        rest: dict[str, int] = {}
        buyer = hold.buyer
        items: list[Item] = []
        kept: list[int] = []
        for place in range(len(hold.items)):
            item = hold.items[place]
            n = hold.amounts[place]
            keeps = amounts.get(item.name, 0)
            if keeps:
                items.append(item)
                kept.append(keeps)
            if keeps < n:
                rest[item.name] = n - keeps
                item.free += n - keeps
                item.held -= n - keeps
                item._moved()
                self.free += n - keeps
                self.held -= n - keeps
                self._untake(buyer, item, n - keeps)
        hold.items = tuple(items)
        hold.amounts = tuple(kept)
        return rest

    def sell(self, hold: Hold, now: int, reference: str | None) -> None:
        """Held units become sold ones."""
        self._expect_no_more(hold)
        buyer = hold.buyer
        for place in range(len(hold.items)):
            item = hold.items[place]
            n = hold.amounts[place]
            item.held -= n
            item.sold += n
            item._moved()
            self.held -= n
            self.sold += n
        if len(buyer.held) == 1:
            buyer.held.clear()
        else:
            buyer.held.remove(hold)
        self.holds -= 1
        self._order(buyer, hold, now, reference)

    def retake(self, hold: Hold, now: int, reference: str | None) -> None:
        """Units of an expired hold, which are free, become sold ones."""
        hold.buyer = buyer = self.buyer(hold.user)
        for place in range(len(hold.items)):
            item = hold.items[place]
            n = hold.amounts[place]
            item.free -= n
            item.sold += n
            item._moved()
            self.free -= n
            self.sold += n
            self.take(buyer, item, n)
        self._order(buyer, hold, now, reference)

    def _order(self, buyer: Buyer, hold: Hold, now: int, reference: str | None) -> None:
        hold.state = SOLD
        hold.ended_at = now
        hold.reference = reference
        self.note_order(buyer, hold.number)

    def note_order(self, buyer: Buyer, number: int) -> None:
        """The next order, in the order of their sale."""
        if buyer.orders is None:
            buyer.orders = [number]
        else:
            buyer.orders.append(number)
        self.orders += 1
        self.order_pages[-1].append(number)
        if len(self.order_pages[-1]) == _PAGE:
            self.order_pages.append([])

    def refund(
        self, hold: Hold, amounts: dict[str, int], now: int, reference: str | None, restock: bool
    ) -> None:
        """Sold units become free ones, or leave the stock."""
        buyer = hold.buyer
        for item in hold.items:
            n = amounts.get(item.name, 0)
            if not n:
                continue
            item.sold -= n
            self.sold -= n
            if restock:
                item.free += n
                self.free += n
            else:
                item.stock -= n
                self.stock -= n
            item._moved()
            self._untake(buyer, item, n)
        if hold.refunds is None:
            hold.refunds = []
        hold.refunds.append([amounts, reference, now, restock])
        if sum(hold.refunded().values()) == sum(hold.amounts):
            hold.state = REFUNDED

    def order_numbers(self, after: int, limit: int) -> list[int]:
        """Numbers of the holds that became orders, from the place `after` on."""
        found: list[int] = []
        limit = min(limit, self.orders - after)
        while len(found) < limit:
            page, skipped = divmod(after + len(found), _PAGE)
            found += self.order_pages[page][skipped : skipped + limit - len(found)]
        return found

    # --- deadlines ---

    def expect_expiry(self, hold: Hold) -> None:
        last = self._last
        if last is not None and last.expires_at > hold.expires_at:
            hold.moved = True
            self._others.insert(hold.expires_at, hold.number, hold)
            return
        hold.before = last
        if last is None:
            self._first = hold
        else:
            last.after = hold
        self._last = hold

    def _expect_no_more(self, hold: Hold) -> None:
        """It has ended, or will get another deadline."""
        if hold.moved:
            self._others.remove(hold.expires_at, hold.number)
            return
        before, after = hold.before, hold.after
        if before is None:
            self._first = after
        else:
            before.after = after
            hold.before = None
        if after is None:
            self._last = before
        else:
            after.before = before
            hold.after = None

    def extend(self, hold: Hold, expires_at: int) -> None:
        self._expect_no_more(hold)
        hold.expires_at = expires_at
        hold.moved = True
        self._others.insert(expires_at, hold.number, hold)

    def next_due(self) -> Hold | None:
        """The open hold that expires first, by (deadline, number)."""
        first = self._first
        if self._others:
            due, number, other = self._others.first()
            if first is None or (due, number) < (first.expires_at, first.number):
                return other
        return first

    # --- memory ---

    def release(self, entries_max: int) -> bool:
        """Frees a slice; True when nothing is left. From the first call on the book may only be
        released further."""
        for queue in (self.ended, self.sequence):
            for _ in range(min(entries_max, len(queue))):
                queue.pop()
        del self.pages[-1:]
        del self.order_pages[-1:]
        done = not (self.ended or self.sequence or self.pages or self.order_pages)
        done = self.buyers.release(entries_max) and done
        done = self.items.release(entries_max) and done
        done = self._names.release(entries_max) and done
        return done
