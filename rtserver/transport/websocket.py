"""WebSocket connections: messages of two sub-protocols, run within the turn's budget.

Owns a connection from the handshake to the end of its closing handshake. Requests that came before
a Close, a violation of the standard or the end of the bytes are run and answered first; then ours
or the echoed Close leaves, and the peer has a bounded time to go. A publication costs each
subscriber one list append and one write; an idle connection holds no buffer and no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

from rtserver.compiled import twin
from rtserver.errors import (
    CLOSE_IDLE,
    CLOSE_PROTOCOL,
    CLOSE_TOO_LARGE,
    CLOSE_TOO_MANY,
    CloseKind,
    ProtocolError,
)
from rtserver.session.connection import Connection, Form
from rtserver.session.identity import Identity
from rtserver.transport import binary
from rtserver.transport.engine import Engine, Progress
from rtserver.transport.policy import credentials
from rtserver.transport.stream import END_GRACE_S, Stream, end_transport
from rtserver.transport.ws_requests import JsonRequests, MsgpackRequests
from rtserver.wire import websocket
from rtserver.wire.frames import HEADER_BYTES
from rtserver.wire.request import Request
from rtserver.wire.websocket import HandshakeRefused, Parser, Violation
from rtserver.wire.wsforms import JSON, MSGPACK

__all__ = ["HandshakeRefused", "Requests", "SubProtocol", "WebSocketStream", "upgrade"]

_FRAMES_PER_RUN = 512  # taken apart in one go; a turn has time for more only after others
_FRAMES_PER_COST = 8  # which cost about as much as one command
_PHASES = 256  # those who came together are not pinged together
_PING = websocket.frame(websocket.PING, b"")
_NO_CLOSE = "the bytes ended without a Close frame"


class Requests(Protocol):
    """The requests in the messages of one connection."""

    def receive(self, messages: list[bytes]) -> None:
        """Keeps what came until `run` takes it. Only when all before has run."""

    def run(self) -> Progress:
        """Runs complete requests while the turn has room for them. Raises ProtocolError."""


class SubProtocol(NamedTuple):
    """What the messages of a connection are: their form, their opcodes, who reads them."""

    form: Form
    opcodes: tuple[int, ...]
    requests: Callable[[Engine, Connection], Requests]


_DEFAULT = "rt1.json"  # of a client that asks for none
_PROTOCOLS = {
    "rt1.msgpack": SubProtocol(MSGPACK, (websocket.BINARY,), MsgpackRequests),
    _DEFAULT: SubProtocol(JSON, (websocket.TEXT,), JsonRequests),
}


class _Ending(NamedTuple):
    """Why nothing more is read of a peer: the Close frame that says so, and what it counts as."""

    close: bytes
    kind: CloseKind | None = None


class WebSocketStream(Stream):
    """One WebSocket, after its handshake."""

    __slots__ = (
        "_close_got",
        "_close_sent",
        "_ending",
        "_is_leaving",
        "_parser",
        "_pinged_ms",
        "_requests",
        "_unparsed",
        "_unrun",
        "form",
    )

    def __init__(
        self,
        engine: Engine,
        transport: asyncio.Transport,
        address: str | None,
        protocol: SubProtocol,
        identity: Identity | None = None,
    ) -> None:
        self.form = protocol.form
        super().__init__(engine, transport, address, identity)
        limits = engine.limits
        self._parser = Parser(
            limits.frame_bytes_max + HEADER_BYTES, limits.ws_fragments_max, protocol.opcodes
        )
        self._requests: Requests = protocol.requests(engine, self.connection)
        self._unparsed = False  # bytes are here that are not taken apart
        self._unrun = False  # requests wait for a later turn or for the outbox
        self._ending: _Ending | None = None
        self._close_got = False
        self._close_sent = False
        self._is_leaving = False  # `end` was called
        self._pinged_ms = 0  # when it was pinged since it was last heard

    # --- bytes in ---

    def receive(self, data: bytes) -> None:
        self._pinged_ms = 0
        self._unparsed = True
        self._parser.receive(data)

    def kept(self) -> int:
        return self._parser.kept

    def run(self) -> Progress:
        connection = self.connection
        if not connection.is_open:
            return self._await_close()
        if self._unparsed and not self._unrun:
            self._unparsed = self._take_messages()
        try:
            progress = self._requests.run()
        except ProtocolError as error:
            self._refuse(error)
            return Progress.IDLE
        self._unrun = progress is not Progress.IDLE
        if self._unrun:
            return progress
        if self._unparsed:
            return Progress.BLOCKED if connection.congested else Progress.MORE
        if self.ended and self._ending is None:
            self._ending = _Ending(websocket.close_frame(websocket.BROKEN, _NO_CLOSE))
        if self._ending is not None:
            if connection.waiting:
                return Progress.BLOCKED  # what was asked is answered first
            self._finish(self._ending)
        return Progress.IDLE

    def _take_messages(self) -> bool:
        """Hands over what came since the last run, and answers control frames. True when there
        may be more than fits into one run, or than the outbox takes answers."""
        parser = self._parser
        connection = self.connection
        messages: list[bytes] = []
        begun = parser.frames
        taken = 0
        more = False
        try:
            while not more and (found := parser.next()) is not None:
                opcode, payload = found
                if opcode < websocket.CLOSE:
                    messages.append(payload)
                elif opcode == websocket.PING:
                    connection.send(websocket.frame(websocket.PONG, payload))
                elif opcode == websocket.CLOSE:
                    self._close_got = True
                    code = websocket.close_code(payload)
                    self._ending = _Ending(websocket.close_frame(code))
                taken = parser.frames - begun  # a message may be many
                more = taken >= _FRAMES_PER_RUN or connection.congested
        except Violation as violation:
            self._ending = _violation(violation.code, violation.reason)
        if taken >= _FRAMES_PER_COST:
            self._engine.spent(taken // _FRAMES_PER_COST)
        if messages:
            self._requests.receive(messages)
        return more

    def _refuse(self, error: ProtocolError) -> None:
        """A message that cannot be read: said in the sub-protocol's own words."""
        self._engine.metrics.count_error(error.kind.name)
        self.connection.reply_error(None, error)
        self.connection.close(error.close, error.message)

    # --- the end ---

    def _finish(self, ending: _Ending) -> None:
        """The last that leaves is a Close; the end of the turn then calls `end`."""
        connection = self.connection
        connection.send(ending.close)
        connection.is_open = False
        connection.closed_as = ending.kind
        self._close_sent = True

    def end(self) -> None:
        """Says goodbye, unless that was said, and gives the peer a bounded time to answer."""
        transport = self._transport
        if self._is_leaving or transport.is_closing():
            return
        self._is_leaving = True
        if not self._close_sent:
            self._close_sent = True
            kind = self.connection.closed_as
            assert kind is not None, "what the peer does not end is closed as something"
            transport.write(websocket.close_frame(kind.code, kind.name))
        if self._close_got or self.ended:
            end_transport(transport)
            return
        # What the peer still sends is read: a socket that is closed with unread bytes takes back
        # what was written to it last.
        self.set_reading(True)
        if self._parser.ended and transport.can_write_eof():
            transport.write_eof()  # no Close can be found after a violation: the peer has to go
        asyncio.get_running_loop().call_later(END_GRACE_S, transport.abort)

    def _await_close(self) -> Progress:
        """Reads on only to find the peer's Close."""
        try:
            for _ in range(_FRAMES_PER_RUN):
                found = self._parser.next()
                if found is None:
                    break
                self._close_got = self._close_got or found[0] == websocket.CLOSE
            else:
                return Progress.MORE
        except Violation:
            self._close_got = True  # as good as gone
        if self._close_got and self._is_leaving:
            end_transport(self._transport)
        return Progress.IDLE

    def eof_received(self) -> bool:
        """Nothing more comes, not even a Close: what came is run, then the connection ends."""
        self.ended = True
        if self._is_leaving:
            end_transport(self._transport)
        else:
            self._engine.feed(self)
        return True

    # --- once a second ---

    def look(self, now: int) -> None:
        """Pings a peer that is quiet, and cuts it when nothing came within an interval after that.
        Of one whose bytes are left in the kernel nothing is known."""
        connection = self.connection
        if not self._reading or not connection.is_open:
            return
        interval_ms = self._engine.limits.ws_ping_ms
        quiet_ms = now - connection.last_heard_ms
        if not self._pinged_ms:
            if quiet_ms >= interval_ms - self._phase_ms(interval_ms):
                self._pinged_ms = now
                self._engine.turn.open()
                connection.send(_PING)
        elif now - self._pinged_ms >= interval_ms:
            self._engine.turn.open()
            connection.close(
                CLOSE_IDLE, f"nothing came for {quiet_ms} ms, not even an answer to a ping"
            )

    def _phase_ms(self, interval_ms: int) -> int:
        """How much earlier than others it is pinged, up to half an interval."""
        return self.connection.id % _PHASES * interval_ms // (2 * _PHASES)


