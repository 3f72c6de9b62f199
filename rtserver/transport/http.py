"""HTTP/1.1 on one socket: requests in, answers out, in the order they were asked.

Owns the socket's bytes and its time. Requests are parsed piece by piece (wire.http) and only as far
as they can be answered: while an answer is being made, what follows waits as bytes, and beyond a
bound in the kernel. A request has a limited time to arrive, and so has the next one to be begun.
What concerns the state is an exchange and runs in turns; everything else is answered at once. A
request that cannot be read is answered, and nothing after it is read: where the next one begins is
not known.
"""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

from rtserver.clock import monotonic_us
from rtserver.errors import RtError
from rtserver.session.connection import Connection
from rtserver.transport.engine import Engine, Progress
from rtserver.transport.exchange import Exchange
from rtserver.transport.policy import check, credentials
from rtserver.transport.proxies import client_address
from rtserver.transport.routes import WEBSOCKET_PATH, check_running, route
from rtserver.transport.stream import END_GRACE_S, end_transport
from rtserver.transport.websocket import HandshakeRefused, upgrade
from rtserver.wire.http import Phase, RequestParser
from rtserver.wire.problem import Problem, problem_of
from rtserver.wire.request import Request
from rtserver.wire.response import CONTINUE, Responder

__all__ = ["HttpStream"]

_PIECE_BYTES = 4 * 1024  # parsed in one go: bounds the requests that are parsed and not answered
_AHEAD_BYTES = 64 * 1024  # received and not parsed; above, nothing is read
_STEPS_MAX = 64  # pieces and answers in one go, then others have their turn,
_STEPS_US = 1_000  # and so when they took that long


_date = (0, "")  # the second that was asked for last, and its text


def http_date() -> str:
    """The present as a Date header says it (RFC 9110 section 5.6.7)."""
    global _date
    second = int(time.time())
    if second != _date[0]:
        _date = (second, formatdate(second, usegmt=True))
    return _date[1]


