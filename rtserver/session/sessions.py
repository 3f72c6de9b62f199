"""Sessions: what outlives a connection, so that the next one goes on where it was lost.

A session is a random id of 128 bits, bound to whoever opened it. It has at most one connection;
a resume by another closes the older one. A lost connection's session is kept for a window with its
subscriptions and what was sent of each, bounded in number: the one lost longest ago gives way.
Over HTTP, where each request stands alone, the id says who asks; each use renews the window.
Nothing here is logged: after a restart a client recovers channel by channel from its positions.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rtserver.errors import CLOSE_REPLACED
from rtserver.limits import Limits
from rtserver.session.by_user import ByUser
from rtserver.session.connection import Connection
from rtserver.session.identity import Identity

__all__ = ["Place", "Session", "Sessions"]

_EXPIRED_PER_LOOK = 1_000


class Place(NamedTuple):
    """Where a subscription was: the position sent last (None where none is kept)."""

    position: tuple[str, int] | None
    presence: bool


class Session:
    """One client over its connections."""

    __slots__ = ("connection", "ends_at", "id", "identity", "places")

    def __init__(self, session_id: str, identity: Identity) -> None:
        self.id = session_id
        self.identity = identity
        self.connection: Connection | None = None
        self.ends_at = 0  # ms, while there is no connection
        self.places: dict[str, Place] = {}


class Sessions:
    """All sessions of the process. `leave` ends the subscriptions of a replaced connection,
    `places` tells what a connection is subscribed to."""

    __slots__ = ("_detached", "_leave", "_limits", "_of_user", "_places", "_sessions", "resumed")

    def __init__(
        self,
        limits: Limits,
        places: Callable[[Connection], Mapping[str, Place]],
        leave: Callable[[Connection], None],
    ) -> None:
        self.resumed = 0  # sessions that went on with another connection
        self._limits = limits
        self._places = places
        self._leave = leave
        self._sessions: dict[str, Session] = {}
        self._detached: OrderedDict[str, Session] = OrderedDict()  # by when they end
        self._of_user: ByUser[Session] = ByUser()  # of these

    def __len__(self) -> int:
        return len(self._sessions)

    def stats(self) -> dict[str, int]:
        return {"all": len(self), "detached": self.detached, "resumed": self.resumed}

    @property
    def detached(self) -> int:
        """Sessions without a connection."""
        return len(self._detached)

    def find(self, session_id: str, now: int) -> Identity | None:
        """Who the session belongs to; it is used, so it lives on."""
        session = self._sessions.get(session_id)
        if session is None or self._is_over(session, now):
            return None
        if session.connection is None:
            self._detach(session, now)
        return session.identity

    def open(self, connection: Connection, now: int) -> str:
        """A session for a connection that has none; its id. Without pushes the connection will
        not be there to hold it."""
        session = Session(secrets.token_hex(16), connection.identity)
        self._sessions[session.id] = session
        connection.session = session.id
        if connection.pushes:
            session.connection = connection
        else:
            self._detach(session, now)
        return session.id

    def resume(
        self, session_id: str, connection: Connection, now: int
    ) -> Mapping[str, Place] | None:
        """Gives the session to this connection and tells its subscriptions; None where there is
        no such session of this party any more."""
        session = self._sessions.get(session_id)
        if session is None or self._is_over(session, now):
            return None
        identity = connection.identity
        if session.identity.party != identity.party:
            return None
        older = session.connection
        if older is connection:
            return {}
        if not connection.pushes:  # a call, gone in a moment: whoever hears goes on hearing
            session.identity = identity
            connection.session = session_id
            if older is None:
                self._detach(session, now)
            return {}
        if older is not None:
            session.places = dict(self._places(older))
            self._leave(older)
            older.close(CLOSE_REPLACED, "another connection resumed this session")
        self._give_up(connection)
        self.resumed += 1
        if self._detached.pop(session_id, None) is not None:
            self._of_user.discard(session.identity.user, session)
        places, session.places = session.places, {}
        session.identity = identity
        session.connection = connection
        connection.session = session_id
        return places

    def _give_up(self, connection: Connection) -> None:
        """The connection's own session ends: what it subscribed to goes on in another."""
        own = self._sessions.get(connection.session or "")
        if own is not None and own.connection is connection:
            del self._sessions[own.id]

    def renew(self, connection: Connection) -> None:
        """The connection acts for another party now."""
        session = self._sessions.get(connection.session or "")
        if session is not None and session.connection is connection:
            session.identity = connection.identity

    def lost(self, connection: Connection, now: int) -> None:
        """The connection is gone, its subscriptions not yet."""
        session = self._sessions.get(connection.session or "")
        if session is None or session.connection is not connection:
            return
        if connection.closed_as is not None and not connection.closed_as.resume:
            del self._sessions[session.id]
            return
        session.places = dict(self._places(connection))
        session.connection = None
        self._detach(session, now)

    def end(self, user: str) -> None:
        """Forgets the sessions of a user who was sent away and has no connection."""
        for session in self._of_user.of(user):
            self._forget(session)

    def look_after(self, now: int) -> None:
        """Forgets sessions whose window is over."""
        for _ in range(_EXPIRED_PER_LOOK):
            session = next(iter(self._detached.values()), None)
            if session is None or not self._is_over(session, now):
                return
            self._forget(session)

    def _detach(self, session: Session, now: int) -> None:
        session.ends_at = now + self._limits.session_window_ms
        self._detached[session.id] = session
        self._detached.move_to_end(session.id)
        self._of_user.add(session.identity.user, session)
        if len(self._detached) > self._limits.sessions_detached_max:
            self._forget(next(iter(self._detached.values())))

    def _is_over(self, session: Session, now: int) -> bool:
        """Also of one whose connection was closed for good and is not gone yet."""
        if session.connection is None:
            return session.ends_at <= now
        closed_as = session.connection.closed_as
        return closed_as is not None and not closed_as.resume

    def _forget(self, session: Session) -> None:
        del self._detached[session.id]
        del self._sessions[session.id]
        self._of_user.discard(session.identity.user, session)
