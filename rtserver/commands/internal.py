"""Commands that only the server itself issues: deadlines, settings, epochs, sums, totals.

They are rows like any other, so what the server decides is logged and replayed the same way.
"""

from __future__ import annotations

from typing import Any

from rtserver.commands.context import Context
from rtserver.commands.journal import SUM_METHOD
from rtserver.commands.kinds import CHANNEL, DATA, NAME, NAMES, UINT, VECTOR
from rtserver.commands.table import Effect, Param, command
from rtserver.state.store import Store

__all__: list[str] = []


class TotalsDiffer(Exception):
    """Replay gave another state than the one that was logged."""


@command(
    SUM_METHOD,
    Effect.WRITE,
    params=[Param("items", VECTOR, doc="[[name, delta], ...]")],
    returns="data",
    right="internal",
    summary="The plain increments of one turn, summed up per counter.",
)
def counter_sum(store: Store, ctx: Context, items: list[Any]) -> None:
    add = store.counters.add
    now = ctx.now
    for name, delta in items:
        add(now, name, delta)


@command(
    "timers.fire",
    Effect.WRITE,
    params=[Param("count", UINT)],
    returns="data",
    right="internal",
    summary="Fires the next deadlines; which ones follows from the state and the time.",
)
def fire_timers(store: Store, ctx: Context, count: int) -> None:
    store.fire_timers(ctx.now, count)


@command(
    "channel.open",
    Effect.WRITE,
    params=[Param("channel", CHANNEL)],
    returns="data",
    key="channel",
    right="internal",
    summary="Begins a channel that somebody subscribed to before the first message.",
)
def open_channel(store: Store, ctx: Context, channel: str) -> None:
    store.channels.open(ctx.now, channel)


@command(
    "channel.forget",
    Effect.WRITE,
    params=[Param("channel", CHANNEL)],
    returns="data",
    key="channel",
    right="internal",
    summary="Drops an idle, empty channel that nobody listens to.",
)
def forget_channel(store: Store, ctx: Context, channel: str) -> None:
    store.channels.forget(ctx.now, channel)


@command(
    "channel.era",
    Effect.WRITE,
    params=[Param("era", NAME)],
    returns="data",
    right="internal",
    summary="Gives every channel a new epoch, because what was lost cannot be known.",
)
def new_era(store: Store, _ctx: Context, era: str) -> None:
    store.channels.new_era(era)


@command(
    "settings.apply",
    Effect.WRITE,
    params=[Param("values", DATA)],
    returns="data",
    right="internal",
    summary="The configuration that commands read, when it differs from what was in force.",
)
def apply_settings(store: Store, _ctx: Context, values: dict[str, Any]) -> None:
    store.settings.apply(values)


@command(
    "presence.seen",
    Effect.WRITE,
    params=[Param("rows", VECTOR, doc="[[user, ms], ...]"), Param("forget", UINT, None)],
    returns="data",
    right="internal",
    summary="When users were seen last, and how many of the longest unseen gave way for them.",
)
def note_seen(store: Store, ctx: Context, rows: list[Any], forget: int | None) -> None:
    store.last_seen.note(rows)
    if forget is None:
        forget = store.last_seen.excess()
        ctx.log_as(rows, forget)
    store.last_seen.forget(forget)


@command(
    "sale.abandon",
    Effect.WRITE,
    params=[Param("name", NAME), Param("users", NAMES)],
    returns="data",
    key="name",
    right="internal",
    summary="Takes their places in a queue from users who have been gone for too long.",
)
def abandon_places(store: Store, ctx: Context, name: str, users: list[str]) -> None:
    store.sales.find(name).abandon(ctx.now, users)


@command(
    "log.totals",
    Effect.WRITE,
    params=[Param("totals", DATA)],
    returns="data",
    right="internal",
    summary="The totals of the state when a segment of the log was closed; replay must agree.",
)
def totals(store: Store, ctx: Context, logged: dict[str, Any]) -> None:
    if ctx.replaying and store.totals() != logged:
        raise TotalsDiffer(f"replay gave {store.totals()}, logged were {logged}")
