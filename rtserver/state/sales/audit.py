"""Auditing a sale: its ledger added up, and compared with all that the sale says of itself.

It goes in pieces, and the sale may go on between them. Each piece first adds the steps that were
written since, so that ledger and sale are of the same moment, and then compares some more items,
holds and users; what a hold says is compared once, at one such moment. The last piece compares the
sums. So a disagreement cannot hide in the time that an audit takes, and an audit that finds nothing
is exact for its last moment. A piece costs 2 to 4 us for each step, item, hold or user.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rtserver.state.sales.book import HOLD_STATES, REFUNDED, SOLD, Hold
from rtserver.state.sales.ledger import Row
from rtserver.state.sales.reckoning import HOLD_WORDS, Problems, Reckoning
from rtserver.state.sales.sale import Sale

__all__ = ["Audit"]

_PIECE: Final = 256  # steps, items, holds and users in one go: about 1 ms
_PIECES_BEHIND: Final = 3  # so many more where steps come faster than they are added


class Audit:
    """One audit of one sale. `reckoning`: what a part of its ledger was added up to before."""

    __slots__ = ("_holds", "_items", "_length", "_problems", "_rows", "_users", "reckoning", "sale")

    def __init__(self, sale: Sale, reckoning: Reckoning | None = None) -> None:
        self.sale = sale
        self.reckoning = Reckoning() if reckoning is None else reckoning
        self._problems = Problems()  # of comparing; those of adding up are the reckoning's
        self._length = len(sale.ledger)
        self._rows: Iterator[Row] = iter(())  # that were read and are not added yet
        self._items = 0  # that are compared
        self._holds = 0
        self._users = 0

    @property
    def differences(self) -> list[str]:
        """In what the sale differs from its ledger."""
        return self._problems.texts()

    @property
    def result(self) -> dict[str, Any]:
        """As sale.audit answers it, once the audit is done."""
        problems = self.reckoning.problems.texts() + self.differences
        return {
            "ok": not problems,
            "steps": self.reckoning.steps,
            "items": len(self.sale.book.sequence),
            "problems": problems,
        }

    def proceed(self, piece: int = _PIECE) -> bool:
        """The next piece; True when it was the last. It is larger where the sale grew faster than
        that, or the audit would never end."""
        ledger = self.sale.ledger
        grown, self._length = len(ledger) - self._length, len(ledger)
        left = max(piece, _PIECES_BEHIND * grown)
        while left > 0 and self.reckoning.steps < len(ledger):
            left -= self._add_step()
        for compare in (self._compare_items, self._compare_holds, self._compare_users):
            if left <= 0:
                return False
            left -= compare(left)
        if left <= 0:
            return False
        self._compare_sums()
        return True

    def _add_step(self) -> int:
        """Adds the next step; how much that was."""
        row = next(self._rows, None)
        if row is None:
            self._rows = iter(self.sale.ledger.read_on(self.reckoning.steps))
            row = next(self._rows)
        return self.reckoning.add(row)

    def _wrong(self, what: str, summed: object, said: object) -> None:
        self._problems.add(f"{what}: the ledger adds up to {summed}, the sale says {said}")

    # --- pieces: each answers how much it compared ---

    def _compare_items(self, most: int) -> int:
        sale, items = self.sale, self.reckoning.items
        piece = sale.book.sequence[self._items : self._items + most]
        for item in piece:
            units = items.get(item.name)
            said = {"stock": item.stock, "free": item.free, "held": item.held, "sold": item.sold}
            summed = None if units is None else units.balance()
            if summed != said:
                self._wrong(f"item {item.name!r}", summed, said)
            if item.stock != item.free + item.held + item.sold:
                self._problems.add(f"item {item.name!r} does not add up: {said}")
            if item.terms.seat is not None and sale.hall.is_free(item.name) != (item.free > 0):
                self._problems.add(f"item {item.name!r}: the hall disagrees with {said}")
        self._items += len(piece)
        return len(piece)

    def _compare_holds(self, most: int) -> int:
        book = self.sale.book
        end = min(self._holds + most, book.last_number, self.reckoning.last_number)
        for number in range(self._holds + 1, end + 1):
            self._compare_hold(number, book.kept(number))
        done, self._holds = end - self._holds, end
        return done

    def _compare_hold(self, number: int, hold: Hold | None) -> None:
        state, total, user = self.reckoning.hold(number)
        word = HOLD_WORDS[state]
        if hold is None:  # forgotten, as those that ended unsold may be
            if word not in ("cancelled", "expired"):
                self._wrong(f"hold {number}", word, "nothing of it")
            return
        if HOLD_STATES[hold.state] != word or hold.user != user:
            said = (HOLD_STATES[hold.state], hold.user)
            self._wrong(f"hold {number}", (word, user), said)
            return
        if word in ("held", "sold", "refunded"):
            refunded = hold.refunded() if hold.state in (SOLD, REFUNDED) else {}
            basket = hold.basket()
            rest = ((name, n - refunded.get(name, 0)) for name, n in basket.items())
            if self.reckoning.sum_of(rest) != total:
                self._problems.add(
                    f"hold {number}: the ledger adds up to another basket than {basket}, of which"
                    f" {refunded} were refunded"
                )

    def _compare_users(self, most: int) -> int:
        accounts = self.reckoning.accounts(self._users, most)
        for account in accounts:
            buyer = self.sale.book.buyers.get(account.user)
            summed = (account.taken, account.open, account.orders)
            said = (0, 0, 0)
            if buyer is not None:
                said = (buyer.taken, len(buyer.held), len(buyer.orders or ()))
            if summed != said:
                self._wrong(f"units, holds and orders of {account.user!r}", summed, said)
        self._users += len(accounts)
        return len(accounts)

    def _compare_sums(self) -> None:
        sale, book, reckoning = self.sale, self.sale.book, self.reckoning
        for what, summed, said in (
            ("all items", reckoning.balance(), sale.total()),
            ("items", len(reckoning.items), len(book.sequence)),
            ("holds", reckoning.last_number, book.last_number),
            ("open holds", reckoning.open, book.holds),
            ("orders", reckoning.orders, book.orders),
            ("users", reckoning.buyers, len(book.buyers)),
            ("waiting", len(reckoning.waiting), 0 if sale.room is None else len(sale.room)),
        ):
            if summed != said:
                self._wrong(what, summed, said)
