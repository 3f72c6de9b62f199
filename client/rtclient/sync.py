"""The same client for blocking code.

    with rtclient.sync.connect("rt://127.0.0.1:7370", user="ann") as rt:
        rt.counter.add("likes:42")

Each client has a thread of its own with an event loop, in which the same link runs as in asyncio;
so any number of threads may share a client, their calls leave together, and reconnecting,
resuming and timeouts work while nobody calls. A thread that calls alone does its sending and
receiving by itself (`runner` says when). A client does not survive a fork: connect in each
process.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from rtclient.batch import Collector
from rtclient.client import TIMEOUT_S, any_call
from rtclient.commands import Nouns as BatchNouns
from rtclient.errors import Closed, Timeout
from rtclient.link import Link
from rtclient.options import Position, Since
from rtclient.results import Message
from rtclient.runner import Runner
from rtclient.subscription import BUFFER_DEFAULT, Gap
from rtclient.subscription import Subscription as Reader
from rtclient.sync_commands import Caller, Channel, Nouns
from rtclient.url import parse_url

__all__ = ["Batch", "Channels", "Client", "Subscription", "connect"]

_CHUNK = 256  # messages fetched from the loop's thread at once


def connect(
    url: str | None = None,
    *,
    user: str | None = None,
    token: str | None = None,
    role: str | None = None,
    name: str | None = None,
    timeout: float | None = TIMEOUT_S,
    retry_writes: bool = True,
    reconnect: bool = True,
) -> Client:
    """A connected client; see `rtclient.connect` for the parameters."""
    hello = {"user": user, "token": token, "role": role, "client": name}
    return Client(
        functools.partial(
            Link,
            parse_url(url),
            hello,
            timeout_s=timeout,
            retry_writes=retry_writes,
            reconnect=reconnect,
        )
    )


class Client(Nouns):
    """A connected client: `rt.<noun>.<verb>(...)` for every command. Safe to share by threads."""

    channel: Channels

    def __init__(self, make_link: Callable[[], Link]) -> None:
        self._runner = Runner(make_link)
        super().__init__(self._runner.call)
        self.channel = Channels(self._runner.call, self._runner)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now; without one, calls wait for the next."""
        return self._runner.link.connected

    def call(self, method: str, *args: Any, **named: Any) -> Any:
        """Any method by name, also one that this SDK does not know; the result is plain, as it
        came. Options are among the named: rt.call("board.top", "weekly", limit=3, timeout=1)."""
        return self._runner.call(*any_call(method, args, named))

    def batch(self) -> Batch:
        """Collects calls in a `with` block and sends them together at its end."""
        return Batch(self._runner)

    def close(self) -> None:
        """Closes the connection and ends the thread. Idempotent."""
        self._runner.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Channels(Channel):
    """The commands `channel.*`, and subscriptions."""

    __slots__ = ("_runner",)

    def __init__(self, call: Caller, runner: Runner) -> None:
        super().__init__(call)
        self._runner = runner

    def subscribe(
        self, channel: str, since: Since | None = None, *, buffer: int = BUFFER_DEFAULT
    ) -> Subscription:
        """A reader of the channel: `with` it, then iterate. See `rtclient.client.Channels`."""
        return Subscription(self._runner, channel, since, buffer)


class Subscription:
    """Enter it with `with`, then iterate: messages, and a `Gap` where some are missing. For one
    thread at a time."""

    def __init__(self, runner: Runner, channel: str, since: Since | None, buffer: int) -> None:
        self._runner = runner
        self._reader = Reader(runner.link.feeds, channel, since, buffer)
        self._items: deque[tuple[Message | Gap, Position]] = deque()
        self._position = self._reader.position

    @property
    def channel(self) -> str:
        return self._reader.channel

    @property
    def recovered(self) -> bool:
        """It went on from a position without loss, at the beginning or after a reconnect."""
        return self._reader.recovered

    @property
    def position(self) -> Position:
        """Where to read on after the last item handed out; good for `since`."""
        return self._position

    def next(self, timeout: float | None = None) -> Message | Gap:
        """The next item. Raises Timeout when none comes within so many seconds, and StopIteration
        at the end."""
        if not self._items:
            try:
                self._items.extend(self._runner.run(self._chunk(timeout)))
            except StopAsyncIteration:
                raise StopIteration from None
        item, self._position = self._items.popleft()
        return item

    async def _chunk(self, timeout: float | None) -> list[tuple[Message | Gap, Position]]:
        """Some of what is buffered (in the loop's thread)."""
        reader = self._reader
        try:
            async with asyncio.timeout(timeout):
                await reader.wait()
        except TimeoutError:
            raise Timeout(f"nothing came on {self.channel!r} within {timeout} s") from None
        return [(reader.take(), reader.position) for _ in range(min(_CHUNK, reader.buffered))]

    def __iter__(self) -> Iterator[Message | Gap]:
        return self

    def __next__(self) -> Message | Gap:
        return self.next()

    def __enter__(self) -> Subscription:
        self._runner.run(self._reader.__aenter__())
        self._position = self._reader.position
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(Closed):
            self._runner.run(self._reader.__aexit__(kind, error, trace))


class Batch(BatchNouns):
    """The nouns of a batch. What their methods return has its `.result()` when the block has
    ended."""

    def __init__(self, runner: Runner) -> None:
        self._collector = Collector(runner.link.ledger)
        self._runner = runner
        super().__init__(self._collector.collect)

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Sends; an error in the block drops the batch instead."""
        if kind is None:
            self._runner.send(self._collector.finish())
        else:
            self._collector.drop()
