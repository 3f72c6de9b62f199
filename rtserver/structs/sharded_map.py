"""A map from names to values that never stalls: extendible hashing over small dicts.

A dict resizes in one go, which takes longer than a turn of the loop may once it holds a million
entries. Here a directory of dicts ("shards") is indexed by the low bits of `hash(name)`; a shard
that passes its limit is split in two, alone, and the directory, one pointer a slot, doubles
when that shard had a slot of its own (Fagin, Nievergelt, Pippenger, Strong 1979). The costliest
`insert` is a split of about 2,000 entries, some 0.2 ms. A small map is one dict.

Shards are not merged when the map shrinks: one that becomes empty gives its table back, and one
that is sparse does so as the dict it is, when it next has to resize.
The order of `items()` depends on `hash()` and means nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar, overload

from rtserver.structs import expect

__all__ = ["SHARD_MAX", "ShardedMap"]

V = TypeVar("V")
D = TypeVar("D")

SHARD_MAX = 2_048  # entries; a dict of this size splits or resizes in well under a millisecond


class ShardedMap(Generic[V]):
    """Names (str) to values. `shard_max` is for tests.

    Hot paths may read `shards[hash(name) & mask]` and replace the value of a name that is there;
    all else goes through the methods. Neither list nor mask may be kept over an `insert`.
    """

    __slots__ = ("_depths", "_shard_max", "_size", "mask", "shards")

    def __init__(self, shard_max: int = SHARD_MAX) -> None:
        self._shard_max = shard_max
        self._reset()

    def _reset(self) -> None:
        self.shards: list[dict[str, V]] = [{}]
        self.mask = 0
        # Of each slot: how many low bits the hashes in its shard share.
        self._depths = bytearray(1)
        self._size = 0

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
        for slot, shard in enumerate(self.shards):
            if slot >> self._depths[slot] == 0:  # the first of the slots that share it
                yield from shard.items()

    def insert(self, name: str, value: V) -> None:
        """Adds `name`, or replaces its value."""
        slot = hash(name) & self.mask
        shard = self.shards[slot]
        before = len(shard)
        shard[name] = value
        if len(shard) != before:
            self._size += 1
            if before >= self._shard_max:
                self._split(slot)

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
        expect(slots == self.mask + 1 == len(self._depths), "directory and mask differ")
        size = 0
        for slot, (shard, depth) in enumerate(zip(self.shards, self._depths, strict=True)):
            step = 1 << depth
            first = slot & (step - 1)
            expect(step <= slots, "a shard shares more bits than the mask has")
            expect(self._depths[first] == depth, "slots of one shard differ in depth")
            if first != slot:
                continue
            shared = self.shards[slot::step]
            expect(all(other is shard for other in shared), "slots of one shard differ")
            size += len(shard)
            for name in shard:
                expect(hash(name) & (step - 1) == slot, f"{name!r} is in a wrong shard")
        expect(size == self._size, "size is not the sum of the shards")

    def _split(self, slot: int) -> None:
        """Divides the shard of `slot` by the next bit of the hash."""
        depth = self._depths[slot]
        bit = 1 << depth
        if bit > self.mask:
            # Hashes that do not differ must not double the directory without end: where its
            # slots have less than 1/32 of a shard on average, the shard grows instead.
            if len(self.shards) * (self._shard_max // 32 + 1) > self._size:
                return
            self.shards *= 2
            self._depths *= 2
            self.mask = 2 * self.mask + 1
        shard = self.shards[slot]
        halves: tuple[dict[str, V], dict[str, V]] = ({}, {})
        for name, value in shard.items():
            halves[hash(name) & bit != 0][name] = value
        for shared in range(slot & (bit - 1), len(self.shards), bit):
            self.shards[shared] = halves[shared & bit != 0]
            self._depths[shared] = depth + 1
