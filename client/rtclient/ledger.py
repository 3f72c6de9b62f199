"""Calls in flight: their numbers, their bytes, what becomes of each when a connection is lost.

Pure bookkeeping, no sockets. Promises: calls leave in the order they were made, on every
connection; a reply is matched by id, so one that comes late, or for a call that was given up,
disturbs nobody; every call ends once. When a connection is lost, what may be sent again (reads,
and writes under a key) waits for the next one, and the rest fails with an error that says what is
known. All that is not answered holds at most `bytes_max` bytes. Costs: one small object and one
promise a call; no task, and no timer unless the call asks for its own timeout.

Keys: a write that is no plain delta gets [client, n, done]; n counts up, and every number up to
`done` was answered or given up. The server forgets its answers up to `done`, so at most WINDOW
numbers are sent beyond it.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import math
import os
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from threading import get_ident
from typing import Any, Final, TypeVar

from rtclient import wire
from rtclient.command import UNFIT, Command, Effect, Promise, packed, unfit
from rtclient.decode import error_of
from rtclient.errors import ConnectionLost, Error, Timeout
from rtclient.options import WRITE_OPTIONS
from rtclient.server_errors import Duplicate, FrameTooLarge, OutcomeUnknown, Overloaded

__all__ = ["BYTES_MAX", "Ledger"]

T = TypeVar("T")

BYTES_MAX: Final = 64 * 1024 * 1024
WINDOW: Final = 8_000  # the server keeps at most 10,000 answers that a client has not done with
RESEND_S: Final = 600.0  # by default the server remembers keys at least so long
TIMEOUT_MS_MAX: Final = 3_600_000  # that the server takes; longer ones end here
_TICKS: Final = 16  # looks at the oldest calls in one default timeout
_TICK_S_DEFAULT: Final = 2.0
_HEAD_BYTES: Final = 16  # of a frame at most, beside what `Call.body` holds

_CALL = b"\x94\x00"  # [0, id, method, params]
_CALL_WITH_OPTIONS = b"\x95\x00"
_MAP_HEAD = 0x80


class _Call:
    """One call that is not answered yet.

    tick: of the ledger when the call was made; inf: it has its own timeout. body: the request
    without its length, and without `done` where number is not 0. number: n of the SDK's key.
    sent_at: first time, in the loop's seconds; 0.0: not sent yet. keyed: it has a key, and so may
    be sent again. users_key: a key or a source of the caller's, who can call again with it.
    """

    __slots__ = (
        "body",
        "command",
        "expiry",
        "id",
        "keyed",
        "number",
        "promise",
        "sent_at",
        "tick",
        "users_key",
    )

    def __init__(self, call_id: int, command: Command[Any], promise: Promise, tick: float) -> None:
        self.id = call_id
        self.command = command
        self.promise = promise
        self.tick = tick
        self.body = b""
        self.number = 0
        self.sent_at = 0.0
        self.keyed = False
        self.users_key = False
        self.expiry: asyncio.TimerHandle | None = None


class Ledger:
    """All calls of one client. `wake` is called when there is something to `take`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: str,
        wake: Callable[[], None],
        *,
        timeout_s: float | None,
        retry_writes: bool,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        packer = wire.Packer()
        self.pack = packer.pack
        self.pack_params = packer.pack_params
        self.frame_bytes_max = wire.FRAME_BYTES_MAX
        self.before_tick: Callable[[], None] = _nothing  # called in the loop's thread
        self.idle = True  # nothing is queued, so `wake` must be called
        # Each call asks for both, and the loop's own ways take several times as long.
        self._thread = get_ident()
        self.new_future = functools.partial(asyncio.Future, loop=loop)
        self._loop = loop
        _ledgers.add(self)
        self._wake = wake
        self._retry_writes = retry_writes
        self._key_head = self.pack("idempotency_key") + b"\x93" + self.pack(client)
        self._only_key_head = bytes((_MAP_HEAD | 1,)) + self._key_head
        self._ended: Error | None = None  # why no call can be made any more
        self._last_id = 0
        self._calls: dict[int, _Call] = {}  # in the order they were made
        self._queue: deque[_Call] = deque()  # those to be sent, in that order too
        self._bytes = 0
        self._bytes_max = bytes_max
        self._last_number = 0
        self._done = 0
        self._done_beyond: set[int] = set()  # answered numbers above the first unanswered one
        self._timeout_s = timeout_s
        self._tick = 0
        self.tick_s = _TICK_S_DEFAULT if timeout_s is None else timeout_s / _TICKS
        self._ticking = loop.call_later(self.tick_s, self._count_tick)

    def __len__(self) -> int:
        """Calls that are not answered yet."""
        return len(self._calls)

    # --- making calls ---

    def call(
        self, command: Command[T], params: tuple[Any, ...], options: Mapping[str, Any], /
    ) -> asyncio.Future[T]:
        """Starts a call; the future of its result. A trailing None leaves a parameter to the
        server's default. Raises TypeError, ValueError, Overloaded, FrameTooLarge, Closed."""
        if get_ident() != self._thread or not self._loop.is_running():
            self._check_loop(command)
        future: asyncio.Future[T] = self.new_future()
        self.start(command, packed(self.pack_params, command, params), options, future)
        return future

    def leave_thread(self) -> None:
        """Every call looks from now on which loop runs."""
        self._thread = 0

    def _check_loop(self, command: Command[Any]) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                f"{command.name} was called in another event loop than the client was connected"
                " in; connect one client in each loop"
            )

    def start(
        self,
        command: Command[Any],
        params: bytes,
        options: Mapping[str, Any],
        promise: Promise,
    ) -> None:
        """Starts a call whose parameters are packed. Nothing has changed when this raises."""
        if self._ended is not None:
            raise copy.copy(self._ended)
        call_id = self._last_id + 1
        call = _Call(call_id, command, promise, self._tick)
        if options:
            timeout_s = self._add_options(call, params, options)
        else:
            timeout_s = None
            if self._retry_writes and params[0] > command.keyed_above:
                call.keyed = True
                call.number = self._last_number + 1
                head = _CALL_WITH_OPTIONS + self.pack(call_id) + command.packed_name
                call.body = head + params + self._only_key_head + self.pack(call.number)
            else:
                call.body = _CALL + self.pack(call_id) + command.packed_name + params
        size = len(call.body)
        if size + _HEAD_BYTES > self.frame_bytes_max or self._bytes + size > self._bytes_max:
            raise self._too_large(call)
        if timeout_s is not None:
            if timeout_s <= 0:
                promise.set_exception(_timed_out(call, timeout_s))
                return
            call.expiry = self._loop.call_later(timeout_s, self._expire, call, timeout_s)
        self._last_id = call_id
        if call.number:
            self._last_number = call.number
        self._calls[call_id] = call
        self._bytes += size
        self._queue.append(call)
        if self.idle:
            self.idle = False
            self._wake()

    def _add_options(self, call: _Call, params: bytes, options: Mapping[str, Any]) -> float | None:
        """Packs a call with options; returns its own timeout."""
        command = call.command
        asked = {name: value for name, value in options.items() if value is not None}
        if not WRITE_OPTIONS.issuperset(asked):
            unknown = ", ".join(asked.keys() - WRITE_OPTIONS)
            raise TypeError(f"{command.name} has no parameter and no option named {unknown}")
        timeout_s: float | None = asked.pop("timeout", None)
        if "timeout" in options:
            call.tick = math.inf
        call.users_key = "idempotency_key" in asked or "source" in asked
        keyed_above = -1 if asked and command.effect is Effect.DELTA else command.keyed_above
        if self._retry_writes and params[0] > keyed_above:
            call.keyed = True
            if "idempotency_key" not in asked:
                call.number = self._last_number + 1
        if timeout_s is not None:
            asked["timeout_ms"] = min(max(1, round(timeout_s * 1000)), TIMEOUT_MS_MAX)
        parts = [_CALL, self.pack(call.id), command.packed_name, params]
        if asked or call.number:
            parts[0] = _CALL_WITH_OPTIONS
            parts.append(bytes((_MAP_HEAD | len(asked) + bool(call.number),)))
            try:
                parts += (self.pack(name) + self.pack(value) for name, value in asked.items())
            except UNFIT as error:
                raise unfit(command, error) from error
        if call.number:  # the last pair; `take` adds done, the last value of the key
            parts += (self._key_head, self.pack(call.number))
        call.body = b"".join(parts)
        return timeout_s

    def _too_large(self, call: _Call) -> Error:
        size = len(call.body) + _HEAD_BYTES
        if size > self.frame_bytes_max:
            return FrameTooLarge(
                f"{call.command.name} makes a frame of {size} bytes, the server takes at most"
                f" {self.frame_bytes_max}"
            )
        return Overloaded(
            f"{len(self._calls)} calls with {self._bytes} bytes wait to be sent or answered,"
            f" at most {self._bytes_max} bytes may"
        )

    # --- sending ---

    def take(self, bytes_max: int) -> bytes:
        """The next frames to send, about so many bytes; nothing when all is sent, or has to wait
        for answers."""
        frames: list[bytes] = []
        size = 0
        now = self._loop.time()
        queue = self._queue
        while queue and size < bytes_max:
            call = queue[0]
            if call.number - self._done > WINDOW:
                break
            queue.popleft()
            if call.promise.done():  # given up before it was sent
                self._forget(call)
                continue
            if not call.sent_at:
                call.sent_at = now
            elif now - call.sent_at > RESEND_S and call.command.effect is not Effect.READ:
                self._fail(call, self._unknown(call, "could not be sent again for too long"))
                continue
            body = call.body
            if call.number:
                body += self.pack(self._done)
            frames += (wire.header(len(body)), body)
            size += len(body)
        return b"".join(frames)

    @property
    def has_more(self) -> bool:
        """Whether calls wait to be sent."""
        return bool(self._queue)

    @property
    def under_way(self) -> bool:
        """Whether calls were sent and are not answered yet. Linear in what waits to be sent."""
        waiting = sum(call.id in self._calls for call in self._queue)
        return len(self._calls) > waiting

    def futures(self) -> list[asyncio.Future[Any]]:
        """The futures of calls that are not answered yet."""
        promises = [call.promise for call in self._calls.values()]
        return [promise for promise in promises if isinstance(promise, asyncio.Future)]

    # --- answers ---

    def reply(self, call_id: Any, error: Any, result: Any) -> None:
        """The reply to a call; one for a call that is over is dropped."""
        call = self._calls.get(call_id)
        if call is None:
            return
        self._forget(call)
        promise = call.promise
        if promise.done():
            return
        if error is not None:
            promise.set_exception(_refusal(call, error))
            return
        decode = call.command.decode
        if decode is not None:
            try:
                result = decode(result)
            except Exception as fault:
                promise.set_exception(
                    Error(f"the reply to {call.command.name} is not as expected: {fault!r}")
                )
                return
        promise.set_result(result)

    def _forget(self, call: _Call) -> None:
        """The call is over for the connection, whatever its promise says."""
        if self._calls.pop(call.id, None) is None:
            return
        self._bytes -= len(call.body)
        if call.expiry is not None:
            call.expiry.cancel()
        if call.number:
            self._advance_done(call.number)

    def _advance_done(self, number: int) -> None:
        beyond = self._done_beyond
        beyond.add(number)
        while self._done + 1 in beyond:
            self._done += 1
            beyond.remove(self._done)

    def _fail(self, call: _Call, error: Error) -> None:
        self._forget(call)
        if not call.promise.done():
            call.promise.set_exception(error)

    # --- time ---

    def _expire(self, call: _Call, timeout_s: float) -> None:
        """The caller waits no longer. A call that was sent stays until its reply comes, for the
        server is still to answer it."""
        if call.promise.done():
            return
        call.promise.set_exception(_timed_out(call, timeout_s))
        if not call.sent_at:
            self._forget(call)

    def _count_tick(self) -> None:
        """Looks at the oldest calls, and lets go of queued ones that were given up."""
        self.before_tick()
        self._ticking = self._loop.call_later(self.tick_s, self._count_tick)
        self._tick += 1
        if self._timeout_s is not None:
            for call in self._aged():
                self._expire(call, self._timeout_s)
        if self._queue:
            for call in self._queue:
                if call.promise.done():
                    self._forget(call)
            self._queue = deque(call for call in self._queue if call.id in self._calls)

    def _aged(self) -> list[_Call]:
        """Calls older than the default timeout."""
        aged: list[_Call] = []
        for call in self._calls.values():
            age = self._tick - call.tick  # below 0 for a call with its own timeout
            if age > _TICKS:
                aged.append(call)
            elif age >= 0:
                break  # those after it are younger
        return aged

    # --- the connection ---

    def lost(self, cause: str) -> None:
        """The connection is gone: what may be sent again is queued again, in the old order."""
        self._recount()
        self._queue = deque()
        for call in list(self._calls.values()):
            if call.promise.done():
                self._forget(call)
            elif call.keyed or not call.sent_at or call.command.effect is Effect.READ:
                self._queue.append(call)
            else:
                self._fail(call, self._unknown(call, cause))

    def _recount(self) -> None:
        """Sums and numbers as the open calls have them: an interrupt may have hit a thread that
        was at work in here."""
        self._bytes = sum(len(call.body) for call in self._calls.values())
        numbers = {call.number for call in self._calls.values() if call.number}
        self._done = min(numbers, default=self._last_number + 1) - 1
        self._done_beyond = {*range(self._done + 1, self._last_number + 1)} - numbers

    def end(self, error: Error) -> None:
        """No call can be made any more, and none that is open will be answered."""
        self._ended = error
        self._ticking.cancel()
        self._queue.clear()
        for call in list(self._calls.values()):
            if call.sent_at and call.command.effect in (Effect.WRITE, Effect.DELTA):
                self._fail(call, self._unknown(call, error.message))
            else:
                self._fail(call, copy.copy(error))

    @staticmethod
    def _unknown(call: _Call, cause: str) -> Error:
        """The error of a call that was sent and will not be answered."""
        if call.command.effect is Effect.SESSION:
            return ConnectionLost(f"{call.command.name} was not answered: {cause}")
        return OutcomeUnknown(
            f"{call.command.name} was sent and not answered: {cause}; it may or may not have been"
            " applied",
            retryable=call.users_key,
        )