def _violation(code: int, reason: str) -> _Ending:
    kind = CLOSE_TOO_LARGE if code == websocket.TOO_BIG else CLOSE_PROTOCOL
    return _Ending(websocket.close_frame(code, reason), kind)


# --- upgrade ---


def upgrade(engine: Engine, transport: asyncio.Transport, request: Request) -> WebSocketStream:
    """Takes over the connection of an HTTP request whose Host and Origin were found good: the
    response is on its way, the transport's protocol is the stream. What came after the head is for
    its `data_received`. Raises HandshakeRefused, and RtError where the request proves nobody."""
    response, name = websocket.accept(request, tuple(_PROTOCOLS))
    identity = engine.identify(*credentials(request))
    stream = _stream_class()(
        engine, transport, request.address, _PROTOCOLS[name or _DEFAULT], identity
    )
    transport.set_protocol(stream)
    stream.connection.send(response)
    bound = engine.limits.connections_max
    if engine.connections > bound:
        stream.connection.close(CLOSE_TOO_MANY, f"{bound} connections are open, the most")
    engine.feed(stream)  # it leaves at the end of this turn, as everything does
    return stream


def _stream_class() -> type[WebSocketStream]:
    """The class of streams, in compiled form where there is one."""
    compiled: Any = twin(binary.__name__)
    if compiled is None:
        return WebSocketStream
    return cast(type[WebSocketStream], compiled.WebSocketStream)
