"""A map from names to values that never stalls: linear hashing over small dicts.

A dict resizes in one go, which takes longer than a turn of the loop may once it holds a million
entries. Here a directory of dicts ("shards") is indexed by the low bits of `hash(name)`. As the
map grows by half a shard's limit, one shard is split in two, the next in turn, whichever it is
(Litwin, Linear Hashing, 1980): so splits come one at a time and evenly spaced, where splitting
each shard at its own limit would bring them all at once, because hashing fills them alike. A slot
whose shard is not split yet shares it with the slot half a directory further. The costliest
`insert` is a split of about 2,000 entries. A small map is one dict.

Shards are not merged when the map shrinks: one that becomes empty gives its table back, and one
that is sparse does so as the dict it is, when it next has to resize.
The order of `items()` depends on `hash()` and means nothing.

`new_map` gives the compiled twin (structs/_sharded_map.pyx) where there is one, for maps of names
of at most 255 bytes that a command asks several times; it has no shards to read past the methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar, cast, overload

from rtserver.compiled import twin
from rtserver.structs import expect

__all__ = ["SHARD_MAX", "ShardedMap", "new_map"]

V = TypeVar("V")
D = TypeVar("D")

SHARD_MAX = 2_048  # entries, about; a dict of this size splits or resizes within a millisecond


class ShardedMap(Generic[V]):
    """Names (str) to values. `shard_max` is for tests.

    Hot paths may read `shards[hash(name) & mask]` and replace the value of a name that is there;
    all else goes through the methods. Neither list nor mask may be kept over an `insert`.
    """

    __slots__ = ("_next", "_shard_max", "_size", "_split_above", "mask", "shards")

    def __init__(self, shard_max: int = SHARD_MAX) -> None:
        self._shard_max = shard_max
        self._reset()

    def _reset(self) -> None:
        self.shards: list[dict[str, V]] = [{}]
        self.mask = 0
        self._next = 0  # the slot whose shard is split next; those below it are
        self._size = 0
        self._split_above = self._shard_max

    def __len__(self) -> int:
        return self._size

    def __contains__(self, name: str) -> bool:
        return name in self.shards[hash(name) & self.mask]

    @overload
    def get(self, name: str) -> V | None: ...
    @overload
    def get(self, name: str, default: D) -> V | D: ...
    def get(self, name: str, default: D | None = None) -> V | D | None:
        """The value of `name`, else `default`."""
        return self.shards[hash(name) & self.mask].get(name, default)

    def items(self) -> Iterator[tuple[str, V]]:
        """Every entry once, in no order that means anything. No change meanwhile."""
        for shard in self.shards[: self._distinct()]:
            yield from shard.items()

    def _distinct(self) -> int:
        """How many shards there are: the first so many slots hold one each."""
        return max(1, len(self.shards) // 2 + self._next)

    def insert(self, name: str, value: V) -> None:
        """Adds `name`, or replaces its value."""
        shard = self.shards[hash(name) & self.mask]
        before = len(shard)
        shard[name] = value
        if len(shard) != before:
            self._size += 1
            if self._size > self._split_above:
                self._split()

    def pop(self, name: str) -> V:
        """Removes `name` and returns its value; KeyError when it is absent."""
        shard = self.shards[hash(name) & self.mask]
        value = shard.pop(name)
        self._size -= 1
        if not shard:
            shard.clear()  # gives back the table, which a dict keeps while entries go one by one
        return value

    def release(self, entries_max: int) -> bool:
        """Removes up to `entries_max` entries; True when none is left.

        From the first call until it answers True the map may only be released further.
        """
        shards = self.shards
        while self._size and entries_max > 0:
            shard = shards[-1]
            count = min(entries_max, len(shard))
            for _ in range(count):
                shard.popitem()
            self._size -= count
            entries_max -= count
            if not shard:
                shards.pop()
        if self._size:
            return False
        self._reset()
        return True

    def check(self) -> None:
        """Raises `StructureBroken` unless each name is in its shard and all counts hold. O(n)."""
        slots = len(self.shards)
        half = slots // 2
        expect(slots == self.mask + 1, "directory and mask differ")
        expect(slots & (slots - 1) == 0, "the directory is not a power of two")
        expect(0 <= self._next <= half, "the next slot to split is not in the lower half")
        size = 0
        for slot, shard in enumerate(self.shards[: self._distinct()]):
            split = half and not self._next <= slot < half
            if half and not split:
                expect(self.shards[slot + half] is shard, "a shard that is not split is not shared")
            size += len(shard)
            for name in shard:
                low = hash(name) & (self.mask if split else self.mask >> 1)
                expect(low == slot, f"{name!r} is in a wrong shard")
        expect(size == self._size, "size is not the sum of the shards")
        owned = self._distinct() * (self._shard_max // 2)
        expect(self._split_above >= max(self._shard_max, owned), "a split comes too early")

    def _split(self) -> None:
        """Divides the next shard by the highest bit of the mask."""
        if self._next == len(self.shards) // 2:
            self.shards *= 2
            self.mask = 2 * self.mask + 1
            self._next = 0
        bit = len(self.shards) // 2
        slot = self._next
        halves: tuple[dict[str, V], dict[str, V]] = ({}, {})
        for name, value in self.shards[slot].items():
            halves[hash(name) & bit != 0][name] = value
        self.shards[slot], self.shards[slot + bit] = halves
        self._next += 1
        self._split_above = max(self._shard_max, self._distinct() * (self._shard_max // 2))


_twin = twin(__name__)


def new_map() -> ShardedMap[Any]:
    """An empty map, of the compiled form where there is one."""
    return ShardedMap() if _twin is None else cast("ShardedMap[Any]", _twin.ShardedMap())
