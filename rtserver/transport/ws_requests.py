"""Requests in the messages of a WebSocket, one class a sub-protocol (protocol.md section 6).

Both run what was received within the turn's budget and raise ProtocolError where a message is none
of theirs, after everything before it has run. They receive more only when all has run, and then
keep nothing.
"""

from __future__ import annotations

from typing import Any

from rtserver.errors import ProtocolError
from rtserver.session.connection import Connection
from rtserver.transport.binary import COST_SHIFT, new_frame_reader
from rtserver.transport.engine import Engine, Progress
from rtserver.wire.codec import pack
from rtserver.wire.frames import HEADER, HEADER_BYTES
from rtserver.wire.jsonform import from_json
from rtserver.wire.wsforms import MSGPACK

__all__ = ["JsonRequests", "MsgpackRequests"]

_length_at = HEADER.unpack_from
_FRAMES_PER_PIECE = 1_024  # looked at in one go
_PACKED_FACTOR = 3  # one character of JSON becomes at most so many bytes of a record
_MEASURED_BYTES = 16 * 1024  # of longer lines the record's size is measured


class MsgpackRequests:
    """Messages that hold the frames of TCP, whole ones only."""

    __slots__ = ("_broken", "_frames", "_messages", "_position")

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._frames = new_frame_reader(engine, connection, MSGPACK.wrap)
        self._messages: list[bytes] = []  # what the reader of frames has not got
        self._position = 0  # in the first of them
        self._broken = False  # a message ended in the middle of a frame

    def receive(self, messages: list[bytes]) -> None:
        self._messages = messages
        self._hand_over()

    def run(self) -> Progress:
        while (progress := self._frames.run()) is Progress.IDLE and self._messages:
            self._hand_over()
        if progress is Progress.IDLE and self._broken:
            raise ProtocolError("a message ends in the middle of a frame")
        return progress

    def _hand_over(self) -> None:
        """Whole frames for the reader, about as many as one run takes."""
        messages = self._messages
        pieces: list[bytes] = []
        left = _FRAMES_PER_PIECE
        while messages and left > 0:
            message = messages[0]
            start = self._position
            end, left = _skip_frames(message, start, left)
            pieces.append(message if end - start == len(message) else message[start:end])
            self._position = end
            if end == len(message):
                del messages[0]
                self._position = 0
            elif left > 0:
                self._broken = True
                messages.clear()
        self._frames.receive(pieces[0] if len(pieces) == 1 else b"".join(pieces))


def _skip_frames(message: bytes, start: int, count: int) -> tuple[int, int]:
    """Where so many frames from `start` on end, or the whole ones among them, and how many more it
    might have been."""
    size = len(message)
    while count > 0 and size - start >= HEADER_BYTES:
        end = start + HEADER_BYTES + int(_length_at(message, start)[0])
        if end > size:
            break
        start = end
        count -= 1
    return start, count


class JsonRequests:
    """Messages that hold a frame as JSON on each line; empty lines are nothing."""

    __slots__ = ("_buffer", "_connection", "_engine", "_position")

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        self._buffer = b""
        self._position = 0  # of the next line; what is before it was run

    def receive(self, messages: list[bytes]) -> None:
        self._buffer = messages[0] if len(messages) == 1 else b"\n".join(messages)
        self._position = 0

    def run(self) -> Progress:
        engine = self._engine
        connection = self._connection
        budget = engine.budget()
        waiting_max = engine.limits.replies_waiting_max
        while self._position < len(self._buffer) and connection.is_open:
            if connection.congested or connection.waiting >= waiting_max:
                return Progress.BLOCKED
            if budget <= 0:
                return Progress.MORE
            cost = self._run_line(self._next_line())
            budget -= cost
            if engine.spent(cost):
                budget = 0
        self._buffer = b""
        return Progress.IDLE

    def _next_line(self) -> bytes:
        start = self._position
        end = self._buffer.find(b"\n", start)
        if end < 0:
            end = len(self._buffer)
        self._position = end + 1
        return self._buffer[start:end]

    def _run_line(self, line: bytes) -> int:
        if not line or line.isspace():
            return 1
        try:
            body = from_json(line)
        except ValueError as error:
            raise ProtocolError(f"a line is no frame: {error}") from None
        cost = self._engine.frame(self._connection, body, _packed_bytes(line, body))
        return cost + (len(line) >> COST_SHIFT)


def _packed_bytes(line: bytes, body: Any) -> int:
    """A bound of what a line becomes in a record, or close to it where it matters."""
    bound = len(line) * _PACKED_FACTOR
    if len(line) < _MEASURED_BYTES:
        return bound
    try:
        return len(pack(body))
    except (OverflowError, ValueError):  # an integer beyond 64 bits, which is refused
        return bound
