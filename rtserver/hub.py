"""The hub: all connections of the process, and the turn as transports see it.

Owns the registry of connections and what must be looked at once a second: peers that take no
bytes, peers that fell silent, the sum of all outboxes. Everything else it hands on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from rtserver.commands.dispatch import Dispatcher
from rtserver.commands.reference import help_text
from rtserver.commands.table import Command
from rtserver.config import WebConfig
from rtserver.errors import CLOSE_EXPIRED, CLOSE_IDLE, CLOSE_KICKED, CLOSE_SLOW, CloseKind
from rtserver.limits import Limits
from rtserver.metrics import Metrics
from rtserver.session.auth import Authority
from rtserver.session.blocks import Blocks
from rtserver.session.connection import Connection, Form, Sink
from rtserver.session.identity import Identity
from rtserver.session.router import Router
from rtserver.session.sessions import Sessions
from rtserver.tick import Turn
from rtserver.transport.engine import Reader

__all__ = ["Hub"]

_SPARE_SOCKETS = 64  # beyond connections_max: enough to tell them why they must go
_SILENT_SHARE = 1.5  # of a heartbeat: seen once a second, silence ends within two of them


class Hub:
    """Connections and the entrances of transports (transport.engine.Engine)."""

    def __init__(
        self,
        *,
        turn: Turn,
        dispatcher: Dispatcher,
        router: Router,
        table: Mapping[str, Command],
        limits: Limits,
        metrics: Metrics,
        sessions: Sessions,
        express: Any = None,
        authority: Authority,
        web: WebConfig | None = None,
    ) -> None:
        self.limits = limits
        self.web = web or WebConfig()
        self.dev = authority.dev
        self.authority = authority
        self.blocks = Blocks(limits.blocks_max)
        self.metrics = metrics
        self.connections = 0  # open sockets
        self.parties: dict[int, Connection] = {}
        self.accepting = True
        self.health: Callable[[str], tuple[bool, dict[str, Any]] | None] = lambda _path: None
        self.metrics_text: Callable[[], bytes] = lambda: b""
        self.pages: Mapping[str, tuple[str, bytes]] = {}
        self.admin_only = False
        self.turn = turn
        self._router = router
        self._sessions = sessions
        self._round: list[Connection] = []  # still to be looked at
        self._slice = 1
        self._round_bytes = 0  # that wait for those who were
        self._fullest: Connection | None = None
        self._dispatcher = dispatcher
        self._table = table
        self._ids = itertools.count(1)
        self.express = express
        self.waiting = dispatcher.waiting
        self.frame = dispatcher.frame
        self.call = dispatcher.call
        self.budget = turn.budget
        self.spent = turn.spent
        self.feed = turn.run

    # --- connections ---

    def accept(self) -> bool:
        """Counts a socket; False when it must go at once."""
        self.connections += 1
        self.metrics.connections_opened += 1
        return self.accepting and self.connections <= self.limits.connections_max + _SPARE_SOCKETS

    def release(self) -> None:
        self.connections -= 1

    def identify(self, token: str | None, session: str | None) -> Identity:
        now = self._dispatcher.ctx.now
        identity = self.authority.identify(token, session, now)
        self.blocks.check(identity.user, None, now)
        return identity

    def kick(self, user: str, channel: str | None, block_ms: int) -> int:
        """Closes a user's connections, or ends their subscriptions to one channel, and keeps her
        out for so long; how many that ended."""
        now = self._dispatcher.ctx.now
        if block_ms:
            self.blocks.block(user, channel, now + block_ms, now)
        if channel is None:
            self._sessions.end(user)
        return sum(
            self._kick(connection, channel, block_ms)
            for connection in list(self.parties.values())
            if connection.user == user and connection.is_open
        )

    def _kick(self, connection: Connection, channel: str | None, block_ms: int) -> bool:
        message = "the application sent you away"
        if channel is None:
            connection.close(CLOSE_KICKED, message, block_ms or None)
        elif self._router.unsubscribe(connection, channel):
            what = {"channel": channel, "code": CLOSE_KICKED.code, "name": CLOSE_KICKED.name}
            connection.push("unsubscribed", {**what, "message": message})
        else:
            return False
        return True

    def connect(
        self, form: Form, sink: Sink, address: str | None, identity: Identity | None = None
    ) -> Connection:
        connection = Connection(
            next(self._ids),
            form,
            sink,
            self.limits,
            self.turn.dirty,
            identity=identity or self.authority.default,
            address=address,
            now=self._dispatcher.ctx.now,
        )
        self.parties[connection.id] = connection
        self._router.presence.identified(connection)
        return connection

    def disconnect(self, connection: Connection) -> None:
        self.release()
        self.leave(connection)

    def leave(self, connection: Connection) -> None:
        if connection.closed_as is not None:
            self.metrics.count_close(connection.closed_as.name)
        self._sessions.lost(connection, self._dispatcher.ctx.now)
        connection.lost()
        self.turn.open()  # who leaves does so at the time of a turn
        self._router.leave(connection)
        self._router.presence.gone(connection)
        self.parties.pop(connection.id, None)

    def follow(
        self,
        connection: Connection,
        channels: Mapping[str, Any],
        presence: Collection[str] = (),
    ) -> dict[str, Any]:
        self.turn.open()
        return self._dispatcher.follow(connection, channels, presence)

    def positions(self, connection: Connection) -> dict[str, tuple[str, int]]:
        return self._router.positions(connection)

    def heard(self, reader: Reader, size: int) -> None:
        """New bytes came."""
        self.metrics.bytes_in += size
        self.turn.open()
        reader.connection.last_heard_ms = self._dispatcher.ctx.now
        self.turn.run(reader)

    # --- for people ---

    def parameters(self, method: str) -> list[str] | None:
        command = self._table.get(method)
        return None if command is None else [param.name for param in command.params]

    def help(self, topic: str | None) -> str:
        return help_text(self._table, topic)

    # --- now and then ---

    def look_after(self, now: int, share: float = 1.0) -> None:
        """Looks at a share of the connections, so that each is seen about once a second: closes
        peers that take no bytes or fell silent, and keeps all outboxes together bounded."""
        if not self._round:
            self._round = list(self.parties.values())
            self._slice = max(1, math.ceil(len(self._round) * share))
            self._round_bytes = 0
            self._fullest = None
        looked, self._round = self._round[: self._slice], self._round[self._slice :]
        for connection in looked:
            self._look_at(connection, now)
        if not self._round:
            self._bound_outboxes()
            self._sessions.look_after(now)
            self._router.forget_pages()

    def _bound_outboxes(self) -> None:
        total, fullest = self._round_bytes, self._fullest
        if total > self.limits.outbox_total_bytes and fullest is not None and fullest.is_open:
            self._close(
                fullest,
                CLOSE_SLOW,
                f"all outboxes together hold {total} bytes, at most"
                f" {self.limits.outbox_total_bytes}; yours was the fullest",
            )

    def _look_at(self, connection: Connection, now: int) -> None:
        pending = connection.measure()
        self._round_bytes += pending
        if self._fullest is None or pending > self._fullest.pending_bytes:
            self._fullest = connection
        if not connection.is_open:
            return
        stuck_ms = connection.stuck_ms(now)
        heartbeat_ms = connection.heartbeat_ms
        if pending > self.limits.outbox_hard_bytes:
            self._close(
                connection,
                CLOSE_SLOW,
                f"{pending} bytes wait for you, at most {self.limits.outbox_hard_bytes}",
            )
        elif stuck_ms >= self.limits.outbox_stuck_ms:
            self._close(
                connection,
                CLOSE_SLOW,
                f"{pending} bytes wait for you; you took none for {stuck_ms} ms",
            )
        elif self.authority.is_over(connection.expires_at, now):
            self._close(connection, CLOSE_EXPIRED, "the token that you showed has expired")
        elif heartbeat_ms and now - connection.last_heard_ms > _SILENT_SHARE * heartbeat_ms:
            self._close(
                connection,
                CLOSE_IDLE,
                f"nothing came for {now - connection.last_heard_ms} ms, the heartbeat is"
                f" {heartbeat_ms} ms",
            )
        else:
            connection.look(now)

    def _close(self, connection: Connection, kind: CloseKind, message: str) -> None:
        self.turn.open()
        connection.close(kind, message)

    def close_all(self, kind: CloseKind, message: str) -> None:
        """Says goodbye to everybody; the end of the turn closes."""
        for connection in list(self.parties.values()):
            if connection.is_open:
                connection.close(kind, message)