class HttpStream(asyncio.Protocol):
    """One connection: Reader of the engine, Socket of its exchanges."""

    def __init__(
        self,
        engine: Engine,
        transport: asyncio.Transport,
        address: str | None,
        *,
        admin: bool = False,
    ) -> None:
        self.engine = engine
        self.queued = False
        self.ended = False  # for the turn: here the end of input is this class's own affair
        self.connection: Connection  # of the last exchange
        self._transport = transport
        self._address = address
        self._admin = admin
        self._parser = RequestParser(engine.limits, self._is_known)
        self._input = bytearray()  # received and not parsed
        self._exchange: Exchange | None = None
        self._reading = True
        self._writable = True  # the peer takes what is written
        self._peer_ended = False  # it sends nothing more
        self._leaving = False  # what still comes is not read
        self._again = False  # more steps are scheduled
        soft = engine.limits.outbox_soft_bytes
        transport.set_write_buffer_limits(high=soft, low=soft // 2)
        self._loop = asyncio.get_running_loop()
        self._allowed_s = engine.limits.http_request_ms_max / 1_000
        self._phase = Phase.NOTHING  # since it changed, the time runs
        self._deadline = self._loop.time() + self._allowed_s
        self._unsent = 0  # bytes that the peer had not taken when last looked at
        self._timer = self._loop.call_at(self._deadline, self._look_at_time)

    # --- bytes in ---

    def data_received(self, data: bytes) -> None:
        self.engine.metrics.bytes_in += len(data)
        exchange = self._exchange
        if not self._leaving and (exchange is None or not exchange.is_final):
            self._input += data
            self._advance()

    def _advance(self) -> None:
        """Parses and answers as far as it goes."""
        steps = 0
        until_us = monotonic_us() + _STEPS_US
        while not self._leaving and self._exchange is None and self._writable and self._step():
            steps += 1
            if steps == _STEPS_MAX or monotonic_us() >= until_us:
                self._again = True
                self._loop.call_soon(self._advance_again)
                break
        else:
            self._rest()
        self._regulate()

    def _advance_again(self) -> None:
        self._again = False
        self._advance()

    def _step(self) -> bool:
        """Answers a request, or parses a piece; False where neither is to be had."""
        parser = self._parser
        if parser.ready:
            self._answer(parser.ready.popleft())
        elif self._input and not parser.closed:
            parser.feed(bytes(self._input[:_PIECE_BYTES]))
            del self._input[:_PIECE_BYTES]
        else:
            return False
        return True

    def _rest(self) -> None:
        """Nothing more can be done for now."""
        if self._leaving or self._exchange is not None or not self._writable:
            return
        if self._peer_ended or self._parser.closed:
            self.end()
        elif self._parser.wants_continue():
            self._send(CONTINUE)
        if self._parser.phase is not self._phase:
            self._phase = self._parser.phase
            self._deadline = self._loop.time() + self._allowed_s

    # --- answers ---

    def _answer(self, request: Request | Problem) -> None:
        """A response at once, or an exchange that makes one."""
        self._deadline = self._loop.time() + self._allowed_s
        if isinstance(request, Problem):
            self._refuse(request, Responder(http_date()))
            self._linger()
            return
        request = request._replace(address=self._client_address(request))
        responder = Responder(http_date(), request)
        is_last = not self.engine.accepting
        if is_last:
            responder.close()
        try:
            if request.path == WEBSOCKET_PATH:
                self._hand_over(request)
                return
            answer = route(self, request, responder, admin=self._admin)
        except Problem as problem:
            self._refuse(problem, responder)
        except RtError as error:
            self._refuse(problem_of(error.as_wire()), responder)
        else:
            if isinstance(answer, bytes):
                self._send(answer)
            else:
                self._begin(answer)
        if is_last:
            self._linger()

    def _is_known(self, request: Request) -> bool:
        """Whether who asks may do more here than say who it is."""
        return not self.engine.is_stranger(*credentials(request))

    def _client_address(self, request: Request) -> str | None:
        forwarded_for = request.header("x-forwarded-for")
        return client_address(self._address, forwarded_for, self.engine.trusted_proxies)

    def _begin(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.connection = exchange.connection
        if exchange.is_final:
            self._input.clear()
            self._timer.cancel()  # there may be many, and all the time they need
        self.engine.heard(self, 0)

    def _refuse(self, problem: Problem, responder: Responder) -> None:
        self.engine.metrics.count_error(problem.kind.name)
        self._send(responder.problem(problem))

    def _send(self, data: bytes) -> None:
        self.engine.metrics.bytes_out += len(data)
        self.write(data)

    def _hand_over(self, request: Request) -> None:
        """From here on this socket is a WebSocket."""
        check(request, self.engine.web, dev=self.engine.dev)
        check_running(self.engine)
        try:
            stream = upgrade(self.engine, self._transport, request)
        except HandshakeRefused as refused:
            raise Problem(refused.status, refused.detail, refused.headers) from None
        rest = self._parser.rest + self._input
        self._let_go()
        if rest:
            stream.data_received(bytes(rest))

    # --- Reader ---

    def run(self) -> Progress:
        exchange = self._exchange
        return Progress.IDLE if exchange is None else exchange.run()

    def set_reading(self, reading: bool) -> None:
        """The turn's wish counts for nothing: only by reading is it seen that a peer is gone."""

    def _regulate(self) -> None:
        """Reads as long as what was read can be kept."""
        reading = self._leaving or (
            self._writable and len(self._input) < _AHEAD_BYTES and not self._again
        )
        if reading == self._reading or self._transport.is_closing():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    # --- Socket ---

    def write(self, data: bytes, /) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    def resume(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.done:
            self._finish(exchange)
            self._advance()
        else:
            self.engine.feed(self)

    def _finish(self, exchange: Exchange) -> None:
        self._exchange = None
        exchange.close()
        self._phase = Phase.NOTHING
        self._deadline = self._loop.time() + self._allowed_s
        if exchange.is_final:
            self.end()

    def end(self) -> None:
        """Closes after what was written has left."""
        if not self._leaving:
            self._leaving = True
            self._input.clear()
            end_transport(self._transport)

    def _linger(self) -> None:
        """Says that nothing more comes, and lets the peer finish: a socket that is closed with
        unread bytes takes back what was written to it last (RFC 9112 section 9.6)."""
        if not self._transport.can_write_eof():
            self.end()
        elif not self._leaving:
            self._leaving = True
            self._input.clear()
            self._transport.write_eof()
            self._loop.call_later(END_GRACE_S, self._transport.abort)

    # --- time ---

    def _look_at_time(self) -> None:
        now = self._loop.time()
        unsent, self._unsent = self._unsent, self.buffered()
        if self._exchange is not None or self._unsent != unsent:
            self._deadline = now + self._allowed_s  # it is our turn, or the answer is being taken
        if now < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look_at_time)
        elif self._parser.phase is Phase.NOTHING or self._unsent:
            self.end()
        else:
            self._refuse(
                Problem(408, "the request took too long to arrive"), Responder(http_date())
            )
            self._linger()

    # --- asyncio ---

    def pause_writing(self) -> None:
        self._writable = False
        self._regulate()

    def resume_writing(self) -> None:
        self._writable = True
        if self._exchange is not None:
            self.connection.measure()
            self.connection.unblock()
            self.engine.feed(self)  # also lets a reader who is behind catch up
        self._advance()

    def eof_received(self) -> bool:
        """Who asked and says nothing more is answered; who listened is gone."""
        self._peer_ended = True
        exchange = self._exchange
        if self._leaving or (exchange is not None and exchange.lasts):
            return False
        self._advance()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.engine.release()
        self._let_go()

    def _let_go(self) -> None:
        """The socket is gone or somebody else's."""
        self._leaving = True
        self._input.clear()
        self._timer.cancel()
        self._parser.release()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()
