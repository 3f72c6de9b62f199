"""A sorted set of names, for listing by prefix, page by page.

Blocks of up to 512 names in order, and a directory with a lower bound of each block. `add`,
`remove` and the start of a page cost two binary searches and one short move of pointers; the
directory is one flat list, so a split (one `add` in some 250) moves up to 8 bytes for each
block behind: 0.2 ms with 100 million names. Order is by code point, which UTF-8 keeps.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from rtserver.structs import expect

__all__ = ["BLOCK_MAX", "OrderedNames"]

BLOCK_MAX = 512


class OrderedNames:
    """A set of str in order. `block_max` (at least 4) is for tests."""

    __slots__ = ("_block_max", "_blocks", "_fences", "_size")

    def __init__(self, block_max: int = BLOCK_MAX) -> None:
        self._block_max = block_max
        # Never without a block. No name of block i is below fence i; the first fence is "".
        self._blocks: list[list[str]] = [[]]
        self._fences = [""]
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, name: str) -> bool:
        block = self._blocks[bisect_right(self._fences, name) - 1]
        index = bisect_left(block, name)
        return index < len(block) and block[index] == name

    def add(self, name: str) -> bool:
        """Adds `name`; False when it is there already."""
        at = bisect_right(self._fences, name) - 1
        block = self._blocks[at]
        index = bisect_left(block, name)
        if index < len(block) and block[index] == name:
            return False
        block.insert(index, name)
        self._size += 1
        if len(block) > self._block_max:
            appended = index == len(block) - 1 and at == len(self._blocks) - 1
            self._split(at, index if appended else len(block) // 2)
        return True

    def remove(self, name: str) -> bool:
        """Removes `name`; False when it is not there."""
        at = bisect_right(self._fences, name) - 1
        block = self._blocks[at]
        index = bisect_left(block, name)
        if index == len(block) or block[index] != name:
            return False
        del block[index]
        self._size -= 1
        if len(block) < self._block_max // 4 and len(self._blocks) > 1:
            self._refill(max(at, 1))
        return True

    def page(self, prefix: str = "", after: str | None = None, limit: int = 100) -> list[str]:
        """At most `limit` names that start with `prefix` and are above `after`, ascending."""
        if after is None or after < prefix:
            at = bisect_right(self._fences, prefix) - 1
            index = bisect_left(self._blocks[at], prefix)
        else:
            at = bisect_right(self._fences, after) - 1
            index = bisect_right(self._blocks[at], after)
        found: list[str] = []
        while len(found) < limit and at < len(self._blocks):
            names = self._blocks[at][index : index + limit - len(found)]
            if names and not names[-1].startswith(prefix):
                end = bisect_left(names, True, key=lambda name: not name.startswith(prefix))
                return found + names[:end]
            found += names
            at += 1
            index = 0
        return found

    def release(self, entries_max: int) -> bool:
        """Removes the last `entries_max` names; True when none is left."""
        while entries_max > 0 and self._size:
            block = self._blocks[-1]
            count = min(entries_max, len(block))
            del block[len(block) - count :]
            self._size -= count
            entries_max -= count
            if not block and len(self._blocks) > 1:
                del self._blocks[-1], self._fences[-1]
        return not self._size

    def check(self) -> None:
        """Raises `StructureBroken` unless all is in order and within bounds. O(n)."""
        expect(len(self._blocks) == len(self._fences) > 0, "blocks and fences differ in number")
        expect(self._fences[0] == "", "the first fence is not the lowest")
        expect(self._size == sum(map(len, self._blocks)), "size is not the sum of the blocks")
        before = None
        for at, block in enumerate(self._blocks):
            expect(len(block) <= self._block_max, "a block holds more than block_max")
            expect(len(block) > 0 or len(self._blocks) == 1, "a block is empty")
            last = at == len(self._blocks) - 1
            expect(last or len(block) >= self._block_max // 4, "a block is underfull")
            expect(before is None or before < self._fences[at], "a fence is too low")
            for name in block:
                expect(name >= self._fences[at], f"{name!r} is below its fence")
                expect(before is None or before < name, f"{name!r} does not ascend")
                before = name

    def _split(self, at: int, cut: int) -> None:
        block = self._blocks[at]
        moved = block[cut:]
        del block[cut:]
        self._blocks.insert(at + 1, moved)
        self._fences.insert(at + 1, moved[0])

    def _refill(self, at: int) -> None:
        """Joins block `at` and the one before it, of which one is underfull, or evens them out."""
        left, right = self._blocks[at - 1 : at + 1]
        total = len(left) + len(right)
        joined = left + right
        if total <= self._block_max * 3 // 4:
            self._blocks[at - 1] = joined
            del self._blocks[at], self._fences[at]
            return
        self._blocks[at - 1], self._blocks[at] = joined[: total // 2], joined[total // 2 :]
        self._fences[at] = self._blocks[at][0]
