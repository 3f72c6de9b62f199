"""The first byte of a connection tells what it speaks (protocol.md section 1).

0x00 or 0x01 begins a binary frame, an HTTP method with a space and a slash is HTTP, 0x16 is TLS
(answered with a line that says this port has none), any other printable byte is inline text;
leading line ends are skipped. Everything else is closed.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from rtserver.errors import CLOSE_TOO_MANY
from rtserver.transport.binary import stream_class
from rtserver.transport.engine import Engine
from rtserver.transport.http import HttpStream
from rtserver.transport.inline import InlineStream
from rtserver.transport.stream import Stream, end_transport, keep_alive

__all__ = ["FirstBytes"]

_METHODS: Final = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE")
_LONGEST_METHOD = max(map(len, _METHODS)) + 2  # with the space and the slash
_TLS = 0x16
_BLANK = b"\r\n"


class FirstBytes(asyncio.Protocol):
    """A connection of which nothing is known yet."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        keep_alive(self._transport)
        if not self._engine.accept():
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.release()

    def data_received(self, data: bytes) -> None:
        self._data = (self._data + data).lstrip(_BLANK)
        if not self._data:
            return
        first = self._data[0]
        if first <= 0x01:
            self._become(stream_class())
        elif first == _TLS:
            self._refuse(b"!this port speaks no TLS; use rt:// or http://\n")
        elif 0x20 <= first < 0x7F:
            self._become_text()
        else:
            self._refuse(b"")

    def _become_text(self) -> None:
        """HTTP or inline text; a method may arrive in pieces."""
        data = self._data
        starts = [method + b" /" for method in _METHODS]
        if any(data.startswith(start) for start in starts):
            self._hand_over(self._http())
        elif not any(start.startswith(data) for start in starts):
            self._become(InlineStream)

    def _http(self) -> HttpStream:
        transport = self._open_transport()
        return HttpStream(self._engine, transport, _address(transport))

    def _become(self, kind: type[Stream]) -> None:
        transport = self._open_transport()
        stream = kind(self._engine, transport, _address(transport))
        bound = self._engine.limits.connections_max
        if self._engine.connections > bound:
            stream.connection.close(CLOSE_TOO_MANY, f"{bound} connections are open, the most")
            self._data = b""
        self._hand_over(stream)

    def _hand_over(self, protocol: asyncio.Protocol) -> None:
        transport = self._open_transport()
        transport.set_protocol(protocol)
        data, self._data = self._data, b""
        protocol.data_received(data)

    def _open_transport(self) -> asyncio.Transport:
        assert self._transport is not None, "bytes arrive after connection_made"
        return self._transport

    def _refuse(self, line: bytes) -> None:
        transport = self._open_transport()
        if line:
            transport.write(line)
        end_transport(transport)


def _address(transport: asyncio.Transport) -> str | None:
    peer: Any = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else None
