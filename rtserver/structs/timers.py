"""Timers in the exact order of (due_ms, id).

A skiplist, because the order is exact: timers that fall due together fire by ascending id, on
every machine and in every replay. A timing wheel is O(1) where this is O(log n), but fires what
shares a slot in the order of arrival, or has to sort it. Adding a timer later than all others,
the common case of equal delays, takes the skiplist's short way. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from rtserver.structs.skiplist import Skiplist

__all__ = ["TimerQueue"]

T = TypeVar("T")


class TimerQueue(Generic[T]):
    """Timers (due_ms, id, item); the pair (due_ms, id) is unique."""

    __slots__ = ("_timers",)

    def __init__(self) -> None:
        self._timers: Skiplist[T] = Skiplist()

    def __len__(self) -> int:
        return len(self._timers)

    def __iter__(self) -> Iterator[tuple[int, int, T]]:
        """All timers in order; none may be set or cancelled meanwhile."""
        return iter(self._timers)

    def add(self, due_ms: int, id: int, item: T) -> None:
        """Sets a timer; ValueError when (due_ms, id) is set."""
        self._timers.insert(due_ms, id, item)

    def cancel(self, due_ms: int, id: int) -> None:
        """Takes a timer back; KeyError when it is not set, or fired already."""
        self._timers.remove(due_ms, id)

    def next_due(self) -> int | None:
        """When the earliest timer falls due; None without timers."""
        return self._timers.first()[0] if len(self._timers) else None

    def count_due(self, now_ms: int, limit: int) -> int:
        """How many timers are due at `now_ms`, at most `limit`."""
        return min(limit, self._timers.rank_past_key(now_ms))

    def pop_due(self, now_ms: int, limit: int) -> list[tuple[int, int, T]]:
        """Removes and returns at most `limit` timers with `now_ms >= due_ms`, in order."""
        due = self._timers.slice(0, self.count_due(now_ms, limit))
        self._timers.release(len(due))
        return due

    def release(self, entries_max: int) -> bool:
        """Drops up to `entries_max` timers unfired; True when none is left."""
        return self._timers.release(entries_max)

    def check(self) -> None:
        """Raises `StructureBroken` unless the skiplist holds. O(n)."""
        self._timers.check()
