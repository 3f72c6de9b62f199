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
import ssl as tls
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar, overload

from rtclient.batch import Collector
from rtclient.buffer import BUFFER_DEFAULT, Overflow
from rtclient.client import HEARTBEAT_S, TIMEOUT_S, any_call, link_maker
from rtclient.commands import Nouns as BatchNouns
from rtclient.credentials import Token
from rtclient.errors import Closed, Timeout
from rtclient.items import Gap, Item
from rtclient.link import Link
from rtclient.options import Position, Since
from rtclient.results import Message, Step, UserPresence, WholePlace
from rtclient.runner import Runner
from rtclient.states import BoardState, CounterState, SaleState
from rtclient.subscription import Subscription as Reader
from rtclient.sync_commands import Board, Caller, Channel, Counter, Nouns, Presence, Sale
from rtclient.watch import (
    Watched,
    board_around,
    board_top,
    counter,
    ledger_of,
    presence,
    sale,
    sale_place,
    step_of,
)

__all__ = [
    "Batch",
    "Boards",
    "Channels",
    "Client",
    "Counters",
    "Presences",
    "Sales",
    "Subscription",
    "Watch",
    "connect",
]

ItemT = TypeVar("ItemT")
S = TypeVar("S")

_CHUNK = 256  # messages fetched from the loop's thread at once


def connect(
    url: str | None = None,
    *,
    user: str | None = None,
    token: Token | None = None,
    role: str | None = None,
    name: str | None = None,
    timeout: float | None = TIMEOUT_S,
    retry_writes: bool = True,
    reconnect: bool = True,
    heartbeat: float | None = HEARTBEAT_S,
    ssl: tls.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
) -> Client:
    """A connected client; see `rtclient.connect` for the parameters. A token's function is called
    in the client's own thread."""
    hello = {"user": user, "role": role, "client": name}
    return Client(
        link_maker(
            url,
            hello,
            heartbeat,
            token=token,
            timeout_s=timeout,
            retry_writes=retry_writes,
            reconnect=reconnect,
            tls=ssl,
            headers=headers,
        )
    )


class Client(Nouns):
    """A connected client: `rt.<noun>.<verb>(...)` for every command. Safe to share by threads."""

    channel: Channels
    counter: Counters
    board: Boards
    presence: Presences
    sale: Sales

    def __init__(self, make_link: Callable[[], Link]) -> None:
        self._runner = runner = Runner(make_link)
        super().__init__(runner.call)
        self.channel = Channels(runner.call, runner)
        self.counter = Counters(runner.call, runner)
        self.board = Boards(runner.call, runner)
        self.presence = Presences(runner.call, runner)
        self.sale = Sales(runner.call, runner)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now; without one, calls wait for the next."""
        return self._runner.link.connected

    @property
    def session(self) -> str | None:
        """The id of the session that connections go on with; good for HTTP, too."""
        return self._runner.link.session

    @property
    def user(self) -> str | None:
        """Who this client is to the server."""
        return self._runner.link.user

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

    @overload
    def subscribe(
        self,
        channel: str,
        since: Since | None = None,
        *,
        buffer: int = BUFFER_DEFAULT,
        overflow: Overflow = "history",
        presence: Literal[False] = False,
    ) -> Subscription[Message | Gap]: ...

    @overload
    def subscribe(
        self,
        channel: str,
        since: Since | None = None,
        *,
        buffer: int = BUFFER_DEFAULT,
        overflow: Overflow = "history",
        presence: bool,
    ) -> Subscription[Item]: ...

    def subscribe(
        self,
        channel: str,
        since: Since | None = None,
        *,
        buffer: int = BUFFER_DEFAULT,
        overflow: Overflow = "history",
        presence: bool = False,
    ) -> Subscription[Any]:
        """A reader of the channel: `with` it, then iterate. See `rtclient.client.Channels`."""
        reader: Reader[Any] = Reader(
            self._runner.link.feeds, channel, since, buffer, overflow, presence=presence
        )
        return Subscription(self._runner, reader)


class Counters(Counter):
    """The commands `counter.*`, and watches."""

    __slots__ = ("_runner",)

    def __init__(self, call: Caller, runner: Runner) -> None:
        super().__init__(call)
        self._runner = runner

    def watch(self, name: str) -> Watch[CounterState]:
        """The counter's value now and whenever it changes: `with` it, then iterate."""
        return Watch(self._runner, counter(name))


