"""One HTTP request that has to do with the state, and its answer, as a connection of its own.

Who shares a socket need not be the same party (a proxy keeps one for many users), so identity,
session and subscriptions belong to the request: its `Connection` is made for it and gone with it.
An exchange is the Sink of that connection; the stream below runs it within the turn's budget and
begins the next one when this one is `done`: its answer has left.
"""

from __future__ import annotations

from typing import Protocol

from rtserver.session.connection import Connection, Form
from rtserver.transport.engine import Engine, Progress
from rtserver.transport.policy import credentials
from rtserver.wire.problem import Problem
from rtserver.wire.request import Request
from rtserver.wire.response import Responder

__all__ = ["Exchange", "Socket"]


class Socket(Protocol):
    """What an exchange needs of the HTTP stream that it runs on."""

    engine: Engine

    def write(self, data: bytes, /) -> None: ...

    def buffered(self) -> int: ...

    def resume(self) -> None:
        """The exchange may go on, or is done."""

    def end(self) -> None: ...


class Exchange:
    """One request and its answer. Subclasses implement `run` and `write`."""

    lasts = False  # it goes on for as long as the peer stays
    is_final = False  # the connection carries nothing after it

    def __init__(
        self,
        socket: Socket,
        request: Request,
        responder: Responder,
        form: Form,
        *,
        pushes: bool,
    ) -> None:
        self.done = False
        self.begun = False  # until then nothing may leave but a refusal
        self._socket = socket
        self._engine = socket.engine
        self._responder = responder
        identity = self._engine.identify(*credentials(request))
        self.connection: Connection = self._engine.connect(
            form, self, request.address, identity, pushes=pushes
        )

    def run(self) -> Progress:
        """Goes on with the request; see transport.engine.Reader."""
        raise NotImplementedError

    def close(self) -> None:
        """The exchange is over, or its peer is gone."""
        self.connection.stamp = None  # it refers back to here, and nothing collects cycles
        self._engine.leave(self.connection)

    def refuse(self) -> None:
        """The connection is closed before the exchange has begun."""
        self.answer(self._responder.problem(Problem(503, "the server had to close first")))

    def answer(self, response: bytes) -> None:
        """Writes the whole response, which was due now."""
        self._engine.metrics.bytes_out += len(response)
        self._socket.write(response)
        self.done = True

    # --- Sink ---

    def write(self, data: bytes, /) -> None:
        raise NotImplementedError

    def buffered(self) -> int:
        return self._socket.buffered()

    def resume(self) -> None:
        self._socket.resume()

    def kept(self) -> int:
        """A request is whole when its exchange begins; what follows it has a bounded time."""
        return 0

    def look(self, now: int, /) -> None:
        """About once a second."""

    def end(self) -> None:
        self._socket.end()
