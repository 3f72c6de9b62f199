"""Whether a book agrees with itself."""

from __future__ import annotations

from rtserver.state.sales.book import CANCELLED, EXPIRED, HELD, Book
from rtserver.structs import expect

__all__ = ["check_book"]


def check_book(book: Book) -> None:
    """Raises StructureBroken unless balances, holds, buyers and deadlines agree. O(n)."""
    _check_deadlines(book)
    held: dict[str, int] = {}
    sold: dict[str, int] = {}
    taken: dict[str, int] = {}
    for hold in (hold for page in book.pages for hold in page):
        if hold is None or hold.state == CANCELLED or hold.state == EXPIRED:
            continue
        known = book.buyers.get(hold.user)
        expect(hold.buyer is known, f"hold {hold.number} counts for another than its buyer")
        refunded = hold.refunded()
        for name, units in hold.basket().items():
            n = units - refunded.get(name, 0)
            into = held if hold.state == HELD else sold
            into[name] = into.get(name, 0) + n
            taken[hold.user] = taken.get(hold.user, 0) + n
    for name, item in book.items.items():
        item._moved()
        expect(item.held == held.get(name, 0), f"{name}: held differs from its holds")
        expect(item.sold == sold.get(name, 0), f"{name}: sold differs from its orders")
    for field in ("stock", "free", "held", "sold"):
        total = sum(getattr(item, field) for _, item in book.items.items())
        expect(getattr(book, field) == total, f"{field} is not the sum of the items'")
    for user, buyer in book.buyers.items():
        expect(buyer.taken == taken.get(user, 0), f"{user!r} has another number of units")
        expect(bool(buyer.held or buyer.orders), f"{user!r} has nothing")


def _check_deadlines(book: Book) -> None:
    """The first is that of the open hold that expires first."""
    holds = (hold for page in book.pages for hold in page if hold is not None)
    due = [(hold.expires_at, hold.number) for hold in holds if hold.state == HELD]
    first = book.next_due()
    found = None if first is None else (first.expires_at, first.number)
    expect(found == min(due, default=None), "another hold expires first")
