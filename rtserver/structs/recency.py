"""Objects in the order in which they were last touched: what to let go of first.

A doubly linked list through the objects themselves, so that a touch allocates nothing and all
is O(1) without a table that must resize. Neighbours refer to each other: an object that leaves
is unlinked fully, and a list that is discarded is emptied with `release`, so no cycle stays.
An object can be in one such list at a time, which is not checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from rtserver.structs import expect

__all__ = ["RecencyLink", "RecencyList"]


class RecencyLink(Protocol):
    """What an object needs: two slots, None at first, that only the list writes."""

    touched_before: Any
    touched_after: Any


L = TypeVar("L", bound=RecencyLink)


class RecencyList(Generic[L]):
    """Objects with the slots of `RecencyLink`, the one touched longest ago first."""

    __slots__ = ("_newest", "_oldest", "_size")

    def __init__(self) -> None:
        self._oldest: L | None = None
        self._newest: L | None = None
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, linked: L) -> bool:
        return linked.touched_before is not None or linked is self._oldest

    def __iter__(self) -> Iterator[L]:
        """All objects, oldest touch first. The object just yielded may be removed."""
        linked = self._oldest
        while linked is not None:
            after = linked.touched_after
            yield linked
            linked = after

    def oldest(self) -> L | None:
        """The object touched longest ago; None when the list is empty."""
        return self._oldest

    def touch(self, linked: L) -> None:
        """Makes `linked` the newest, adding it if it is not in the list."""
        if linked is self._newest:
            return
        if linked in self:
            self.remove(linked)
        newest = self._newest
        if newest is None:
            self._oldest = linked
        else:
            newest.touched_after = linked
            linked.touched_before = newest
        self._newest = linked
        self._size += 1

    def remove(self, linked: L) -> None:
        """Takes `linked` out; KeyError when it is not in the list."""
        if linked not in self:
            raise KeyError(linked)
        before, after = linked.touched_before, linked.touched_after
        if before is None:
            self._oldest = after
        else:
            before.touched_after = after
        if after is None:
            self._newest = before
        else:
            after.touched_before = before
        linked.touched_before = linked.touched_after = None
        self._size -= 1

    def release(self, entries_max: int) -> bool:
        """Removes up to `entries_max` of the oldest; True when none is left."""
        while entries_max > 0 and self._oldest is not None:
            self.remove(self._oldest)
            entries_max -= 1
        return self._oldest is None

    def check(self) -> None:
        """Raises `StructureBroken` unless the links agree in both directions. O(n)."""
        before = None
        count = 0
        linked = self._oldest
        while linked is not None and count <= self._size:
            expect(linked.touched_before is before, "a link back does not match the link ahead")
            before = linked
            linked = linked.touched_after
            count += 1
        expect(count == self._size, "size is not the number of linked objects")
        expect(self._newest is before, "the newest is not the last")
