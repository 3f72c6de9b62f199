"""Adding up the ledger of a sale: what its steps alone say of units, holds, orders and users.

Nothing here looks at the sale. Each step must be possible after those before it: units leave a
balance only if they are in it; a hold is sold, given back or replaced with all that it holds, and
once; an order is refunded for no more than is left of it. What is not goes into `problems`, and
the adding up goes on as far as it can.

Balances are exact. Of a basket 64 bits are kept, the sum of a digest of each item times its units:
two baskets that differ have the same sum once in 2**64. So a hold costs 17 bytes, whoever has or
had one some 300. A step costs about 2 us. A reckoning is freed in slices.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

from rtserver.state.sales.ledger import MOVES, Row
from rtserver.structs.sharded_map import ShardedMap

__all__ = ["HOLD_WORDS", "PROBLEMS_MAX", "Account", "Problems", "Reckoning", "Units"]

_PAGE: Final = 4_096  # holds, or users, a list
PROBLEMS_MAX: Final = 100  # that are told; more are counted

# What the ledger says of a hold. 0: nothing yet.
NONE, OPEN, SOLD, CANCELLED, EXPIRED, REFUNDED, REPLACED = range(7)
HOLD_WORDS: Final = ("unknown", "held", "sold", "cancelled", "expired", "refunded", "replaced")

# Where units are: places in Units.at.
_OUTSIDE, _FREE, _HELD, _SOLD = range(4)
_PLACES: Final = {"in": _OUTSIDE, "out": _OUTSIDE, "free": _FREE, "held": _HELD, "sold": _SOLD}
_PLACE_WORDS: Final = ("stock", "free", "held", "sold")
_MOVES: Final = {
    step: None if move is None else (_PLACES[move[0]], _PLACES[move[1]])
    for step, move in MOVES.items()
}
# What a step makes of a hold that must be in the first state: (before, after).
_ENDINGS: Final = {
    "confirmed": (OPEN, SOLD),
    "cancelled": (OPEN, CANCELLED),
    "released": (OPEN, CANCELLED),
    "expired": (OPEN, EXPIRED),
    "replaced": (OPEN, REPLACED),
}
_64_BITS: Final = 2**64 - 1


class Problems:
    """What was found, as text: the first hundred, and how many more."""

    __slots__ = ("_found", "_more")

    def __init__(self) -> None:
        self._found: list[str] = []
        self._more = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, text: str) -> None:
        if len(self._found) < PROBLEMS_MAX:
            self._found.append(text)
        else:
            self._more += 1

    def texts(self) -> list[str]:
        return [*self._found, *([f"and {self._more} more"] if self._more else [])]


class Units:
    """The units of one item. What the world outside gave is negative there, so that each movement
    takes from one place what it gives another."""

    __slots__ = ("at", "digest")

    def __init__(self, name: str) -> None:
        self.at = [0, 0, 0, 0]
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self.digest = int.from_bytes(digest, "big")

    def balance(self) -> dict[str, int]:
        outside, free, held, sold = self.at
        return {"stock": -outside, "free": free, "held": held, "sold": sold}


class Account:
    """What one user has."""

    __slots__ = ("open", "orders", "taken", "user")

    def __init__(self, user: str) -> None:
        self.user = user
        self.taken = 0  # units held or sold, and not refunded
        self.open = 0  # holds
        self.orders = 0


class _HoldPage:
    """4,096 holds in the order of their numbers."""

    __slots__ = ("owners", "states", "sums")

    def __init__(self) -> None:
        self.states = bytearray(_PAGE)
        self.sums = array("Q", bytes(8 * _PAGE))  # of what is held or sold
        self.owners: list[Account | None] = [None] * _PAGE


class Reckoning:
    """The sum of the steps that were added; `items`, `users` and `holds` are for comparing."""

    __slots__ = (
        "_accounts",
        "_at",
        "_pages",
        "buyers",
        "items",
        "last_number",
        "open",
        "orders",
        "problems",
        "steps",
        "totals",
        "users",
        "waiting",
    )

    def __init__(self) -> None:
        self.steps = 0
        self.items: ShardedMap[Units] = ShardedMap()
        self.totals = [0, 0, 0, 0]  # of all items
        self.users: ShardedMap[Account] = ShardedMap()  # who ever held something
        self.waiting: ShardedMap[None] = ShardedMap()
        self.last_number = 0  # of a hold
        self.open = 0  # holds
        self.orders = 0
        self.buyers = 0  # users with an open hold or an order
        self.problems = Problems()
        self._pages: list[_HoldPage] = []
        self._accounts: list[list[Account]] = [[]]
        self._at = 0

    # --- what it says ---

    def balance(self) -> dict[str, int]:
        """Of all items together."""
        outside, free, held, sold = self.totals
        return {"stock": -outside, "free": free, "held": held, "sold": sold}

    def hold(self, number: int) -> tuple[int, int, str | None]:
        """(state, sum of what is held or sold, user) of a hold."""
        page = self._pages[number // _PAGE]
        place = number % _PAGE
        owner = page.owners[place]
        return page.states[place], page.sums[place], None if owner is None else owner.user

    def sum_of(self, basket: Iterable[tuple[str, int]]) -> int:
        """The 64 bits that stand for a basket."""
        total = 0
        for name, n in basket:
            units = self.items.get(name)
            total += 0 if units is None else n * units.digest
        return total & _64_BITS

    def accounts(self, after: int, limit: int) -> list[Account]:
        """Users in the order in which they first held something, from a place on."""
        found: list[Account] = []
        limit = min(limit, len(self.users) - after)
        while len(found) < limit:
            page, skipped = divmod(after + len(found), _PAGE)
            found += self._accounts[page][skipped : skipped + limit - len(found)]
        return found

    # --- adding up ---

    def add(self, row: Row) -> int:
        """The next row of the ledger; how many movements that was, at least 1."""
        step, at, _, user, number, items, _ = row
        self.steps += 1
        if at < self._at:
            self._wrong(step, f"is from {at}, the one before from {self._at}")
        self._at = at
        move = _MOVES[step]
        if move is not None:
            if number is None:
                self._move(step, move, items)
            else:
                self._move_hold(step, move, user, number, items)
            return len(items)
        if number is not None:
            self._hold_of(step, number, OPEN)
        elif user is not None:
            self._queue(step, user)
        return 1

    def _wrong(self, step: str, text: str) -> None:
        self.problems.add(f"step {self.steps} ({step}) {text}")

    def _move(self, step: str, move: tuple[int, int], items: dict[str, int]) -> tuple[int, int]:
        """Moves the units; how many they are, and the sum of the basket."""
        source, target = move
        moved = digests = 0
        totals = self.totals
        for name, n in items.items():
            units = self.items.get(name)
            if units is None:
                if source:
                    self._wrong(step, f"names {name!r}, which is no item yet")
                units = Units(name)
                self.items.insert(name, units)
            at = units.at
            at[source] -= n
            at[target] += n
            totals[source] -= n
            totals[target] += n
            moved += n
            digests += n * units.digest
            if (source and at[source] < 0) or (target and at[target] < 0):
                place = source if source and at[source] < 0 else target
                self._wrong(
                    step, f"moves {n} of {name!r}, so that {at[place]} are {_PLACE_WORDS[place]}"
                )
        return moved, digests & _64_BITS

    def _move_hold(
        self, step: str, move: tuple[int, int], user: str, number: int, items: dict[str, int]
    ) -> None:
        moved, basket = self._move(step, move, items)
        if step == "reserved":
            self._reserved(step, user, number, moved, basket)
            return
        page, place, account = self._hold_of(
            step, number, SOLD if move[0] == _SOLD else EXPIRED if step == "retaken" else OPEN
        )
        if account is None:
            return
        if account.user != user:
            self._wrong(step, f"is about hold {number} of {account.user!r}, not of {user!r}")
        if step == "retaken":
            if not account.open and not account.orders:
                self.buyers += 1
            account.taken += moved
            page.sums[place] = basket
            self._sold(page, place, account)
            return
        ending = _ENDINGS.get(step)
        if ending is not None and page.sums[place] != basket:
            self._wrong(step, f"names {items}, which is not what hold {number} has")
        if step == "confirmed":
            self._sold(page, place, account)
            account.open -= 1
            self.open -= 1
            return
        account.taken -= moved
        page.sums[place] = (page.sums[place] - basket) & _64_BITS
        if ending is not None:
            page.states[place] = ending[1]
            account.open -= 1
            self.open -= 1
            if not account.open and not account.orders:
                self.buyers -= 1
        elif move[0] == _SOLD and page.sums[place] == 0:
            page.states[place] = REFUNDED

    def _reserved(self, step: str, user: str, number: int, moved: int, basket: int) -> None:
        """A new hold, or a new basket of one that was replaced just now."""
        if number > self.last_number:
            if number != self.last_number + 1:
                self._wrong(step, f"is hold {number}, the one before was {self.last_number}")
            self.last_number = number
            while len(self._pages) <= number // _PAGE:
                self._pages.append(_HoldPage())
            expected = NONE
        else:
            expected = REPLACED
        page, place, _ = self._hold_of(step, number, expected)
        account = self.users.get(user)
        if account is None:
            account = Account(user)
            self.users.insert(user, account)
            if len(self._accounts[-1]) == _PAGE:
                self._accounts.append([])
            self._accounts[-1].append(account)
        if not account.open and not account.orders:
            self.buyers += 1
        account.open += 1
        account.taken += moved
        self.open += 1
        page.owners[place] = account
        page.states[place] = OPEN
        page.sums[place] = basket

    def _hold_of(self, step: str, number: int, expected: int) -> tuple[_HoldPage, int, Any]:
        """Where a hold stands, and its owner, where it is in the state that a step needs."""
        if not 0 < number <= self.last_number:
            self._wrong(step, f"is about hold {number}, which never was")
            return _HoldPage(), 0, None
        page = self._pages[number // _PAGE]
        place = number % _PAGE
        state = page.states[place]
        if state != expected:
            self._wrong(
                step,
                f"is about hold {number}, which is {HOLD_WORDS[state]}, not {HOLD_WORDS[expected]}",
            )
        return page, place, page.owners[place]

    def _sold(self, page: _HoldPage, place: int, account: Account) -> None:
        page.states[place] = SOLD
        account.orders += 1
        self.orders += 1

    def _queue(self, step: str, user: str) -> None:
        """Who waits. A place that is left may be one of who was admitted already."""
        waits = user in self.waiting
        if step == "joined":
            if waits:
                self._wrong(step, f"is about {user!r}, who waits already")
            self.waiting.insert(user, None)
        elif waits and step != "pass_expired":
            self.waiting.pop(user)
        elif step in ("admitted", "abandoned"):
            self._wrong(step, f"is about {user!r}, who does not wait")

    # --- memory ---

    def release(self, entries_max: int) -> bool:
        """Frees a slice; True when nothing is left. Nothing else may be called after."""
        del self._pages[-1:]
        del self._accounts[-1:]
        done = not self._pages and not self._accounts
        done = self.users.release(entries_max) and done
        done = self.waiting.release(entries_max) and done
        return self.items.release(entries_max) and done
