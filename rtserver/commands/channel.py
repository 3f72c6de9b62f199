"""channel.*: publish and subscribe, with a bounded history and positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtserver.commands.context import Context
from rtserver.commands.kinds import (
    BOOL,
    CHANNEL,
    DATA,
    LIMIT,
    NAME,
    SINCE,
    UINT,
    VECTOR,
    Kind,
    Shape,
)
from rtserver.commands.table import Effect, Param, command
from rtserver.commands.vector import Failed, Item, each
from rtserver.errors import LIMIT_REACHED, RtError
from rtserver.limits import LIST_DEFAULT, REPLY_BYTES_MAX
from rtserver.session.messages import message_bytes, message_map
from rtserver.state.channels import Message
from rtserver.state.store import Store
from rtserver.wire.codec import pack

POSITION = Shape("Published", offset="int", epoch="text")
POSITIONS = Shape("PublishedMany", items="[Published]")
MESSAGE = Shape("Message", offset="int", data="data", at="int", key="text?", sender="text?")
SUBSCRIBED = Shape("Subscribed", epoch="text", offset="int", recovered="bool", messages="[Message]")
UNSUBSCRIBED = Shape("Unsubscribed", unsubscribed="bool")
HISTORY = Shape("History", messages="[Message]", epoch="text?", offset="int", next="int?")

_channel = Param("channel", CHANNEL)


_PUBLICATION = Item(
    channel=CHANNEL, data=DATA, key=Kind("name?", "str | None", NAME.check, optional=True)
)


@command(
    "channel.publish",
    Effect.WRITE,
    params=[_channel, Param("data", DATA), Param("key", NAME, None)],
    returns=POSITION,
    key="channel",
    right="service",
    summary="Publishes data to all who subscribe and to the history.",
)
def publish(store: Store, ctx: Context, channel: str, data: Any, key: str | None) -> dict[str, Any]:
    offset, epoch = store.channels.publish(ctx.now, channel, pack(data), key, ctx.user)
    return {"offset": offset, "epoch": epoch}


@command(
    "channel.publish_many",
    Effect.WRITE,
    params=[Param("items", VECTOR, doc="[[channel, data, key?], ...]")],
    returns=POSITIONS,
    items="items",
    right="service",
    summary="Publishes many messages in order; a failed item is {error} in its place.",
)
def publish_many(store: Store, ctx: Context, items: list[Any]) -> dict[str, Any]:
    def one(item: Any) -> dict[str, Any]:
        channel, data, key = _PUBLICATION.read(item)
        offset, epoch = store.channels.publish(ctx.now, channel, pack(data), key, ctx.user)
        return {"offset": offset, "epoch": epoch}

    results = each(items, one)
    if not ctx.replaying and any(type(result) is Failed for result in results):
        done = zip(items, results, strict=True)
        ctx.log_as([item for item, result in done if type(result) is not Failed])
    return {"items": results}


@command(
    "channel.subscribe",
    Effect.SESSION,
    params=[_channel, Param("since", SINCE, None), Param("presence", BOOL, False)],
    returns=SUBSCRIBED,
    key="channel",
    cost=5,
    right="user",
    summary="Begins pushes of a channel; with since, what came after that position comes first.",
)
def subscribe(
    _store: Store, ctx: Context, channel: str, since: Any, _presence: bool
) -> dict[str, Any]:
    return subscribe_within(ctx, channel, since, REPLY_BYTES_MAX)


def subscribe_within(ctx: Context, name: str, since: Any, bytes_max: int) -> dict[str, Any]:
    """Subscribes the caller; the messages of the reply are at most so many bytes."""
    ctx.need_role(ctx.host.subscribe_role(name), f"subscribing to {name!r}")
    connection = ctx.connection
    bound = ctx.host.subscriptions_max
    if name not in connection.subscriptions and len(connection.subscriptions) >= bound:
        raise RtError(
            LIMIT_REACHED,
            f"this connection has {bound} subscriptions, the most it may have"
            " (limits.subscriptions_per_connection_max)",
        )
    return ctx.router.subscribe(connection, ctx.host.open_channel(name), since, bytes_max)


def follow(ctx: Context, channels: Mapping[str, Any]) -> dict[str, Any]:
    """Subscribes the caller to each channel from where it says: the replies, or {error} in their
    place. All together stay below the reply limit."""
    share = REPLY_BYTES_MAX // max(1, len(channels))

    def one(item: tuple[str, Any]) -> dict[str, Any]:
        channel, since = item
        return subscribe_within(ctx, channel, since, share)

    return dict(zip(channels, each(list(channels.items()), one), strict=True))


@command(
    "channel.unsubscribe",
    Effect.SESSION,
    params=[_channel],
    returns=UNSUBSCRIBED,
    key="channel",
    right="user",
    summary="Ends the pushes of a channel; unsubscribed is false where there were none.",
)
def unsubscribe(_store: Store, ctx: Context, channel: str) -> dict[str, bool]:
    return {"unsubscribed": ctx.router.unsubscribe(ctx.connection, channel)}


@command(
    "channel.history",
    Effect.READ,
    params=[
        _channel,
        Param("after", UINT, None),
        Param("before", UINT, None),
        Param("limit", LIMIT, LIST_DEFAULT),
    ],
    returns=HISTORY,
    key="channel",
    items="limit",
    right="user",
    summary="Messages in ascending order: the first after an offset, or the last before one.",
)
def history(
    store: Store, ctx: Context, name: str, after: int | None, before: int | None, limit: int
) -> dict[str, Any]:
    ctx.need_role(ctx.host.subscribe_role(name), f"the history of {name!r}")
    channel = store.channels.get(name)
    if channel is None:
        return {"messages": [], "epoch": None, "offset": 0, "next": None}
    released = ctx.router.released(channel)
    first = channel.history.first_offset
    end = released if before is None else min(released, before - 1)
    start = max(first - 1, end - limit if after is None else after)
    found = channel.history.read(start, limit, end)
    kept = _within(found, newest=after is None)
    following: int | None = None
    if kept and after is not None and kept[-1].offset < end:
        following = kept[-1].offset
    elif kept and after is None and kept[0].offset > first:
        following = kept[0].offset
    return {
        "messages": [message_map(message) for message in kept],
        "epoch": store.channels.epoch(channel),
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
