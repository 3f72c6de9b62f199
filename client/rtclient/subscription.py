"""One reader of one channel: her buffer, her position, how she reads on.

Promises: every message from her position on, in order, once, over any number of reconnects; or a
`Gap` in its place. The buffer is bounded by `buffer` items and BUFFER_BYTES bytes. What happens
when it is full is `overflow`, and it stops neither the socket (her own calls between two messages
need it) nor other readers:

- "history" (default): she is behind, no longer fed by pushes but a position, from which the
  channel's history is read when half of the buffer is free again. She loses something only when
  the history has moved past her. Where there is no history (transient channels), as "gap".
- "gap": the oldest messages give way, and a `Gap` says how many: the newest `buffer` are there.
- "conflate": of each key only the newest message waits (all without a key are one); beyond `buffer`
  keys, the one that changed longest ago gives way, with a `Gap`.
- "error": the subscription ends with `Overloaded` after what is in the buffer.

Of a watched thing (`$counter:...`) the messages are whole states, of which only the newest waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from rtclient.buffer import BUFFER_DEFAULT, Buffer, Overflow, check_buffer
from rtclient.command import Command, Effect
from rtclient.errors import Error
from rtclient.items import Gap, Item, Join, Leave, message_of
from rtclient.options import Position, Since
from rtclient.results import Message
from rtclient.server_errors import Overloaded

if TYPE_CHECKING:
    from rtclient.feeds import Feed, Feeds

__all__ = ["Subscription"]

ItemT = TypeVar("ItemT")  # what it hands out: with presence more than without

_PAGE: Final = 1_000  # the most messages that a history reply holds
_PAGE_BYTES: Final = 256 * 1024
_RETRY_S: Final = 1.0  # before a page that was refused for now is asked for again
_NO_TIMEOUT: Final[Mapping[str, Any]] = {"timeout": None}  # also over an outage
_PASSED: Final = "the history has moved past this position"
_SLOW: Final = "this reader was slower than the channel"


class Subscription(Generic[ItemT]):
    """Enter it with `async with`, then iterate: messages, and a `Gap` where some are missing; with
    `presence`, also `Join` and `Leave`.

    channel: its name. recovered: it went on from a position without loss, at the beginning or
    after the last reconnect.
    """

    def __init__(
        self,
        feeds: Feeds,
        channel: str,
        since: Since | None = None,
        buffer: int = BUFFER_DEFAULT,
        overflow: Overflow = "history",
        *,
        presence: bool = False,
        view: Callable[[Message], Any] | None = None,
    ) -> None:
        check_buffer(buffer, overflow)
        self.channel = channel
        self.presence = presence
        self.recovered = False
        self._feeds = feeds
        self._since = since
        self.feed: Feed | None = None  # while she is one of its readers
        self._buffer = Buffer(buffer, conflates=overflow == "conflate")
        self._overflow = overflow
        self._view = view  # what is handed out of a message, where that is not the message itself
        self._skipped: Gap | None = None  # what gave way, in front of the buffer
        self._live = False  # fed by pushes
        self._fetching = False  # a page of history was asked for
        self._epoch = ""
        self._head = 0  # offset of the last message that was buffered
        self._read_epoch = ""
        self._read_offset = 0  # of the last item that was handed out
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._error: Error | None = None

    @property
    def position(self) -> Position:
        """Where to read on after the last item handed out; good for `since`."""
        return Position(self._read_epoch, self._read_offset)

    @property
    def count(self) -> int | None:
        """How many users are on the channel, as far as told; None without `presence`."""
        return self.feed.count if self.presence and self.feed is not None else None

    # --- for the user ---

    async def __aenter__(self) -> Subscription[ItemT]:
        if self.feed is not None or self._ended:
            raise RuntimeError(f"this subscription to {self.channel!r} was entered before")
        try:
            await self._feeds.join(self, self._since)
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def __aiter__(self) -> Subscription[ItemT]:
        return self

    async def __anext__(self) -> ItemT:
        await self.wait()
        return self.take()

    async def wait(self) -> None:
        """Returns when an item can be taken. Raises StopAsyncIteration at the end, or the error
        that ended it."""
        while not self.buffered:
            if self._ended:
                raise self._error or StopAsyncIteration
            if self.feed is None:
                raise RuntimeError(f"enter the subscription to {self.channel!r} with `async with`")
            if self._waiter is not None:
                raise RuntimeError(f"two tasks read one subscription to {self.channel!r}")
            self._waiter = self._feeds.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def take(self) -> ItemT:
        """The next buffered item."""
        item: Item
        if self._skipped is not None:
            item, self._skipped = self._skipped, None
        else:
            item = self._buffer.take()
        handed: Any = item
        if isinstance(item, Message):
            self._read_offset = item.offset or self._read_offset
            if self._view is not None:
                handed = self._view(item)
        elif isinstance(item, Gap):
            self._read_epoch, self._read_offset = item.position
        if not self._live:
            self._fetch_when_half_free()
        return cast(ItemT, handed)

    @property
    def buffered(self) -> int:
        """Items that can be taken at once."""
        return len(self._buffer) + (self._skipped is not None)

    def _leave(self) -> None:
        self._feeds.leave(self)
        self.end(None)
        self._buffer.clear()
        self._skipped = None

    # --- from the feed ---

    def begin(self, epoch: str, offset: int) -> None:
        """Fed by pushes from a position on."""
        self._epoch = self._read_epoch = epoch
        self._head = self._read_offset = offset
        self._live = True

    def put(self, message: Message, size: int) -> None:
        """A push."""
        if self._live and (message.offset > self._head or not message.offset):
            self._append(message, size)

    def put_state(self, epoch: str, state: Message, size: int) -> None:
        """The whole state of a watched thing. Versions of another epoch are unrelated."""
        if not len(self._buffer):
            self._buffer.conflates = True
        self._live = True
        self._epoch = self._read_epoch = epoch
        self._append(state, size)

    def put_presence(self, change: Join | Leave) -> None:
        """Who came or went; told only to those who asked, and only while there is room."""
        if self.presence and self._live and not self._buffer.is_full:
            self._buffer.put(change, 0)
            self._wake()

    def miss(self, lost: int | None, reason: str, offset: int) -> None:
        """The server dropped messages up to `offset` (the present head where it has no number)."""
        if self._live:
            self._head = max(self._head, offset)
            self._gap(lost, reason)

    def resume(self, epoch: str, offset: int, messages: list[Message], lost: str | None) -> None:
        """The feed goes on after a reconnect, by these messages up to `offset`. lost: why its old
        position means nothing any more."""
        if not self._live:
            return
        self.recovered = True
        if lost is not None:
            self._restart(epoch, messages[0].offset - 1 if messages else offset, lost)
        for message in messages:
            self.put(message, _PAGE_BYTES // len(messages))
        if self._live:
            self._skip_to(offset)

    def end(self, error: Error | None) -> None:
        """No more items come; those in the buffer can still be taken."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._live = False
            self._wake()

    # --- reading on from the history ---

    async def catch_up(self, feed: Feed, since: Since | None) -> None:
        """Joins a feed that is open already, at a position of her own."""
        from_now = since == {"last": 0} or (since is None and feed.kind == "must")
        if feed.state is not None:
            self.begin(feed.epoch, feed.offset)
            self.put_state(feed.epoch, feed.state, 0)
        elif from_now or not feed.has_history:
            self.begin(feed.epoch, feed.offset)
        elif isinstance(since, Mapping):
            await self._ask(self._take_newest, (self.channel, None, None, since["last"]))
        else:  # of a `latest` channel one begins with the present values
            self.begin(*(since or (feed.epoch, 0)))
            self._live = False
            self.recovered = since is not None
            await self._fetch()

    def _fetch_when_half_free(self) -> None:
        if self._buffer.is_half_free and not self._fetching and not self._ended:
            self._fetch()

    def _fetch(self) -> asyncio.Future[None]:
        """Asks for the page after her position."""
        self._fetching = True
        limit = min(_PAGE, self._buffer.free)
        asked = self._ask(self._take_page, (self.channel, self._head, None, limit))
        asked.add_done_callback(self._fetched)
        return asked

    def _ask(self, take: Callable[[Any], None], params: tuple[Any, ...]) -> asyncio.Future[None]:
        """A page of history goes to `take` right when it arrives: pushes may stand behind it."""
        command = Command("channel.history", Effect.READ, take)
        return self._feeds.ledger.call(command, params, _NO_TIMEOUT)

    def _take_newest(self, raw: dict[str, Any]) -> None:
        messages = [message_of(one, self.channel) for one in raw["messages"]]
        self.begin(raw["epoch"], messages[0].offset - 1 if messages else raw["offset"])
        for message in messages:
            self.put(message, _PAGE_BYTES // len(messages))

    def _take_page(self, raw: dict[str, Any]) -> None:
        """The messages after her position. With the last of them she is live again: a push up to
        the history's end came before this reply, or is passed over when it comes."""
        feed = self.feed
        if feed is None:
            return
        if raw["epoch"] != self._epoch or raw["offset"] < self._head:
            why = "this position is not in the channel any more"
            if feed.is_numbered:
                self._live = True
                self._restart(feed.epoch, feed.offset, why)
            else:  # the present values follow, from another page
                self._restart(raw["epoch"] or feed.epoch, 0, why)
            return
        messages = [message_of(one, self.channel) for one in raw["messages"]]
        for message in messages:
            self._skip_to(message.offset - 1)
            self._store(message, _PAGE_BYTES // len(messages))
        if raw["next"] is None:
            self._skip_to(raw["offset"])
            self._live = True

    def _fetched(self, asked: asyncio.Future[None]) -> None:
        self._fetching = False
        if asked.cancelled() or self._ended:
            return
        error = asked.exception()
        if error is None:
            if not self._live:
                self._fetch_when_half_free()
        elif isinstance(error, Error) and error.retryable:
            self._fetching = True
            self._feeds.loop.call_later(_RETRY_S, self._fetch_again)
        else:
            self.end(error if isinstance(error, Error) else Error(repr(error)))

    def _fetch_again(self) -> None:
        self._fetching = False
        self._fetch_when_half_free()

    # --- the buffer ---

    def _restart(self, epoch: str, offset: int, reason: str) -> None:
        """What came between our position and this one is not known."""
        self._epoch = epoch
        self._head = offset
        self._gap(None, reason)

    def _skip_to(self, offset: int) -> None:
        """Nothing is left between our position and `offset`. On channels that are not numbered
        without holes that is no loss."""
        lost = offset - self._head
        if lost <= 0:
            return
        self._head = offset
        if self.feed is None or self.feed.is_numbered:
            self._gap(lost, _PASSED)

    def _append(self, message: Message, size: int) -> None:
        """Puts a message into the buffer, as far as there is room for it."""
        if self._buffer.is_full and not self._buffer.replaces(message):
            if self._overflow == "error":
                self.end(Overloaded(f"more than the buffer holds waits on {self.channel!r}"))
                return
            has_history = self.feed is not None and self.feed.has_history
            if self._overflow == "history" and has_history:
                self._live = False
                return
            while self._buffer.is_full:
                self._give_way()
        if message.offset and self.feed is not None and self.feed.state is None:
            self._skip_to(message.offset - 1)
        self._store(message, size)

    def _store(self, message: Message, size: int) -> None:
        self._head = message.offset or self._head
        self._buffer.put(message, size)
        self._wake()

    def _give_way(self) -> None:
        """The oldest item makes room; what it was is told before the others are handed out."""
        item = self._buffer.take()
        lost: int | None = 0
        if self._skipped is not None:
            lost, position = self._skipped.lost, self._skipped.position
        else:
            position = self.position
        if isinstance(item, Gap):
            lost = None if lost is None or item.lost is None else lost + item.lost
            position = item.position
        elif isinstance(item, Message):
            lost = None if lost is None else lost + 1
            position = Position(position.epoch, item.offset or position.offset)
        else:
            return  # a join or a leave is not missed
        self._skipped = Gap(self.channel, lost, _SLOW, position)

    def _gap(self, lost: int | None, reason: str) -> None:
        self.recovered = False
        position = Position(self._epoch, self._head)
        self._buffer.put(Gap(self.channel, lost, reason, position), 0)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