class Boards(Board):
    """The commands `board.*`, and watches."""

    __slots__ = ("_runner",)

    def __init__(self, call: Caller, runner: Runner) -> None:
        super().__init__(call)
        self._runner = runner

    def watch_top(self, name: str, n: int = 10) -> Watch[BoardState]:
        """The best n (1 to 1,000) now and whenever they change."""
        return Watch(self._runner, board_top(name, n))

    def watch_around(self, name: str, member: str, radius: int = 5) -> Watch[BoardState]:
        """A member and `radius` places on each side, now and whenever they change."""
        return Watch(self._runner, board_around(name, member, radius))


class Presences(Presence):
    """The commands `presence.*`, and watches."""

    __slots__ = ("_runner",)

    def __init__(self, call: Caller, runner: Runner) -> None:
        super().__init__(call)
        self._runner = runner

    def watch(self, user: str) -> Watch[UserPresence]:
        """Whether a user is here, and how, now and whenever it changes."""
        return Watch(self._runner, presence(user))


class Sales(Sale):
    """The commands `sale.*`, and watches."""

    __slots__ = ("_runner",)

    def __init__(self, call: Caller, runner: Runner) -> None:
        super().__init__(call)
        self._runner = runner

    def watch(self, name: str) -> Watch[SaleState]:
        """What is left of a sale and how many wait, now and whenever it changes: `with` it,
        then iterate."""
        return Watch(self._runner, sale(name))

    def watch_place(self, name: str, user: str | None = None) -> Watch[WholePlace]:
        """Where a user (this client's own by default) is in the queue, her holds and her orders,
        now and whenever they change."""
        return Watch(self._runner, sale_place(name, user, self._runner.link.user))

    def follow_ledger(
        self,
        name: str,
        since: Since | None = None,
        *,
        buffer: int = BUFFER_DEFAULT,
        overflow: Overflow = "history",
    ) -> Subscription[Step | Gap]:
        """Every step of a sale (for its staff) from now on, or from a position on: `with` it,
        then iterate. since, buffer, overflow: as of `rt.channel.subscribe`. Earlier steps are in
        `rt.sale.ledger`, up to the `seq` that `.position.offset` says when this has begun."""
        reader: Reader[Step | Gap] = Reader(
            self._runner.link.feeds, ledger_of(name), since, buffer, overflow, view=step_of
        )
        return Subscription(self._runner, reader)


class Subscription(Generic[ItemT]):
    """Enter it with `with`, then iterate: messages, and a `Gap` where some are missing; with
    `presence`, also `Join` and `Leave`. For one thread at a time."""

    def __init__(self, runner: Runner, reader: Reader[ItemT]) -> None:
        self._runner = runner
        self._reader = reader
        self._items: deque[tuple[ItemT, Position]] = deque()
        self._position = reader.position

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

    @property
    def count(self) -> int | None:
        """How many users are on the channel, as far as told; None without `presence`."""
        return self._reader.count

    def next(self, timeout: float | None = None) -> ItemT:
        """The next item. Raises Timeout when none comes within so many seconds, and StopIteration
        at the end."""
        if not self._items:
            try:
                self._items.extend(self._runner.run(self._chunk(timeout)))
            except StopAsyncIteration:
                raise StopIteration from None
        item, self._position = self._items.popleft()
        return item

    async def _chunk(self, timeout: float | None) -> list[tuple[ItemT, Position]]:
        """Some of what is buffered (in the loop's thread)."""
        reader = self._reader
        try:
            async with asyncio.timeout(timeout):
                await reader.wait()
        except TimeoutError:
            raise Timeout(f"nothing came on {self.channel!r} within {timeout} s") from None
        return [(reader.take(), reader.position) for _ in range(min(_CHUNK, reader.buffered))]

    def __iter__(self) -> Iterator[ItemT]:
        return self

    def __next__(self) -> ItemT:
        return self.next()

    def __enter__(self) -> Subscription[ItemT]:
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


class Watch(Generic[S]):
    """Enter it with `with`, then iterate: whole states, the newest there is. For one thread at a
    time. See `rtclient.watch.Watch`."""

    def __init__(self, runner: Runner, thing: Watched[S]) -> None:
        reader: Reader[S] = Reader(
            runner.link.feeds, thing.channel, None, 1, "conflate", view=thing.view
        )
        self._reader = Subscription(runner, reader)

    @property
    def channel(self) -> str:
        """What it subscribes to."""
        return self._reader.channel

    def next(self, timeout: float | None = None) -> S:
        """The next state. Raises Timeout when none comes within so many seconds."""
        return self._reader.next(timeout)

    def __iter__(self) -> Iterator[S]:
        return self

    def __next__(self) -> S:
        return self.next()

    def __enter__(self) -> Watch[S]:
        self._reader.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reader.__exit__(kind, error, trace)


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
