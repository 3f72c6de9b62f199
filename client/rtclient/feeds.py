"""Channels that this client follows: one server subscription each, however many read it here.

Promises: replies and pushes of a connection come in order, and all that moves a position is done
right when they arrive; so a reader neither misses nor repeats a message, whether she joins, falls
behind or the connection changes under her. The last one who leaves ends the server's
subscription.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Mapping
from typing import Any

from rtclient.command import Command, Effect
from rtclient.decode import error_of
from rtclient.errors import Error
from rtclient.ledger import Ledger
from rtclient.options import Since
from rtclient.results import Message
from rtclient.subscription import Subscription, message_of

__all__ = ["Feed", "Feeds"]

_UNSUBSCRIBE: Command[Any] = Command("channel.unsubscribe", Effect.READ)


class Feed:
    """One channel: its present epoch, and the last offset that came."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.epoch = ""
        self.offset = 0
        self.is_open = False  # the subscribe reply came
        self.opening: asyncio.Future[None]
        self.readers: list[Subscription] = []

    def opened(self, reader: Subscription, since: Since | None, raw: dict[str, Any]) -> None:
        """The subscribe reply, with the reader for whom it was asked."""
        self.is_open = True
        messages = self._go_on(raw)
        if since is None or isinstance(since, Mapping):
            reader.begin(self.epoch, messages[0].offset - 1 if messages else self.offset)
            reader.resume(self.epoch, self.offset, messages, None)
            reader.recovered = False  # nothing was asked for
        else:
            reader.begin(*since)
            reader.resume(self.epoch, self.offset, messages, _why_lost(since, raw))

    def resumed(self, raw: dict[str, Any]) -> None:
        """The reply of a new connection to the position we had."""
        lost = _why_lost((self.epoch, self.offset), raw)
        messages = self._go_on(raw)
        for reader in self.readers:
            reader.resume(self.epoch, self.offset, messages, lost)

    def message(self, push: dict[str, Any], size: int) -> None:
        """A push. One of an earlier subscription finds nobody here who has begun to read."""
        offset = push["offset"]
        if offset <= self.offset:
            return
        self.offset = offset
        message = message_of(push, self.channel)
        for reader in self.readers:
            reader.put(message, size)

    def _go_on(self, raw: dict[str, Any]) -> list[Message]:
        """Takes over a reply's position; its messages."""
        self.epoch = raw["epoch"]
        self.offset = raw["offset"]
        return [message_of(one, self.channel) for one in raw["messages"]]


def _why_lost(asked: tuple[str, int], raw: dict[str, Any]) -> str | None:
    """Why the position asked for means nothing any more; None where it still does, even if the
    history has moved past it."""
    epoch, offset = asked
    if raw["epoch"] != epoch:
        return "the channel has another epoch than this position"
    if not raw["recovered"] and raw["offset"] < offset:
        return "the channel ends before this position"
    return None


class Feeds:
    """All channels of one client."""

    def __init__(self, ledger: Ledger, loop: asyncio.AbstractEventLoop) -> None:
        self.ledger = ledger
        self.loop = loop
        self._feeds: dict[str, Feed] = {}

    def __len__(self) -> int:
        """Channels that are followed."""
        return len(self._feeds)

    # --- from the link ---

    def message(self, push: dict[str, Any], size: int) -> None:
        feed = self._feeds.get(push["channel"])
        if feed is not None:
            feed.message(push, size)

    def positions(self) -> dict[str, tuple[str, int]]:
        """Where each channel is to be resumed."""
        return {
            name: (feed.epoch, feed.offset) for name, feed in self._feeds.items() if feed.is_open
        }

    def resume(self, channels: dict[str, Any]) -> None:
        """The new connection goes on from these replies to our positions."""
        for name, raw in channels.items():
            feed = self._feeds.get(name)
            if feed is None or not feed.is_open:
                continue  # left meanwhile, perhaps joined again: that subscribe is still to come
            if "error" in raw:
                self._end(feed, error_of(raw["error"]))
            else:
                feed.resumed(raw)

    def end(self, error: Error | None) -> None:
        """The client ended."""
        for feed in list(self._feeds.values()):
            self._end(feed, error)

    def _end(self, feed: Feed, error: Error | None) -> None:
        del self._feeds[feed.channel]
        for reader in feed.readers:
            reader.end(error)

    # --- from subscriptions ---

    async def join(self, reader: Subscription, since: Since | None) -> None:
        """Makes her a reader of the channel, at the position asked for. Raises the refusal; she
        leaves in any case."""
        feed = self._feeds.get(reader.channel)
        first = feed is None
        if feed is None:
            feed = self._open(reader, since)
        feed.readers.append(reader)
        reader.feed = feed
        if not feed.is_open:
            await asyncio.shield(feed.opening)
        if not first:
            await reader.catch_up(feed, since)

    def _open(self, reader: Subscription, since: Since | None) -> Feed:
        feed = Feed(reader.channel)
        opened = functools.partial(feed.opened, reader, since)
        command = Command("channel.subscribe", Effect.READ, opened)
        feed.opening = self.ledger.call(command, (reader.channel, since), {})
        feed.opening.add_done_callback(_noticed)
        self._feeds[reader.channel] = feed
        return feed

    def leave(self, reader: Subscription) -> None:
        """The last one who leaves unsubscribes."""
        feed, reader.feed = reader.feed, None
        if feed is None:
            return
        feed.readers.remove(reader)
        if feed.readers or self._feeds.get(feed.channel) is not feed:
            return
        del self._feeds[feed.channel]
        with contextlib.suppress(Error, RuntimeError):
            left = self.ledger.call(_UNSUBSCRIBE, (feed.channel,), {})
            left.add_done_callback(_noticed)


def _noticed(future: asyncio.Future[Any]) -> None:
    """Its error, if any, is told elsewhere or to nobody."""
    if not future.cancelled():
        future.exception()
