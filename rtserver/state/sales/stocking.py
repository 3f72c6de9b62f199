"""What a sale has to sell: more units, fewer, new items, and the best seats among them."""

from __future__ import annotations

from rtserver.errors import CONFLICT, LIMIT_REACHED, NOT_FOUND, OUT_OF_RANGE, SOLD_OUT, RtError
from rtserver.limits import STOCK_MAX
from rtserver.state.sales.book import Item
from rtserver.state.sales.sale import Sale
from rtserver.state.sales.terms import ItemTerms

__all__ = ["add", "best_available", "check_new", "item_place", "restock"]


def restock(sale: Sale, now: int, rows: dict[str, ItemTerms], by: str | None) -> None:
    """Raises RtError conflict, invalid_params, out_of_range, limit_reached."""
    sale.check_not_closed()
    book = sale.book
    new = {}
    for name, terms in rows.items():
        item = book.items.get(name)
        if item is None:
            new[name] = terms
        else:
            _check_restock(sale, item, terms)
    check_new(sale, new)
    for name, terms in rows.items():
        item = book.items.get(name)
        if item is None:
            add(sale, name, terms)
            continue
        book.restock(item, terms.stock)
        sale.seat(item)
    sale.note("restocked", now, by, items={name: row.stock for name, row in rows.items()})
    sale.proceed(now)


def _check_restock(sale: Sale, item: Item, terms: ItemTerms) -> None:
    if terms != ItemTerms(terms.stock) and terms[1:] != item.terms[1:]:
        raise RtError(
            CONFLICT,
            f"{item.name!r} exists with other terms than {terms.per_user, *terms[2:]}; restock"
            " of an item takes units only",
        )
    most = 1 if item.terms.seat is not None else STOCK_MAX
    if not item.free + terms.stock >= 0 or item.stock + terms.stock > most:
        raise RtError(
            OUT_OF_RANGE,
            f"{item.name!r} has a stock of {item.stock}, {item.free} of them free: expected"
            f" {-item.free} to {most - item.stock} more, not {terms.stock}",
        )


def check_new(sale: Sale, rows: dict[str, ItemTerms]) -> None:
    if sale.items_max is not None and len(sale.book.items) + len(rows) > sale.items_max:
        raise RtError(
            LIMIT_REACHED,
            f"{len(sale.book.items)} items and {len(rows)} new ones are more than"
            f" {sale.items_max} (limits.sale_items_max)",
        )
    for name, terms in rows.items():
        if terms.stock < 0:
            raise RtError(
                OUT_OF_RANGE, f"{name!r} is new, expected a stock of 0 or more, not {terms.stock}"
            )
    seats = (
        (name, terms.zone, terms.row, terms.seat)
        for name, terms in rows.items()
        if terms.row is not None and terms.seat is not None
    )
    clash = sale.hall.clash(seats)
    if clash is not None:
        raise RtError(
            CONFLICT, f"{clash.sku!r} cannot be there: {clash.reason}", {"item": clash.sku}
        )


def add(sale: Sale, name: str, terms: ItemTerms) -> None:
    """An item that was checked."""
    item = sale.book.add_item(name, terms)
    sale.enter_hall(item)


def best_available(sale: Sale, zone: str | None, count: int) -> list[str]:
    """Raises RtError not_found, sold_out."""
    if not sale.hall.has_zone(zone):
        where = "" if zone is None else f" in the zone {zone!r}"
        raise RtError(NOT_FOUND, f"the sale {sale.name!r} has no numbered seats{where}")
    found = sale.hall.best(zone, count)
    if found is None:
        raise RtError(
            SOLD_OUT,
            f"no {count} adjacent seats are free",
            {"count": count, "free": sale.book.free, "final": sale.book.held == 0},
        )
    return found


def item_place(sale: Sale, name: str) -> ItemTerms:
    item = sale.book.items.get(name)
    assert item is not None, f"{name!r} was found in the hall"
    return item.terms
