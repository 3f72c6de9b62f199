"""Server-sent events: `GET /v1/stream`, which lasts for as long as its reader stays.

The first event says how each channel was subscribed, then each push is an event. A publication is
encoded once for all streams; the `id:` after it, where this reader is on all its channels, is its
own. What a reader misses while it is away comes when the browser reconnects with the last id.
"""

from __future__ import annotations

import secrets

from rtserver.session.cursor import cursor_of
from rtserver.transport.engine import Progress
from rtserver.transport.exchange import Exchange, Socket
from rtserver.transport.following import SUBSCRIBE_COST, asked, refusal
from rtserver.wire import sse
from rtserver.wire.request import Request
from rtserver.wire.response import Responder

__all__ = ["EventStream"]

_RETRY_MIN_MS = 1_000  # before a reader reconnects; each is told another time, so that a
_RETRY_SPREAD_MS = 2_000  # restart does not bring all at once


class EventStream(Exchange):
    """One reader of events. Raises RtError where the request is none."""

    lasts = True
    is_final = True

    def __init__(self, socket: Socket, request: Request, responder: Responder) -> None:
        cursor = request.header("last-event-id") or request.query.get("last_event_id")
        self._asked = asked(request, cursor)
        self._refused = False
        self._quiet_since: int | None = None  # ms, when it was first seen that nothing was sent
        responder.close()
        super().__init__(socket, request, responder, sse, pushes=True)
        self.connection.stamp = self._stamp

    def _stamp(self) -> bytes:
        return sse.encode_id(cursor_of(self._engine.positions(self.connection)))

    def run(self) -> Progress:
        if self.begun:
            return Progress.BLOCKED if self._refused else Progress.IDLE
        engine = self._engine
        if engine.budget() <= 0:
            return Progress.MORE
        replies = engine.follow(self.connection, self._asked.since, self._asked.presence)
        engine.spent(SUBSCRIBE_COST * len(replies))
        self.begun = True
        problem = refusal(replies)
        if problem is not None:
            engine.metrics.count_error(problem.kind.name)
            self._refused = True
            self.connection.send(self._responder.problem(problem))
            return Progress.BLOCKED
        retry_ms = _RETRY_MIN_MS + secrets.randbelow(_RETRY_SPREAD_MS)
        self.connection.send(self._responder.stream_head(sse.MEDIA_TYPE))
        self.connection.send(sse.encode_retry(retry_ms))
        self.connection.push("subscribed", {"channels": replies})
        return Progress.IDLE

    def write(self, data: bytes, /) -> None:
        self._quiet_since = None
        if not self.begun:
            self.refuse()
            return
        self._socket.write(data)
        self.done = self._refused

    def look(self, now: int, /) -> None:
        """A comment on a quiet stream, so that proxies do not take it for dead."""
        if not self.begun or self._refused:
            return
        if self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since >= self._engine.limits.stream_heartbeat_ms:
            self._engine.turn.open()
            self.connection.send(sse.COMMENT)
