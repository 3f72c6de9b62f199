"""What a sale tells of its holds, its orders and its ledger. Each row is made only when it is known
that the reply has room for it, so that a page costs what it shows."""

from __future__ import annotations

from itertools import chain
from typing import Any

from rtserver.limits import HOLDS_PER_USER_MAX
from rtserver.state.chunks import fitting, fitting_places, packed_bytes
from rtserver.state.sales.book import HELD, HOLD_STATES, REFUNDED, SOLD, Hold
from rtserver.state.sales.sale import Sale

__all__ = ["orders", "possessions", "purchase", "steps"]


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
    """The open holds and the last orders of a user, newest first, as many as fit into one reply."""
    found: dict[str, Any] = {"holds": [], "orders": []}
    buyer = sale.book.buyers.get(user)
    if buyer is None:
        return found
    newest = (buyer.orders or [])[: -HOLDS_PER_USER_MAX - 1 : -1]
    newest_first = sorted(buyer.held, key=lambda hold: hold.number, reverse=True)
    holds = (hold for hold in newest_first if sale.state_of(now, hold) == "held")
    rows = chain(
        (("holds", sale.hold_map(hold)) for hold in holds),
        (("orders", _order_map(sale, number)) for number in newest),
    )
    for what, row in fitting(rows, packed_bytes):
        found[what].append(row)
    return found


def orders(
    sale: Sale, after: int, limit: int, state: str | None, user: str | None
) -> tuple[list[dict[str, Any]], int | None]:
    """Orders from the place `after` on, as many as fit into one reply, and where to go on. Those
    that a filter leaves out count against the limit: a page may be short, or empty, and have a
    next one."""
    if user is None:
        numbers, total = sale.book.order_numbers(after, limit), sale.book.orders
    else:
        buyer = sale.book.buyers.get(user)
        own = (None if buyer is None else buyer.orders) or []
        numbers, total = own[after : after + limit], len(own)
    end = after + len(numbers)
    places = enumerate((_order_map(sale, number) for number in numbers), after + 1)
    found = (pair for pair in places if state is None or pair[1]["state"] == state)
    return fitting_places(found, end if numbers and end < total else None)


def steps(sale: Sale, after: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
    """Steps of the ledger after a sequence number, as many as fit into one reply, and where to go
    on."""
    places = ((step["seq"], step) for step in sale.steps(after, limit))
    end = after + limit
    return fitting_places(places, end if end < len(sale.ledger) else None)


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
