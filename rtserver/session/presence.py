"""Presence: who is here, on the server and on each channel.

The entrance for those who see connections come and go (the hub, the router, hello) and for
commands that ask. It remembers on each connection as whom it was counted, so that a user who
becomes known later, or another one, is moved with all her subscriptions. All of it is volatile:
after a restart it is empty, those who come back are listed and counted at once, and nobody is told
of joins for one grace period; then all of them at once, folded. The turn calls `expire` at its
start and `flush` after its block. Watched things (`$...`) and HTTP calls are no place to be. What
hangs on somebody being here, such as a place in a queue, is told of who leaves (`grace`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rtserver.errors import CONFLICT, INVALID_PARAMS, RtError
from rtserver.limits import Limits
from rtserver.session.audience import Room, Teller
from rtserver.session.connection import Connection, Subscription
from rtserver.session.grace import Grace
from rtserver.session.people import OFFLINE, People, Person
from rtserver.session.rooms import Rooms
from rtserver.state.presence import LastSeen
from rtserver.state.sales.sales import Sales

__all__ = ["IDLE", "Presence"]

IDLE = "idle"
_WATCHED = "$"


class Presence:
    """Everybody who is here. `now` is the time of the turn."""

    __slots__ = ("_limits", "_rooms", "_teller", "_told_versions", "grace", "now", "people")

    def __init__(
        self,
        last_seen: LastSeen,
        sales: Sales,
        limits: Limits,
        names_max: Callable[[str], int],
        *,
        restarted_ms: int | None = None,
    ) -> None:
        """`names_max`: how many users a push of a channel may name. `restarted_ms`: when the server
        was started, unless nobody can come back to it because it is new."""
        quiet_until = 0 if restarted_ms is None else restarted_ms + limits.presence_grace_ms
        self.now = restarted_ms or 0
        self.people = People(last_seen, limits)
        self.grace = Grace(sales, self.people, limits)
        if restarted_ms is not None:
            self.grace.restarted(restarted_ms)
        self._limits = limits
        self._rooms = Rooms(limits)
        self._teller = Teller(limits, names_max, self._rooms.is_here, quiet_until)
        self._rooms.attach(self._teller)
        self._told_versions = 0

    # --- connections ---

    def identified(self, connection: Connection) -> None:
        """The connection is new, or may act for another user now."""
        self._move(connection, connection.user if connection.pushes else None)

    def gone(self, connection: Connection) -> None:
        """The connection is lost, its subscriptions are ended."""
        self._move(connection, None)

    def _move(self, connection: Connection, user: str | None) -> None:
        before = connection.present_as
        if user == before:
            return
        connection.present_as = user
        if user is not None:
            self.people.came(user)
        if before is not None:
            self.people.gone(before, idle=connection.idle, now=self.now)
            if not self.people.is_connected(before):
                self.grace.left(before, self.now)
        connection.idle = False
        for channel in connection.subscriptions:
            if not channel.startswith(_WATCHED):
                self._rooms.enter(channel, user, self.now)
                self._rooms.leave(channel, before, self.now)

    # --- subscriptions ---

    def entered(self, subscription: Subscription) -> None:
        """It was made."""
        connection = subscription.connection
        if not subscription.channel.startswith(_WATCHED):
            room = self._rooms.enter(subscription.channel, connection.present_as, self.now)
            if subscription.presence:
                self._teller.listen(room, connection)

    def left(self, subscription: Subscription) -> None:
        """It was ended."""
        connection = subscription.connection
        room = self._rooms.get(subscription.channel)
        if room is not None:
            if subscription.presence:
                self._teller.unlisten(room, connection)
            self._rooms.leave(subscription.channel, connection.present_as, self.now)

    # --- a turn ---

    def expire(self, now: int) -> None:
        """A turn begins: ends a slice of what is past its grace period."""
        self.now = now
        self._rooms.expire(now, self._limits.presence_per_turn)
        self.people.expire(now, self._limits.presence_per_turn)

    def flush(self, now: int) -> bool:
        """Tells of joins and leaves; whether a user's own state may have changed since the last
        call, which those who watch her want to know."""
        self._teller.flush(now)
        versions = self.people.versions
        changed = versions != self._told_versions
        self._told_versions = versions
        return changed

    def next_due(self) -> int | None:
        """When a turn has work here; a time that is over: at once."""
        dues = (self._rooms.next_due(), self.people.next_due(), self._teller.next_due())
        return min((due for due in dues if due is not None), default=None)

    # --- users ---

    def version(self, user: str) -> int:
        """Another number whenever the public state of a user who is here changes; 0 of others."""
        person = self.people.get(user)
        return 0 if person is None else person.version

    def state(self, user: str) -> dict[str, Any]:
        """{user, status, note, devices, idle, last_seen}."""
        return self.people.state(user)

    def set(self, connection: Connection, user: str, status: str, note: str | None) -> None:
        """What a user says of herself on this connection. Raises RtError."""
        if status == OFFLINE:
            raise RtError(
                INVALID_PARAMS,
                "status is 'offline', expected another word: offline is who has no connection",
                {"param": "status"},
            )
        person = self.people.get(user)
        if person is None:
            raise RtError(
                CONFLICT, f"{user!r} has no connection that stays, so there is no presence to set"
            )
        idle = status == IDLE
        if connection.present_as == user:
            person.idle_devices += idle - connection.idle
            connection.idle = idle
            person.said_idle = False
        else:
            person.said_idle = idle
        _say(person, status, note, idle=idle)
        self.people.changed(person)

    # --- channels ---

    def count(self, channel: str) -> int:
        """Users on a channel, for one who will keep that up to date."""
        room = self._rooms.get(channel)
        if room is None:
            return 0
        self._teller.read(room)
        return room.count

    def anonymous(self, channel: str) -> int:
        """Connections without a user on a channel."""
        room = self._rooms.get(channel)
        return 0 if room is None else room.anonymous

    def page(
        self, channel: str, after: str | None, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """({user, devices, since} by name, what to go on after)."""
        room = self._rooms.get(channel)
        if room is None:
            return [], None
        self._teller.read(room)
        return self._rooms.page(channel, after, limit)

    def room(self, channel: str) -> Room | None:
        """A channel with somebody on it."""
        return self._rooms.get(channel)

    # --- for people ---

    def stats(self) -> dict[str, int]:
        return {
            "users": len(self.people),
            "members": len(self._rooms),
            "channels": self._rooms.channels,
        }

    def check(self) -> None:
        """Raises `StructureBroken` where parts disagree. O(n)."""
        self._rooms.check()


def _say(person: Person, status: str, note: str | None, *, idle: bool) -> None:
    """An idle device changes nothing but what it says."""
    if not idle:
        person.status = status
        person.note = note
    elif note is not None:
        person.note = note
