"""The hub: all connections of the process, and the turn as transports see it.

Owns the registry of connections and what must be looked at once a second: peers that take no
bytes, peers that fell silent, the sum of all outboxes. Everything else it hands on.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from rtserver.clock import monotonic_us
from rtserver.commands.dispatch import Dispatcher
from rtserver.commands.reference import help_text
from rtserver.commands.table import Command
from rtserver.config import WebConfig
from rtserver.errors import (
    CLOSE_EXPIRED,
    CLOSE_IDLE,
    CLOSE_KICKED,
    CLOSE_OVERLOADED,
    CLOSE_SLOW,
    CLOSE_UNAUTHENTICATED,
    CloseKind,
    RtError,
)
from rtserver.limits import Limits
from rtserver.metrics import Metrics
from rtserver.session.auth import Authority
from rtserver.session.blocks import Blocks
from rtserver.session.by_user import ByUser
from rtserver.session.connection import Connection, Form, Sink
from rtserver.session.identity import RANKS, Identity
from rtserver.session.router import Router
from rtserver.session.sessions import Sessions
from rtserver.structs.deadlines import Deadlines
from rtserver.tick import Turn
from rtserver.transport.engine import Newcomer, Reader
from rtserver.transport.proxies import trusted_in

__all__ = ["Hub"]

_ANONYMOUS = RANKS["anonymous"]
_SENT_AWAY = "the application sent you away"
_SPARE_SOCKETS = 64  # beyond connections_max: enough to tell them why they must go
_LATE_PER_LOOK = 500  # newcomers, or full outboxes, that are closed in one go
_KEPT_MIN = 4_096  # bytes of incomplete requests that are worth a close
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
        self.trusted_proxies = trusted_in(self.web.trusted_proxies)
        self.dev = authority.dev
        self.authority = authority
        self.blocks = Blocks(limits.blocks_max)
        self.metrics = metrics
        self.connections = 0  # open sockets
        self.parties: dict[int, Connection] = {}
        self._users: ByUser[Connection] = ByUser()
        self.accepting = True
        self.health: Callable[[str], tuple[bool, dict[str, Any]] | None] = lambda _path: None
        self.metrics_text: Callable[[], bytes] = lambda: b""
        self.pages: Mapping[str, tuple[str, bytes]] = {}
        self.admin_only = False
        must_prove = authority.must_prove
        self._silent: Deadlines[Newcomer] = Deadlines(  # sockets that have said nothing
            limits.unauthenticated_ms_max if must_prove else limits.silent_ms_max
        )
        self._unproven: Deadlines[int] = Deadlines(limits.unauthenticated_ms_max)  # by id
        self.turn = turn
        self._router = router
        self._sessions = sessions
        self._round: list[Connection] = []  # still to be looked at
        self._slice = 1
        self._round_bytes = 0  # that wait for those who were
        self._round_full: list[Connection] = []  # these
        self._round_kept = 0  # bytes of requests that are not complete
        self._keepers: list[tuple[int, Connection]] = []  # of many such bytes
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

    def accept(self, newcomer: Newcomer) -> bool:
        self.connections += 1
        self.metrics.connections_opened += 1
        self._silent.add(newcomer, monotonic_us() // 1_000)
        return self.accepting and self.connections <= self.limits.connections_max + _SPARE_SOCKETS

    def known(self, newcomer: Newcomer) -> None:
        self._silent.discard(newcomer)

    def release(self) -> None:
        self.connections -= 1

    def identify(self, token: str | None, session: str | None) -> Identity:
        self.turn.open()  # a token's times are compared with this moment, not with the last turn's
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
        here = [one for one in self._users.of(user) if one.is_open]
        if channel is not None:
            dismiss = self._router.dismiss
            return sum(dismiss(one, channel, CLOSE_KICKED, _SENT_AWAY) for one in here)
        for connection in here:
            connection.close(CLOSE_KICKED, _SENT_AWAY, block_ms or None)
        return len(here)

    def act_as(self, connection: Connection, identity: Identity) -> None:
        """From now on the connection, and its session, act for this party."""
        self._users.discard(connection.user, connection)
        connection.identify(identity)
        self._users.add(connection.user, connection)
        self._router.presence.identified(connection)
        self._sessions.renew(connection)

    def connect(
        self,
        form: Form,
        sink: Sink,
        address: str | None,
        identity: Identity | None = None,
        *,
        pushes: bool = True,
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
        connection.pushes = pushes
        self.parties[connection.id] = connection
        self._users.add(connection.user, connection)
        if self.must_identify(connection):
            connection.allowance = self.limits.unauthenticated_bytes_max
            self._unproven.add(connection.id, monotonic_us() // 1_000)
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
        if connection.pushes:
            self.turn.open()  # who leaves does so at the time of a turn
        self._router.leave(connection)
        self._router.presence.gone(connection)
        self.parties.pop(connection.id, None)
        self._users.discard(connection.user, connection)
        self._unproven.discard(connection.id)

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
        connection = reader.connection
        connection.last_heard_ms = self._dispatcher.ctx.now
        self.turn.run(reader)
        if connection.allowance is not None:
            self.charge(connection, size)

    # --- before authentication ---

    def is_stranger(self, token: str | None, session: str | None) -> bool:
        if not self.authority.must_prove:
            return False
        try:
            return self.identify(token, session).rank == _ANONYMOUS
        except RtError:
            return True

    def must_identify(self, connection: Connection) -> bool:
        """Whether it may do nothing yet but say who it is."""
        return self.authority.must_prove and connection.rank == _ANONYMOUS

    def charge(self, connection: Connection, size: int) -> None:
        if connection.allowance is None or not self.must_identify(connection):
            connection.allowance = None
            return
        connection.allowance -= size
        if connection.allowance < 0 and connection.is_open:
            bound = self.limits.unauthenticated_bytes_max
            self._close(
                connection,
                CLOSE_UNAUTHENTICATED,
                f"more than {bound} bytes came, and not who you are",
            )

    def _look_at_newcomers(self) -> None:
        now = monotonic_us() // 1_000
        for newcomer in self._silent.take_due(now, _LATE_PER_LOOK):
            newcomer.expire()
        for number in self._unproven.take_due(now, _LATE_PER_LOOK):
            connection = self.parties.get(number)
            if connection is not None and connection.is_open and self.must_identify(connection):
                self._close(
                    connection,
                    CLOSE_UNAUTHENTICATED,
                    f"you did not say who you are within {self.limits.unauthenticated_ms_max} ms",
                )

    # --- for people ---

    def parameters(self, method: str) -> list[str] | None:
        command = self._table.get(method)
        return None if command is None else [param.name for param in command.params]

    def help(self, topic: str | None) -> str:
        return help_text(self._table, topic)

    # --- now and then ---

    def look_after(self, now: int, share: float = 1.0) -> None:
        """Looks at a share of the connections, so that each is seen about once a second: closes
        peers that take no bytes or fell silent, and keeps all outboxes together bounded. Each time
        it closes newcomers who are late."""
        self._look_at_newcomers()
        if not self._round:
            self._round = list(self.parties.values())
            self._slice = max(1, math.ceil(len(self._round) * share))
            self._round_bytes = 0
            self._round_full = []
            self._round_kept = 0
            self._keepers.clear()
        looked, self._round = self._round[: self._slice], self._round[self._slice :]
        for connection in looked:
            self._look_at(connection, now)
        if not self._round:
            self._bound_outboxes()
            self._bound_requests()
            self._sessions.look_after(now)
            self._router.forget_pages()

    def _bound_outboxes(self) -> None:
        """Closes the fullest, as many as it takes. Those that are closed already leave by
        themselves soon, so they count no more."""
        total, bound = self._round_bytes, self.limits.outbox_total_bytes
        if total <= bound:
            return
        left = total
        for one in heapq.nlargest(_LATE_PER_LOOK, self._round_full, key=_pending_bytes):
            if left <= bound:
                return
            left -= one.pending_bytes
            if one.is_open:
                self._close(
                    one,
                    CLOSE_SLOW,
                    f"all outboxes together hold {total} bytes, at most {bound}; yours was among"
                    " the fullest",
                )

    def _bound_requests(self) -> None:
        """Half requests have no time limit of their own over TCP: all together are bounded."""
        left, bound = self._round_kept, self.limits.requests_total_bytes
        if left > bound:
            for kept, connection in sorted(self._keepers, key=_kept_by, reverse=True):
                if left <= bound:
                    break
                left -= kept
                if connection.is_open:
                    self._close(
                        connection,
                        CLOSE_OVERLOADED,
                        f"requests that are not complete hold {self._round_kept} bytes, at most"
                        f" {bound}; {kept} of them are yours",
                    )
        self._keepers.clear()

    def _look_at(self, connection: Connection, now: int) -> None:
        pending = connection.measure()
        if not connection.is_open:
            return
        kept = connection.kept()
        self._round_kept += kept
        if kept >= _KEPT_MIN:
            self._keepers.append((kept, connection))
        if pending:
            self._round_bytes += pending
            self._round_full.append(connection)
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


def _kept_by(entry: tuple[int, Connection]) -> int:
    return entry[0]


def _pending_bytes(connection: Connection) -> int:
    return connection.pending_bytes
