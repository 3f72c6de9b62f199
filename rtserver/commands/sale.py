"""sale.*: inventory with holds that come back by themselves, and a waiting room before it.

Thin: what a sale does is in state/sales. Every write is logged with who called, its answers to
idempotency keys are remembered as long as the sale lives, and its reply waits for the sync unless
asked otherwise.
"""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any

from rtserver.commands.context import Context
from rtserver.commands.kinds import BOOL, LIMIT, NAME, PREFIX, TEXT, UINT, at_most, one_of
from rtserver.commands.paging import fitting, name_bytes
from rtserver.commands.sale_kinds import (
    AMOUNTS,
    BASKET,
    BEST,
    DURATION,
    ITEMS,
    POINT,
    QUEUE,
    REFERENCE,
)
from rtserver.commands.sale_shapes import (
    AUDIT,
    CANCELLED,
    CONFIRMED,
    CREATED,
    DELETED,
    HOLD,
    LEDGER,
    LEFT,
    ORDERS,
    PLACE,
    PURCHASE,
    REFUNDED,
    SALES,
    SEATS,
    STATE,
    STATUS,
    STOCK,
    WHOLE_PLACE,
)
from rtserver.commands.table import Effect, Param, command
from rtserver.errors import INVALID_PARAMS, NOT_FOUND, RtError
from rtserver.limits import BEST_SEATS_MAX, LIST_DEFAULT
from rtserver.state.sales import buying, stocking, views
from rtserver.state.sales.audit import Audit
from rtserver.state.sales.book import Hold
from rtserver.state.sales.sale import Sale
from rtserver.state.sales.terms import ItemTerms, QueueTerms, SaleTerms
from rtserver.state.store import Store

_BALANCE_BYTES = 64  # of an item's balance beside its name
_AUDIT_COST = 1_000  # of the first piece, which is all of it for a small sale


def _keeper(store: Store, args: list[Any]) -> str | None:
    """As long as which sale lives the answer to an idempotency key is remembered."""
    return store.sales.keeper(args[0])


def _keeper_of_hold(store: Store, args: list[Any]) -> str | None:
    """The same, where the first argument is a hold or an order."""
    return store.sales.keeper_of_id(args[0])


_write = partial(
    command, effect=Effect.WRITE, ack="synced", signed=True, keeper=_keeper, right="user"
)
_staff = partial(_write, right="service")
_read = partial(command, effect=Effect.READ)

_name = Param("name", NAME)
_user = Param("user", NAME, None)
_hold = Param("hold", NAME)
_limit = Param("limit", LIMIT, LIST_DEFAULT)
_terms = (
    Param("hold_ms", DURATION, None),
    Param("opens_at", POINT, None),
    Param("closes_at", POINT, None),
    Param("queue", QUEUE, None),
)


# --- the sale ---


@_staff(
    "sale.create",
    params=[
        _name,
        Param("items", ITEMS),
        Param("per_user", UINT, 1),
        Param("hold_ms", DURATION, 120_000),
        Param("opens_at", POINT, None),
        Param("closes_at", POINT, None),
        Param("queue", QUEUE, None),
    ],
    returns=CREATED,
    key="name",
    items="items",
    summary="Creates a sale, open at once without opens_at; seed_sha256 fixes its queue's order.",
)
def create(
    store: Store,
    ctx: Context,
    name: str,
    items: dict[str, list[Any]],
    per_user: int,
    hold_ms: int,
    opens_at: int | None,
    closes_at: int | None,
    queue: dict[str, Any] | None,
) -> dict[str, Any]:
    terms = SaleTerms(per_user, hold_ms, opens_at, closes_at, _queue(None, queue))
    rows = {sku: ItemTerms(*row) for sku, row in items.items()}
    sale = store.sales.get(name)
    if sale is None:
        seed, secret = ctx.new_id() + ctx.new_id(), ctx.new_id() + ctx.new_id()
        sale = store.sales.create(ctx.now, name, terms, rows, seed, secret, ctx.caller_name)
        return {"created": True, "seed_sha256": sale.seed_sha256}
    if not store.sales.same(ctx.now, sale, terms, rows, ctx.caller_name):
        ctx.log_nothing()
    return {"created": False, "seed_sha256": sale.seed_sha256}


def _queue(now: QueueTerms | None, changes: dict[str, Any] | None) -> QueueTerms | None:
    """The terms of the queue with some of them changed. Raises RtError invalid_params."""
    if changes is None:
        return now
    if now is not None:
        return now._replace(**changes)
    for field in ("rate_per_s", "active_max"):
        if field not in changes:
            raise RtError(
                INVALID_PARAMS, f"queue has no {field}, which a new queue needs", {"param": "queue"}
            )
    return QueueTerms(**changes)