def _nothing() -> None: ...


def _forked() -> None:
    """A fork has the parent's threads by name, and runs none of their loops."""
    for ledger in _ledgers:
        ledger.leave_thread()


_ledgers: weakref.WeakSet[Ledger] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _timed_out(call: _Call, timeout_s: float) -> Error:
    name = call.command.name
    if not call.sent_at:
        return Timeout(f"{name} could not be sent within {timeout_s:g} s; nothing was done")
    if call.command.effect in (Effect.READ, Effect.SESSION) or call.users_key:
        return Timeout(f"{name} was not answered within {timeout_s:g} s")
    return OutcomeUnknown(
        f"{name} was not answered within {timeout_s:g} s; it may or may not have been applied"
    )


def _refusal(call: _Call, raw: list[Any]) -> Error:
    """The error of an error reply. Of a key of our own the caller knows nothing, so an error
    that speaks of it is put in her terms."""
    error = error_of(raw)
    if isinstance(error, OutcomeUnknown):
        error.retryable = call.users_key
    elif isinstance(error, Duplicate) and not call.users_key:
        # The server forgot the answer although this call was never counted as done: it was
        # applied, or refused, by an attempt whose answer nobody can give any more.
        return OutcomeUnknown(f"{call.command.name} was sent before and its answer is forgotten")
    return error
