"""Channels that this client follows: one server subscription each, however many read it here.

Promises: replies and pushes of a connection come in order, and all that moves a position is done
right when they arrive; so a reader neither misses nor repeats a message, whether she joins, falls
behind or the connection changes under her. Losses are told by the server (a reply's `recovered`, a
`gap` push); where messages are numbered without holes, a hole is one too. Of a watched thing the
whole state is kept, and differences are applied to it once for all readers. The last one who leaves
ends the server's subscription.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from rtclient.command import Command, Effect
from rtclient.decode import error_of
from rtclient.errors import Error
from rtclient.items import Join, Leave, message_of
from rtclient.ledger import Ledger
from rtclient.options import Since
from rtclient.results import Message
from rtclient.states import applied
from rtclient.subscription import Subscription

__all__ = ["Feed", "Feeds"]

_UNSUBSCRIBE: Command[Any] = Command("channel.unsubscribe", Effect.READ)
_OUTAGE: Final = "there was no connection, and this channel keeps no history"
_WHY: Final = {
    "slow": "this client read more slowly than the channel's messages came",
    "history": "the history has moved past this position",
    "epoch": "the channel has another epoch than this position",
}


class Feed:
    """One channel: its present epoch, and the last offset that came."""

    def __init__(self, channel: str, *, presence: bool) -> None:
        self.channel = channel
        self.epoch = ""
        self.offset = 0
        self.kind = "must"  # its class
        self.state: Message | None = None  # of a watched thing, the last one
        self.presence = presence  # joins and leaves were asked for
        self.count: int | None = None  # of users, when they were
        self.is_open = False  # the subscribe reply came
        self.opening: asyncio.Future[None]
        self.readers: list[Subscription[Any]] = []

    @property
    def is_numbered(self) -> bool:
        """Whether offsets have no holes: an inbox's are those of all notifications."""
        return self.kind == "must" and not self.channel.startswith("$inbox:")

    @property
    def has_history(self) -> bool:
        return self.kind != "transient" and self.state is None

    @property
    def since(self) -> tuple[str, int] | None:
        """Where a new subscription has to begin so that nothing is missed."""
        return (self.epoch, self.offset) if self.has_history else None

    # --- replies ---

    def opened(self, reader: Subscription[Any], since: Since | None, raw: dict[str, Any]) -> None:
        """The subscribe reply, with the reader for whom it was asked."""
        self.is_open = True
        messages = self._go_on(raw)
        if self.state is not None:
            reader.put_state(self.epoch, self.state, 0)
        elif since is None or isinstance(since, Mapping):
            reader.begin(self.epoch, messages[0].offset - 1 if messages else self.offset)
            reader.resume(self.epoch, self.offset, messages, None)
            reader.recovered = False  # nothing was asked for
        else:
            reader.begin(*since)
            reader.resume(self.epoch, self.offset, messages, self._why_lost(since, raw))

    def resumed(self, raw: dict[str, Any]) -> None:
        """The reply of a new connection to the position we had."""
        self._resumed((self.epoch, self.offset), raw, _OUTAGE)

    def renewed(self, asked: tuple[str, int] | None, raw: dict[str, Any]) -> None:
        """The reply to a second subscription on the same connection, from a position that pushes
        have moved on since."""
        self._resumed(asked or (self.epoch, self.offset), raw, None)

    def _resumed(
        self, asked: tuple[str, int], raw: dict[str, Any], transient_lost: str | None
    ) -> None:
        messages = self._go_on(raw)
        if self.state is not None:
            for reader in self.readers:
                reader.put_state(self.epoch, self.state, 0)
            return
        lost = transient_lost if self.kind == "transient" else self._why_lost(asked, raw)
        for reader in self.readers:
            reader.resume(self.epoch, self.offset, messages, lost)

    def _go_on(self, raw: dict[str, Any]) -> list[Message]:
        """Takes over a reply's position; its messages."""
        self.epoch = raw["epoch"]
        self.offset = raw["offset"]
        self.kind = raw.get("class", "must")
        state = raw.get("state")
        self.state = None
        if state is not None:
            self.state = Message(self.offset, state, raw.get("at", 0), None, None, self.channel)
        here = raw.get("presence")
        if here is not None:
            self.count = here["count"]
        return [message_of(one, self.channel) for one in raw["messages"]]

    def _why_lost(self, asked: tuple[str, int], raw: dict[str, Any]) -> str | None:
        """Why nobody can know what is missing since the position asked for; None where nothing
        is, or where offsets tell."""
        epoch, offset = asked
        if raw["epoch"] != epoch:
            return _WHY["epoch"]
        if not raw["recovered"]:
            if raw["offset"] < offset:
                return "the channel ends before this position"
            if not self.is_numbered:
                return _WHY["history"]
        return None

    # --- pushes ---

    def message(self, push: dict[str, Any], size: int) -> None:
        """A message. One of an earlier subscription finds nobody here who has begun to read."""
        offset = push.get("offset", 0)
        if offset:
            if offset <= self.offset:
                return
            self.offset = offset
        message = message_of(push, self.channel)
        if self.state is None:
            for reader in self.readers:
                reader.put(message, size)
            return
        data = applied(self.state.data, message.data)
        self.state = Message(offset, data, message.at, None, None, self.channel)
        for reader in self.readers:
            reader.put_state(self.epoch, self.state, size)

    def gap(self, push: dict[str, Any]) -> None:
        """Messages are missing that the server dropped."""
        lost, upto = push.get("lost"), push.get("to", 0)
        self.offset = max(self.offset, upto)
        if lost is None and self.is_numbered and upto:
            lost = upto - push["from"] + 1
        why = str(push.get("why", ""))
        for reader in self.readers:
            reader.miss(lost, _WHY.get(why, why), upto)

    def moved(self, kind: type[Join | Leave], push: dict[str, Any]) -> None:
        """Users came or went."""
        self.count = push["count"]
        change = kind(self.channel, tuple(push.get("users", ())), self.count or 0)
        for reader in self.readers:
            reader.put_presence(change)


