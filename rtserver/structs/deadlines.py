"""Deadlines that are all equally far away when they are set, so that they come in the order they
were set: adding, dropping and taking the due ones cost O(1) each, and no timer.
"""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Deadlines"]

K = TypeVar("K")


class Deadlines(Generic[K]):
    """Keys that are due `patience` after they were added. Times never go backwards."""

    __slots__ = ("_due", "_patience")

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._due: dict[K, int] = {}  # in the order of their deadlines

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: K, now: int) -> None:
        """A key that is not there."""
        self._due[key] = now + self._patience

    def discard(self, key: K) -> None:
        self._due.pop(key, None)

    def take_due(self, now: int, most: int) -> list[K]:
        """Takes out at most so many of those that are due, the earliest first."""
        found: list[K] = []
        for key, due in self._due.items():
            if due > now or len(found) == most:
                break
            found.append(key)
        for key in found:
            del self._due[key]
        return found
