"""Channels: ordered messages with a bounded history, positions that survive restarts.

A position is (epoch, offset). Offsets of a channel are contiguous from 1; the epoch names one
life of the channel, so a position of another life is never mistaken for one of this. Promises:
history is bounded per channel (count, bytes, age) and over all channels (bytes: the channel
published to longest ago gives way first); every bound is applied by logged commands only.
The class of a namespace says what a channel keeps: `must` the recent past, `latest` the newest
message of each key, `transient` nothing, so that there is no channel at all, only messages.
Costs: O(1) a publish. Knows nothing of subscribers; who is told of a message is the router's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rtserver.errors import LIMIT_REACHED, RtError
from rtserver.limits import LATEST_KEYS_MAX
from rtserver.state.growth import Growth
from rtserver.state.settings import ChannelRules, Settings
from rtserver.state.timers import Timers
from rtserver.structs.conflated import ConflatedHistory
from rtserver.structs.history import HistoryRing
from rtserver.structs.recency import RecencyList
from rtserver.structs.sharded_map import ShardedMap

__all__ = ["TIMER_KIND", "UNNUMBERED", "Channel", "ChannelIdle", "Channels", "Message"]

TIMER_KIND = "channel"
_STEP_MIN_MS = 1_000
_FREED_PER_TIMER = 32  # messages; many channels may come of age in the same turn
_AGE_STEPS = 16  # an aged message is freed within 1/16 of the age limit after it
_MESSAGE_OVERHEAD = 128  # bytes counted for a message beside its data

UNNUMBERED = 0  # the offset of a transient message


class Message:
    """One publication. `data` is packed msgpack, so it holds no references to collect."""

    __slots__ = ("at", "channel", "data", "key", "offset", "sender")

    def __init__(
        self, channel: str, offset: int, at: int, data: bytes, key: str | None, sender: str | None
    ) -> None:
        self.channel = channel
        self.offset = offset
        self.at = at
        self.data = data
        self.key = key
        self.sender = sender

    @property
    def bytes(self) -> int:
        return len(self.data) + len(self.key or "") + _MESSAGE_OVERHEAD


class ChannelIdle:
    """Event: a channel is empty and was untouched for long; whoever knows of nobody listening
    may forget it."""

    __slots__ = ("channel",)

    def __init__(self, channel: str) -> None:
        self.channel = channel


class Channel:
    """One channel: its history, its epoch, its one timer."""

    __slots__ = (
        "birth",
        "history",
        "latest",
        "name",
        "timer",
        "touched_after",
        "touched_at",
        "touched_before",
    )

    def __init__(self, name: str, birth: int, now: int) -> None:
        self.name = name
        self.birth = birth
        self.touched_at = now
        self.latest = False  # the class that its history is kept by
        self.history: HistoryRing[Message] | ConflatedHistory[Message] = HistoryRing()
        self.timer: tuple[int, int] = (0, 0)  # (due_ms, id)
        self.touched_before: Channel | None = None  # these two belong to the RecencyList
        self.touched_after: Channel | None = None


class Channels:
    """All channels. `emit` receives what happened: a Message, a ChannelIdle."""

    __slots__ = (
        "_channels",
        "_emit",
        "_growth",
        "_recency",
        "_settings",
        "_timers",
        "births",
        "channels_max",
        "era",
        "history_bytes",
        "messages",
    )

    def __init__(
        self, settings: Settings, timers: Timers, growth: Growth, emit: Callable[[Any], None]
    ) -> None:
        self._settings = settings
        self._timers = timers
        self._growth = growth
        self._emit = emit
        self._channels: ShardedMap[Channel] = ShardedMap()
        self._recency: RecencyList[Channel] = RecencyList()
        self.era = ""  # random text, renewed when what was lost cannot be known
        self.births = 0
        self.history_bytes = 0
        self.messages = 0  # ever published
        self.channels_max: int | None = None

    def __len__(self) -> int:
        return len(self._channels)

    def get(self, name: str) -> Channel | None:
        return self._channels.get(name)

    def epoch(self, channel: Channel) -> str:
        return f"{self.era}.{channel.birth}"

    # --- writing ---

    def open(self, now: int, name: str) -> Channel:
        """The channel, created where it does not exist."""
        channel = self._channels.get(name)
        if channel is not None:
            return channel
        self._growth.check()
        if self.channels_max is not None and len(self._channels) >= self.channels_max:
            raise RtError(
                LIMIT_REACHED,
                f"there are {len(self._channels)} channels, at most {self.channels_max}"
                " (limits.channels_max)",
            )
        self.births += 1
        channel = Channel(name, self.births, now)
        self._channels.insert(name, channel)
        rules = self._rules(channel)
        self._keep_as(channel, rules)
        self._arm(channel, now + min(rules.idle_ms, max(_STEP_MIN_MS, rules.history_ms)))
        return channel

    def publish(
        self, now: int, name: str, data: bytes, key: str | None, sender: str | None
    ) -> tuple[int, str]:
        """(offset, epoch) of the new message; (UNNUMBERED, "") of a transient one."""
        rules = self._settings.channel_rules(name)
        if not rules.keeps:
            self._emit(Message(name, UNNUMBERED, now, data, key, sender))
            return UNNUMBERED, ""
        channel = self.open(now, name)
        if self._growth.refusal is not None:
            self._check_growth(channel, rules, len(data), key)
        self._keep_as(channel, rules)
        history = channel.history
        message = Message(name, history.top + 1, now, data, key, sender)
        before = history.bytes
        if isinstance(history, ConflatedHistory):
            history.append(message, message.bytes, now, key)
        else:
            history.append(message, message.bytes, now)
        self._trim(channel, rules, now)
        self.history_bytes += history.bytes - before
        channel.touched_at = now
        self._recency.touch(channel)
        self.messages += 1
        self._make_room()
        self._emit(message)
        return message.offset, self.epoch(channel)

    def _check_growth(
        self, channel: Channel, rules: ChannelRules, size: int, key: str | None
    ) -> None:
        """A message may take the place of others while nothing may grow."""
        history = channel.history
        if isinstance(history, ConflatedHistory):
            replaces = key in history
        else:
            replaces = len(history) >= rules.history_count
        if not replaces and history.bytes + size <= rules.history_bytes:
            self._growth.check()

    def _keep_as(self, channel: Channel, rules: ChannelRules) -> None:
        """A channel whose namespace was given another class forgets its past, not its offsets."""
        latest = rules.kind == "latest"
        if channel.latest == latest:
            return
        history = channel.history
        self.history_bytes -= history.bytes
        channel.latest = latest
        channel.history = (ConflatedHistory if latest else HistoryRing)(history.top + 1)

    @staticmethod
    def _trim(channel: Channel, rules: ChannelRules, now: int, *evictions_max: int) -> int:
        count_max = rules.history_count
        if channel.latest:
            count_max = min(count_max, LATEST_KEYS_MAX)
        oldest = now - rules.history_ms + 1
        return channel.history.trim(count_max, rules.history_bytes, oldest, *evictions_max)

    def forget(self, now: int, name: str) -> bool:
        """Drops a channel that is still empty and idle; its next life has another epoch."""
        channel = self._channels.get(name)
        if channel is None or len(channel.history) or not self._idle(now, channel):
            return False
        self._timers.cancel(*channel.timer)
        if channel in self._recency:
            self._recency.remove(channel)
        self._channels.pop(name)
        return True

    def new_era(self, era: str) -> None:
        """Every channel gets a new epoch: positions given out before are no longer recovered."""
        self.era = era

    def _make_room(self) -> None:
        while self.history_bytes > self._settings.history_total_bytes:
            oldest = self._recency.oldest()
            if oldest is None:
                return
            history = oldest.history
            before = history.bytes
            if len(history):
                history.evict_first()
                self.history_bytes += history.bytes - before
            else:
                self._recency.remove(oldest)

    # --- the one timer of a channel ---

    def fire(self, now: int, name: str, timer_id: int) -> None:
        """Frees aged messages; says so when the channel has become idle."""
        channel = self._channels.get(name)
        if channel is None or channel.timer[1] != timer_id:
            return
        rules = self._rules(channel)
        before = channel.history.bytes
        evicted = self._trim(channel, rules, now, _FREED_PER_TIMER)
        self.history_bytes += channel.history.bytes - before
        if evicted == _FREED_PER_TIMER:
            self._arm(channel, now + 1)
        elif len(channel.history):
            oldest = channel.history.read(0, 1, channel.history.top)[0]
            step = max(_STEP_MIN_MS, rules.history_ms // _AGE_STEPS)
            self._arm(channel, max(now + step, oldest.at + rules.history_ms))
        elif self._idle(now, channel):
            self._arm(channel, now + rules.idle_ms)
            self._emit(ChannelIdle(name))
        else:
            self._arm(channel, channel.touched_at + rules.idle_ms)

    def _idle(self, now: int, channel: Channel) -> bool:
        return now - channel.touched_at >= self._rules(channel).idle_ms

    def _arm(self, channel: Channel, due: int) -> None:
        channel.timer = (due, self._timers.add(due, TIMER_KIND, channel.name))

    def _rules(self, channel: Channel) -> ChannelRules:
        return self._settings.channel_rules(channel.name)

    # --- snapshots ---

    def dump(self) -> Iterator[list[Any]]:
        """["channels", era, births, messages], then ["channel", ...] by age of the last publish."""
        yield ["channels", self.era, self.births, self.messages]
        touched = set()
        for channel in self._recency:
            touched.add(channel.name)
            yield self._row(channel, recent=True)
        for name, channel in self._channels.items():
            if name not in touched:
                yield self._row(channel, recent=False)

    def _row(self, channel: Channel, *, recent: bool) -> list[Any]:
        history = channel.history
        kept = history.read(history.first_offset - 1, len(history), history.top)
        messages = [[m.at, m.data, m.key, m.sender] for m in kept]
        if channel.latest:
            for row, message in zip(messages, kept, strict=True):
                row.append(message.offset)
        return [
            "channel",
            channel.name,
            channel.birth,
            channel.touched_at,
            channel.timer,
            history.top,
            recent,
            messages,
            *([history.first_offset] if channel.latest else []),
        ]

    def load(self, chunk: list[Any]) -> None:
        if chunk[0] == "channels":
            _, self.era, self.births, self.messages = chunk
            return
        _, name, birth, touched_at, timer, top, recent, messages, *latest = chunk
        channel = Channel(name, birth, touched_at)
        if latest:
            self._load_latest(channel, top, messages, latest[0])
        else:
            self._load_ring(channel, top, messages)
        self.history_bytes += channel.history.bytes
        self._channels.insert(name, channel)
        if recent:
            self._recency.touch(channel)
        channel.timer = (timer[0], timer[1])

    @staticmethod
    def _load_ring(channel: Channel, top: int, rows: list[Any]) -> None:
        first = top - len(rows) + 1
        history = channel.history = HistoryRing(first_offset=first)
        for offset, (at, data, key, sender) in enumerate(rows, first):
            message = Message(channel.name, offset, at, data, key, sender)
            history.append(message, message.bytes, at)

    @staticmethod
    def _load_latest(channel: Channel, top: int, rows: list[Any], first_offset: int) -> None:
        channel.latest = True
        history = channel.history = ConflatedHistory(first_offset)
        for at, data, key, sender, offset in rows:
            message = Message(channel.name, offset, at, data, key, sender)
            history.put(offset, message, message.bytes, at, key)
        history.top = top

    def check(self) -> None:
        """Raises where histories and sums disagree."""
        total = 0
        for _, channel in self._channels.items():
            channel.history.check()
            total += channel.history.bytes
        if total != self.history_bytes:
            raise ValueError(f"the histories hold {total} bytes, the sum says {self.history_bytes}")
