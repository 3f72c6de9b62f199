"""All sales of a server: by name and by number, their timers, their place in a snapshot.

A sale has one timer, at the earliest of all its deadlines (holds, passes, admissions, opening,
closing); it may fire early, which costs a look. Deleting a sale is immediate for callers; its
memory is freed in slices by `reclaim`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from rtserver.errors import CONFLICT, LIMIT_REACHED, NOT_FOUND, RtError
from rtserver.state.growth import Growth
from rtserver.state.sales import stocking
from rtserver.state.sales.book import REFUNDED, SOLD, Hold
from rtserver.state.sales.checks import check_book
from rtserver.state.sales.ids import parse_id
from rtserver.state.sales.rows import dump_book, load_book
from rtserver.state.sales.sale import Sale
from rtserver.state.sales.terms import ItemTerms, SaleTerms
from rtserver.state.timers import Timers
from rtserver.structs import expect
from rtserver.structs.ordered_names import OrderedNames

__all__ = ["TIMER_KIND", "Sales"]

TIMER_KIND = "sale"
_COST_PER_TURN = 800  # of what falls due in all sales together: beyond, the next turn goes on


class Sales:
    """The registry. `emit` takes events of the state."""

    __slots__ = (
        "_allowance",
        "_by_number",
        "_emit",
        "_grave",
        "_growth",
        "_loading",
        "_names",
        "_sales",
        "_timers",
        "holds_max",
        "items_max",
        "last_number",
        "sales_max",
        "waiting_max",
    )

    def __init__(self, timers: Timers, growth: Growth, emit: Callable[[Any], None]) -> None:
        self._timers = timers
        self._growth = growth
        self._emit = emit
        self._sales: dict[str, Sale] = {}
        self._by_number: dict[int, Sale] = {}
        self._names = OrderedNames()
        self._grave: deque[Sale] = deque()
        self._loading: Sale | None = None
        self._allowance = 0
        self.last_number = 0
        self.sales_max: int | None = None
        self.items_max: int | None = None
        self.holds_max = -1
        self.waiting_max: int | None = None

    def __len__(self) -> int:
        return len(self._sales)

    def enforce(self, sales_max: int, items_max: int, holds_max: int, waiting_max: int) -> None:
        self.sales_max = sales_max
        self.items_max = items_max
        self.holds_max = holds_max
        self.waiting_max = waiting_max
        for sale in self.all():
            self._bound(sale)

    def _bound(self, sale: Sale) -> None:
        sale.items_max = self.items_max
        sale.waiting_max = self.waiting_max
        sale.book.holds_max = self.holds_max

    def all(self) -> Iterator[Sale]:
        """In the order of their creation."""
        return iter(self._sales.values())

    def oldest_ms(self) -> int | None:
        """When the oldest sale that exists was created."""
        return next((sale.created_at for sale in self.all()), None)

    def get(self, name: str) -> Sale | None:
        return self._sales.get(name)

    def find(self, name: str) -> Sale:
        """Raises RtError not_found."""
        sale = self._sales.get(name)
        if sale is None:
            raise RtError(NOT_FOUND, f"there is no sale {name!r}")
        return sale

    def of_number(self, number: int) -> Sale | None:
        return self._by_number.get(number)

    def of_id(self, text: str) -> tuple[Sale, Hold]:
        """The hold, or the order, of an id, and its sale. Raises RtError not_found."""
        parts = parse_id(text)
        sale = None if parts is None else self._by_number.get(parts.sale)
        hold = None if parts is None or sale is None else sale.book.find(parts.number, parts.tag)
        if parts is None or sale is None or hold is None or not _is_kind(parts.kind, hold):
            raise RtError(NOT_FOUND, f"{text[:80]!r} is no hold and no order of any sale")
        return sale, hold

    def keeper(self, name: str) -> str | None:
        """Whose life bounds how long the answers of a write to this sale are remembered."""
        sale = self._sales.get(name)
        return None if sale is None else _owner(sale)

    def keeper_of_id(self, text: str) -> str | None:
        """The same of a write to a hold or an order."""
        parts = parse_id(text)
        sale = None if parts is None else self._by_number.get(parts.sale)
        return None if sale is None else _owner(sale)

    def page(self, prefix: str, after: str | None, limit: int) -> list[str]:
        return self._names.page(prefix, after, limit)

    # --- create and delete ---

    def create(
        self,
        now: int,
        name: str,
        terms: SaleTerms,
        items: dict[str, ItemTerms],
        seed: str,
        secret: str,
        by: str | None,
    ) -> Sale:
        """Raises RtError invalid_params, limit_reached."""
        self._growth.check()
        if self.sales_max is not None and len(self._sales) >= self.sales_max:
            raise RtError(
                LIMIT_REACHED,
                f"{len(self._sales)} sales exist, at most {self.sales_max} (limits.sales_max)",
            )
        sale = self._new(self.last_number + 1, name, terms, seed, secret, now)
        sale.check_terms(terms)
        stocking.check_new(sale, items)
        self._enter(sale)
        for sku, row in items.items():
            stocking.add(sale, sku, row)
        sale.begin(now, items, by)
        return sale

    def _new(
        self, number: int, name: str, terms: SaleTerms, seed: str, secret: str, now: int
    ) -> Sale:
        sale = Sale(
            number,
            name,
            terms,
            seed,
            secret,
            now,
            growth=self._growth,
            emit=self._emit,
            arm=self._arm,
        )
        self._bound(sale)
        return sale

    def _enter(self, sale: Sale) -> None:
        self._sales[sale.name] = sale
        self._by_number[sale.number] = sale
        self._names.add(sale.name)
        self.last_number = max(self.last_number, sale.number)

    def same(
        self, now: int, sale: Sale, terms: SaleTerms, items: dict[str, ItemTerms], by: str | None
    ) -> bool:
        """Creating what exists: True where items were added. Raises RtError conflict where
        anything was declared in another way."""
        if terms not in (sale.declared, sale.terms):
            raise RtError(
                CONFLICT, f"the sale {sale.name!r} exists with other terms; see sale.configure"
            )
        new = {}
        for name, row in items.items():
            item = sale.book.items.get(name)
            if item is None:
                new[name] = row
            elif item.terms != row:
                raise RtError(
                    CONFLICT, f"{name!r} of {sale.name!r} exists with other terms; see sale.restock"
                )
        if new:
            stocking.restock(sale, now, new, by)
        return bool(new)

    def delete(self, name: str) -> str:
        """Forgets a sale; whose idempotency keys may be forgotten with it. Raises RtError
        not_found, conflict."""
        sale = self.find(name)
        if not sale.closed or sale.book.held:
            raise RtError(
                CONFLICT,
                f"the sale {name!r} is {sale.phase} and {sale.book.held} units are held: close it"
                " with release=true first",
                {"state": sale.phase, "held": sale.book.held},
            )
        del self._sales[name], self._by_number[sale.number]
        self._names.remove(name)
        if sale.armed is not None:
            self._timers.cancel(*sale.armed)
        self._grave.append(sale)
        return _owner(sale)

    def reclaim(self, entries_max: int) -> bool:
        """Frees a slice of deleted sales; True when nothing is left to free."""
        if self._grave and self._grave[0].release(entries_max):
            self._grave.popleft()
        return not self._grave

    # --- time ---

    def _arm(self, sale: Sale, due: int) -> None:
        if sale.armed is not None:
            self._timers.cancel(*sale.armed)
        self._rearm(sale, due)

    def _rearm(self, sale: Sale, due: int) -> None:
        sale.armed = (due, self._timers.add(due, TIMER_KIND, str(sale.number)))

    def begin_firing(self) -> None:
        """The timers of one turn fire: all sales together have one allowance."""
        self._allowance = _COST_PER_TURN

    def fire(self, now: int, number: str, timer_id: int) -> None:
        """A sale for which nothing is left in this turn has the next one."""
        sale = self._by_number.get(int(number))
        if sale is None or sale.armed is None or sale.armed[1] != timer_id:
            return
        if self._allowance <= 0:
            self._rearm(sale, sale.armed[0])
            return
        sale.armed = None
        self._allowance -= sale.fire(now) + 1

    # --- snapshots ---

    def totals(self) -> dict[str, Any]:
        """Sums of all sales; empty without sales, as in logs that are older than they."""
        if not self.last_number:
            return {}
        sales = list(self.all())
        return {
            "sales": len(sales),
            "sale_number": self.last_number,
            "sale_units": [
                sum(getattr(sale.book, field) for sale in sales)
                for field in ("stock", "free", "held", "sold")
            ],
            "sale_orders": sum(sale.book.orders for sale in sales),
            "sale_steps": sum(len(sale.ledger) for sale in sales),
            "sale_waiting": sum(len(sale.room) for sale in sales if sale.room is not None),
        }

    def dump(self) -> Iterator[list[Any]]:
        """["last", number], then for each sale ["sale", row] and its parts."""
        if not self.last_number:
            return
        yield ["last", self.last_number]
        for sale in self.all():
            yield ["sale", sale.as_row()]
            for rows in dump_book(sale.book):
                yield ["book", rows]
            yield ["seats", None]
            for chunk in sale.ledger.dump():
                yield ["ledger", chunk]
            if sale.room is not None:
                for rows in sale.room.dump():
                    yield ["room", rows]

    def load(self, chunk: list[Any]) -> None:
        what, value = chunk
        if what == "last":
            self.last_number = value
            return
        if what == "sale":
            number, name, terms, seed, secret, created_at, *more = value
            sale = self._new(number, name, SaleTerms.of_row(terms), seed, secret, created_at)
            sale.load_row(more)
            self._enter(sale)
            self._loading = sale
            return
        loading = self._loading
        assert loading is not None, "a sale comes before its parts"
        if what == "book":
            load_book(loading.book, value)
        elif what == "seats":
            for item in loading.book.sequence:
                loading.enter_hall(item)
        elif what == "ledger":
            loading.ledger.load(value)
        elif what == "room":
            assert loading.room is not None, "only a sale with a queue has a room"
            loading.room.load(value)
        else:
            raise ValueError(f"a part of a sale of the unknown kind {what!r}")

    def check(self) -> None:
        for sale in self.all():
            check_book(sale.book)
            sale.ledger.check()
            sale.hall.check()
            for item in sale.book.sequence:
                if item.terms.seat is not None:
                    free = sale.hall.is_free(item.name)
                    expect(free == (item.free > 0), f"the hall has another {item.name!r}")
            if sale.room is not None:
                sale.room.check()
        self._names.check()


def _is_kind(kind: str, hold: Hold) -> bool:
    """Only what was sold is an order."""
    return kind == "h" or hold.state in (SOLD, REFUNDED)


def _owner(sale: Sale) -> str:
    """Of idempotency keys; not its name, which another sale may have later."""
    return f"sale {sale.number}"