@_staff(
    "sale.configure",
    params=[_name, Param("per_user", UINT, None), *_terms],
    returns=STATE,
    key="name",
    summary="Changes the terms of a sale, also while it runs; what is held stays as it is.",
)
def configure(
    store: Store,
    ctx: Context,
    name: str,
    per_user: int | None,
    hold_ms: int | None,
    opens_at: int | None,
    closes_at: int | None,
    queue: dict[str, Any] | None,
) -> dict[str, Any]:
    sale = store.sales.find(name)
    given = {"per_user": per_user, "hold_ms": hold_ms, "opens_at": opens_at, "closes_at": closes_at}
    changes = {field: value for field, value in given.items() if value is not None}
    terms = sale.terms._replace(**changes, queue=_queue(sale.terms.queue, queue))
    sale.configure(ctx.now, terms, ctx.caller_name)
    return {"state": sale.phase}


@_staff(
    "sale.restock",
    params=[_name, Param("items", AMOUNTS)],
    returns=STOCK,
    key="name",
    items="items",
    summary="Adds units, or takes free ones away where below 0; adds items that are new.",
)
def restock(store: Store, ctx: Context, name: str, items: dict[str, list[Any]]) -> dict[str, Any]:
    sale = store.sales.find(name)
    stocking.restock(
        sale, ctx.now, {sku: ItemTerms(*row) for sku, row in items.items()}, ctx.caller_name
    )
    return {"items": {sku: sale.balance(sku) for sku in items}}


@_staff(
    "sale.open",
    params=[_name],
    returns=STATE,
    key="name",
    summary="Opens a sale before its time, or goes on after a pause.",
)
def open_sale(store: Store, ctx: Context, name: str) -> dict[str, Any]:
    sale = store.sales.find(name)
    sale.open(ctx.now, ctx.caller_name)
    return {"state": sale.phase}


@_staff(
    "sale.pause",
    params=[_name],
    returns=STATE,
    key="name",
    summary="Stops admissions and reserves until sale.open; holds and the queue go on.",
)
def pause(store: Store, ctx: Context, name: str) -> dict[str, Any]:
    sale = store.sales.find(name)
    sale.pause(ctx.now, ctx.caller_name)
    return {"state": sale.phase}


@_staff(
    "sale.close",
    params=[_name, Param("release", BOOL, False)],
    returns=STATE,
    key="name",
    summary="Ends joins and reserves; holds may be confirmed still, unless they are released.",
)
def close(store: Store, ctx: Context, name: str, release: bool) -> dict[str, Any]:
    sale = store.sales.find(name)
    sale.close(ctx.now, release, ctx.caller_name)
    return {"state": sale.phase}


@_staff(
    "sale.delete",
    params=[_name],
    returns=DELETED,
    key="name",
    summary="Forgets a closed sale with its orders, its ledger and the keys it remembers.",
)
def delete(store: Store, ctx: Context, name: str) -> dict[str, bool]:
    store.answers.forget_owner(store.sales.delete(name))
    return {"deleted": True}


@_read(
    "sale.list",
    params=[Param("prefix", PREFIX, ""), Param("after", NAME, None), _limit],
    returns=SALES,
    items="limit",
    right="service",
    summary="Names of sales that begin with prefix; next is the after of the next page.",
)
def list_sales(
    store: Store, _ctx: Context, prefix: str, after: str | None, limit: int
) -> dict[str, Any]:
    names = store.sales.page(prefix, after, limit)
    kept = fitting(names, name_bytes)
    more = len(names) == limit or len(kept) < len(names)
    return {"items": kept, "next": kept[-1] if more else None}


@_read(
    "sale.status",
    params=[_name, Param("after", NAME, None), _limit],
    returns=STATUS,
    key="name",
    items="limit",
    right="user",
    summary="The balance of each item, by name; stock is always free + held + sold.",
)
def status(store: Store, _ctx: Context, name: str, after: str | None, limit: int) -> dict[str, Any]:
    sale = store.sales.find(name)
    names = sale.item_names(after, limit)
    kept = fitting(names, lambda sku: name_bytes(sku) + _BALANCE_BYTES)
    more = len(names) == limit or len(kept) < len(names)
    return {
        **sale.summary(),
        "items": {sku: sale.balance(sku) for sku in kept},
        "next": kept[-1] if more else None,
    }


# --- the waiting room ---


