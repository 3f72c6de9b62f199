"""One reader of one channel: her buffer, her position, how she reads on.

Promises: every message from her position on, in order, once, over any number of reconnects; or a
`Gap` in its place. The buffer is bounded by `buffer` items and BUFFER_BYTES bytes. When it is
full she is behind: no longer fed by pushes but a position, from which the channel's history is
read when half of the buffer is free again. So a slow reader stops neither the socket (her own
calls between two messages need it) nor other readers, and loses something only when the history
has moved past her. Costs: one append and one popleft a message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from rtclient.command import Command, Effect
from rtclient.errors import Error
from rtclient.options import Position, Since
from rtclient.results import Message

if TYPE_CHECKING:
    from rtclient.feeds import Feed, Feeds

__all__ = ["BUFFER_DEFAULT", "Gap", "Subscription", "message_of"]

BUFFER_DEFAULT: Final = 10_000
BUFFER_BYTES: Final = 16 * 1024 * 1024
_PAGE: Final = 1_000  # the most messages that a history reply holds
_PAGE_BYTES: Final = 256 * 1024
_RETRY_S: Final = 1.0  # before a page that was refused for now is asked for again
_NO_TIMEOUT: Final[Mapping[str, Any]] = {"timeout": None}  # also over an outage


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages are missing here. lost: how many, None where nobody can know. position: where it
    goes on."""

    channel: str
    lost: int | None
    reason: str
    position: Position


def message_of(raw: dict[str, Any], channel: str) -> Message:
    return Message(
        raw["offset"], raw["data"], raw["at"], raw.get("key"), raw.get("sender"), channel
    )


class Subscription:
    """Enter it with `async with`, then iterate: messages, and a `Gap` where some are missing.

    channel: its name. recovered: it went on from a position without loss, at the beginning or
    after the last reconnect.
    """

    def __init__(self, feeds: Feeds, channel: str, since: Since | None, buffer: int) -> None:
        if buffer < 1:
            raise ValueError(f"buffer is {buffer}, expected at least 1 message")
        self.channel = channel
        self.recovered = False
        self._feeds = feeds
        self._since = since
        self.feed: Feed | None = None  # while she is one of its readers
        self._items: deque[tuple[Message | Gap, int]] = deque()  # with about their bytes
        self._bytes = 0
        self._items_max = buffer
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

    # --- for the user ---

    async def __aenter__(self) -> Subscription:
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

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Message | Gap:
        await self.wait()
        return self.take()

    async def wait(self) -> None:
        """Returns when an item can be taken. Raises StopAsyncIteration at the end, or the error
        that ended it."""
        while not self._items:
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

    def take(self) -> Message | Gap:
        """The next buffered item."""
        item, size = self._items.popleft()
        self._bytes -= size
        if isinstance(item, Message):
            self._read_offset = item.offset
        else:
            self._read_epoch, self._read_offset = item.position
        if not self._live:
            self._fetch_when_half_free()
        return item

    @property
    def buffered(self) -> int:
        """Items that can be taken at once."""
        return len(self._items)

    def _leave(self) -> None:
        self._feeds.leave(self)
        self.end(None)
        self._items.clear()

    # --- from the feed ---

    def begin(self, epoch: str, offset: int) -> None:
        """Fed by pushes from a position on."""
        self._epoch = self._read_epoch = epoch
        self._head = self._read_offset = offset
        self._live = True

    def put(self, message: Message, size: int) -> None:
        """A push."""
        if not self._live or message.offset <= self._head:
            return
        if len(self._items) >= self._items_max or self._bytes >= BUFFER_BYTES:
            self._live = False
            return
        self._append(message, size)

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
            self._wake()

    # --- reading on from the history ---

    async def catch_up(self, feed: Feed, since: Since | None) -> None:
        """Joins a feed that is open already, at a position of her own."""
        if since is None or since == {"last": 0}:
            self.begin(feed.epoch, feed.offset)
        elif isinstance(since, Mapping):
            await self._ask(self._take_newest, (self.channel, None, None, since["last"]))
        else:
            self.begin(*since)
            self._live = False
            self.recovered = True
            await self._fetch()

    def _fetch_when_half_free(self) -> None:
        half_free = len(self._items) <= self._items_max // 2 and self._bytes <= BUFFER_BYTES // 2
        if half_free and not self._fetching and not self._ended:
            self._fetch()

    def _fetch(self) -> asyncio.Future[None]:
        """Asks for the page after her position."""
        self._fetching = True
        limit = min(_PAGE, self._items_max - len(self._items))
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
            self._live = True
            self._restart(feed.epoch, feed.offset, "this position is not in the channel any more")
            return
        messages = raw["messages"]
        for one in messages:
            self._append(message_of(one, self.channel), _PAGE_BYTES // len(messages))
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
        """Nothing is left between our position and `offset`."""
        lost = offset - self._head
        if lost > 0:
            self._head = offset
            self._gap(lost, "the history has moved past this position")

    def _append(self, message: Message, size: int) -> None:
        self._skip_to(message.offset - 1)
        self._head = message.offset
        self._items.append((message, size))
        self._bytes += size
        self._wake()

    def _gap(self, lost: int | None, reason: str) -> None:
        self.recovered = False
        position = Position(self._epoch, self._head)
        self._items.append((Gap(self.channel, lost, reason, position), 0))
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
