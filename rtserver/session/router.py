"""Who hears what: subscriptions, released offsets, and readers who are behind.

Promises: a subscriber gets every message of a `must` channel from its position on, in order,
once; or it is told what is missing. No message is shown before its block is written, nor before
the sync where its command asked for one: a channel's released offset stops before the first
message that still waits, and subscribe, history and push all end there. A reader who is behind
is a cursor into the channel's history, not a queue of copies. Messages of one
channel that leave together are encoded once per form, however many subscribe, and cost each
subscriber one list append.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rtserver.errors import CLOSE_SLOW
from rtserver.metrics import Metrics
from rtserver.session.connection import Connection, Form, Subscription
from rtserver.session.messages import encode_message, message_bytes, message_map
from rtserver.state.channels import Channel, ChannelIdle, Channels, Message

__all__ = ["Router"]


_PAGE = 1_000
_PART_BYTES = 64 * 1024  # of messages that leave in one piece, about
_FOLLOWER_SHARE = 8  # of what a push costs, where the one before it was to the same subscribers

# What a held message waits for, while the block of its turn is not written yet; after that it is
# the sequence number to be synced, or 0 where it only waits behind others.
_NEEDS_SYNC = -1
_NEEDS_WRITE = -2


class Router:
    """All subscriptions of the process."""

    __slots__ = (
        "_audience",
        "_behind",
        "_channels",
        "_held",
        "_idle",
        "_metrics",
        "_ready",
        "_subscribers",
        "subscriptions",
    )

    def __init__(self, channels: Channels, metrics: Metrics) -> None:
        self._channels = channels
        self._metrics = metrics
        self._subscribers: dict[str, dict[Connection, Subscription]] = {}
        self._behind: dict[Connection, dict[Subscription, None]] = {}
        self._audience = 0  # subscribers of the messages taken since somebody asked
        self._ready: list[Message] = []  # leave at the end of this turn
        # Messages of a channel that wait for a sync, or behind one that does.
        self._held: dict[str, deque[tuple[Message, int]]] = {}
        self._idle: list[str] = []
        self.subscriptions = 0

    # --- events of the state ---

    def take(self, events: list[Any], *, synced: bool) -> None:
        """What a command did. `synced`: its pushes wait for the sync of this turn's block."""
        for event in events:
            if type(event) is Message:
                self._take_message(event, synced)
            elif type(event) is ChannelIdle:
                self._idle.append(event.channel)
        events.clear()

    def _take_message(self, message: Message, synced: bool) -> None:
        self._metrics.messages_published += 1
        audience = len(self._subscribers.get(message.channel, ()))
        # What follows a message of its own channel leaves in the same piece.
        follows = bool(self._ready) and self._ready[-1].channel == message.channel
        self._audience += audience // _FOLLOWER_SHARE if follows else audience
        held = self._held.get(message.channel)
        if held is not None:
            held.append((message, _NEEDS_SYNC if synced else _NEEDS_WRITE))
        elif synced:
            self._held[message.channel] = deque([(message, _NEEDS_SYNC)])
        else:
            self._ready.append(message)

    def take_audience(self) -> int:
        """How many pushes were caused since the last call: they cost time too."""
        audience, self._audience = self._audience, 0
        return audience

    def take_idle(self) -> list[str]:
        """Idle channels that nobody listens to, once each."""
        idle = [name for name in self._idle if name not in self._subscribers]
        self._idle.clear()
        return idle

    # --- the end of a turn ---

    def written(self, seq: int) -> None:
        """The block of this turn is in the log and ends at `seq`."""
        settled = {_NEEDS_SYNC: seq, _NEEDS_WRITE: 0}
        for held in self._held.values():
            for place in range(len(held) - 1, -1, -1):
                message, due = held[place]
                if due >= 0:
                    break
                held[place] = (message, settled[due])
        ready, self._ready = self._ready, []
        for _, run in groupby(ready, key=_channel_of):
            self._deliver(list(run))

    def synced(self, seq: int) -> None:
        """Everything up to `seq` is on the disk: what waited for it leaves."""
        for name, held in list(self._held.items()):
            run: list[Message] = []
            while held and 0 <= held[0][1] <= seq:
                run.append(held.popleft()[0])
            if run:
                self._deliver(run)
            if not held:
                del self._held[name]

    def hold_ready(self) -> None:
        """The block of this turn could not be written yet: its messages wait for that."""
        ready, self._ready = self._ready, []
        for message in ready:
            self._held.setdefault(message.channel, deque()).append((message, _NEEDS_WRITE))

    @property
    def holds(self) -> bool:
        """Whether messages wait for a sync."""
        return bool(self._held)

    def released(self, channel: Channel) -> int:
        """The last offset that may be shown."""
        held = self._held.get(channel.name)
        return channel.history.top if not held else held[0][0].offset - 1

    def _deliver(self, run: list[Message]) -> None:
        """Messages of one channel, in order, to all who are live on it."""
        subscribers = self._subscribers.get(run[0].channel)
        if subscribers:
            for part in _parts(run):
                self._deliver_part(subscribers, part)

    def _deliver_part(
        self, subscribers: dict[Connection, Subscription], part: list[Message]
    ) -> None:
        """The same bytes to everybody, but to those who subscribed in the middle of them."""
        first, last = part[0].offset, part[-1].offset
        encoded: dict[Form, bytes] = {}
        pieces: dict[Form, list[bytes]] = {}
        delivered = 0
        for connection, subscription in subscribers.items():
            position = subscription.position
            if not subscription.live or last <= position:
                continue
            if connection.congested:
                self._fall_behind(subscription, max(position, first - 1))
                continue
            form = connection.form
            missing = len(part) if position < first else last - position
            delivered += missing
            connection.pending_messages += missing
            if connection.stamp is not None:
                each = pieces.get(form)
                if each is None:
                    each = pieces[form] = [encode_message(form, message) for message in part]
                _send_stamped(subscription, part[-missing:], each[-missing:])
                continue
            if missing < len(part):
                connection.send(_encode(form, part[-missing:]))
                continue
            data = encoded.get(form)
            if data is None:
                data = encoded[form] = _encode(form, part)
            connection.send(data)
        self._metrics.deliveries += delivered

    # --- readers who are behind ---

    def _fall_behind(self, subscription: Subscription, position: int) -> None:
        subscription.live = False
        subscription.position = position
        self._behind.setdefault(subscription.connection, {})[subscription] = None

    def _caught_up(self, subscription: Subscription) -> None:
        """It is live, or gone."""
        behind = self._behind.get(subscription.connection)
        if behind is not None:
            behind.pop(subscription, None)
            if not behind:
                del self._behind[subscription.connection]

    def catch_up(self, messages_max: int) -> None:
        """Fills the outboxes of readers who are behind from the history, with at most so many
        messages."""
        left = messages_max
        for connection in list(self._behind):
            for subscription in list(self._behind[connection]) if _takes_more(connection) else ():
                if left <= 0:
                    return
                if not _takes_more(connection):
                    break
                left -= self._catch_up(subscription, left)

    @property
    def lags(self) -> bool:
        """Whether a reader who is behind could take more now."""
        return any(map(_takes_more, self._behind))

    def _catch_up(self, subscription: Subscription, messages_max: int) -> int:
        """The messages sent; fewer than the most when it has caught up or is congested."""
        connection = subscription.connection
        channel = self._channels.get(subscription.channel)
        if channel is None or subscription.position + 1 < channel.history.first_offset:
            connection.close(
                CLOSE_SLOW,
                f"the history of {subscription.channel} has moved past offset"
                f" {subscription.position}, where you were reading",
            )
            return 0
        released = self.released(channel)
        sent = 0
        for message in channel.history.read(subscription.position, messages_max, released):
            if connection.congested:
                break
            _send_stamped(subscription, [message], [encode_message(connection.form, message)])
            connection.pending_messages += 1
            sent += 1
        self._metrics.deliveries += sent
        if subscription.position >= released:
            subscription.live = True
            self._caught_up(subscription)
        return sent

    # --- subscribing ---

    def subscribe(
        self, connection: Connection, channel: Channel, since: Any, bytes_max: int
    ) -> dict[str, Any]:
        """The subscribe reply; what follows its offset comes as pushes."""
        released = self.released(channel)
        epoch = self._channels.epoch(channel)
        position, recovered = _start(since, epoch, channel.history.first_offset, released)
        messages, position = self.page(channel, position, _PAGE, bytes_max)
        subscription = Subscription(connection, channel.name, position)
        self.unsubscribe(connection, channel.name)
        connection.subscriptions[channel.name] = subscription
        self._subscribers.setdefault(channel.name, {})[connection] = subscription
        self.subscriptions += 1
        if position >= released:
            subscription.live = True
        else:
            self._fall_behind(subscription, position)
        return {
            "epoch": epoch,
            "offset": position,
            "recovered": recovered,
            "messages": [message_map(message) for message in messages],
        }

    def page(
        self, channel: Channel, after: int, limit: int, bytes_max: int
    ) -> tuple[list[Message], int]:
        """Released messages after an offset, at most so many and so large, and where it ends.

        None at all where the first is larger: subscribers get it as a push.
        """
        messages = channel.history.read(after, limit, self.released(channel))
        position = max(after, channel.history.first_offset - 1)
        total = 0
        for count, message in enumerate(messages):
            total += message_bytes(message)
            if total > bytes_max:
                return messages[:count], position
            position = message.offset
        return messages, position

    def unsubscribe(self, connection: Connection, channel: str) -> bool:
        """True when it was subscribed."""
        subscription = connection.subscriptions.pop(channel, None)
        if subscription is None:
            return False
        subscribers = self._subscribers[channel]
        del subscribers[connection]
        if not subscribers:
            del self._subscribers[channel]
        self._caught_up(subscription)
        self.subscriptions -= 1
        return True

    def positions(self, connection: Connection) -> dict[str, tuple[str, int]]:
        """{channel: (epoch, offset)} of a connection with a stamp: where its reader is."""
        found = {}
        for name, subscription in connection.subscriptions.items():
            channel = self._channels.get(name)
            if channel is not None:
                found[name] = (self._channels.epoch(channel), subscription.position)
        return found

    def leave(self, connection: Connection) -> None:
        """The connection is gone."""
        for channel in list(connection.subscriptions):
            self.unsubscribe(connection, channel)


