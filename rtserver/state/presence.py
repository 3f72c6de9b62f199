"""When users were seen last: the durable part of presence.

The server notes it by a logged command once a user's last connection is gone. Promises: at most
`users_max` users are remembered, the one seen longest ago gives way; who gives way is decided when
the command is first applied and stands in its record, so a replay under another limit gives the
same state. Costs: O(1) a user noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rtserver.state.chunks import in_chunks
from rtserver.structs.recency import RecencyList
from rtserver.structs.sharded_map import ShardedMap

__all__ = ["LastSeen"]


class _Seen:
    """One user. `at` in ms."""

    __slots__ = ("at", "touched_after", "touched_before", "user")

    def __init__(self, user: str) -> None:
        self.user = user
        self.at = 0
        self.touched_before: _Seen | None = None  # these two belong to the RecencyList
        self.touched_after: _Seen | None = None


class LastSeen:
    """User to time, in the order in which they were noted."""

    __slots__ = ("_order", "_seen", "users_max")

    def __init__(self) -> None:
        self._seen: ShardedMap[_Seen] = ShardedMap()
        self._order: RecencyList[_Seen] = RecencyList()
        self.users_max: int | None = None

    def __len__(self) -> int:
        return len(self._seen)

    def get(self, user: str) -> int | None:
        """Milliseconds; None for a user who was never seen, or was forgotten."""
        seen = self._seen.get(user)
        return None if seen is None else seen.at

    def note(self, rows: Iterable[Any]) -> None:
        """[user, ms] of those who were seen, the earliest first."""
        for user, at in rows:
            seen = self._seen.get(user)
            if seen is None:
                seen = _Seen(user)
                self._seen.insert(user, seen)
            seen.at = at
            self._order.touch(seen)

    def excess(self) -> int:
        """How many users are remembered beyond the limit."""
        return 0 if self.users_max is None else max(0, len(self._seen) - self.users_max)

    def forget(self, count: int) -> None:
        """Lets go of those seen longest ago."""
        for _ in range(count):
            oldest = self._order.oldest()
            if oldest is None:
                return
            self._order.remove(oldest)
            self._seen.pop(oldest.user)

    # --- snapshots ---

    def dump(self) -> Iterator[list[Any]]:
        """[[user, ms], ...] in pieces, in order."""
        return in_chunks([seen.user, seen.at] for seen in self._order)

    def load(self, rows: list[Any]) -> None:
        self.note(rows)

    def check(self) -> None:
        """Raises where map and order disagree."""
        self._seen.check()
        self._order.check()
        for seen in self._order:
            if self._seen.get(seen.user) is not seen:
                raise ValueError(f"{seen.user!r} is in the order, but not in the map")
        if len(self._order) != len(self._seen):
            raise ValueError(f"{len(self._seen)} users, {len(self._order)} in order")
