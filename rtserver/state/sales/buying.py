"""Buying in a sale: reserve, confirm, cancel, extend, refund.

Each function checks everything first, moves the units in the book, tells the hall, writes the step
into the ledger, and lets the next in line in. What a second attempt is told:

    the hold was     confirm                          cancel, extend
    sold             the same order, `already`,       already_confirmed
                     with the same reference;
                     else already_confirmed
    cancelled        already_cancelled                already_cancelled
    expired          expired; late=retake sells it    expired
"""

from __future__ import annotations

from typing import Any

from rtserver.errors import (
    ALREADY_CANCELLED,
    ALREADY_CONFIRMED,
    ALREADY_REFUNDED,
    CONFLICT,
    LIMIT_REACHED,
    NOT_FOUND,
    OUT_OF_RANGE,
    RtError,
)
from rtserver.errors import EXPIRED as LATE
from rtserver.limits import HOLD_LIVES, HOLDS_PER_USER_MAX, REFUNDS_PER_ORDER_MAX
from rtserver.state.sales.book import CANCELLED, EXPIRED, HELD, REFUNDED, SOLD, Buyer, Hold, Item
from rtserver.state.sales.sale import Sale

__all__ = ["cancel", "confirm", "extend", "refund", "reserve"]


def reserve(
    sale: Sale,
    now: int,
    user: str,
    basket: dict[str, int],
    pass_id: str | None,
    replaced: Hold | None,
    by: str | None,
) -> dict[str, Any]:
    """Raises RtError not_found, not_open, sold_out, no_pass, rate_limited, limit_reached; of a
    basket that is to be replaced also what `cancel` raises."""
    items = sale.items_of(basket)
    sale.check_open()
    if replaced is not None:
        return _replace(sale, now, replaced, items, basket, by)
    _check_free(items, basket, {})
    if sale.room is not None:
        sale.room.check_pass(now, user, pass_id)
    book = sale.book
    buyer = book.buyers.get(user)
    _check_limits(sale, user, buyer, items, basket, {})
    _check_growth(sale, user, buyer)
    expires_at = now + sale.terms.hold_ms
    hold = book.reserve(now, user, items, tuple(basket.values()), expires_at, buyer)
    if sale.room is not None:
        sale.room.reserved(user)
    return _reserved(sale, now, hold, by)


def _replace(
    sale: Sale,
    now: int,
    hold: Hold,
    items: tuple[Item, ...],
    basket: dict[str, int],
    by: str | None,
) -> dict[str, Any]:
    """The old basket goes back and the new one is taken in one step, under the same id and
    deadline."""
    _check_held(sale, now, hold)
    returns, before = hold.basket(), hold.items
    _check_free(items, basket, returns)
    _check_limits(sale, hold.user, hold.buyer, items, basket, returns)
    sale.note("replaced", now, by, hold.user, hold.number, returns)
    sale.book.replace(hold, items, tuple(basket.values()))
    sale.seat_all(before)
    return _reserved(sale, now, hold, by)


def _reserved(sale: Sale, now: int, hold: Hold, by: str | None) -> dict[str, Any]:
    sale.seat_all(hold.items)
    sale.note("reserved", now, by, hold.user, hold.number, hold.basket())
    sale.proceed(now)
    return sale.hold_map(hold)


def _check_free(items: tuple[Item, ...], basket: dict[str, int], returns: dict[str, int]) -> None:
    """Raises RtError sold_out. `returns`: units that go back in the same step."""
    for item in items:
        if item.free + returns.get(item.name, 0) < basket[item.name]:
            raise item.sold_out().with_traceback(None)


def _check_growth(sale: Sale, user: str, buyer: Buyer | None) -> None:
    """Raises RtError where no hold more can be kept."""
    sale.growth.check()
    most = sale.book.holds_max
    if most >= 0 and sale.book.last_number >= most:
        raise RtError(
            LIMIT_REACHED,
            f"{sale.book.last_number} holds were made, at most {most} (limits.sale_holds_max)",
        )
    if buyer is not None and len(buyer.held) >= HOLDS_PER_USER_MAX:
        raise RtError(
            LIMIT_REACHED,
            f"{user!r} has {len(buyer.held)} open holds, at most {HOLDS_PER_USER_MAX}",
        )


