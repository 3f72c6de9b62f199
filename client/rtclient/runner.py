"""The thread of a blocking client: its event loop, and how calls of other threads get there.

Calls are left in an inbox, so that those of many threads leave together; one costs two switches
between threads. A thread that calls alone for some time is lent the socket (`direct`) and needs
no other thread then, until something else happens: another call, a subscription, a timeout of the
call's own, a tick of the ledger, or _LOOK_S without a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import CancelledError
from typing import Any, Final, TypeVar

from rtclient.batch import Request
from rtclient.command import Command, Promise, packed
from rtclient.direct import AVAILABLE, Line
from rtclient.errors import Closed
from rtclient.link import Link

__all__ = ["Runner"]

T = TypeVar("T")

_END_S: Final = 1.0  # for what other threads have begun when the client is closed
_LONE_CALLS: Final = 4  # of one thread, before it is lent the socket
_LOOK_S: Final = 0.02  # a loan that was not used for so long ends
_LOOK_MS: Final = 100  # a waiting leader looks so often whether her call was ended
_LEAD: Final = object()  # the outcome of a call that its thread can make by itself now


_Item = tuple[Command[Any], tuple[Any, ...] | bytes, Mapping[str, Any], Promise]


class _Box:
    """The promise of one call, for which one thread waits."""

    __slots__ = ("_error", "_finished", "_lock", "outcome")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._finished = False
        self.outcome: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        return self._finished

    def set_result(self, result: Any, /) -> None:
        self.outcome = result
        self._finish()

    def set_exception(self, exception: BaseException, /) -> None:
        self._error = exception
        self._finish()

    def _finish(self) -> None:
        self._finished = True
        self._lock.release()

    def wait(self) -> None:
        """Returns with an outcome, or raises the error."""
        self._lock.acquire()
        if self._error is not None:
            raise self._error

    def give_up(self) -> None:
        """Nobody waits any more."""
        self._finished = True


class _Batch:
    """Several calls, for all of which one thread waits."""

    __slots__ = ("_left", "_lock")

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self._lock.acquire()

    def one_less(self) -> None:
        self._left -= 1
        if not self._left:
            self._lock.release()

    def wait(self) -> None:
        """Returns when each has its outcome."""
        self._lock.acquire()


class _Part:
    """The promise of one call of a batch: hands its outcome on, and counts it. It is not done
    before, also when nobody wants the outcome any more, for the batch waits for the count."""

    __slots__ = ("_batch", "_finished", "_promise")

    def __init__(self, batch: _Batch, promise: Promise) -> None:
        self._batch = batch
        self._promise = promise
        self._finished = False

    def done(self) -> bool:
        return self._finished

    def set_result(self, result: Any, /) -> None:
        if not self._promise.done():
            self._promise.set_result(result)
        self._finish()

    def set_exception(self, exception: BaseException, /) -> None:
        if not self._promise.done():
            self._promise.set_exception(exception)
        self._finish()

    def _finish(self) -> None:
        self._finished = True
        self._batch.one_less()


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed: it hands calls from thread to thread a third faster."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop()
    return new_event_loop()


class Runner:
    """A thread with an event loop, and the link in it."""

    def __init__(self, make_link: Callable[[], Link]) -> None:
        self.loop = _new_loop()
        self._process = os.getpid()
        self._inbox: deque[_Item] = deque()
        self._awake = False  # the loop is going to look into the inbox
        self._line: Line | None = None  # while the socket is lent
        self._lone_calls = 0
        self._closing = False
        self._closer = threading.Lock()
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

    async def _open(self, make_link: Callable[[], Link]) -> Link:
        link = make_link()
        await link.open()
        link.before_lost = link.ledger.before_tick = self._reclaim
        return link

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the loop's thread and waits for it."""
        try:
            self._check_process()
            with self._entering:
                self._check_open()
                future = asyncio.run_coroutine_threadsafe(self._reclaimed(work), self.loop)
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
        """Makes a call and waits for its outcome."""
        self._check_process()
        while True:
            box = _Box()
            line = None if "timeout" in options else self._line
            try:
                if line is None or not line.call(command, params, options, box):
                    self._hand_over([(command, params, options, box)])
                box.wait()
            except BaseException:
                box.give_up()
                self._awake = False  # perhaps nobody was woken before an interrupt came
                raise
            if box.outcome is not _LEAD:
                result: T = box.outcome
                return result

    def send(self, requests: list[Request]) -> None:
        """Sends a batch and waits for all its outcomes."""
        self._check_process()
        if not requests:
            return self._check_open()
        batch = _Batch(len(requests))
        try:
            self._hand_over(
                (command, params, options, _Part(batch, promise))
                for command, params, options, promise in requests
            )
        except BaseException:
            self._awake = False
            raise
        batch.wait()

    def _hand_over(self, items: Iterable[_Item]) -> None:
        """Leaves calls to the loop's thread."""
        self._inbox.extend(items)
        self._check_open()  # after that: `_stop` answers what it finds in the inbox
        if not self._awake:
            self._awake = True
            with contextlib.suppress(RuntimeError):  # it was closed since: `_stop` answers
                self.loop.call_soon_threadsafe(self._serve)

    def _check_open(self) -> None:
        if self._ended:
            raise Closed("the client was closed")

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this client was connected in process {self._process} and does not work in a"
                f" fork of it; connect one in process {os.getpid()}"
            )

    # --- in the loop's thread ---

    async def _reclaimed(self, work: Coroutine[Any, Any, T]) -> T:
        self._reclaim()
        self._lone_calls = 0
        return await work

    def _serve(self) -> None:
        """Starts what threads have called."""
        self._awake = False
        self._reclaim()
        inbox = self._inbox
        if inbox and self._is_lone() and self._lend():
            inbox.popleft()[-1].set_result(_LEAD)
            return
        ledger = self.link.ledger
        ledger.idle = False  # everything leaves below
        while inbox:
            command, params, options, promise = inbox.popleft()
            try:
                if not isinstance(params, bytes):
                    params = packed(ledger.pack_params, command, params)
                ledger.start(command, params, options, promise)
            except Exception as error:
                promise.set_exception(error)
        self.link.flush()

    def _is_lone(self) -> bool:
        """Whether one thread has called alone for some time, and does so again."""
        _, params, options, _ = self._inbox[0]
        alone = len(self._inbox) == 1 and not len(self.link.ledger) and type(params) is tuple
        self._lone_calls = self._lone_calls + 1 if alone else 0
        return self._lone_calls > _LONE_CALLS and "timeout" not in options

    def _lend(self) -> bool:
        """Lends the socket to calling threads, if it is at rest."""
        self._lone_calls = 0
        connection = self.link.resting
        if connection is None or self._line is not None or self._closing or not AVAILABLE:
            return False
        try:
            self._line = Line(
                self.loop,
                connection.transport,
                self.link.ledger,
                connection.data_received,
                self._returned,
                look_ms=max(1, min(_LOOK_MS, int(self.link.ledger.tick_s * 1000))),
            )
        except OSError:
            return False
        self._look(self._line, -1)
        return True

    def _look(self, line: Line, uses: int) -> None:
        """Takes the socket back when nobody uses it any more."""
        line.reclaim_unused(uses)
        if line is self._line:
            self.loop.call_later(_LOOK_S, self._look, line, line.uses)

    def _reclaim(self) -> None:
        """The ledger is this thread's own again."""
        if self._line is not None:
            self._line.reclaim()

    def _returned(self) -> None:
        self._line = None

    # --- the end ---

    def close(self) -> None:
        """Closes the connection and ends the thread. Idempotent."""
        with self._closer:
            if not self._ended:
                self._closing = True
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
