"""Who is connected: each user over all her devices, with the status she gave herself.

A user is here from her first connection to a grace period after the last. What she says of herself
lasts as long; only when she was seen last is durable, and waits in `unseen` for the turn to log it.
Costs: O(1) a connection; nothing is kept of users who are not here.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Any

from rtserver.limits import Limits
from rtserver.state.presence import LastSeen
from rtserver.structs.recency import RecencyList
from rtserver.structs.sharded_map import ShardedMap

__all__ = ["OFFLINE", "People", "Person"]

OFFLINE = "offline"
_ONLINE = "online"


class Person:
    """One user who is here. `left_at`: when the last device went, while there is none."""

    __slots__ = (
        "devices",
        "idle_devices",
        "left_at",
        "note",
        "said_idle",
        "status",
        "touched_after",
        "touched_before",
        "user",
        "version",
    )

    def __init__(self, user: str) -> None:
        self.user = user
        self.devices = 0
        self.idle_devices = 0
        self.said_idle = False  # for all devices, by a call that came from none of them
        self.status = _ONLINE
        self.note: str | None = None
        self.version = 0
        self.left_at = 0
        self.touched_before: Person | None = None  # these two belong to the RecencyList
        self.touched_after: Person | None = None

    @property
    def idle(self) -> bool:
        return self.devices > 0 and (self.said_idle or self.idle_devices == self.devices)


class People:
    """All users who are here."""

    __slots__ = ("_grace_ms", "_last_seen", "_leaving", "_people", "_unseen", "_versions")

    def __init__(self, last_seen: LastSeen, limits: Limits) -> None:
        self._last_seen = last_seen
        self._grace_ms = limits.presence_grace_ms
        self._people: ShardedMap[Person] = ShardedMap()
        self._leaving: RecencyList[Person] = RecencyList()  # without devices, by when they left
        self._unseen: OrderedDict[str, int] = OrderedDict()  # gone, but not logged yet
        self._versions = 0

    def __len__(self) -> int:
        return len(self._people)

    @property
    def versions(self) -> int:
        """Differs whenever the state of anybody may differ."""
        return self._versions

    def get(self, user: str) -> Person | None:
        return self._people.get(user)

    def is_connected(self, user: str) -> bool:
        person = self._people.get(user)
        return person is not None and person.devices > 0

    def state(self, user: str) -> dict[str, Any]:
        """{user, status, note, devices, idle, last_seen}; last_seen is nil while she is here."""
        person = self._people.get(user)
        if person is None:
            return {
                "user": user,
                "status": OFFLINE,
                "note": None,
                "devices": 0,
                "idle": False,
                "last_seen": self.last_seen(user),
            }
        return {
            "user": user,
            "status": person.status,
            "note": person.note,
            "devices": person.devices,
            "idle": person.idle,
            "last_seen": None,
        }

    def last_seen(self, user: str) -> int | None:
        return self._unseen.get(user) or self._last_seen.get(user)

    def changed(self, person: Person) -> None:
        self._versions += 1
        person.version = self._versions

    # --- coming and going ---

    def came(self, user: str) -> None:
        """One more device."""
        person = self._people.get(user)
        if person is None:
            person = Person(user)
            self._people.insert(user, person)
        elif not person.devices:
            self._leaving.remove(person)
        person.devices += 1
        person.said_idle = False
        self.changed(person)

    def gone(self, user: str, *, idle: bool, now: int) -> None:
        """One device less."""
        person = self._people.get(user)
        assert person is not None, "whoever goes was here"
        person.devices -= 1
        person.idle_devices -= idle
        if not person.devices:
            person.left_at = now
            self._leaving.touch(person)
        self.changed(person)

    def expire(self, now: int, people_max: int) -> None:
        """Ends the presence of those whose grace period is over, at most so many."""
        for _ in range(people_max):
            person = self._leaving.oldest()
            if person is None or person.left_at + self._grace_ms > now:
                return
            self._leaving.remove(person)
            self._people.pop(person.user)
            self._versions += 1
            self._saw(person.user, person.left_at)

    def next_due(self) -> int | None:
        """When the next grace period is over."""
        oldest = self._leaving.oldest()
        return None if oldest is None else oldest.left_at + self._grace_ms

    def end(self, now: int) -> None:
        """The server stops: whoever is here was seen now."""
        for person in self._leaving:
            self._saw(person.user, person.left_at)
        for user, person in self._people.items():
            if person.devices:
                self._saw(user, now)

    def _saw(self, user: str, at: int) -> None:
        unseen = self._unseen
        unseen[user] = at
        unseen.move_to_end(user)
        if self._last_seen.users_max is not None and len(unseen) > self._last_seen.users_max:
            unseen.popitem(last=False)

    # --- what is to be logged ---

    @property
    def unseen(self) -> int:
        """Users who are gone and whose last seen is not logged yet."""
        return len(self._unseen)

    def unseen_rows(self, rows_max: int) -> list[list[Any]]:
        """[user, ms] of some of them, the earliest first."""
        return [list(row) for row in islice(self._unseen.items(), rows_max)]

    def noted(self, count: int) -> None:
        """So many of the first rows are logged."""
        for _ in range(count):
            self._unseen.popitem(last=False)
