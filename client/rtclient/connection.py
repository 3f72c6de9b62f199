"""One connection: bytes of the wire, over TCP, TLS, a unix socket or WebSocket.

Owns the opening of the socket and what stands between it and the wire (nothing, or the tunnel of
a WebSocket), so that whoever uses it sees frames and never which of these it is. What is written
at once becomes one message of a WebSocket. A peer whose host is gone is noticed by TCP keepalive
within half a minute, without a timer here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

from rtclient import wire
from rtclient.errors import ConnectionLost, Error
from rtclient.url import Address
from rtclient.websocket import Tunnel

__all__ = ["STOP_CODES", "Connection", "Listener", "check_options", "open_connection"]

STOP_CODES: Final = 4500  # close codes from here on say: do not come back

_OUR_FAULT: Final = frozenset((1002, 1003, 1007, 1009, 1010))  # codes that coming back repeats

_SOCKET_OPTIONS: Final = (
    ("TCP_NODELAY", 1),
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 30_000),  # ms that sent bytes may stay unacknowledged
)


class Listener(Protocol):
    """Who is told of a connection."""

    def received(self, connection: Connection, values: list[Any], sizes: list[int], /) -> None: ...

    def flush(self) -> None: ...

    def lost(self, connection: Connection, cause: str, /) -> None: ...


class Connection(asyncio.Protocol):
    """Bytes to values, and the transport's signals. `opened` is done when frames may be written,
    `greeting` is for its user, `verdict` is what the other side said before it closed, `heard`
    tells that something came since somebody made it false."""

    def __init__(self, listener: Listener, tunnel: Tunnel | None) -> None:
        self._listener = listener
        self._frames = wire.Frames()
        self._tunnel = tunnel
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.greeting: asyncio.Future[None] = loop.create_future()
        self.paused = False
        self.heard = False
        self.verdict: Error | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        _keep_alive(transport.get_extra_info("socket"))
        if self._tunnel is None:
            self.opened.set_result(None)
        else:
            self.transport.write(self._tunnel.request)

    @property
    def is_plain(self) -> bool:
        """Whether the socket carries the bytes of the wire as they are."""
        return self._tunnel is None and self.transport.get_extra_info("sslcontext") is None

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

    def write(self, data: bytes) -> None:
        """Frames, which leave together."""
        self.transport.write(data if self._tunnel is None else self._tunnel.message(data))

    def abort(self) -> None:
        """Ends it at once."""
        self.transport.abort()

    def close(self) -> None:
        """Ends it politely: what was written still leaves."""
        if self._tunnel is not None and not self.transport.is_closing():
            self.transport.write(self._tunnel.close())
        self.transport.close()

    def leave(self) -> None:
        """Ends it without waiting for a peer who does not read."""
        if self._tunnel is not None and not self.transport.get_write_buffer_size():
            self.close()
        else:
            self.abort()

    # --- asyncio ---

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            if self._tunnel is not None:
                data = self._unwrap(self._tunnel, data)
            values, sizes = self._frames.cut(data)
        except (ValueError, Error) as error:
            self.verdict = self.verdict or (
                error
                if isinstance(error, Error)
                else ConnectionLost(f"what came is no frame: {error}", retryable=True)
            )
            self.abort()
            return
        if values:
            self._listener.received(self, values, sizes)
        if self._tunnel is not None and self._tunnel.is_closed:
            self.verdict = self.verdict or _closed(self._tunnel)
            self.transport.close()

    def _unwrap(self, tunnel: Tunnel, data: bytes) -> bytes:
        data = tunnel.receive(data)
        answers = tunnel.take_answers()
        if answers:
            self.transport.write(answers)
        if tunnel.is_open and not self.opened.done():
            self.opened.set_result(None)
        return data

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._listener.flush()

    def connection_lost(self, error: Exception | None) -> None:
        lost = ConnectionLost(str(error or "") or "the connection was lost", retryable=True)
        self.verdict = self.verdict or lost
        for step in (self.opened, self.greeting):
            if not step.done():
                step.set_exception(self.verdict)
                step.exception()  # perhaps nobody waits for it any more
        self._listener.lost(self, lost.message)


def _closed(tunnel: Tunnel) -> Error:
    """A Close frame came that no `close` push of the server explains."""
    code = tunnel.close_code or 1005  # RFC 6455 section 7.1.5: none was given
    return ConnectionLost(
        f"the WebSocket was closed with {code}: {tunnel.close_reason or 'no reason given'}",
        {"code": code},
        retryable=not (code in _OUR_FAULT or STOP_CODES <= code < 5000),
    )


def _keep_alive(connection: socket.socket) -> None:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SOCKET_OPTIONS:
        option = getattr(socket, name, None)  # not every system has them all
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def check_options(
    address: Address, context: ssl.SSLContext | None, headers: Mapping[str, str] | None
) -> None:
    """Raises ValueError for options that the URL has no use for, and for wrong headers."""
    if context is not None and not address.tls:
        raise ValueError(f"ssl is for rts:// and wss://, not for {address}")
    if headers and not address.websocket:
        raise ValueError(f"headers are for ws:// and wss://, not for {address}")
    if address.websocket:
        Tunnel(address.authority, address.path, headers or {})


async def open_connection(
    listener: Listener,
    address: Address,
    context: ssl.SSLContext | None,
    headers: Mapping[str, str] | None,
) -> Connection:
    """A connection over which frames may be written. Raises OSError, ConnectionLost."""
    loop = asyncio.get_running_loop()
    tunnel = Tunnel(address.authority, address.path, headers or {}) if address.websocket else None

    def make() -> Connection:
        return Connection(listener, tunnel)

    if address.unix:
        _, connection = await loop.create_unix_connection(make, address.path)
    else:
        tls = (context or ssl.create_default_context()) if address.tls else None
        _, connection = await loop.create_connection(make, address.host, address.port, ssl=tls)
    try:
        await connection.opened
    except BaseException:
        connection.abort()
        raise
    return connection
