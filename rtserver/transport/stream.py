"""What every stream transport shares: the socket's writing half and its flow control.

asyncio calls `pause_writing` above the outbox's soft limit and `resume_writing` below half of it;
between the two, the connection is congested and its requests wait.
"""

from __future__ import annotations

import asyncio
import select
import socket

from rtserver.session.connection import Connection, Form
from rtserver.session.identity import Identity
from rtserver.transport.engine import Engine, Progress

__all__ = ["END_GRACE_S", "Stream", "end_transport", "keep_alive"]

END_GRACE_S = 2.0  # how long written bytes may take to leave after a close
_KEEPALIVE_S = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
_LOOK_EVERY_S = 10.0
_INTERNET = (socket.AF_INET, socket.AF_INET6)


def end_transport(transport: asyncio.Transport) -> None:
    """Closes once what was written has left; if it does not leave soon, without it."""
    transport.close()
    asyncio.get_running_loop().call_later(END_GRACE_S, transport.abort)


def keep_alive(transport: asyncio.Transport) -> None:
    """Has the kernel find out about a peer that is gone without a word."""
    peer = transport.get_extra_info("socket")
    if peer is None or peer.family not in _INTERNET:
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE_S.items():
        if hasattr(socket, option):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class Stream(asyncio.Protocol):
    """One stream connection: Sink of its Connection, Reader of the engine.

    Subclasses implement `receive(data)`, `run()` and `kept()`.
    """

    __slots__ = (
        "__weakref__",
        "_engine",
        "_reading",
        "_transport",
        "connection",
        "ended",
        "queued",
    )
    form: Form

    def __init__(
        self,
        engine: Engine,
        transport: asyncio.Transport,
        address: str | None,
        identity: Identity | None = None,
    ) -> None:
        self.queued = False
        self.ended = False
        self._engine = engine
        self._transport = transport
        self._reading = True
        soft = engine.limits.outbox_soft_bytes
        transport.set_write_buffer_limits(high=soft, low=soft // 2)
        self.connection: Connection = engine.connect(self.form, self, address, identity)

    # --- Reader ---

    def data_received(self, data: bytes) -> None:
        self.receive(data)
        self._engine.heard(self, len(data))

    def receive(self, data: bytes) -> None:
        """Keeps bytes until `run` takes them."""
        raise NotImplementedError

    def run(self) -> Progress:
        raise NotImplementedError

    def set_reading(self, reading: bool) -> None:
        if reading == self._reading or self._transport.is_closing():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def resume(self) -> None:
        self._engine.feed(self)

    # --- Sink ---

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    def kept(self) -> int:
        raise NotImplementedError

    def look(self, now: int) -> None:
        """The kernel looks after a TCP connection (`keep_alive`)."""

    def end(self) -> None:
        end_transport(self._transport)

    # --- asyncio ---

    def resume_writing(self) -> None:
        self.connection.measure()
        self.connection.unblock()
        self._engine.feed(self)  # also lets a reader who is behind catch up

    def eof_received(self) -> bool:
        """A half-closed peer still gets its replies and its pushes: the socket stays open for
        writing until nothing more is to come."""
        self.ended = True
        self._engine.feed(self)
        self._look_if_gone()
        return True

    def _look_if_gone(self) -> None:
        """The loop watches a half-closed socket no more. Over TCP it shows that the peer is gone
        once a keepalive probe was refused."""
        peer = self._transport.get_extra_info("socket")
        if self._transport.is_closing() or peer is None or not hasattr(select, "poll"):
            return
        poll = select.poll()
        poll.register(peer.fileno(), 0)  # what is always told: that both directions have ended
        if poll.poll(0):
            self._transport.abort()
        else:
            asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look_if_gone)

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.disconnect(self.connection)
