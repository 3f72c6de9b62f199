"""What a sale tells of its holds and orders."""

from __future__ import annotations

from typing import Any

from rtserver.limits import HOLDS_PER_USER_MAX
from rtserver.state.sales.book import HELD, HOLD_STATES, REFUNDED, SOLD, Hold
from rtserver.state.sales.sale import Sale

__all__ = ["orders", "possessions", "purchase"]


def purchase(sale: Sale, now: int, hold: Hold) -> dict[str, Any]:
    """A hold or an order."""
    sold = hold.state in (SOLD, REFUNDED)
    return {
        "sale": sale.name,
        "state": sale.state_of(now, hold),
        "hold": sale.book.id_of(hold, "h"),
        "order": sale.book.id_of(hold, "o") if sold else None,
        "user": hold.user,
        "items": hold.basket(),
        "reserved_at": hold.reserved_at,
        "expires_at": hold.expires_at,
        "ended_at": hold.ended_at if hold.state != HELD else None,
        "reference": hold.reference,
        "refunded": hold.refunded(),
    }


def possessions(sale: Sale, now: int, user: str) -> dict[str, Any]:
    """The open holds and the last orders of a user, newest first."""
    buyer = sale.book.buyers.get(user)
    if buyer is None:
        return {"holds": [], "orders": []}
    holds = [sale.hold_map(hold) for hold in reversed(buyer.held) if hold.expires_at > now]
    newest = (buyer.orders or [])[: -HOLDS_PER_USER_MAX - 1 : -1]
    return {"holds": holds, "orders": [_order_map(sale, number) for number in newest]}


def orders(
    sale: Sale, after: int, limit: int, state: str | None, user: str | None
) -> tuple[list[dict[str, Any]], int | None]:
    """Orders from the place `after` on, and where to go on. Those that a filter leaves out
    count against the limit: a page may be short, or empty, and have a next one."""
    if user is None:
        numbers, total = sale.book.order_numbers(after, limit), sale.book.orders
    else:
        buyer = sale.book.buyers.get(user)
        own = (None if buyer is None else buyer.orders) or []
        numbers, total = own[after : after + limit], len(own)
    rows = [_order_map(sale, number) for number in numbers]
    end = after + len(numbers)
    if state is not None:
        rows = [row for row in rows if row["state"] == state]
    return rows, end if numbers and end < total else None


def _order_map(sale: Sale, number: int) -> dict[str, Any]:
    hold = sale.book.at(number)
    return {
        "order": sale.book.id_of(hold, "o"),
        "state": HOLD_STATES[hold.state],
        "user": hold.user,
        "items": hold.basket(),
        "at": hold.ended_at,
        "reference": hold.reference,
        "refunded": hold.refunded(),
    }
