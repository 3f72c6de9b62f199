"""Binary frames over a stream: cuts bytes into frames and runs them within the turn's budget.

No await and no object beside the decoded values lies between the bytes and the queued reply. A
frame that is announced larger than the limit is refused before its body is read; one that
arrives in pieces is collected in one growing buffer, so that a large frame costs linear time.
The compiled twin of `FrameReader` runs the frequent commands from the bytes (commands/_express).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from rtserver.compiled import twin
from rtserver.errors import ProtocolError
from rtserver.session.connection import Connection
from rtserver.transport.engine import Engine, Progress
from rtserver.transport.stream import Stream
from rtserver.wire import frames
from rtserver.wire.codec import unpack
from rtserver.wire.frames import HEADER, HEADER_BYTES

__all__ = [
    "COST_SHIFT",
    "REPORT_COST",
    "BinaryStream",
    "FrameReader",
    "new_frame_reader",
    "stream_class",
]

_length_at = HEADER.unpack_from
COST_SHIFT = 8  # one cost unit for every 256 bytes of a frame
REPORT_COST = 32  # the turn is asked for its time after so many cost units


class FrameReader:
    """The frames of one connection that came and were not run yet."""

    __slots__ = ("_buffer", "_connection", "_engine", "_missing", "_partial")

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        self._buffer = b""  # received and not run: whole frames, or the begin of a header
        self._partial = bytearray()  # one frame that is not complete yet
        self._missing = 0  # bytes it lacks

    def receive(self, data: bytes) -> None:
        if self._missing > 0:
            self._partial += data
            self._missing -= len(data)
            if self._missing <= 0:
                self._buffer = bytes(self._partial)
                self._partial = bytearray()
        elif self._buffer:
            self._buffer += data
        else:
            self._buffer = data

    @property
    def kept(self) -> int:
        """Bytes that were received and not run."""
        return len(self._buffer) + len(self._partial)

    def drop(self) -> None:
        """Forgets what was received and not run."""
        self._buffer = b""

    def run(self) -> Progress:
        """Runs complete frames. Raises ProtocolError."""
        if self._missing > 0:
            return Progress.IDLE
        engine = self._engine
        run_frame = engine.frame
        connection = self._connection
        buffer = self._buffer
        end = len(buffer)
        position = 0
        budget = engine.budget()
        unreported = 0
        congested_bytes = engine.limits.outbox_soft_bytes
        bytes_max = engine.limits.frame_bytes_max
        waiting_max = engine.limits.replies_waiting_max
        progress = Progress.IDLE
        while end - position >= HEADER_BYTES:
            (length,) = _length_at(buffer, position)
            if length > bytes_max:
                raise frames.too_large(length, bytes_max)
            start = position + HEADER_BYTES
            stop = start + length
            if stop > end:
                self._missing = stop - end
                break
            if budget <= 0:
                progress = Progress.MORE
                break
            if connection.pending_bytes > congested_bytes or connection.waiting >= waiting_max:
                progress = Progress.BLOCKED
                break
            cost = run_frame(connection, unpack(buffer[start:stop]), length)
            cost += length >> COST_SHIFT
            position = stop
            budget -= cost
            unreported += cost
            if unreported >= REPORT_COST:
                if engine.spent(unreported):
                    budget = 0
                unreported = 0
        engine.spent(unreported)
        self._keep(buffer[position:])
        return progress

    def _keep(self, rest: bytes) -> None:
        """What is left waits for its missing bytes, or for the next turn."""
        if self._missing > 0:
            self._partial += rest
            self._buffer = b""
        else:
            self._buffer = rest


def new_frame_reader(
    engine: Engine, connection: Connection, wrap: Callable[[bytes], bytes] | None = None
) -> FrameReader:
    """The reader of a connection, in compiled form where there is one: that makes replies itself,
    and `wrap` is what the connection's form does to such bytes."""
    compiled: Any = twin(__name__)
    if compiled is None:
        return FrameReader(engine, connection)
    return cast(FrameReader, compiled.FrameReader(engine, connection, wrap))


class BinaryStream(Stream):
    """A connection that speaks frames of msgpack."""

    __slots__ = ("_frames",)
    form = frames

    def __init__(self, engine: Engine, transport: asyncio.Transport, address: str | None) -> None:
        super().__init__(engine, transport, address)
        self._frames = new_frame_reader(engine, self.connection)

    def receive(self, data: bytes) -> None:
        self._frames.receive(data)

    def kept(self) -> int:
        return self._frames.kept

    def run(self) -> Progress:
        connection = self.connection
        if not connection.is_open:
            return Progress.IDLE
        try:
            return self._frames.run()
        except ProtocolError as error:
            self._engine.metrics.count_error(error.kind.name)
            connection.reply_error(None, error)
            connection.close(error.close, error.message)
            self._frames.drop()
            return Progress.IDLE


def stream_class() -> type[BinaryStream]:
    """The class of binary streams, in compiled form where there is one."""
    compiled: Any = twin(__name__)
    return BinaryStream if compiled is None else cast(type[BinaryStream], compiled.BinaryStream)
