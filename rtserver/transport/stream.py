"""What every stream transport shares: the socket's writing half and its flow control.

asyncio calls `pause_writing` above the outbox's soft limit and `resume_writing` below half of it;
between the two, the connection is congested and its requests wait.
"""

from __future__ import annotations

import asyncio

from rtserver.session.connection import Connection, Form
from rtserver.transport.engine import Engine, Progress

__all__ = ["Stream"]

_END_GRACE_S = 2.0  # how long written bytes may take to leave after a close


class Stream(asyncio.Protocol):
    """One stream connection: Sink of its Connection, Reader of the engine.

    Subclasses implement `receive(data)` and `run()`.
    """

    form: Form

    def __init__(self, engine: Engine, transport: asyncio.Transport, address: str | None) -> None:
        self.queued = False
        self.ended = False
        self._engine = engine
        self._transport = transport
        self._reading = True
        soft = engine.limits.outbox_soft_bytes
        transport.set_write_buffer_limits(high=soft, low=soft // 2)
        self.connection: Connection = engine.connect(self.form, self, address)

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

    def end(self) -> None:
        self._transport.close()
        loop = asyncio.get_running_loop()
        loop.call_later(_END_GRACE_S, self._transport.abort)

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
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.disconnect(self.connection)
