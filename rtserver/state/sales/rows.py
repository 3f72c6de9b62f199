"""A book as rows for a snapshot, and back.

The units of an item follow from its stock, what was sold of it, and the holds; tags follow from the
secret. What is kept in order (orders, holds that ended) has its order in the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rtserver.state.chunks import in_chunks
from rtserver.state.sales.book import HELD, REFUNDED, SOLD, Book, Hold, Item
from rtserver.state.sales.terms import ItemTerms

__all__ = ["dump_book", "load_book"]

_CHUNK = 1_000


def dump_book(book: Book) -> Iterator[list[Any]]:
    """[what, rows] chunks for `load_book`, in their order."""
    for items in in_chunks(_item_rows(book)):
        yield ["items", items]
    for holds in in_chunks(_hold_rows(book)):
        yield ["holds", holds]
    yield ["last_number", [book.last_number]]
    for after in range(0, book.orders, _CHUNK):
        yield ["orders", book.order_numbers(after, _CHUNK)]
    for ended in in_chunks(book.ended):
        yield ["ended", ended]


def _item_rows(book: Book) -> Iterator[list[Any]]:
    for item in book.sequence:
        yield [item.name, list(item.terms), item.stock, item.sold]


def _hold_rows(book: Book) -> Iterator[list[Any]]:
    for page in book.pages:
        for hold in page:
            if hold is not None:
                yield [
                    hold.number,
                    hold.user,
                    [item.name for item in hold.items],
                    list(hold.amounts),
                    hold.state,
                    hold.reserved_at,
                    hold.expires_at,
                    hold.ended_at,
                    hold.reference,
                    hold.refunds,
                ]


def load_book(book: Book, chunk: list[Any]) -> None:
    """The next chunk of a dump."""
    what, rows = chunk
    if what == "items":
        for name, terms, stock, sold in rows:
            _load_item(book, name, ItemTerms(*terms), stock, sold)
    elif what == "holds":
        for row in rows:
            _load_hold(book, row)
    elif what == "last_number":
        book.skip_to(rows[0] + 1)
    elif what == "orders":
        for number in rows:
            book.note_order(book.buyer(book.at(number).user), number)
    elif what == "ended":
        book.ended.extend(rows)
    else:
        raise ValueError(f"a part of a sale of the unknown kind {what!r}")


def _load_item(book: Book, name: str, terms: ItemTerms, stock: int, sold: int) -> None:
    """All of its unsold units are free; its holds move those that are held."""
    item = book.add_item(name, terms)
    book.restock(item, stock - item.stock)
    item.free -= sold
    item.sold = sold
    book.free -= sold
    book.sold += sold


def _load_hold(book: Book, row: list[Any]) -> None:
    number, user, names, amounts, state, reserved_at, expires_at, ended_at, reference, refunds = row
    items = tuple(_known(book, name) for name in names)
    hold = book.new_hold(number, user, items, tuple(amounts), reserved_at, expires_at)
    hold.state = state
    hold.ended_at = ended_at
    hold.reference = reference
    hold.refunds = refunds
    if state == HELD:
        book.hold_units(book.buyer(user), hold)
        book.expect_expiry(hold)
    elif state in (SOLD, REFUNDED):
        _count_order(book, hold)


def _count_order(book: Book, hold: Hold) -> None:
    """What is sold counts against the limits of its buyer."""
    hold.buyer = buyer = book.buyer(hold.user)
    refunded = hold.refunded()
    for item, units in zip(hold.items, hold.amounts, strict=True):
        book.take(buyer, item, units - refunded.get(item.name, 0))


def _known(book: Book, name: str) -> Item:
    item = book.items.get(name)
    if item is None:
        raise ValueError(f"a hold of the unknown item {name!r}")
    return item
