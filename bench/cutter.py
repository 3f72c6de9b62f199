"""A proxy on loopback that can be cut: all that go through it lose their connection, and nobody
gets through until it is mended. The server behind it may change its address."""

from __future__ import annotations

import asyncio
from typing import Self, cast

from bench.peers import Address

__all__ = ["Cutter"]

_HOST = "127.0.0.1"
_BACKLOG = 4_096


class Cutter:
    """Listens on `address` once it is open; leads to `target`."""

    def __init__(self, target: Address) -> None:
        self.address: Address = ("", 0)
        self.target = target
        self.is_cut = False
        self._ends: set[_End] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self), _HOST, 0, backlog=_BACKLOG)
        self.address = self._server.sockets[0].getsockname()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()

    def cut(self) -> None:
        self.is_cut = True
        for end in list(self._ends):
            end.abort()

    def mend(self) -> None:
        self.is_cut = False

    def came(self, end: _End) -> bool:
        """Whether it may stay."""
        if not self.is_cut:
            self._ends.add(end)
        return not self.is_cut

    def went(self, end: _End) -> None:
        self._ends.discard(end)


class _End(asyncio.Protocol):
    """One of the two sockets of a connection through a proxy; what it reads the other one sends."""

    def __init__(self, cutter: Cutter, other: _End | None = None) -> None:
        self._cutter = cutter
        self._other = other
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []  # came before there was another end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._cutter.came(self):
            self._transport.abort()
        elif self._other is None:
            self._dialling = asyncio.create_task(self._dial())
        else:
            self._other.join(self)

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _End(self._cutter, self), *self._cutter.target)
        except OSError:
            self.abort()

    def join(self, other: _End) -> None:
        """The way to the server is open."""
        if self._transport is None or self._transport.is_closing():
            other.abort()
            return
        self._other = other
        for data in self._early:
            other.send(data)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._early.append(data)
        else:
            self._other.send(data)

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        self._cutter.went(self)
        if self._other is not None:
            self._other.close()

    def close(self) -> None:
        """After what was sent has left."""
        if self._transport is not None:
            self._transport.close()
