"""What belongs to a user, found by her name: her connections, her sessions that have none.

Promises: O(1) to add, to take out and to find, without a stall at any number of users; nothing is
kept of a user who has nothing.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from rtserver.structs.sharded_map import ShardedMap

__all__ = ["ByUser"]

T = TypeVar("T")


class ByUser(Generic[T]):
    """Things of users. What belongs to nobody (None) is not kept."""

    __slots__ = ("_things",)

    def __init__(self) -> None:
        self._things: ShardedMap[dict[T, None]] = ShardedMap()

    def __len__(self) -> int:
        """Users who have something."""
        return len(self._things)

    def add(self, user: str | None, thing: T) -> None:
        if user is None:
            return
        own = self._things.get(user)
        if own is None:
            self._things.insert(user, {thing: None})
        else:
            own[thing] = None

    def discard(self, user: str | None, thing: T) -> None:
        if user is None:
            return
        own = self._things.get(user)
        if own is not None:
            own.pop(thing, None)
            if not own:
                self._things.pop(user)

    def of(self, user: str) -> list[T]:
        """Everything of the user, in the order it was added."""
        return list(self._things.get(user, ()))
