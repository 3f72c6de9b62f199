"""counter.*: named 64-bit integers."""

from __future__ import annotations

from typing import Any

from rtserver.commands.context import Context
from rtserver.commands.journal import Journal
from rtserver.commands.kinds import (
    INT64,
    LIMIT,
    NAME,
    NAMES,
    PREFIX,
    TTL_MS,
    VECTOR,
    Shape,
    one_of,
)
from rtserver.commands.paging import fitting, name_bytes
from rtserver.commands.table import Effect, Param, command
from rtserver.commands.vector import Failed, Item, each
from rtserver.limits import LIST_DEFAULT
from rtserver.state.counters import Counters
from rtserver.state.store import Store

WITHIN = Shape("Within", value="int", applied="int")
VALUES = Shape("Values", values="[int]")
COUNTER = Shape("CounterItem", name="text", value="int")
COUNTERS = Shape("CounterPage", items="[CounterItem]", next="text?")
DELETED = Shape("Deleted", deleted="bool")

_name = Param("name", NAME)
_DELTA = Item(name=NAME, delta=INT64)


def _sum_add(journal: Journal, args: list[Any], _result: Any) -> bool:
    name, delta, ttl_ms = args
    if ttl_ms is not None:
        return False
    journal.add_sum(name, delta)
    return True


@command(
    "counter.add",
    Effect.WRITE,
    params=[_name, Param("delta", INT64, 1), Param("ttl_ms", TTL_MS, None)],
    returns="int",
    key="name",
    right="service",
    summary="Adds delta and returns the new value; ttl_ms runs from the counter's creation.",
    coalesce=_sum_add,
)
def add(store: Store, ctx: Context, name: str, delta: int, ttl_ms: int | None) -> int:
    return store.counters.add(ctx.now, name, delta, ttl_ms)


def _applied(value: Any) -> bool:
    return type(value) is not Failed


def _sum_add_many(journal: Journal, args: list[Any], result: Any) -> bool:
    for item, value in zip(args[0], result["values"], strict=True):
        if _applied(value):
            journal.add_sum(*item)
    return True


@command(
    "counter.add_many",
    Effect.WRITE,
    params=[Param("items", VECTOR, doc="[[name, delta], ...]")],
    returns=VALUES,
    items="items",
    right="service",
    summary="Adds to many counters in order; a failed item is {error} in its place.",
    coalesce=_sum_add_many,
)
def add_many(store: Store, ctx: Context, items: list[Any]) -> dict[str, Any]:
    now = ctx.now
    counters = store.counters
    values = each(items, lambda item: add_item(counters, now, item))
    if not ctx.replaying:
        ctx.log_as([item for item, value in zip(items, values, strict=True) if _applied(value)])
    return {"values": values}


def add_item(counters: Counters, now: int, item: Any) -> int:
    """One [name, delta] of a vector."""
    name, delta = _DELTA.read(item)
    return counters.add(now, name, delta)


@command(
    "counter.add_within",
    Effect.WRITE,
    params=[
        _name,
        Param("delta", INT64),
        Param("min", INT64, None),
        Param("max", INT64, None),
        Param("on_limit", one_of("reject", "clamp"), "reject"),
    ],
    returns=WITHIN,
    key="name",
    right="service",
    summary="Adds delta only as far as the value stays within min and max.",
)
def add_within(
    store: Store, ctx: Context, name: str, delta: int, low: int | None, high: int | None, mode: str
) -> dict[str, int]:
    value, applied = store.counters.add_within(
        ctx.now, name, delta, low, high, clamp=mode == "clamp"
    )
    return {"value": value, "applied": applied}


@command(
    "counter.get",
    Effect.READ,
    params=[_name],
    returns="int",
    key="name",
    right="service",
    summary="The value; 0 for a counter that does not exist.",
)
def get(store: Store, ctx: Context, name: str) -> int:
    return store.counters.get(ctx.now, name)


@command(
    "counter.get_many",
    Effect.READ,
    params=[Param("names", NAMES)],
    returns=VALUES,
    items="names",
    right="service",
    summary="The values of many counters, in the order asked.",
)
def get_many(store: Store, ctx: Context, names: list[str]) -> dict[str, Any]:
    return {"values": [store.counters.get(ctx.now, name) for name in names]}


@command(
    "counter.set",
    Effect.WRITE,
    params=[_name, Param("value", INT64)],
    returns="int",
    key="name",
    right="service",
    summary="Gives the counter a value; a running time to live goes on.",
)
def set_value(store: Store, ctx: Context, name: str, value: int) -> int:
    return store.counters.set(ctx.now, name, value)


@command(
    "counter.list",
    Effect.READ,
    params=[
        Param("prefix", PREFIX, ""),
        Param("after", NAME, None),
        Param("limit", LIMIT, LIST_DEFAULT),
    ],
    returns=COUNTERS,
    items="limit",
    right="service",
    summary="Counters whose name begins with prefix, by name; next is the after of the next page.",
)
def list_counters(
    store: Store, ctx: Context, prefix: str, after: str | None, limit: int
) -> dict[str, Any]:
    rows, following = store.counters.page(ctx.now, prefix, after, limit)
    kept = fitting(rows, lambda row: name_bytes(row[0]))
    if len(kept) < len(rows):
        following = kept[-1][0]
    return {"items": [{"name": name, "value": value} for name, value in kept], "next": following}


@command(
    "counter.delete",
    Effect.WRITE,
    params=[_name],
    returns=DELETED,
    key="name",
    right="service",
    summary="Deletes a counter; deleted is false where there was none.",
)
def delete(store: Store, ctx: Context, name: str) -> dict[str, bool]:
    return {"deleted": store.counters.delete(ctx.now, name)}
