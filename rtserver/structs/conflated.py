"""The newest item of each key of one stream, in the order of their offsets.

The counterpart of `history.HistoryRing` for streams of which only the present matters: an item
takes the place of the one with its key. Both are read the same way, so whoever pages through a
stream need not know which it is. Costs: O(1) to append and to evict, O(items above `after`) to
read.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar

from rtserver.structs import expect

__all__ = ["ConflatedHistory"]

T = TypeVar("T")

_EVICTIONS_MAX = 4_096  # of one trim: more is left to the next


class _Kept(NamedTuple, Generic[T]):
    offset: int
    item: T
    bytes: int
    at_ms: int


class ConflatedHistory(Generic[T]):
    """Items of different keys, `bytes` bytes together.

    top: the last offset ever given. first_offset: changes at and above it are all here, those
    below may have been evicted (one that a newer change of its key replaced is not missed).
    """

    __slots__ = ("_kept", "bytes", "first_offset", "top")

    def __init__(self, first_offset: int = 1) -> None:
        self.first_offset = first_offset
        self.top = first_offset - 1
        self.bytes = 0
        self._kept: OrderedDict[str | None, _Kept[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: str | None) -> bool:
        return key in self._kept

    def append(self, item: T, bytes: int, at_ms: int, key: str | None = None) -> int:
        """Puts an item of `bytes` bytes, which came at `at_ms`, in the place of the one with its
        key, and returns its offset."""
        self.put(self.top + 1, item, bytes, at_ms, key)
        return self.top

    def put(self, offset: int, item: T, bytes: int, at_ms: int, key: str | None) -> None:
        """The same at an offset above `top`: a snapshot has only what was kept."""
        replaced = self._kept.pop(key, None)
        if replaced is not None:
            self.bytes -= replaced.bytes
        self._kept[key] = _Kept(offset, item, bytes, at_ms)
        self.top = offset
        self.bytes += bytes

    def read(self, after: int, limit: int, upto: int) -> list[T]:
        """At most `limit` items, by ascending offset, above `after` and not above `upto`."""
        found = []
        for kept in reversed(self._kept.values()):
            if kept.offset <= after:
                break
            if kept.offset <= upto:
                found.append(kept.item)
        found.reverse()
        return found[:limit]

    def evict_first(self) -> T:
        """Lets go of the item that changed longest ago; KeyError when there is none."""
        _, kept = self._kept.popitem(last=False)
        self.bytes -= kept.bytes
        self.first_offset = kept.offset + 1
        return kept.item

    def trim(
        self,
        count_max: int,
        bytes_max: int,
        at_before_ms: int,
        evictions_max: int = _EVICTIONS_MAX,
    ) -> int:
        """Evicts as `HistoryRing.trim` does; returns how many."""
        evicted = 0
        while (
            self._kept
            and evicted < evictions_max
            and (
                len(self._kept) > count_max
                or self.bytes > bytes_max
                or next(iter(self._kept.values())).at_ms < at_before_ms
            )
        ):
            self.evict_first()
            evicted += 1
        return evicted

    def check(self) -> None:
        """Raises `StructureBroken` unless offsets ascend and `bytes` is their sum. O(n)."""
        offsets = [kept.offset for kept in self._kept.values()]
        expect(offsets == sorted(set(offsets)), "the offsets do not ascend")
        expect(not offsets or self.first_offset <= offsets[0], "an item is below first_offset")
        expect(not offsets or offsets[-1] <= self.top, "an item is above the top")
        total = sum(kept.bytes for kept in self._kept.values())
        expect(total == self.bytes, f"the items have {total} bytes, the sum says {self.bytes}")
