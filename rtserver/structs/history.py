"""The recent past of one stream: items with contiguous offsets, their sizes and their times.

Three columns (a list, two arrays: 24 bytes an entry, some 350 bytes an empty ring) with a moving
start, rather than a deque: a deque takes 600 bytes when empty and has to be walked to its
middle, while a page read from here costs only its own length. What was evicted is let go at
once; its room is reused when half of a column is such room, so all is amortised O(1).
The ring does not evict by itself and knows no clock: `trim` is told the bounds.
"""

from __future__ import annotations

from array import array
from typing import Any, Generic, TypeVar

from rtserver.structs import expect

__all__ = ["EVICTIONS_MAX", "HistoryRing"]

T = TypeVar("T")

EVICTIONS_MAX = 4_096  # of one trim: more is left to the next
GAP_MIN = 32  # evicted places at the front of the columns before they are closed up


class HistoryRing(Generic[T]):
    """Items at offsets `first_offset` to `top`, of `bytes` bytes together.

    first_offset: the offset that the first item will get.
    top: the last offset ever given (`first_offset - 1` before any), whatever was evicted.
    """

    __slots__ = ("_gap", "_items", "_sizes", "_times", "bytes", "first_offset")

    def __init__(self, first_offset: int = 1) -> None:
        self.first_offset = first_offset
        self.bytes = 0
        self._gap = 0
        self._items: list[Any] = []
        self._sizes = array("q")
        self._times = array("q")

    def __len__(self) -> int:
        return len(self._items) - self._gap

    @property
    def top(self) -> int:
        return self.first_offset + len(self._items) - self._gap - 1

    def append(self, item: T, bytes: int, at_ms: int) -> int:
        """Adds `item` of `bytes` bytes, which came at `at_ms`, and returns its offset."""
        self._items.append(item)
        self._sizes.append(bytes)
        self._times.append(at_ms)
        self.bytes += bytes
        return self.top

    def read(self, after: int, limit: int, upto: int) -> list[T]:
        """At most `limit` items, oldest first, at offsets above `after` and not above `upto`.

        Offsets that were evicted or not given yet are passed over: the first item is at the
        higher of `after + 1` and `first_offset`.
        """
        base = self._gap - self.first_offset + 1
        start = max(base + after, self._gap)
        stop = min(base + upto, start + limit)
        return self._items[start : max(start, stop)]

    def evict_first(self) -> T:
        """Lets go of the oldest item and returns it; IndexError when there is none."""
        gap = self._gap
        if gap == len(self._items):
            raise IndexError("the ring is empty")
        item: T = self._items[gap]
        self._items[gap] = None
        self.bytes -= self._sizes[gap]
        self.first_offset += 1
        self._gap = gap = gap + 1
        if gap >= GAP_MIN and 2 * gap >= len(self._items):
            del self._items[:gap], self._sizes[:gap], self._times[:gap]
            self._gap = 0
        return item

    def trim(
        self,
        count_max: int,
        bytes_max: int,
        at_before_ms: int,
        evictions_max: int = EVICTIONS_MAX,
    ) -> int:
        """Evicts, oldest first, while there are more than `count_max` items or `bytes_max` bytes
        or the oldest came before `at_before_ms`. Returns how many; at `evictions_max` it is to be
        called again.
        """
        evicted = 0
        while (
            self._gap < len(self._items)
            and evicted < evictions_max
            and (
                len(self) > count_max
                or self.bytes > bytes_max
                or self._times[self._gap] < at_before_ms
            )
        ):
            self.evict_first()
            evicted += 1
        return evicted

    def release(self, entries_max: int) -> bool:
        """Evicts up to `entries_max` items; True when none is left. `top` stays."""
        for _ in range(min(entries_max, len(self))):
            self.evict_first()
        return not len(self)

    def check(self) -> None:
        """Raises `StructureBroken` unless columns, gap and bytes agree. O(n)."""
        count = len(self._items)
        expect(len(self._sizes) == len(self._times) == count, "the columns differ in length")
        expect(0 <= self._gap <= count, "the gap is longer than the columns")
        expect(self._gap < max(GAP_MIN, (count + 1) // 2), "the gap was not closed")
        expect(self.bytes == sum(self._sizes[self._gap :]), "bytes is not the sum of the sizes")
        kept = [item for item in self._items[: self._gap] if item is not None]
        expect(not kept, "an evicted item is still held")