@_write(
    "sale.join",
    params=[_name, _user, Param("challenge", TEXT, None)],
    returns=PLACE,
    key="name",
    summary="A place in the queue, one a user; joining again tells where it is.",
)
def join(
    store: Store, ctx: Context, name: str, user: str | None, challenge: str | None
) -> dict[str, Any]:
    sale = store.sales.find(name)
    who = ctx.acting_for(user)
    herself = ctx.service is None and ctx.user == who
    if challenge is not None:
        ctx.log_as(name, user, None)  # a record that exists needs no proof any more
    try:
        if sale.room is None or not sale.room.knows(who):
            if sale.asks_challenge:
                ctx.need_challenge(name, who, challenge)
            if sale.room is not None and sale.room.counts_addresses:
                ctx.log_address()
            sale.join(ctx.now, who, tied=herself, address=ctx.address, by=ctx.caller_name)
            if sale.room is None:
                ctx.log_nothing()
        elif not (herself and sale.room.tie(who)):
            ctx.log_nothing()
    except RtError as error:
        sale.count_refusal(error)
        raise
    ctx.note_seen(sale, who)
    return sale.place(ctx.now, who)


@_write(
    "sale.leave",
    params=[_name, _user],
    returns=LEFT,
    key="name",
    summary="Gives up a place in the queue, or a pass; holds stay.",
)
def leave(store: Store, ctx: Context, name: str, user: str | None) -> dict[str, bool]:
    left = store.sales.find(name).leave(ctx.now, ctx.acting_for(user), ctx.caller_name)
    if not left:
        ctx.log_nothing()
    return {"left": left}


@_read(
    "sale.place",
    params=[_name, _user],
    returns=WHOLE_PLACE,
    key="name",
    right="user",
    summary="Where a user is in the queue, with her holds and her orders, newest first.",
)
def place(store: Store, ctx: Context, name: str, user: str | None) -> dict[str, Any]:
    sale = store.sales.find(name)
    who = ctx.acting_for(user)
    ctx.note_seen(sale, who)
    return {**sale.place(ctx.now, who), **views.possessions(sale, ctx.now, who)}


# --- buying ---


@_write(
    "sale.reserve",
    params=[
        _name,
        _user,
        Param("items", BASKET, None),
        Param("best", BEST, None),
        Param("pass_id", NAME, None),
        Param("hold", NAME, None),
    ],
    returns=HOLD,
    key="name",
    summary="Holds all of a basket, or nothing; with hold the basket replaces that one's.",
)
def reserve(
    store: Store,
    ctx: Context,
    name: str,
    user: str | None,
    items: dict[str, int] | None,
    best: list[Any] | None,
    pass_id: str | None,
    hold: str | None,
) -> dict[str, Any]:
    sale = store.sales.find(name)
    who = ctx.acting_for(user)
    if (items is None) == (best is None):
        raise RtError(INVALID_PARAMS, "expected either items or best", {"param": "items"})
    try:
        replaced = None if hold is None else _replaced(store, ctx, sale, who, hold)
        if best is not None:
            sale.check_open()
            items = dict.fromkeys(stocking.best_available(sale, *best), 1)
            ctx.log_as(name, user, items, None, pass_id, hold)
        assert items is not None, "one of the two was given"
        return buying.reserve(sale, ctx.now, who, items, pass_id, replaced, ctx.caller_name)
    except RtError as error:
        sale.count_refusal(error)
        raise


def _replaced(store: Store, ctx: Context, sale: Sale, user: str, text: str) -> Hold:
    """The hold whose basket is to be replaced. Raises RtError not_found, forbidden."""
    of, hold = _find(store, ctx, text)
    if of is not sale or hold.user != user:
        raise RtError(NOT_FOUND, f"{text!r} is no hold of {user!r} in {sale.name!r}")
    return hold


@_write(
    "sale.confirm",
    params=[
        _hold,
        Param("reference", REFERENCE, None),
        Param("items", BASKET, None),
        Param("late", one_of("refuse", "retake"), "refuse"),
    ],
    returns=CONFIRMED,
    key="hold",
    keeper=_keeper_of_hold,
    summary="Sells what is held, or a part; late=retake what expired, too, while it is free.",
)
def confirm(
    store: Store,
    ctx: Context,
    hold: str,
    reference: str | None,
    items: dict[str, int] | None,
    late: str,
) -> dict[str, Any]:
    sale, found = _find(store, ctx, hold)
    retake = late == "retake"
    done = buying.confirm(sale, ctx.now, found, reference, items, retake, ctx.caller_name)
    if done["already"]:
        ctx.log_nothing()
    return done