def _check_limits(
    sale: Sale,
    user: str,
    buyer: Buyer | None,
    items: tuple[Item, ...],
    basket: dict[str, int],
    returns: dict[str, int],
) -> None:
    """Raises RtError limit_reached. `returns`: units of hers that go back in the same step."""
    most = sale.terms.per_user
    taken = 0 if buyer is None else buyer.taken
    after = taken - sum(returns.values()) + sum(basket.values())
    if most and after > most:
        raise RtError(
            LIMIT_REACHED,
            f"{user!r} would have {after} units, the sale allows {most} (per_user)",
            {"per_user": most, "taken": taken},
        )
    for item in items:
        most = item.per_user
        if not most:
            continue
        taken = 0 if buyer is None else buyer.taken_of_item(item.name)
        after = taken - returns.get(item.name, 0) + basket[item.name]
        if after > most:
            raise RtError(
                LIMIT_REACHED,
                f"{user!r} would have {after} of {item.name!r}, which allows {most} (per_user)",
                {"per_user": most, "taken": taken, "item": item.name},
            )


def confirm(
    sale: Sale,
    now: int,
    hold: Hold,
    reference: str | None,
    part: dict[str, int] | None,
    retake: bool,
    by: str | None,
) -> dict[str, Any]:
    """Raises RtError already_confirmed, already_cancelled, expired, sold_out, limit_reached,
    out_of_range."""
    if hold.state in (SOLD, REFUNDED):
        if reference != hold.reference:
            raise _ended(sale, hold)
        return _confirmed(sale, hold, already=True)
    if hold.state == CANCELLED or sale.is_released(hold):
        raise _ended(sale, hold)
    late = hold.state == EXPIRED or now >= hold.expires_at
    if late and not retake:
        raise _ended(sale, hold)
    basket = hold.basket()
    if part is not None:
        _check_part(part, basket, "the hold")
    if late:
        _retake(sale, now, hold, part or basket, reference)
    else:
        if part is not None and part != basket:
            rest = sale.book.split(hold, part)
            sale.note("freed", now, by, hold.user, hold.number, rest)
            sale.seat_all(sale.items_of(rest))
        sale.book.sell(hold, now, reference)
    step = "retaken" if late else "confirmed"
    sale.note(step, now, by, hold.user, hold.number, hold.basket(), reference)
    _bought(sale, now, hold.user)
    return _confirmed(sale, hold, already=False)


def _retake(
    sale: Sale, now: int, hold: Hold, basket: dict[str, int], reference: str | None
) -> None:
    """Sells of an expired hold what is free. One whose timer has not fired yet expires first, so
    that it makes no difference whether it has. Raises RtError sold_out, limit_reached."""
    items = sale.items_of(basket)
    returns = hold.basket() if hold.state == HELD else {}
    _check_free(items, basket, returns)
    _check_limits(sale, hold.user, sale.book.buyers.get(hold.user), items, basket, returns)
    if hold.state == HELD:
        sale.give_back(hold, EXPIRED, now, "expired", None)
    hold.items, hold.amounts = items, tuple(basket.values())
    sale.book.retake(hold, now, reference)
    sale.seat_all(items)


def _confirmed(sale: Sale, hold: Hold, *, already: bool) -> dict[str, Any]:
    order = sale.book.id_of(hold, "o")
    return {"order": order, "items": hold.basket(), "already": already}


def _bought(sale: Sale, now: int, user: str) -> None:
    buyer = sale.book.buyers.get(user)
    if sale.room is not None and (buyer is None or not buyer.held):
        sale.room.finished(user)
    sale.proceed(now)


def cancel(sale: Sale, now: int, hold: Hold, by: str | None) -> dict[str, int]:
    """Raises RtError already_confirmed, already_cancelled, expired."""
    _check_held(sale, now, hold)
    sale.give_back(hold, CANCELLED, now, "cancelled", by)
    sale.proceed(now)
    return hold.basket()


