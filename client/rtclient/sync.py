"""The same client for blocking code.

    with rtclient.sync.connect("rt://127.0.0.1:7370", user="ann") as rt:
        rt.counter.add("likes:42")

Each client has a thread of its own with an event loop, in which the same link runs as in asyncio;
so any number of threads may share a client, their calls leave together, and reconnecting,
resuming and timeouts work while nobody calls. A call costs two switches between threads. A client
does not survive a fork: connect in each process.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, TypeVar

from rtclient.batch import Collector
from rtclient.client import TIMEOUT_S, any_call
from rtclient.commands import Nouns as BatchNouns
from rtclient.errors import Closed, Timeout
from rtclient.ledger import Command, packed
from rtclient.link import Link
from rtclient.options import Position, Since
from rtclient.results import Message
from rtclient.subscription import BUFFER_DEFAULT, Gap
from rtclient.subscription import Subscription as Reader
from rtclient.sync_commands import Caller, Channel, Nouns
from rtclient.url import parse_url

__all__ = ["Batch", "Channels", "Client", "Subscription", "connect"]

T = TypeVar("T")

_CHUNK = 256  # messages fetched from the loop's thread at once
_END_S = 1.0  # for what other threads have begun when the client is closed


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


class _Box:
    """The promise of one call, for which one thread waits."""

    __slots__ = ("_error", "_finished", "_lock", "_result")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._finished = False
        self._result: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        return self._finished

    def set_result(self, result: Any, /) -> None:
        self._result = result
        self._finish()

    def set_exception(self, exception: BaseException, /) -> None:
        self._error = exception
        self._finish()

    def _finish(self) -> None:
        self._finished = True
        self._lock.release()

    def wait(self) -> Any:
        """The result, or raises the error. An interrupt gives the call up."""
        try:
            self._lock.acquire()
        except BaseException:
            self._finished = True
            raise
        if self._error is not None:
            raise self._error
        return self._result


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed: it hands calls from thread to thread a third faster."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop()
    return new_event_loop()


class _Runner:
    """A thread with an event loop, and the link in it."""

    def __init__(self, make_link: Callable[[], Link]) -> None:
        self.loop = _new_loop()
        self._process = os.getpid()
        self._inbox: deque[tuple[Command[Any], tuple[Any, ...], Mapping[str, Any], _Box]] = deque()
        self._awake = False  # the loop is going to look into the inbox
        self._closing = threading.Lock()
        self._entering = threading.Lock()  # nobody enters the loop once it was told to end
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="rtclient", daemon=True)
        self._thread.start()
        try:
            self.link = self.run(self._open(make_link))
        except BaseException:
            self._stop()
            raise

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    @staticmethod
    async def _open(make_link: Callable[[], Link]) -> Link:
        link = make_link()
        await link.open()
        return link

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the loop's thread and waits for it."""
        try:
            self._check_process()
            with self._entering:
                self._check_open()
                future = asyncio.run_coroutine_threadsafe(work, self.loop)
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        except CancelledError:
            raise Closed("the client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def call(
        self, command: Command[T], params: tuple[Any, ...], options: Mapping[str, Any], /
    ) -> T:
        box = _Box()
        self._check_process()
        self._inbox.append((command, params, options, box))
        self._check_open()  # after the append: `_stop` answers what it finds in the inbox
        if not self._awake:
            self._awake = True
            with contextlib.suppress(RuntimeError):  # it was closed since: `_stop` answers
                self.loop.call_soon_threadsafe(self._serve)
        result: T = box.wait()
        return result

    def _check_open(self) -> None:
        if self._ended:
            raise Closed("the client was closed")

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this client was connected in process {self._process} and does not work in a"
                f" fork of it; connect one in process {os.getpid()}"
            )

    def _serve(self) -> None:
        """Starts what threads have called (in the loop's thread)."""
        self._awake = False
        ledger = self.link.ledger
        inbox = self._inbox
        while inbox:
            command, params, options, box = inbox.popleft()
            try:
                ledger.start(command, packed(ledger.pack, command, params), options, box)
            except Exception as error:
                box.set_exception(error)
        self.link.flush()

    def close(self) -> None:
        with self._closing:
            if not self._ended:
                self.run(self.link.close())
                self._stop()

    def _stop(self) -> None:
        """Ends the thread; who still waits hears that the client is closed."""
        with self._entering:
            self._ended = True
        asyncio.run_coroutine_threadsafe(self._end_tasks(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        while self._inbox:
            self._inbox.popleft()[-1].set_exception(Closed("the client was closed"))

    @staticmethod
    async def _end_tasks() -> None:
        """What other threads have begun comes to its end, for they wait for it."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            _, slow = await asyncio.wait(tasks, timeout=_END_S)
            for task in slow:
                task.cancel()
            await asyncio.wait(tasks)
        await asyncio.sleep(0)  # the threads are told in the next iteration


class Client(Nouns):
    """A connected client: `rt.<noun>.<verb>(...)` for every command. Safe to share by threads."""

    channel: Channels

    def __init__(self, make_link: Callable[[], Link]) -> None:
        self._runner = _Runner(make_link)
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

    def __init__(self, call: Caller, runner: _Runner) -> None:
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

    def __init__(self, runner: _Runner, channel: str, since: Since | None, buffer: int) -> None:
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

    def __init__(self, runner: _Runner) -> None:
        self._collector = Collector(runner.link.ledger, runner.loop)
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
            self._runner.run(self._collector.send())
        else:
            self._collector.drop()