@_write(
    "sale.cancel",
    params=[_hold],
    returns=CANCELLED,
    key="hold",
    keeper=_keeper_of_hold,
    summary="Gives back what is held.",
)
def cancel(store: Store, ctx: Context, hold: str) -> dict[str, Any]:
    sale, found = _find(store, ctx, hold)
    return {"cancelled": True, "items": buying.cancel(sale, ctx.now, found, ctx.caller_name)}


@_write(
    "sale.extend",
    params=[_hold, Param("ms", DURATION)],
    returns=HOLD,
    key="hold",
    keeper=_keeper_of_hold,
    summary="Lets a hold last longer; in all at most 5 times the sale's hold_ms.",
)
def extend(store: Store, ctx: Context, hold: str, ms: int) -> dict[str, Any]:
    sale, found = _find(store, ctx, hold)
    return buying.extend(sale, ctx.now, found, ms, ctx.caller_name)


@_staff(
    "sale.refund",
    params=[
        Param("order", NAME),
        Param("items", BASKET, None),
        Param("reference", REFERENCE, None),
        Param("restock", BOOL, True),
    ],
    returns=REFUNDED,
    key="order",
    keeper=_keeper_of_hold,
    summary="Takes an order back, or a part of it; its units are free again, or gone.",
)
def refund(
    store: Store,
    ctx: Context,
    order: str,
    items: dict[str, int] | None,
    reference: str | None,
    restock: bool,
) -> dict[str, Any]:
    sale, found = store.sales.of_id(order)
    done = buying.refund(sale, ctx.now, found, items, reference, restock, ctx.caller_name)
    if done["already"]:
        ctx.log_nothing()
    return done


@_read(
    "sale.get",
    params=[_hold],
    returns=PURCHASE,
    key="hold",
    right="user",
    summary="A hold or an order, at any age: held, sold, cancelled, expired or refunded.",
)
def get(store: Store, ctx: Context, hold: str) -> dict[str, Any]:
    sale, found = _find(store, ctx, hold)
    return views.purchase(sale, ctx.now, found)


@_read(
    "sale.best_available",
    params=[
        _name,
        Param("zone", NAME, None),
        Param("count", at_most(BEST_SEATS_MAX), 1),
    ],
    returns=SEATS,
    key="name",
    right="user",
    summary="The best adjacent seats that are free, front rows first, no single seat left alone.",
)
def best_available(
    store: Store, _ctx: Context, name: str, zone: str | None, count: int
) -> dict[str, Any]:
    sale = store.sales.find(name)
    skus = stocking.best_available(sale, zone, count)
    terms = stocking.item_place(sale, skus[0])
    return {"items": dict.fromkeys(skus, 1), "zone": terms.zone, "row": terms.row}


# --- the staff's view ---


@_read(
    "sale.orders",
    params=[
        _name,
        Param("after", UINT, 0),
        _limit,
        Param("state", one_of("sold", "refunded"), None),
        _user,
    ],
    returns=ORDERS,
    key="name",
    items="limit",
    right="service",
    summary="Orders from the first on; next is the after of the next page.",
)
def orders(
    store: Store,
    _ctx: Context,
    name: str,
    after: int,
    limit: int,
    state: str | None,
    user: str | None,
) -> dict[str, Any]:
    found, following = views.orders(store.sales.find(name), after, limit, state, user)
    return {"orders": found, "next": following}


@_read(
    "sale.ledger",
    params=[_name, Param("after", UINT, 0), _limit],
    returns=LEDGER,
    key="name",
    items="limit",
    right="service",
    summary="Every step of the sale, from the first on; next is the after of the next page.",
)
def ledger(store: Store, _ctx: Context, name: str, after: int, limit: int) -> dict[str, Any]:
    steps, following = views.steps(store.sales.find(name), after, limit)
    return {"items": steps, "next": following}


@_read(
    "sale.audit",
    params=[_name],
    returns=AUDIT,
    key="name",
    right="service",
    cost=_AUDIT_COST,
    offloaded=True,
    summary="Adds up the ledger, and compares it with what the sale says of itself.",
)
def audit(
    store: Store, ctx: Context, name: str
) -> dict[str, Any] | Coroutine[Any, Any, dict[str, Any]]:
    audit = Audit(store.sales.find(name))
    return audit.result if audit.proceed(_AUDIT_COST) else ctx.host.audit(audit)


def _find(store: Store, ctx: Context, text: str) -> tuple[Sale, Hold]:
    """A hold or an order with its sale; a user may touch her own only. Raises RtError not_found,
    forbidden."""
    sale, hold = store.sales.of_id(text)
    ctx.need_own(hold.user, f"the hold {text!r}")
    return sale, hold
