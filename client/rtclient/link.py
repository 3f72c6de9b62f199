"""The link: one connection at a time, replaced by another when it is lost.

Owns the socket's protocol, the greeting, the waiting between attempts, and when bytes may leave.
Promises: all that was called in one iteration of the loop leaves in one write; no await lies
between bytes and the futures they resolve; a server that is slow to read stops the writing, not
the loop; the connection is told to the ledger and the feeds in this order: lost, greeted. A peer
whose host is gone is noticed by TCP keepalive within half a minute, without a timer here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import socket
from collections.abc import Callable
from typing import Any, Final, cast

from rtclient import wire
from rtclient.decode import error_of
from rtclient.errors import Closed, ConnectionLost, Error
from rtclient.feeds import Feeds
from rtclient.ledger import Ledger
from rtclient.url import Address

__all__ = ["Link"]

_log = logging.getLogger("rtclient")

_PROTOCOL_VERSION: Final = 1
_HELLO_ID: Final = 0  # calls count from 1
_CONNECT_S: Final = 10.0  # for one attempt, greeting included
_DRAIN_S: Final = 5.0  # for answers that are still to come when the client closes
_WAIT_MIN_S: Final = 0.1  # full jitter: the first wait is at most this,
_WAIT_MAX_S: Final = 20.0  # and no wait is longer than this
_STABLE_S: Final = 5.0  # a connection that lived so long starts the waits anew
_WRITE_BYTES: Final = 256 * 1024  # handed to the transport at once
_STOP_CODES: Final = 4500  # close codes from here on say: do not come back
_REPLY: Final = 1
_PUSH: Final = 2

_SOCKET_OPTIONS: Final = (
    ("TCP_NODELAY", 1),
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 30_000),  # ms that sent bytes may stay unacknowledged
)


class _Socket(asyncio.Protocol):
    """One connection: bytes to values, and the transport's signals, for the link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._frames = wire.Frames()
        self.greeting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.paused = False
        self.verdict: Error | None = None  # what the server said before it closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        _keep_alive(transport.get_extra_info("socket"))

    @property
    def resting(self) -> bool:
        """Whether no byte waits to be sent or is a part of a frame."""
        transport = self.transport
        return (
            self._frames.between
            and not self.paused
            and not transport.is_closing()
            and not transport.get_write_buffer_size()
        )

    def data_received(self, data: bytes) -> None:
        try:
            values, sizes = self._frames.cut(data)
        except ValueError as error:
            _log.error("what the server sent is no frame (%s); reconnecting", error)
            self.transport.abort()
            return
        self._link.received(self, values, sizes)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._link.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._link.lost(self, str(error or "") or "the connection was lost")


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SOCKET_OPTIONS:
        option = getattr(socket, name, None)  # not every system has them all
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _nothing() -> None: ...


def _longest_wait_s(attempts: int) -> float:
    return min(_WAIT_MAX_S, _WAIT_MIN_S * 2.0 ** min(attempts, 16))


