"""Telling who joined and left: folded, bounded, to those who asked.

What changed on a channel since its listeners were told is one push of joins and one of leaves,
encoded once per form. Promises: whoever applies them to a list read at any time has the true list;
somebody who came and went in between is not mentioned, unless a list was read meanwhile that may
show her. A push names at most so many users as the namespace says (`presence_events_max`); where
more are here or more changed, it carries the count only, at most once an interval, and says by
that: the list you have is not kept up any more. A listener whose outbox is full gets such a push
later. Costs: O(1) a change, one append a listener and push, a bounded number of channels and
pushes a turn; nothing at all where nobody listens.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

from rtserver.limits import Limits
from rtserver.session.connection import Connection, Form

__all__ = ["Audience", "Room", "Teller"]

Push = tuple[str, dict[str, Any]]


class Audience:
    """Who listens to the joins and leaves of a channel, and what they were not told yet."""

    __slots__ = ("changes", "count_only", "count_told", "listeners", "missed", "read", "told_at")

    def __init__(self, count: int) -> None:
        self.listeners: dict[Connection, None] = {}
        self.missed: dict[Connection, None] = {}  # of these: their outbox was full
        self.changes: dict[str, bool] = {}  # user -> whether she was here when they were told
        self.count_only = False  # more changed than a push may name
        self.count_told = count
        self.told_at = 0  # when a push carried the count only
        self.read = False  # a list was read after the first of the changes


class Room:
    """One channel with somebody on it."""

    __slots__ = ("anonymous", "audience", "count", "is_postponed", "is_queued", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0  # users
        self.anonymous = 0  # connections without a user
        self.audience: Audience | None = None
        self.is_queued = False  # its listeners are to be told in this turn
        self.is_postponed = False  # and in a later one


class Teller:
    """Tells all audiences. `names_max` is the bound of a channel; until `quiet_until` nothing is
    told, because after a restart everybody comes back."""

    __slots__ = ("_entries", "_is_here", "_later", "_limits", "_names_max", "_queue", "quiet_until")

    def __init__(
        self,
        limits: Limits,
        names_max: Callable[[str], int],
        is_here: Callable[[str, str], bool],
        quiet_until: int,
    ) -> None:
        self.quiet_until = quiet_until
        self._limits = limits
        self._names_max = names_max
        self._is_here = is_here
        self._queue: deque[Room] = deque()
        self._later: list[tuple[int, int, Room]] = []  # a heap by when they may be told
        self._entries = 0  # ever put there, so that rooms of one time keep their order

    # --- what happens ---

    def listen(self, room: Room, connection: Connection) -> None:
        if room.audience is None:
            room.audience = Audience(room.count)
        room.audience.listeners[connection] = None

    def unlisten(self, room: Room, connection: Connection) -> None:
        audience = room.audience
        if audience is not None:
            audience.listeners.pop(connection, None)
            audience.missed.pop(connection, None)
            if not audience.listeners:
                room.audience = None

    def read(self, room: Room) -> None:
        """Somebody saw who is here, or how many."""
        if room.audience is not None and room.audience.changes:
            room.audience.read = True

    def changed(self, room: Room, user: str, *, was_here: bool) -> None:
        """A user came or went; the room's count says so already."""
        audience = room.audience
        if audience is None:
            return
        changes = audience.changes
        changes.setdefault(user, was_here)
        names_max = self._names_max(room.name)
        if audience.count_only or room.count > names_max or len(changes) > names_max:
            audience.count_only = True
            changes.clear()
        self._enqueue(room)

    def _enqueue(self, room: Room) -> None:
        if not room.is_queued:
            room.is_queued = True
            self._queue.append(room)

    def _postpone(self, room: Room, due: int) -> None:
        if not room.is_postponed:
            room.is_postponed = True
            self._entries += 1
            heapq.heappush(self._later, (due, self._entries, room))

    # --- telling ---

    def next_due(self) -> int | None:
        """When there is something to tell; None where nothing waits."""
        if self._queue:
            return self.quiet_until
        return max(self._later[0][0], self.quiet_until) if self._later else None

    def flush(self, now: int) -> None:
        """Tells the audiences of a bounded number of rooms; the rest follow in later turns."""
        if now < self.quiet_until:
            return
        later = self._later
        while later and later[0][0] <= now:
            room = heapq.heappop(later)[2]
            room.is_postponed = False
            self._enqueue(room)
        rooms = self._limits.presence_per_turn
        pushes = self._limits.presence_pushes_per_turn
        while self._queue and rooms > 0 and pushes > 0:
            room = self._queue.popleft()
            room.is_queued = False
            rooms -= 1
            if room.audience is not None:
                pushes -= self._tell(room, room.audience, now)

    def _tell(self, room: Room, audience: Audience, now: int) -> int:
        """About how many pushes that took."""
        interval_ms = self._limits.presence_interval_ms
        if audience.count_only:
            if now < audience.told_at + interval_ms:
                self._postpone(room, audience.told_at + interval_ms)
                return 0
            audience.count_only = False
            audience.told_at = now
            method = "leave" if room.count < audience.count_told else "join"
            pushes: list[Push] = [(method, {"channel": room.name, "count": room.count})]
        else:
            pushes = self._named(room, audience)
        audience.changes.clear()
        audience.read = False
        audience.count_told = room.count
        sent = self._push(audience, pushes) + self._tell_who_missed(room, audience)
        if audience.missed:
            self._postpone(room, now + interval_ms)
        return sent

    def _named(self, room: Room, audience: Audience) -> list[Push]:
        users: dict[str, list[str]] = {"join": [], "leave": []}
        for user, was_here in audience.changes.items():
            is_here = self._is_here(room.name, user)
            if is_here != was_here or audience.read:
                users["join" if is_here else "leave"].append(user)
        return [
            (method, {"channel": room.name, "users": named, "count": room.count})
            for method, named in users.items()
            if named
        ]

    def _push(self, audience: Audience, pushes: list[Push]) -> int:
        if not pushes:
            return 0
        encoded: dict[Form, list[bytes]] = {}
        missed = audience.missed
        for connection in audience.listeners:
            if connection in missed:
                continue
            if connection.congested:
                missed[connection] = None
                continue
            form = connection.form
            pieces = encoded.get(form)
            if pieces is None:
                pieces = encoded[form] = [form.encode_push(*push) for push in pushes]
            for data in pieces:
                connection.send_push(data)
        return len(audience.listeners)

    def _tell_who_missed(self, room: Room, audience: Audience) -> int:
        """Those who take bytes again learn that their list is not kept up."""
        ready = [connection for connection in audience.missed if not connection.congested]
        for connection in ready:
            del audience.missed[connection]
            connection.push("join", {"channel": room.name, "count": room.count})
        return len(ready)