class Feeds:
    """All channels of one client."""

    def __init__(self, ledger: Ledger, loop: asyncio.AbstractEventLoop) -> None:
        self.ledger = ledger
        self.loop = loop
        self._feeds: dict[str, Feed] = {}
        self._pushes: dict[str, Callable[[Feed, dict[str, Any]], None]] = {
            "gap": Feed.gap,
            "join": lambda feed, push: feed.moved(Join, push),
            "leave": lambda feed, push: feed.moved(Leave, push),
            "unsubscribed": self._unsubscribed,
        }

    def __len__(self) -> int:
        """Channels that are followed."""
        return len(self._feeds)

    # --- from the link ---

    def message(self, push: dict[str, Any], size: int) -> None:
        feed = self._feeds.get(push["channel"])
        if feed is not None and feed.is_open:
            feed.message(push, size)

    def push(self, what: str, params: Any) -> None:
        """Any other push; one that we do not know is not for us."""
        take = self._pushes.get(what)
        if take is not None:
            feed = self._feeds.get(params["channel"])
            if feed is not None and feed.is_open:
                take(feed, params)

    def positions(self) -> dict[str, tuple[str, int]]:
        """Where each channel is to be resumed."""
        return {
            name: (feed.epoch, feed.offset) for name, feed in self._feeds.items() if feed.is_open
        }

    def resume(self, channels: dict[str, Any], *, in_session: bool = True) -> None:
        """The new connection goes on from these replies to our positions. Outside of the session
        it knows only those."""
        for name, raw in channels.items():
            feed = self._feeds.get(name)
            if feed is None or not feed.is_open:
                continue  # left meanwhile, perhaps joined again: that subscribe is still to come
            if "error" in raw:
                self._end(feed, error_of(raw["error"]))
                continue
            feed.resumed(raw)
            if feed.presence and not in_session:
                self._renew(feed)

    def end(self, error: Error | None) -> None:
        """The client ended."""
        for feed in list(self._feeds.values()):
            self._end(feed, error)

    def _unsubscribed(self, feed: Feed, push: dict[str, Any]) -> None:
        self._end(feed, error_of([push["code"], push["name"], push["message"], None]))

    def _end(self, feed: Feed, error: Error | None) -> None:
        del self._feeds[feed.channel]
        for reader in feed.readers:
            reader.end(error)

    # --- from subscriptions ---

    async def join(self, reader: Subscription[Any], since: Since | None) -> None:
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
        if reader.presence and not feed.presence:
            feed.presence = True
            await self._renew(feed)
        if not first:
            await reader.catch_up(feed, since)

    def _open(self, reader: Subscription[Any], since: Since | None) -> Feed:
        feed = Feed(reader.channel, presence=reader.presence)
        opened = functools.partial(feed.opened, reader, since)
        command = Command("channel.subscribe", Effect.READ, opened)
        asked = (reader.channel, since, reader.presence or None)
        feed.opening = self.ledger.call(command, asked, {})
        feed.opening.add_done_callback(_noticed)
        self._feeds[reader.channel] = feed
        return feed

    def _renew(self, feed: Feed) -> asyncio.Future[None]:
        """Subscribes again, now with presence."""
        since = feed.since
        command = Command("channel.subscribe", Effect.READ, functools.partial(feed.renewed, since))
        renewing = self.ledger.call(command, (feed.channel, since, True), {"timeout": None})
        renewing.add_done_callback(functools.partial(self._renewed, feed))
        return renewing

    @staticmethod
    def _renewed(feed: Feed, renewing: asyncio.Future[None]) -> None:
        """Who asked for presence and may not have it hears that."""
        error = None if renewing.cancelled() else renewing.exception()
        if error is not None:
            feed.presence = False
            for reader in feed.readers:
                if reader.presence:
                    reader.end(error if isinstance(error, Error) else Error(repr(error)))

    def leave(self, reader: Subscription[Any]) -> None:
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