class Link:
    """The life of one client: `open`, then calls through `ledger`, then `close`."""

    def __init__(
        self,
        address: Address,
        hello: dict[str, Any],
        *,
        timeout_s: float | None,
        retry_writes: bool,
        reconnect: bool,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._address = address
        self._hello = {
            **hello,
            "user": hello["user"] or address.user,
            "token": hello["token"] or address.token,
            "version": _PROTOCOL_VERSION,
        }
        self._reconnects = reconnect
        self.ledger = Ledger(
            self.loop,
            secrets.token_hex(16),
            self._flush_soon,
            timeout_s=timeout_s,
            retry_writes=retry_writes,
        )
        self.feeds = Feeds(self.ledger, self.loop)
        self.before_lost: Callable[[], None] = _nothing
        self.session: str | None = None
        self._socket: _Socket | None = None  # greeted, and not lost
        self._reconnecting: asyncio.Task[None] | None = None
        self._attempts = 0  # that failed, or soon failed again
        self._greeted_at = 0.0
        self._retry_after_s = 0.0
        self._ended = False

    @property
    def connected(self) -> bool:
        return self._socket is not None

    @property
    def resting(self) -> _Socket | None:
        """The connection, when nothing is under way on it and nothing is expected but replies."""
        connection = self._socket
        if connection is None or len(self.ledger) or len(self.feeds):
            return None
        return connection if connection.resting else None

    # --- connecting ---

    async def open(self) -> None:
        """The first connection. Raises ConnectionLost with the cause, or the server's refusal."""
        try:
            await self._connect()
        except BaseException as error:
            self.end(error if isinstance(error, Error) else Closed("the client was not connected"))
            raise

    async def _connect(self) -> None:
        host, port = self._address.host, self._address.port
        where = f"rt://{host}:{port}"
        connection: _Socket | None = None
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, connection = await self.loop.create_connection(lambda: _Socket(self), host, port)
                connection.transport.write(self._greeting_frame())
                await connection.greeting
        except TimeoutError:
            raise ConnectionLost(
                f"no answer from {where} within {_CONNECT_S:g} s", retryable=True
            ) from None
        except ConnectionLost:
            raise
        except OSError as error:
            raise ConnectionLost(f"cannot connect to {where}: {error}", retryable=True) from error
        finally:
            if connection is not None and connection is not self._socket:
                connection.transport.abort()

    def _greeting_frame(self) -> bytes:
        params = {**self._hello, "positions": self.feeds.positions()}
        body = self.ledger.pack((0, _HELLO_ID, "server.hello", params))
        return wire.header(len(body)) + body

    async def _reconnect(self) -> None:
        """Tries until it succeeds, or the server refuses for good."""
        while True:
            await asyncio.sleep(self._wait_s())
            try:
                return await self._connect()
            except Error as error:
                if not error.retryable:
                    return self.end(error)
                self._attempts += 1
                _log.info("attempt %d to reconnect failed: %s", self._attempts, error.message)

    def _wait_s(self) -> float:
        """Full jitter, after what the server asked us to wait."""
        asked, self._retry_after_s = self._retry_after_s, 0.0
        return asked + random.uniform(0.0, _longest_wait_s(self._attempts))

    # --- what the connection says ---

    def received(self, connection: _Socket, values: list[Any], sizes: list[int]) -> None:
        """Replies and pushes, in their order, with the bytes of each."""
        reply = self.ledger.reply
        for value, size in zip(values, sizes, strict=True):
            if value[0] == _REPLY:
                if value[1]:
                    reply(value[1], value[2], value[3])
                else:
                    self._greeted(connection, value)
            elif value[0] == _PUSH:
                if value[1] == "message":
                    self.feeds.message(value[2], size)
                elif value[1] == "close":
                    self._server_closes(connection, value[2])
        if self.ledger.has_more:
            self.flush()

    def _greeted(self, connection: _Socket, reply: list[Any]) -> None:
        """The answer to hello; calls leave from here on."""
        _, call_id, error, result = reply
        if call_id is None:
            _log.error("the server could not read what was sent: %s", error_of(error))
        if connection.greeting.done():
            return
        if error is not None:
            connection.greeting.set_exception(error_of(error))
            return
        self._socket = connection
        self._greeted_at = self.loop.time()
        self.session = result["session"]
        self.ledger.frame_bytes_max = result["limits"]["frame_bytes_max"]
        self.feeds.resume(result["channels"])
        connection.greeting.set_result(None)
        self.flush()

    def _server_closes(self, connection: _Socket, why: dict[str, Any]) -> None:
        """What precedes a close: reconnect and resume, or stop."""
        resumable = why["code"] < _STOP_CODES
        error = ConnectionLost(
            f"the server closed the connection ({why['name']}): {why['message']}",
            why,
            retryable=resumable,
        )
        connection.verdict = error
        if resumable:
            self._retry_after_s = why.get("retry_after_ms", 0) / 1000
        elif connection is self._socket:
            self.end(error)
        connection.transport.abort()

    def lost(self, connection: _Socket, cause: str) -> None:
        """The connection is gone."""
        error = connection.verdict or ConnectionLost(cause, retryable=True)
        if not connection.greeting.done():
            connection.greeting.set_exception(error)
        if connection is not self._socket:
            return
        self.before_lost()
        self._socket = None
        self.ledger.lost(error.message)
        if not self._reconnects:
            self.end(error)
            return
        stable = self.loop.time() - self._greeted_at > _STABLE_S
        self._attempts = 0 if stable else self._attempts + 1
        _log.info("%s; reconnecting", error.message)
        self._reconnecting = self.loop.create_task(self._reconnect())

    # --- sending ---

    def _flush_soon(self) -> None:
        """What else is called in this iteration of the loop goes into the same write."""
        self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Writes what was called, as far as the transport takes it."""
        ledger = self.ledger
        ledger.idle = True
        connection = self._socket
        while connection is not None and not connection.paused:
            data = ledger.take(_WRITE_BYTES)
            if not data:
                return
            connection.transport.write(data)

    # --- the end ---

    async def close(self) -> None:
        """Waits a little for answers that are still to come, then ends everything. Idempotent."""
        open_calls = self.ledger.futures()
        if open_calls and self.connected:
            await asyncio.wait(open_calls, timeout=_DRAIN_S)
        self.end(Closed("the client was closed"))
        if self._reconnecting is not None:
            await asyncio.wait([self._reconnecting])
        await asyncio.sleep(0)  # the transport closes its socket in the next iteration

    def end(self, error: Error) -> None:
        """Nothing can be called any more; what is open fails with `error`."""
        if self._ended:
            return
        self._ended = True
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.transport.abort()
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        self.ledger.end(error)
        self.feeds.end(None if isinstance(error, Closed) else error)