def extend(sale: Sale, now: int, hold: Hold, ms: int, by: str | None) -> dict[str, Any]:
    """The same, and out_of_range."""
    _check_held(sale, now, hold)
    most = hold.reserved_at + HOLD_LIVES * sale.terms.hold_ms
    expires_at = hold.expires_at + ms
    if expires_at > most:
        raise RtError(
            OUT_OF_RANGE,
            f"ms is {ms}, expected at most {max(0, most - hold.expires_at)}: a hold lasts"
            f" {HOLD_LIVES} times hold_ms ({sale.terms.hold_ms}) in all",
            {"expires_at_max": most},
        )
    sale.book.extend(hold, expires_at)
    sale.note("extended", now, by, hold.user, hold.number)
    sale.look_ahead(now)
    return sale.hold_map(hold)


def refund(
    sale: Sale,
    now: int,
    hold: Hold,
    part: dict[str, int] | None,
    reference: str | None,
    restock: bool,
    by: str | None,
) -> dict[str, Any]:
    """Raises RtError not_found, already_refunded, limit_reached, out_of_range, conflict."""
    order = sale.book.id_of(hold, "o")
    if hold.state not in (SOLD, REFUNDED):
        raise RtError(NOT_FOUND, f"the hold is {sale.state_of(now, hold)}, it was not sold")
    refunded = hold.refunded()
    done = _same_refund(sale, hold, part, reference)
    if done is not None:
        return {"order": order, "items": done, "already": True}
    left = {name: n - refunded.get(name, 0) for name, n in hold.basket().items()}
    left = {name: n for name, n in left.items() if n}
    if not left:
        raise RtError(ALREADY_REFUNDED, f"all of {order!r} is refunded")
    if part is not None:
        _check_part(part, left, "the order")
    items = part or left
    if items != left and len(hold.refunds or ()) >= REFUNDS_PER_ORDER_MAX:
        raise RtError(
            LIMIT_REACHED,
            f"{order!r} was refunded in {REFUNDS_PER_ORDER_MAX} parts: expected all that is left",
        )
    sale.book.refund(hold, items, now, reference, restock)
    sale.seat_all(sale.items_of(items))
    step = "refunded" if restock else "withdrawn"
    sale.note(step, now, by, hold.user, hold.number, items, reference)
    sale.proceed(now)
    return {"order": order, "items": items, "already": False}


def _same_refund(
    sale: Sale, hold: Hold, part: dict[str, int] | None, reference: str | None
) -> dict[str, int] | None:
    """What was refunded under the same reference. Raises RtError conflict."""
    if reference is None:
        return None
    for items, known, *_ in hold.refunds or ():
        if known == reference:
            if part is not None and part != items:
                raise RtError(CONFLICT, f"under the reference {reference!r} {items} were refunded")
            done: dict[str, int] = items
            return done
    return None


def _check_held(sale: Sale, now: int, hold: Hold) -> None:
    """Raises RtError where the hold is not open any more."""
    if hold.state != HELD or now >= hold.expires_at or sale.is_released(hold):
        raise _ended(sale, hold)


def _ended(sale: Sale, hold: Hold) -> RtError:
    """Why nothing more can be done with a hold."""
    number = sale.book.id_of(hold, "h")
    if hold.state in (SOLD, REFUNDED):
        details = {"order": sale.book.id_of(hold, "o"), "reference": hold.reference}
        return RtError(ALREADY_CONFIRMED, f"the hold {number} was sold", details)
    if hold.state == CANCELLED or sale.is_released(hold):
        return RtError(ALREADY_CANCELLED, f"the hold {number} was cancelled")
    return RtError(
        LATE, f"the hold {number} expired at {hold.expires_at}", {"expires_at": hold.expires_at}
    )


def _check_part(part: dict[str, int], whole: dict[str, int], what: str) -> None:
    """Raises RtError out_of_range where a part is more than the whole."""
    for name, n in part.items():
        if n > whole.get(name, 0):
            raise RtError(
                OUT_OF_RANGE,
                f"{what} has {whole.get(name, 0)} of {name!r}, not {n}",
                {"item": name},
            )
