"""channel.*: publish and subscribe, with a bounded history and positions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, get_args

from rtserver.commands.context import Context
from rtserver.commands.kinds import (
    BOOL,
    CHANNEL,
    DATA,
    LIMIT,
    NAME,
    SINCE,
    TIME_MAX,
    UINT,
    VECTOR,
    WATCHABLE,
    Kind,
    Shape,
    at_most,
    one_of,
)
from rtserver.commands.paging import fitting, name_bytes
from rtserver.commands.table import Effect, Param, command
from rtserver.commands.vector import Failed, Item, each
from rtserver.config import ChannelKind, Role
from rtserver.errors import CONFLICT, LIMIT_REACHED, NOT_FOUND, RtError
from rtserver.limits import LIST_DEFAULT, PRESENCE_EVENTS_MAX, REPLY_BYTES_MAX
from rtserver.session.messages import message_bytes, message_map
from rtserver.state.channels import UNNUMBERED, Message
from rtserver.state.store import Store
from rtserver.wire.codec import pack

POSITION = Shape("Published", offset="int", epoch="text")
POSITIONS = Shape("PublishedMany", items="[Published]")
MESSAGE = Shape("Message", offset="int", data="data", at="int", key="text?", sender="text?")
SUBSCRIBED = Shape(
    "Subscribed",
    **{
        "class": "text",
        "epoch": "text",
        "offset": "int",
        "recovered": "bool",
        "messages": "[Message]",
        "state": "data?",
        "presence": "PresenceCount?",
    },
)
PRESENT_COUNT = Shape("PresenceCount", count="int")
PRESENT = Shape("Present", user="text", devices="int", since="int")
PRESENCE = Shape("PresencePage", users="[Present]", count="int", anonymous="int", next="text?")
UNSUBSCRIBED = Shape("Unsubscribed", unsubscribed="bool")
HISTORY = Shape("History", messages="[Message]", epoch="text?", offset="int", next="int?")

RULES = Shape(
    "NamespaceRules",
    **{
        "namespace": "text",
        "class": "text",
        "history_count": "int",
        "history_bytes": "int",
        "history_ms": "int",
        "idle_ms": "int",
        "subscribe": "text",
        "publish": "text",
        "presence": "text",
        "presence_events_max": "int",
    },
)
ROLE = one_of(*get_args(Role))

_HISTORY_COUNT_MAX = 1_000_000
_IDLE_MIN_MS = 1_000
_CONFIGURABLE = (
    "kind",
    "history_count",
    "history_bytes",
    "history_ms",
    "idle_ms",
    "subscribe",
    "publish",
    "presence",
    "presence_events_max",
)

_channel = Param("channel", CHANNEL)
_watchable = Param("channel", WATCHABLE)


_PUBLICATION = Item(
    channel=CHANNEL, data=DATA, key=Kind("name?", "str | None", NAME.check, optional=True)
)


@command(
    "channel.publish",
    Effect.WRITE,
    params=[_channel, Param("data", DATA), Param("key", NAME, None)],
    returns=POSITION,
    key="channel",
    right="anonymous",
    access="publish",
    summary="Publishes data to all who subscribe, and to the history unless it is transient.",
)
def publish(store: Store, ctx: Context, channel: str, data: Any, key: str | None) -> dict[str, Any]:
    offset, epoch = store.channels.publish(ctx.now, channel, pack(data), key, ctx.user)
    if offset == UNNUMBERED:
        ctx.log_nothing()
    return {"offset": offset, "epoch": epoch}


@command(
    "channel.publish_many",
    Effect.WRITE,
    params=[Param("items", VECTOR, doc="[[channel, data, key?], ...]")],
    returns=POSITIONS,
    items="items",
    right="anonymous",
    access="publish",
    summary="Publishes many messages in order; a failed item is {error} in its place.",
)
def publish_many(store: Store, ctx: Context, items: list[Any]) -> dict[str, Any]:
    def one(item: Any) -> dict[str, Any]:
        channel, data, key = _PUBLICATION.read(item)
        ctx.need_access("publish", "channel.publish", channel)
        offset, epoch = store.channels.publish(ctx.now, channel, pack(data), key, ctx.user)
        return {"offset": offset, "epoch": epoch}

    results = each(items, one)
    if not ctx.replaying and not all(map(_is_kept, results)):
        kept = [item for item, result in zip(items, results, strict=True) if _is_kept(result)]
        ctx.log_as(kept)  # also none of them: a key or a source has the call logged all the same
        if not kept:
            ctx.log_nothing()
    return {"items": results}


def _is_kept(result: Any) -> bool:
    """Whether an item failed neither nor was transient: then it is logged."""
    return type(result) is not Failed and result["offset"] != UNNUMBERED


@command(
    "channel.subscribe",
    Effect.SESSION,
    params=[_watchable, Param("since", SINCE, None), Param("presence", BOOL, False)],
    returns=SUBSCRIBED,
    key="channel",
    cost=5,
    right="anonymous",
    access="subscribe",
    summary="Begins pushes of a channel; with since, what came after that position comes first.",
)
def subscribe(
    _store: Store, ctx: Context, channel: str, since: Any, presence: bool
) -> dict[str, Any]:
    return subscribe_within(ctx, channel, since, REPLY_BYTES_MAX, presence=presence)


def subscribe_within(
    ctx: Context, name: str, since: Any, bytes_max: int, *, presence: bool = False
) -> dict[str, Any]:
    """Subscribes the caller; the messages of the reply are at most so many bytes."""
    _check_rights(ctx, name, presence=presence)
    ctx.host.blocks.check(ctx.user, name, ctx.now)
    connection = ctx.connection
    _check_room(ctx, name)
    if name.startswith("$"):
        settled = not ctx.host.unsettled
        return ctx.router.watch(connection, name, ctx.now, since, bytes_max, settled=settled)
    if not ctx.host.keeps(name):
        return ctx.router.listen(connection, name, presence=presence)
    channel = ctx.host.open_channel(name)
    return ctx.router.subscribe(connection, channel, since, bytes_max, presence=presence)


def _check_rights(ctx: Context, name: str, *, presence: bool) -> None:
    ctx.need_access("subscribe", "channel.subscribe", name)
    if presence:
        ctx.need_access("presence", "channel.presence", name)


def drop_forbidden(ctx: Context) -> None:
    """Ends the subscriptions that the caller, who may do less than before, may not have now."""
    connection = ctx.connection
    for name, subscription in list(connection.subscriptions.items()):
        try:
            _check_rights(ctx, name, presence=subscription.presence)
        except RtError as error:
            ctx.router.dismiss(connection, name, error.kind, error.message)


def _check_hears(ctx: Context) -> None:
    if not ctx.connection.pushes:
        raise RtError(
            CONFLICT,
            "an HTTP call cannot hear; open /v1/stream, /v1/poll or a WebSocket for that",
        )


def _check_room(ctx: Context, name: str) -> None:
    _check_hears(ctx)
    connection = ctx.connection
    bound = ctx.host.subscriptions_max
    if name not in connection.subscriptions and len(connection.subscriptions) >= bound:
        raise RtError(
            LIMIT_REACHED,
            f"this connection has {bound} subscriptions, the most it may have"
            " (limits.subscriptions_per_connection_max)",
        )


def follow(
    ctx: Context, channels: Mapping[str, Any], presence: Collection[str] = ()
) -> dict[str, Any]:
    """Subscribes the caller to each channel from where it says, to joins and leaves of those in
    `presence`: the replies, or {error} in their place. All together stay below the reply limit."""
    share = REPLY_BYTES_MAX // max(1, len(channels))

    def one(item: tuple[str, Any]) -> dict[str, Any]:
        name, since = item
        return subscribe_within(ctx, name, since, share, presence=name in presence)

    return dict(zip(channels, each(list(channels.items()), one), strict=True))


@command(
    "channel.unsubscribe",
    Effect.SESSION,
    params=[_watchable],
    returns=UNSUBSCRIBED,
    key="channel",
    right="anonymous",
    summary="Ends the pushes of a channel; unsubscribed is false where there were none.",
)
def unsubscribe(_store: Store, ctx: Context, channel: str) -> dict[str, bool]:
    _check_hears(ctx)
    return {"unsubscribed": ctx.router.unsubscribe(ctx.connection, channel)}


@command(
    "channel.history",
    Effect.READ,
    params=[
        _watchable,
        Param("after", UINT, None),
        Param("before", UINT, None),
        Param("limit", LIMIT, LIST_DEFAULT),
    ],
    returns=HISTORY,
    key="channel",
    items="limit",
    right="anonymous",
    access="subscribe",
    summary="Messages in ascending order: the first after an offset, or the last before one.",
)
def history(
    _store: Store, ctx: Context, name: str, after: int | None, before: int | None, limit: int
) -> dict[str, Any]:
    stream = ctx.router.readable(name)
    if stream is None:
        if name[0] == "$":
            raise RtError(NOT_FOUND, f"{name!r} is no list that somebody follows: subscribe to it")
        return {"messages": [], "epoch": None, "offset": 0, "next": None}
    released = ctx.router.released(stream)
    first = stream.history.first_offset
    end = released if before is None else min(released, before - 1)
    start = max(first - 1, end - limit if after is None else after)
    found = stream.history.read(start, limit, end)
    kept = _within(found, newest=after is None)
    following: int | None = None
    if kept and after is not None and kept[-1].offset < end:
        following = kept[-1].offset
    elif kept and after is None and kept[0].offset > first:
        following = kept[0].offset
    return {
        "messages": [message_map(message) for message in kept],
        "epoch": ctx.router.epoch(stream),
        "offset": released,
        "next": following,
    }


def _within(messages: list[Message], *, newest: bool) -> list[Message]:
    """As many as fit into a reply (at least one), from the newest or the oldest end."""
    total = 0
    ordered = reversed(messages) if newest else iter(messages)
    for count, message in enumerate(ordered):
        total += message_bytes(message)
        if total > REPLY_BYTES_MAX and count:
            return messages[-count:] if newest else messages[:count]
    return messages


@command(
    "channel.presence",
    Effect.READ,
    params=[_channel, Param("after", NAME, None), Param("limit", LIMIT, LIST_DEFAULT)],
    returns=PRESENCE,
    key="channel",
    items="limit",
    right="anonymous",
    access="presence",
    summary="Users who are on a channel, by name; next is the after of the next page.",
)
def presence(
    _store: Store, ctx: Context, name: str, after: str | None, limit: int
) -> dict[str, Any]:
    here = ctx.router.presence
    rows, following = here.page(name, after, limit)
    kept = fitting(rows, lambda row: name_bytes(row["user"]))
    if len(kept) < len(rows):
        following = kept[-1]["user"]
    return {
        "users": kept,
        "count": here.count(name),
        "anonymous": here.anonymous(name),
        "next": following,
    }


@command(
    "channel.configure",
    Effect.WRITE,
    params=[
        Param("namespace", NAME),
        Param("class", one_of(*get_args(ChannelKind)), None),
        Param("history_count", at_most(_HISTORY_COUNT_MAX), None),
        Param("history_bytes", UINT, None),
        Param("history_ms", at_most(TIME_MAX, 0), None),
        Param("idle_ms", at_most(TIME_MAX, _IDLE_MIN_MS), None),
        Param("subscribe", ROLE, None),
        Param("publish", ROLE, None),
        Param("presence", ROLE, None),
        Param("presence_events_max", at_most(PRESENCE_EVENTS_MAX, 0), None),
        Param("reset", BOOL, False, doc="first forget what earlier calls changed"),
    ],
    returns=RULES,
    key="namespace",
    right="admin",
    summary="Changes how the channels of a namespace behave; answers all that is in force.",
)
def configure(store: Store, _ctx: Context, namespace: str, *values: Any) -> dict[str, Any]:
    *fields, reset = values
    changes = {
        name: value for name, value in zip(_CONFIGURABLE, fields, strict=True) if value is not None
    }
    if reset:
        store.settings.configure(namespace, {})
    if changes:
        store.settings.configure(namespace, changes)
    rules = store.settings.namespace_rules(namespace)._asdict()
    return {"namespace": namespace, "class": rules.pop("kind"), **rules}
