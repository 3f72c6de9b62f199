"""Who is on each channel: users over all their connections, from the first to a grace period after
the last. Connections without a user are only counted.

All members of all channels lie in one map and one ordered list, under `channel NUL user`, so that
a channel with one member costs little and one with a million grows without a stall. Costs: O(1)
amortised to come or go (a search in the ordered list for a user who was not here); exact counts
O(1); a page costs its own length. Who is gone is taken out in bounded slices.
"""

from __future__ import annotations

from typing import Any

from rtserver.limits import Limits
from rtserver.session.audience import Room, Teller
from rtserver.structs import expect
from rtserver.structs.ordered_names import OrderedNames
from rtserver.structs.recency import RecencyList
from rtserver.structs.sharded_map import ShardedMap

__all__ = ["Rooms"]

_SEPARATOR = "\0"  # in no name


class _Member:
    """One user on one channel. `left_at`: when her last connection left, while there is none."""

    __slots__ = ("devices", "left_at", "room", "since", "touched_after", "touched_before", "user")

    def __init__(self, room: Room, user: str, since: int) -> None:
        self.room = room
        self.user = user
        self.since = since
        self.devices = 0
        self.left_at = 0
        self.touched_before: _Member | None = None  # these two belong to the RecencyList
        self.touched_after: _Member | None = None


class Rooms:
    """All channels with somebody on them."""

    __slots__ = ("_grace_ms", "_leaving", "_members", "_names", "_rooms", "_teller")

    def __init__(self, limits: Limits) -> None:
        self._grace_ms = limits.presence_grace_ms
        self._rooms: ShardedMap[Room] = ShardedMap()
        self._members: ShardedMap[_Member] = ShardedMap()
        self._names = OrderedNames()
        self._leaving: RecencyList[_Member] = RecencyList()  # without devices, by when they left
        self._teller: Teller | None = None

    def attach(self, teller: Teller) -> None:
        self._teller = teller

    @property
    def teller(self) -> Teller:
        assert self._teller is not None, "attached before anybody comes"
        return self._teller

    def __len__(self) -> int:
        """Members of all channels together."""
        return len(self._members)

    @property
    def channels(self) -> int:
        return len(self._rooms)

    def get(self, channel: str) -> Room | None:
        return self._rooms.get(channel)

    def is_here(self, channel: str, user: str) -> bool:
        return _key(channel, user) in self._members

    # --- coming and going ---

    def enter(self, channel: str, user: str | None, now: int) -> Room:
        """One more connection of a user, or of nobody."""
        room = self._rooms.get(channel)
        if room is None:
            room = Room(channel)
            self._rooms.insert(channel, room)
        if user is None:
            room.anonymous += 1
            return room
        key = _key(channel, user)
        member = self._members.get(key)
        if member is None:
            member = _Member(room, user, now)
            self._members.insert(key, member)
            self._names.add(key)
            room.count += 1
            self.teller.changed(room, user, was_here=False)
        elif not member.devices:
            self._leaving.remove(member)
        member.devices += 1
        return room

    def leave(self, channel: str, user: str | None, now: int) -> None:
        """One connection less."""
        room = self._rooms.get(channel)
        assert room is not None, "whoever leaves was here"
        if user is None:
            room.anonymous -= 1
            self._close_if_empty(room)
            return
        member = self._members.get(_key(channel, user))
        assert member is not None, "whoever leaves was here"
        member.devices -= 1
        if not member.devices:
            member.left_at = now
            self._leaving.touch(member)

    def expire(self, now: int, members_max: int) -> None:
        """Takes out those whose grace period is over, at most so many."""
        for _ in range(members_max):
            member = self._leaving.oldest()
            if member is None or member.left_at + self._grace_ms > now:
                return
            self._leaving.remove(member)
            room = member.room
            key = _key(room.name, member.user)
            self._members.pop(key)
            self._names.remove(key)
            room.count -= 1
            self.teller.changed(room, member.user, was_here=True)
            self._close_if_empty(room)

    def next_due(self) -> int | None:
        """When the next grace period is over."""
        oldest = self._leaving.oldest()
        return None if oldest is None else oldest.left_at + self._grace_ms

    def _close_if_empty(self, room: Room) -> None:
        if not room.count and not room.anonymous:  # who listens is on the channel too
            self._rooms.pop(room.name)

    # --- reading ---

    def page(
        self, channel: str, after: str | None, limit: int
    ) -> tuple[list[dict[str, Any]], str | None]:
        """({user, devices, since} by name, what to go on after)."""
        prefix = _key(channel, "")
        keys = self._names.page(prefix, None if after is None else prefix + after, limit + 1)
        rows: list[dict[str, Any]] = []
        for key in keys[:limit]:
            member = self._members.get(key)
            assert member is not None, "every name has a member"
            rows.append({"user": member.user, "devices": member.devices, "since": member.since})
        return rows, rows[-1]["user"] if len(keys) > limit else None

    def check(self) -> None:
        """Raises `StructureBroken` where counts, names and members disagree. O(n)."""
        counts: dict[str, int] = {}
        for key, member in self._members.items():
            expect(key == _key(member.room.name, member.user), "a member has another's key")
            expect(key in self._names, "a member has no name")
            expect(self._rooms.get(member.room.name) is member.room, "a member's room is closed")
            expect((member in self._leaving) == (not member.devices), "a deadline is wrong")
            counts[member.room.name] = counts.get(member.room.name, 0) + 1
        expect(len(self._names) == len(self._members), "names and members differ in number")
        for name, room in self._rooms.items():
            expect(room.count == counts.get(name, 0), "a count is wrong")
            expect(room.count + room.anonymous > 0, "an empty room is kept")


def _key(channel: str, user: str) -> str:
    return f"{channel}{_SEPARATOR}{user}"
