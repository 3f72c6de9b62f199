"""Who hears what: subscriptions, released offsets, and readers who are behind.

Promises: a subscriber gets every message of a `must` channel from its position on, in order,
once; or it is told what is missing. No message is shown before its block is written, nor before
the sync where its command asked for one: a channel's released offset stops before the first
message that still waits (session.held), and subscribe, history and push all end there. Messages
of one channel that leave together are encoded once per form, however many subscribe, and cost
each subscriber one list append.

A reader who is behind is a cursor into the channel's history, not a queue of copies. What that
means is up to the class: of a `must` channel it gets all, or is closed when the history has moved
past it; of a `latest` one the keys that changed; of a watched thing its whole state; of a
`transient` one nothing but how many messages were dropped. Lists that the state keeps in full
(session.tails) are read as `must` channels: `Stream` is either.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice
from typing import Any

from rtserver.config import ChannelKind
from rtserver.errors import CLOSE_SLOW, NOT_FOUND, CloseKind, ErrorKind
from rtserver.limits import REPLY_BYTES_MAX
from rtserver.metrics import Metrics
from rtserver.session.connection import Connection, Form, Subscription
from rtserver.session.held import Held
from rtserver.session.messages import encode_message, message_bytes
from rtserver.session.pages import Pages
from rtserver.session.presence import Presence
from rtserver.session.sale_subjects import place_channel
from rtserver.session.sessions import Place
from rtserver.session.starts import reply_of, start_of
from rtserver.session.tails import OpenTail, Stream
from rtserver.session.watches import Watch, Watches
from rtserver.state.channels import UNNUMBERED, ChannelIdle, Channels, Message
from rtserver.state.sales.sale import PlaceChanged

__all__ = ["Router"]

_PART_BYTES = 64 * 1024  # of messages that leave in one piece, about
_FOLLOWER_SHARE = 8  # of what a push costs, where the one before it was to the same subscribers
_ENDED_PER_LOOK = 500  # readers of a tail that is no more
_RUN_MAX = 500  # messages of a tail that are told at once; more are read one reader at a time
_TAIL_COST = 4  # so many messages of a history cost as much as one of a tail, which is made anew
_UNNUMBERED_POSITION = UNNUMBERED - 1  # of a subscriber to a transient channel: before them all


class Router:
    """All subscriptions of the process."""

    __slots__ = (
        "_audience",
        "_behind",
        "_channels",
        "_held",
        "_idle",
        "_metrics",
        "_pages",
        "_ready",
        "_settling",
        "_subscribers",
        "_unsent",
        "presence",
        "subscriptions",
        "watches",
    )

    def __init__(
        self, channels: Channels, metrics: Metrics, watches: Watches, presence: Presence
    ) -> None:
        self.watches = watches
        self.presence = presence
        self.subscriptions = 0
        self._channels = channels
        self._metrics = metrics
        self._pages = Pages(metrics)
        self._subscribers: dict[str, dict[Connection, Subscription]] = {}
        self._behind: dict[Connection, dict[Subscription, None]] = {}
        self._audience = 0  # subscribers of the messages taken since somebody asked
        self._ready: list[Message] = []  # leave at the end of this turn
        self._unsent: dict[str, int] = {}  # channel -> the first offset of these
        self._held = Held()
        # Tails with news that wait for a sync: up to which offset, and for which one.
        self._settling: dict[str, tuple[OpenTail, int, int]] = {}
        self._idle: list[str] = []

    # --- events of the state ---

    def take(self, events: list[Any], *, synced: bool) -> None:
        """What a command did. `synced`: its pushes wait for the sync of this turn's block."""
        for event in events:
            if type(event) is Message:
                self._take_message(event, synced)
            elif type(event) is PlaceChanged:
                if self.watches:
                    self.watches.wake(place_channel(event.sale, event.user))
            elif type(event) is ChannelIdle:
                self._idle.append(event.channel)
        events.clear()

    def _take_message(self, message: Message, synced: bool) -> None:
        self._metrics.messages_published += 1
        audience = len(self._subscribers.get(message.channel, ()))
        # What follows a message of its own channel leaves in the same piece.
        follows = bool(self._ready) and self._ready[-1].channel == message.channel
        self._audience += audience // _FOLLOWER_SHARE if follows else audience
        if synced or message.channel in self._held:
            self._held.keep(message, synced=synced)
        else:
            self._ready.append(message)
            if not follows and message.offset != UNNUMBERED:
                self._unsent.setdefault(message.channel, message.offset)

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
        self._held.written(seq)
        for _, run in groupby(self._take_ready(), key=_channel_of):
            self._deliver(list(run))

    def synced(self, seq: int) -> None:
        """Everything up to `seq` is on the disk: what waited for it leaves."""
        for run in self._held.take(seq):
            self._deliver(run)
        for tail, top, due in list(self._settling.values()):
            if due <= seq:
                del self._settling[tail.name]
                if not tail.is_over:  # else the next look ends it
                    self._release(tail, top)

    def hold_ready(self) -> None:
        """The block of this turn could not be written yet: its messages wait for that."""
        for message in self._take_ready():
            self._held.keep(message, synced=False)

    def _take_ready(self) -> list[Message]:
        ready, self._ready = self._ready, []
        self._unsent.clear()
        return ready

    def tell_presence(self, now: int) -> None:
        """Tells of joins and leaves, and has the state of users looked at where it changed."""
        if self.presence.flush(now):
            self.watches.touch()

    def look(self, monotonic_ms: int, now: int, unsynced_seq: int) -> None:
        """Tells what changed of watched things, or keeps that until `unsynced_seq` is synced,
        unless it is 0: it may show the effect of a command that waits for its sync."""
        for change in self.watches.look(monotonic_ms, now, self._is_held):
            if isinstance(change, OpenTail):
                self._look_at_tail(change, unsynced_seq)
            elif unsynced_seq:
                self._held.keep_until(change, unsynced_seq)
            else:
                self._deliver([change])

    def _look_at_tail(self, tail: OpenTail, unsynced_seq: int) -> None:
        """It may be found twice in one look: when it was woken, and in its round."""
        if self.watches.get(tail.name) is not tail or not tail.may_show_more:
            return
        if tail.is_over:
            self._end(tail)
        elif unsynced_seq:
            self._settling[tail.name] = (tail, tail.history.top, unsynced_seq)
        else:
            self._release(tail, tail.history.top)

    def _release(self, tail: OpenTail, top: int) -> None:
        """What a tail has up to an offset may be shown: to all who are live, or, where that is
        much, to each as it reads on."""
        released, tail.released = tail.released, top
        live = [one for one in self._subscribers[tail.name].values() if one.live]
        if top - released > _RUN_MAX:
            for subscription in live:
                self._fall_behind(subscription, max(subscription.position, released))
        elif live and (run := tail.history.read(released, _RUN_MAX, top)):
            self._deliver(run)

    def _end(self, tail: OpenTail) -> None:
        """Its list is no more, and a slice of its readers is told."""
        name = tail.name
        for connection in list(islice(self._subscribers[name], _ENDED_PER_LOOK)):
            self.dismiss(connection, name, NOT_FOUND, f"what {name} told is no more")
        self.watches.wake(name)  # for whoever is left

    def _is_held(self, name: str) -> bool:
        return name in self._held or name in self._settling

    @property
    def holds(self) -> bool:
        """Whether messages wait for a sync."""
        return bool(self._held) or bool(self._settling)

    def released(self, stream: Stream) -> int:
        """The last offset that may be shown."""
        if isinstance(stream, OpenTail):
            return stream.released
        first_held = self._held.first_offset(stream.name)
        return stream.history.top if first_held is None else first_held - 1

    def readable(self, name: str) -> Stream | None:
        """A channel that keeps messages, or a list of the state that somebody follows."""
        stream = self._stream(name)
        return None if isinstance(stream, OpenTail) and stream.is_over else stream

    def _stream(self, name: str) -> Stream | None:
        channel = self._channels.get(name)
        if channel is not None:
            return channel
        watched = self.watches.get(name)
        return watched if isinstance(watched, OpenTail) else None

    def _deliver(self, run: list[Message]) -> None:
        """Messages of one channel, in order, to all who are live on it."""
        subscribers = self._subscribers.get(run[0].channel)
        if subscribers:
            for part in _parts(self._conflated(run)):
                self._deliver_part(subscribers, part)

    def _conflated(self, run: list[Message]) -> list[Message]:
        """Without what a later message of the run replaces."""
        if len(run) == 1:
            return run
        channel = self._channels.get(run[0].channel)
        if channel is None or not channel.latest:
            return run
        newest = {message.key: message.offset for message in run}
        return [message for message in run if newest[message.key] == message.offset]

    def _deliver_part(
        self, subscribers: dict[Connection, Subscription], part: list[Message]
    ) -> None:
        """The same bytes to everybody, but to those who subscribed in the middle of them."""
        first, last = part[0].offset, part[-1].offset
        encoded: dict[Form, bytes] = {}
        pieces: dict[Form, list[bytes]] = {}
        number = len(part)
        numbered = first != UNNUMBERED
        delivered = 0
        for connection, subscription in subscribers.items():
            position = subscription.position
            if not subscription.live:
                if not numbered:  # behind since the class was another
                    self._overflow(subscription, part)
                continue
            if numbered and last <= position:
                continue
            form = connection.form
            if connection.stamp is not None or position >= first:
                if connection.congested:
                    self._overflow(subscription, part)
                    continue
                each = pieces.get(form)
                if each is None:
                    each = pieces[form] = [encode_message(form, message) for message in part]
                delivered += _send_each(subscription, part, each)
                continue
            data = encoded.get(form)
            if data is None:
                data = encoded[form] = _encode(form, part)
            if connection.deliver(data, number):
                delivered += number
            else:
                self._overflow(subscription, part)
        self._metrics.deliveries += delivered

    # --- readers who are behind ---

    def _overflow(self, subscription: Subscription, part: list[Message]) -> None:
        """The outbox takes no more: the reader becomes a cursor, or loses what is transient."""
        first = part[0].offset
        if first == UNNUMBERED:
            subscription.dropped += len(part)
            self._metrics.dropped += len(part)
            self._remember(subscription)
        else:
            self._fall_behind(subscription, max(subscription.position, first - 1))

    def _fall_behind(self, subscription: Subscription, position: int) -> None:
        subscription.live = False
        subscription.position = position
        self._remember(subscription)

    def _remember(self, subscription: Subscription) -> None:
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
        messages. Whoever got some is the last to get more."""
        left = messages_max
        for connection in list(self._behind):
            if left <= 0:
                return
            if not _takes_more(connection):
                continue
            for subscription in list(self._behind[connection]):
                if left <= 0 or not _takes_more(connection):
                    break
                left -= self._catch_up(subscription, left)
            behind = self._behind.pop(connection, None)
            if behind is not None:
                self._behind[connection] = behind

    @property
    def lags(self) -> bool:
        """Whether a reader who is behind could take more now."""
        return any(map(_takes_more, self._behind))

    def _catch_up(self, subscription: Subscription, messages_max: int) -> int:
        """The messages sent, as their cost; less than the most when it has caught up or is
        congested."""
        if subscription.dropped:
            self._tell_dropped(subscription)
            return 1
        watch = self.watches.get(subscription.channel)
        if isinstance(watch, Watch):
            message = watch.message(held=watch.name in self._held)
            subscription.position = message.offset - 1
            self._is_live(subscription)
            return self._follow(subscription, [message])
        stream = self.readable(subscription.channel)
        if stream is None or not self._still_there(subscription, stream):
            return 0
        released = self.released(stream)
        cost = _TAIL_COST if isinstance(stream, OpenTail) else 1
        messages_max = -(-messages_max // cost)
        found = stream.history.read(subscription.position, messages_max, released)
        sent = self._follow(subscription, found)
        if sent == len(found) < messages_max or subscription.position >= released:
            subscription.position = max(subscription.position, released)
            self._is_live(subscription)
        return sent * cost

    def _follow(self, subscription: Subscription, messages: list[Message]) -> int:
        """Messages one by one while the outbox takes them; how many it took."""
        connection = subscription.connection
        for sent, message in enumerate(messages):
            if connection.congested:
                self._metrics.deliveries += sent
                return sent
            _send_each(subscription, [message], [encode_message(connection.form, message)])
        self._metrics.deliveries += len(messages)
        return len(messages)

    def _is_live(self, subscription: Subscription) -> None:
        subscription.live = True
        self._caught_up(subscription)

    def _still_there(self, subscription: Subscription, stream: Stream) -> bool:
        """Whether the history reaches back to where the reader is; the reader of a `latest`
        channel is told what it missed and goes on, another has to resume."""
        first = stream.history.first_offset
        position = subscription.position
        if position + 1 >= first:
            return True
        if not stream.latest:
            subscription.connection.close(
                CLOSE_SLOW,
                f"the history of {stream.name} has moved past offset {position}, where you were"
                " reading",
            )
            return False
        subscription.position = first - 1
        self._gap(subscription, {"from": position + 1, "to": first - 1, "why": "history"})
        return True

    def _tell_dropped(self, subscription: Subscription) -> None:
        lost, subscription.dropped = subscription.dropped, 0
        if subscription.live:
            self._caught_up(subscription)
        self._gap(subscription, {"lost": lost, "why": "slow"})

    def _gap(self, subscription: Subscription, what: dict[str, Any]) -> None:
        self._metrics.gaps += 1
        subscription.connection.push("gap", {"channel": subscription.channel, **what})

    # --- subscribing ---

    def subscribe(
        self,
        connection: Connection,
        stream: Stream,
        since: Any,
        bytes_max: int,
        *,
        presence: bool = False,
    ) -> dict[str, Any]:
        """The subscribe reply; what follows its offset comes as pushes."""
        released = self.released(stream)
        # Whoever knows an offset of a tail was shown it, though it may have been opened since.
        known = stream.history.top if isinstance(stream, OpenTail) else released
        epoch = self.epoch(stream)
        position, recovered = start_of(since, epoch, stream, known)
        messages, position = self._pages.read(stream, position, released, bytes_max)
        subscription = self._enter(connection, stream.name, position, presence)
        if position < released:
            self._fall_behind(subscription, position)
        kind: ChannelKind = "latest" if stream.latest else "must"
        reply = reply_of(kind, epoch, position, recovered=recovered, messages=messages)
        return self._with_presence(subscription, reply)

    def listen(
        self, connection: Connection, channel: str, *, presence: bool = False
    ) -> dict[str, Any]:
        """The subscribe reply of a transient channel, of which nothing is kept."""
        subscription = self._enter(connection, channel, _UNNUMBERED_POSITION, presence)
        return self._with_presence(subscription, reply_of("transient", "", UNNUMBERED))

    def _with_presence(self, subscription: Subscription, reply: dict[str, Any]) -> dict[str, Any]:
        if subscription.presence:
            reply["presence"] = {"count": self.presence.count(subscription.channel)}
        return reply

    def epoch(self, stream: Stream) -> str:
        return stream.epoch if isinstance(stream, OpenTail) else self._channels.epoch(stream)

    def watch(
        self,
        connection: Connection,
        name: str,
        now: int,
        since: Any = None,
        bytes_max: int = REPLY_BYTES_MAX,
        *,
        settled: bool = True,
    ) -> dict[str, Any]:
        """The subscribe reply of a watched thing. `settled`: no reply waits for a sync. Raises
        RtError where there is no such thing."""
        watched = self.watches.open(name, now, settled=settled)
        while isinstance(watched, OpenTail) and watched.is_over:
            self._end(watched)
            watched = self.watches.open(name, now, settled=settled)
        if isinstance(watched, OpenTail):
            if watched.may_show_more:
                self.watches.wake(name)
            return self.subscribe(connection, watched, since, bytes_max)
        version, state = watched.told(held=name in self._held)
        self._enter(connection, name, version, presence=False)
        return {**reply_of("latest", self.watches.epoch, version), "state": state}

    def _enter(
        self, connection: Connection, channel: str, position: int, presence: bool
    ) -> Subscription:
        subscription = Subscription(connection, channel, position)
        subscription.presence = presence
        subscription.live = True
        self.unsubscribe(connection, channel, keeps_watch=True)
        connection.subscriptions[channel] = subscription
        self._subscribers.setdefault(channel, {})[connection] = subscription
        self.presence.entered(subscription)
        self.subscriptions += 1
        return subscription

    def unsubscribe(
        self, connection: Connection, channel: str, *, keeps_watch: bool = False
    ) -> bool:
        """True when it was subscribed. `keeps_watch`: another subscription follows."""
        subscription = connection.subscriptions.pop(channel, None)
        if subscription is None:
            return False
        subscribers = self._subscribers[channel]
        del subscribers[connection]
        if not subscribers:
            del self._subscribers[channel]
            if not keeps_watch:
                self.watches.close(channel)
                self._settling.pop(channel, None)
        self.presence.left(subscription)
        self._caught_up(subscription)
        self.subscriptions -= 1
        return True

    def positions(self, connection: Connection) -> dict[str, tuple[str, int]]:
        """{channel: (epoch, offset)}: what was put in the connection's outbox, of channels that
        keep positions."""
        found = {}
        for name, subscription in connection.subscriptions.items():
            stream = self._stream(name)
            if stream is not None and subscription.position != _UNNUMBERED_POSITION:
                position = subscription.position
                if subscription.live and connection.stamp is None:
                    position = max(position, self._sent(stream))
                found[name] = (self.epoch(stream), position)
        return found

    def _sent(self, stream: Stream) -> int:
        """The last offset that was put in the outbox of those who are live."""
        released = self.released(stream)
        return min(released, self._unsent.get(stream.name, released + 1) - 1)

    def places(self, connection: Connection) -> dict[str, Place]:
        """What the connection is subscribed to, for its session."""
        positions = self.positions(connection)
        return {
            name: Place(positions.get(name), subscription.presence)
            for name, subscription in connection.subscriptions.items()
        }

    def dismiss(
        self, connection: Connection, channel: str, kind: ErrorKind | CloseKind, message: str
    ) -> bool:
        """Ends a subscription and says why; False where there is none."""
        if not self.unsubscribe(connection, channel):
            return False
        why = {"code": kind.code, "name": kind.name, "message": message}
        connection.push("unsubscribed", {"channel": channel, **why})
        return True

    def leave(self, connection: Connection) -> None:
        """The connection is gone."""
        for channel in list(connection.subscriptions):
            self.unsubscribe(connection, channel)

    def forget_pages(self) -> None:
        """Gives back the memory of pages that were read (now and then)."""
        self._pages.forget()


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


def _send_each(subscription: Subscription, messages: list[Message], encoded: list[bytes]) -> int:
    """Those of the messages that come after the reader's position, one by one, each with where
    the reader is then, if the connection wants that; how many."""
    connection = subscription.connection
    sent = 0
    for message, data in zip(messages, encoded, strict=True):
        if message.offset != UNNUMBERED:
            if message.offset <= subscription.position:
                continue
            subscription.position = message.offset
        connection.send(data)
        if connection.stamp is not None:
            connection.send(connection.stamp())
        sent += 1
    connection.pending_messages += sent
    return sent


def _takes_more(connection: Connection) -> bool:
    return connection.is_open and not connection.congested
