"""The link: one connection at a time, replaced by another when it is lost.

Owns the greeting, the session, the waiting between attempts, and when bytes may leave; what kind
of connection it is, is `connection`'s. Promises: all that was called in one iteration of the loop
leaves in one write; no await lies between bytes and the futures they resolve; a server that is slow
to read stops the writing, not the loop; the connection is told to the ledger and the feeds in this
order: lost, greeted. A server that asks to be left (`drain`) gets no more calls after the delay it
names, and is left when those under way are answered.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

from rtclient import wire
from rtclient.connection import STOP_CODES, Connection, check_options, open_connection
from rtclient.credentials import Credentials, Token
from rtclient.decode import error_of
from rtclient.errors import Closed, ConnectionLost, Error
from rtclient.feeds import Feeds
from rtclient.heartbeat import Heartbeat
from rtclient.ledger import Ledger
from rtclient.server_errors import TokenExpired
from rtclient.url import Address

__all__ = ["Link"]

_log = logging.getLogger("rtclient")

_PROTOCOL_VERSION: Final = 1
_HELLO_ID: Final = 0  # calls count from 1
_CONNECT_S: Final = 10.0  # for one attempt, greeting included
_DRAIN_S: Final = 5.0  # for answers that are still to come when a connection is left
_WAIT_MIN_S: Final = 0.1  # full jitter: the first wait is at most this,
_WAIT_MAX_S: Final = 20.0  # and no wait is longer than this
_STABLE_S: Final = 5.0  # a connection that lived so long starts the waits anew
_WRITE_BYTES: Final = 256 * 1024  # handed to the transport at once
_REPLY: Final = 1
_PUSH: Final = 2


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
        token: Token | None,
        timeout_s: float | None,
        retry_writes: bool,
        reconnect: bool,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        check_options(address, tls, headers)
        self.loop = asyncio.get_running_loop()
        self._address = address
        self._tls = tls
        self._headers = headers
        self._hello = {
            **hello,
            "user": hello["user"] or address.user,
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
        self.before_lost: Callable[[], None] = _nothing  # and before it is used unasked
        self.session: str | None = None
        self.user: str | None = None  # who the server says we are
        self._credentials = Credentials(token or address.token, self.ledger, self.loop)
        self._socket: Connection | None = None  # greeted, and not lost
        self._heartbeat: Heartbeat | None = None
        self._leaving = False  # nothing more is called on this connection
        self._drain: asyncio.TimerHandle | None = None  # when it is left, then when it is cut
        self._reconnecting: asyncio.Task[None] | None = None
        self._attempts = 0  # that failed, or soon failed again
        self._greeted_at = 0.0
        self._retry_after_s = 0.0
        self._ended = False

    @property
    def connected(self) -> bool:
        return self._socket is not None

    @property
    def resting(self) -> Connection | None:
        """The connection, when it is a plain socket on which nothing is under way and nothing is
        expected but replies."""
        connection = self._socket
        if connection is None or self._leaving or len(self.ledger) or len(self.feeds):
            return None
        return connection if connection.is_plain and connection.resting else None

    # --- connecting ---

    async def open(self) -> None:
        """The first connection. Raises ConnectionLost with the cause, or the server's refusal."""
        try:
            await self._connect()
        except BaseException as error:
            self.end(error if isinstance(error, Error) else Closed("the client was not connected"))
            raise

    async def _connect(self) -> None:
        where = self._address
        connection: Connection | None = None
        token = await self._credentials.fetch()
        try:
            async with asyncio.timeout(_CONNECT_S):
                connection = await open_connection(self, where, self._tls, self._headers)
                connection.write(self._greeting_frame(token))
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
                connection.abort()

    def _greeting_frame(self, token: str | None) -> bytes:
        params = {**self._hello, "token": token, "positions": self.feeds.positions()}
        if self.session is not None:
            params["session"] = self.session
        body = self.ledger.pack((0, _HELLO_ID, "server.hello", params))
        return wire.header(len(body)) + body

    async def _reconnect(self) -> None:
        """Tries until it succeeds, or the server refuses for good."""
        while True:
            await asyncio.sleep(self._wait_s())
            try:
                return await self._connect()
            except Error as error:
                stale = isinstance(error, TokenExpired) and self._credentials.renewable
                if not error.retryable and not stale:
                    return self.end(error)
                self._attempts += 1
                _log.info("attempt %d to reconnect failed: %s", self._attempts, error.message)

    def _wait_s(self) -> float:
        """Full jitter, after what the server asked us to wait."""
        asked, self._retry_after_s = self._retry_after_s, 0.0
        return asked + random.uniform(0.0, _longest_wait_s(self._attempts))

    # --- what the connection says ---

    def received(self, connection: Connection, values: list[Any], sizes: list[int]) -> None:
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
                elif value[1] == "drain":
                    self._server_drains(connection, value[2])
                else:
                    self.feeds.push(value[1], value[2])
        if self._leaving:
            self._leave_when_answered(connection)
        elif self.ledger.has_more:
            self.flush()

    def _greeted(self, connection: Connection, reply: list[Any]) -> None:
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
        self.user = result.get("user")
        self.ledger.frame_bytes_max = result["limits"]["frame_bytes_max"]
        heartbeat_ms = result.get("heartbeat_ms")
        if heartbeat_ms:
            self._heartbeat = Heartbeat(
                self.loop, connection, heartbeat_ms / 1000, self._before_beat
            )
        self._credentials.renew_before(result.get("expires_at"))
        self.feeds.resume(result["channels"], in_session=bool(result.get("resumed")))
        connection.greeting.set_result(None)
        self.flush()

    def _before_beat(self) -> None:
        self.before_lost()

    def _server_closes(self, connection: Connection, why: dict[str, Any]) -> None:
        """What precedes a close: reconnect and resume, or stop."""
        resumable = why["code"] < STOP_CODES
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
        connection.abort()

    def _server_drains(self, connection: Connection, what: dict[str, Any]) -> None:
        """The server is going to stop: this connection is left after the delay it gave us."""
        if connection is self._socket and self._drain is None:
            delay_s = what.get("retry_after_ms", 0) / 1000
            self._drain = self.loop.call_later(delay_s, self._leave, connection)

    def _leave(self, connection: Connection) -> None:
        """Nothing more is sent here; the next connection is made when all is answered, or the
        server took too long for that."""
        self.before_lost()
        self._leaving = True
        self._drain = self.loop.call_later(_DRAIN_S, connection.close)
        self._leave_when_answered(connection)

    def _leave_when_answered(self, connection: Connection) -> None:
        if not self.ledger.under_way:
            connection.close()

    def lost(self, connection: Connection, cause: str) -> None:
        """The connection is gone."""
        error = connection.verdict or ConnectionLost(cause, retryable=True)
        if connection is not self._socket:
            return
        self.before_lost()
        self._forget_connection()
        self.ledger.lost(error.message)
        if not self._reconnects or not error.retryable:
            self.end(error)
            return
        stable = self.loop.time() - self._greeted_at > _STABLE_S
        self._attempts = 0 if stable else self._attempts + 1
        _log.info("%s; reconnecting", error.message)
        self._reconnecting = self.loop.create_task(self._reconnect())

    def _forget_connection(self) -> None:
        self._socket = None
        self._leaving = False
        self._credentials.stop()
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        if self._drain is not None:
            self._drain.cancel()
            self._drain = None

    # --- sending ---

    def _flush_soon(self) -> None:
        """What else is called in this iteration of the loop goes into the same write."""
        self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Writes what was called, as far as the transport takes it."""
        ledger = self.ledger
        ledger.idle = True
        connection = self._socket
        while connection is not None and not connection.paused and not self._leaving:
            data = ledger.take(_WRITE_BYTES)
            if not data:
                return
            connection.write(data)

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
        connection = self._socket
        self._forget_connection()
        if connection is not None:
            connection.leave()
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        self.ledger.end(error)
        self.feeds.end(None if isinstance(error, Closed) else error)