def _channel_of(message: Message) -> str:
    return message.channel


def _parts(run: list[Message]) -> Iterator[list[Message]]:
    """Messages that may be put in an outbox without a look at how full it is in between."""
    part: list[Message] = []
    size = 0
    for message in run:
        size += message_bytes(message)
        if part and size > _PART_BYTES:
            yield part
            part = []
            size = message_bytes(message)
        part.append(message)
    yield part


def _encode(form: Form, messages: list[Message]) -> bytes:
    return b"".join(encode_message(form, message) for message in messages)


def _send_stamped(
    subscription: Subscription, messages: list[Message], encoded: list[bytes]
) -> None:
    """Messages one by one, each with where the reader is after it."""
    connection = subscription.connection
    for message, data in zip(messages, encoded, strict=True):
        subscription.position = message.offset
        connection.send(data)
        if connection.stamp is not None:
            connection.send(connection.stamp())


def _takes_more(connection: Connection) -> bool:
    return connection.is_open and not connection.congested


def _start(since: Any, epoch: str, first_offset: int, released: int) -> tuple[int, bool]:
    """(the position to read on from, whether nothing is missing since the one asked for)."""
    if since is None:
        return released, False
    if isinstance(since, dict):
        return max(first_offset - 1, released - since["last"]), False
    asked_epoch, asked = since
    if asked_epoch != epoch or asked > released:
        return released, False
    if asked + 1 < first_offset:
        return first_offset - 1, False
    return asked, True
