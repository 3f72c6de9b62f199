"""An indexable, blocked skiplist: entries (key, seq, item) ascending by (key, seq).

Owns the order of many entries and answers by key, by rank and by dense rank. A skiplist whose
links know what they span (Pugh, "Skip lists", CACM 1990, and "A skip list cookbook", 1990), made
of blocks of up to 512 entries in three parallel columns (Shao, Reppy, Appel, "Unrolling lists",
1994). A search walks some 20 small objects and ends with a bisection of one block, which C code
does. Each step of a tower holds its block's fence, a lower bound, so that a search touches no
block but the last, and the removal of a block's first entry changes no tower.

Every block but the last is at least a quarter full. A split or a merge moves a block at most and
nothing is ever rebuilt: the longest operation took 0.1 to 0.4 ms. Links go forward and down only,
so there is no cycle to collect. It may not be changed while it is iterated.

`python -m bench.skiplist`, in microseconds an operation (2-core AMD EPYC VM with an idle
neighbour, up to 1.8 times as much with a busy one; CPython 3.11, random keys, items in an
array("I"), so that the columns alone are 20 bytes an entry):

    entries     bytes/entry  insert  remove  rank  dense rank  by index  append  pop first
    1,000              23.1     1.4     1.3   0.7         8.3       0.3     0.7        0.8
    1,000,000          23.2     4.4     4.2   2.4          11       1.3     0.9        1.2
    10,000,000         24.8     8.8     8.5   5.8          15       3.0     1.1        1.4
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, MutableSequence, Sequence
from itertools import islice, pairwise
from operator import lt
from typing import Any, Generic, TypeVar

from rtserver.structs import expect

__all__ = ["BLOCK_MAX", "Skiplist"]

T = TypeVar("T")

BLOCK_MAX = 512
INT64_MIN = -(2**63)
INT64_END = 2**63  # above every key and seq
TOWER_SEED = 0x9E3779B9  # any odd number: chance shapes the towers, never a result

Columns = tuple[MutableSequence[Any], MutableSequence[int], MutableSequence[Any]]


class _Step:
    """One level of one block's tower: an element of the linked list that is that level.

    No entry of the block is below its fence, every entry before the block is. `width` and
    `distinct` are what lies from this block up to the block of `ahead`, itself not included:
    entries, and key starts (entries that are the first of their key in the whole list).
    """

    __slots__ = ("ahead", "columns", "distinct", "down", "fence_key", "fence_seq", "width")

    def __init__(self, fence_key: int, fence_seq: int, columns: Columns) -> None:
        self.fence_key = fence_key
        self.fence_seq = fence_seq
        self.columns = columns
        self.ahead: _Step
        self.down: _Step
        self.width = 0
        self.distinct = 0


_END = _Step(INT64_END, INT64_END, ([], [], []))  # ends every level of every list; never changed


class Skiplist(Generic[T]):
    """Entries (key, seq, item) in ascending order of (key, seq), which is unique: two int64.

    item_type: None for any object, else a type code of `array` ("I" for uint32 numbers).
    block_max: entries a block may hold, at least 4.
    """

    __slots__ = (
        "_block_max",
        "_block_min",
        "_chance",
        "_heads",
        "_item_type",
        "_levels_down",
        "_path",
        "_size",
        "_tails",
    )

    def __init__(self, item_type: str | None = None, block_max: int = BLOCK_MAX) -> None:
        if block_max < 4:
            raise ValueError(f"block_max is {block_max}, expected 4 or more")
        self._item_type = item_type
        self._block_max = block_max
        self._block_min = block_max // 4
        self._chance = TOWER_SEED
        self._size = 0
        head = _Step(INT64_MIN, INT64_MIN, self._columns((), (), ()))
        head.ahead = head.down = _END
        # By level from the bottom: the first step, the last one, the one a search went down at.
        self._heads = [head]
        self._tails = [head]
        self._path = [head]
        self._levels_down = range(0, -1, -1)

    @classmethod
    def from_sorted(
        cls,
        keys: Sequence[int],
        seqs: Sequence[int],
        items: Sequence[T],
        item_type: str | None = None,
        block_max: int = BLOCK_MAX,
    ) -> Skiplist[T]:
        """A list of entries that are given in order; ValueError where they are not. O(n)."""
        made: Skiplist[T] = cls(item_type, block_max)
        made.load_sorted(keys, seqs, items)
        return made

    # --- reading ---

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[tuple[int, int, T]]:
        """All entries in order. The list must not change meanwhile."""
        step = self._heads[0]
        while step is not _END:
            yield from zip(*step.columns, strict=True)
            step = step.ahead

    def rank(self, key: int, seq: int) -> int:
        """Entries strictly before (key, seq), which need not be present."""
        path = self._path
        before = self._descend(key, seq, path)
        keys, seqs, _ = path[0].columns
        return before + _place(keys, seqs, key, seq)

    def rank_of_key(self, key: int) -> int:
        """Entries with a smaller key."""
        return self.rank(key, INT64_MIN)

    def rank_past_key(self, key: int) -> int:
        """Entries with a smaller key or this one."""
        return self.rank(key, INT64_END)

    def distinct_before(self, key: int) -> int:
        """Distinct keys smaller than `key`: a dense rank."""
        before = 0
        path = self._path
        step = self._heads[-1]
        for level in self._levels_down:
            ahead = step.ahead
            while ahead.fence_key < key:
                before += step.distinct
                step = ahead
                ahead = step.ahead
            path[level] = step
            step = step.down
        bottom = path[0]
        keys = bottom.columns[0]
        index = bisect_left(keys, key)
        # What follows `index` here starts a key: counted from there, no block before is needed.
        return before + bottom.distinct - len(set(keys[index:])) if index else before

    def entry(self, index: int) -> tuple[int, int, T]:
        """The entry that has `index` entries before it; IndexError when there is none."""
        if not 0 <= index < self._size:
            raise IndexError(f"index is {index}, the list holds {self._size}")
        step, index = self._locate(index)
        keys, seqs, items = step.columns
        return keys[index], seqs[index], items[index]

    def slice(self, start: int, count: int) -> list[tuple[int, int, T]]:
        """At most `count` entries from index `start` (0 or more) on."""
        found: list[tuple[int, int, T]] = []
        if not 0 <= start < self._size:
            return found
        step, index = self._locate(start)
        while len(found) < count and step is not _END:
            stop = index + count - len(found)
            keys, seqs, items = step.columns
            found += zip(keys[index:stop], seqs[index:stop], items[index:stop], strict=True)
            step = step.ahead
            index = 0
        return found

    def first(self) -> tuple[int, int, T]:
        """The smallest entry; IndexError when the list is empty."""
        return self.entry(0)

    # --- changing ---

    def insert(self, key: int, seq: int, item: T) -> int:
        """Adds an entry and returns its rank; ValueError when (key, seq) is present.

        OverflowError or TypeError, nothing changed, when a value does not fit its column.
        """
        path = self._tails
        keys, seqs, items = path[0].columns
        index = len(keys)
        if index and (key > (last := keys[-1]) or (key == last and seq > seqs[-1])):
            rank = self._size
        else:
            path = self._path
            rank = self._descend(key, seq, path)
            keys, seqs, items = path[0].columns
            index = _place(keys, seqs, key, seq)
            if index < len(keys) and keys[index] == key and seqs[index] == seq:
                raise ValueError(f"({key}, {seq}) is present")
            rank += index
        count = len(keys)
        try:
            keys.insert(index, key)
            seqs.insert(index, seq)
            items.insert(index, item)
        except (OverflowError, TypeError):
            for column in (keys, seqs, items):
                del column[index : index + len(column) - count]
            raise
        self._count(path, index, 1)
        if count >= self._block_max:
            appended = index == count and path[0].ahead is _END
            self._split(path, index if appended else count // 2)
        return rank

    def remove(self, key: int, seq: int) -> int:
        """Removes an entry and returns the rank it had; KeyError when it is absent."""
        path = self._path
        before = self._descend(key, seq, path)
        keys, seqs, _ = path[0].columns
        index = _place(keys, seqs, key, seq)
        if index == len(keys) or keys[index] != key or seqs[index] != seq:
            raise KeyError((key, seq))
        self._remove_at(path, index)
        return before + index

    def pop_first(self) -> tuple[int, int, T]:
        """Removes the smallest entry and returns it; IndexError when the list is empty."""
        first = self.entry(0)
        self._remove_at(self._heads, 0)
        return first

    def release(self, entries_max: int) -> bool:
        """Removes the first `entries_max` entries; True when none is left."""
        heads = self._heads
        columns = heads[0].columns
        keys = columns[0]
        while entries_max > 0 and self._size:
            count = min(entries_max, len(keys) - 1)
            entries_max -= count or 1
            if not count:
                self._remove_at(heads, 0)
                continue
            for column in columns:
                del column[:count]
            self._size -= count
            lost = heads[0].distinct - len(set(keys))
            for step in heads:
                step.width -= count
                step.distinct -= lost
            if len(keys) < self._block_min:
                self._refill(heads)
        return not self._size

    def load_sorted(self, keys: Sequence[int], seqs: Sequence[int], items: Sequence[T]) -> None:
        """Appends a run of entries that ascends from the last one; ValueError where it does not.

        Blocks before the one that is out of order stay loaded. O(length of the run).
        """
        if not len(keys) == len(seqs) == len(items):
            raise ValueError(f"{len(keys)} keys, {len(seqs)} seqs and {len(items)} items")
        fill = self._block_max * 3 // 4
        start = 0
        while start < len(keys):
            last = self._tails[0].columns
            stop = start + (fill - len(last[0]) if len(last[0]) < fill else fill)
            run = self._columns(keys[start:stop], seqs[start:stop], items[start:stop])
            self._require_ascending(last, run)
            self._append_run(last, run, fill)
            start = stop

    def check(self) -> None:
        """Raises `StructureBroken` unless every order, fence, width and count holds. O(n)."""
        blocks = self._check_blocks()
        expect(self._size == sum(width for _, width, _ in blocks), "size is not the sum of blocks")
        levels = len(self._heads)
        expect(len(self._tails) == len(self._path) == levels, "head and tail differ in height")
        expect(self._levels_down == range(levels - 1, -1, -1), "levels are not all searched")
        expect(levels == 1 or self._heads[-1].ahead is not _END, "the top level is empty")
        towers = {id(columns): index for index, (columns, _, _) in enumerate(blocks)}
        for level in range(levels):
            self._check_level(level, blocks, towers)

    def _check_blocks(self) -> list[tuple[Columns, int, int]]:
        """The columns, entries and key starts of every block, counted afresh."""
        blocks: list[tuple[Columns, int, int]] = []
        before: tuple[Any, int] | None = None
        step = self._heads[0]
        while step is not _END:
            keys, seqs, items = step.columns
            count = len(keys)
            expect(count == len(seqs) == len(items), "the columns of a block differ in length")
            expect(count <= self._block_max, "a block holds more than block_max")
            expect(count > 0 or step is self._heads[0], "a block is empty")
            at_least = self._block_min if step.ahead is not _END else 0
            expect(count >= at_least, "a block that is not the last is underfull")
            starts = 0
            for entry in zip(keys, seqs, strict=True):
                expect(entry >= (step.fence_key, step.fence_seq), f"{entry} is below its fence")
                expect(before is None or before < entry, f"{entry} does not ascend from {before}")
                starts += before is None or before[0] != entry[0]
                before = entry
            blocks.append((step.columns, count, starts))
            step = step.ahead
            fence = (step.fence_key, step.fence_seq)
            expect(before is None or before < fence, f"{before} is not below the next fence")
        return blocks

    def _check_level(
        self, level: int, blocks: list[tuple[Columns, int, int]], towers: dict[int, int]
    ) -> None:
        """One level: its steps stand on the level below and span what lies up to the next."""
        step = self._heads[level]
        expect(step.columns is blocks[0][0], "a level does not start at the head")
        while True:
            start, ahead = towers[id(step.columns)], step.ahead
            stop = towers.get(id(ahead.columns), len(blocks))
            spanned = blocks[start:stop]
            expect(start < stop, "a level goes backwards")
            expect(step.width == sum(width for _, width, _ in spanned), "a width is wrong")
            expect(step.distinct == sum(starts for _, _, starts in spanned), "a count is wrong")
            if level:
                below = step.down
                expect(below.columns is step.columns, "a tower has a gap")
                same = (below.fence_key, below.fence_seq) == (step.fence_key, step.fence_seq)
                expect(same, "a tower has two fences")
            if ahead is _END:
                break
            step = ahead
        expect(self._tails[level] is step, "the tail of a level is not its last step")

    # --- the shape ---

    def _columns(self, keys: Any, seqs: Any, items: Any) -> Columns:
        held = list(items) if self._item_type is None else array(self._item_type, items)
        return array("q", keys), array("q", seqs), held

    def _descend(self, key: int, seq: int, path: list[_Step]) -> int:
        """Puts into `path`, by level, the last step whose fence is not above (key, seq).

        Returns the entries before the block of `path[0]`, which is where (key, seq) belongs.
        """
        before = 0
        step = self._heads[-1]
        for level in self._levels_down:
            ahead = step.ahead
            while ahead.fence_key < key or (ahead.fence_key == key and ahead.fence_seq <= seq):
                before += step.width
                step = ahead
                ahead = step.ahead
            path[level] = step
            step = step.down
        return before

    def _locate(self, index: int) -> tuple[_Step, int]:
        """The level 0 step of the block that holds entry `index`, and its index there."""
        path = self._path
        step = self._heads[-1]
        for level in self._levels_down:
            while index >= step.width:
                index -= step.width
                step = step.ahead
            path[level] = step
            step = step.down
        return path[0], index

    def _path_before(self, block: _Step) -> list[_Step]:
        """The path to the block before this one, found by its fence: blocks do not link back."""
        path = self._heads.copy()
        self._descend(block.fence_key, block.fence_seq - 1, path)
        return path

    def _remove_at(self, path: list[_Step], index: int) -> None:
        """Removes entry `index` of the block that `path` leads to."""
        keys, seqs, items = path[0].columns
        self._count(path, index, -1)
        del keys[index], seqs[index], items[index]
        if len(keys) < self._block_min:
            self._refill(path)

    def _count(self, path: list[_Step], index: int, change: int) -> None:
        """Counts entry `index` of the block of `path`, which came (1) or is about to go (-1)."""
        keys = path[0].columns[0]
        key = keys[index]
        last = len(keys) - 1
        if (index and keys[index - 1] == key) or (index < last and keys[index + 1] == key):
            starts = 0
        elif 0 < index < last:
            starts = change
        else:
            starts = self._edge_starts(path, index, key, change)
        self._size += change
        for step in path:
            step.width += change
            step.distinct += starts

    def _edge_starts(self, path: list[_Step], index: int, key: int, change: int) -> int:
        """How `distinct` changes along `path` as the only entry of `key` in a block comes or goes.

        The entry is at `index`, the first or the last of its block, so that the key may go on
        in the block before (then nothing changes) or start in the one after (then its start
        moves between the two blocks, which is done here on the levels that tell them apart).
        """
        block = path[0]
        if index == 0 and block is not self._heads[0]:
            before = self._path_before(block)[0]
            if before.columns[0][-1] == key:
                return 0
        after = block.ahead
        if index < len(block.columns[0]) - 1 or after is _END or after.columns[0][0] != key:
            return change
        for step in path:
            if step.ahead.columns is not after.columns:
                break
            step.distinct += change
            step.ahead.distinct -= change
        return 0

    def _split(self, path: list[_Step], cut: int) -> None:
        """Moves the entries from `cut` on out of the block of `path` into a new one behind it."""
        keys, seqs, items = path[0].columns
        moved = self._columns(keys[cut:], seqs[cut:], items[cut:])
        del keys[cut:], seqs[cut:], items[cut:]
        self._link(path, moved, _starts(keys[-1:], moved[0]))

    def _link(self, path: list[_Step], columns: Columns, distinct: int) -> None:
        """Links a block behind that of `path`, whose widths count its entries already."""
        down = _END
        for level in range(self._draw_height()):
            if level == len(self._heads):
                self._grow()
            step = _Step(columns[0][0], columns[1][0], columns)
            before = path[level]
            ahead = step.ahead = before.ahead
            before.ahead = step
            step.down = down
            if level:
                step.width, step.distinct = _span(down, ahead)
            else:
                step.width, step.distinct = len(columns[0]), distinct
            before.width -= step.width
            before.distinct -= step.distinct
            if ahead is _END:
                self._tails[level] = step
            down = step

    def _unlink(self, path: list[_Step]) -> None:
        """Unlinks the block behind that of `path`, to which its entries are counted."""
        columns = path[0].ahead.columns
        for level, step in enumerate(path):
            gone = step.ahead
            if gone.columns is not columns:
                break
            step.ahead = gone.ahead
            step.width += gone.width
            step.distinct += gone.distinct
            if gone.ahead is _END:
                self._tails[level] = step
        while len(self._heads) > 1 and self._heads[-1].ahead is _END:
            del self._heads[-1], self._tails[-1], self._path[-1]
        self._levels_down = range(len(self._heads) - 1, -1, -1)

    def _refill(self, path: list[_Step]) -> None:
        """Gives an underfull block the entries of the next one: all, or half of the difference.

        So every block but the last holds at least `block_max // 4`, and the last is never empty
        but for the head.
        """
        block = path[0]
        after = block.ahead
        mine, theirs = block.columns, after.columns
        if after is _END:
            if not mine[0] and block is not self._heads[0]:
                self._unlink(self._path_before(block))
            return
        total = len(mine[0]) + len(theirs[0])
        if total <= self._block_max * 3 // 4:
            for column, more in zip(mine, theirs, strict=True):
                column.extend(more)
            self._unlink(path)
            return
        count = total // 2 - len(mine[0])
        starts = after.distinct - _starts(theirs[0][count - 1 : count], theirs[0][count:])
        for column, more in zip(mine, theirs, strict=True):
            column.extend(more[:count])
            del more[:count]
        for step in path:
            ahead = step.ahead
            if ahead.columns is not theirs:
                break
            step.width += count
            step.distinct += starts
            ahead.width -= count
            ahead.distinct -= starts
            ahead.fence_key, ahead.fence_seq = theirs[0][0], theirs[1][0]

    def _grow(self) -> None:
        """Adds a level, which spans everything in one step of the head."""
        below = self._heads[-1]
        head = _Step(below.fence_key, below.fence_seq, below.columns)
        head.down = below
        head.ahead = _END
        head.width, head.distinct = _span(below, _END)
        self._heads.append(head)
        self._tails.append(head)
        self._path.append(head)
        self._levels_down = range(len(self._heads) - 1, -1, -1)

    def _draw_height(self) -> int:
        """Levels of a new tower: one more with a chance of 1/4, at most one more than there are.

        The generator is Marsaglia's xorshift32.
        """
        chance = self._chance
        chance ^= chance << 13 & 0xFFFFFFFF
        chance ^= chance >> 17
        chance ^= chance << 5 & 0xFFFFFFFF
        self._chance = chance
        height = 1
        while height <= len(self._heads) and not chance & 3:
            height += 1
            chance >>= 2
        return height

    @staticmethod
    def _require_ascending(last: Columns, run: Columns) -> None:
        keys = [*last[0][-1:], *run[0]]
        if all(map(lt, keys, islice(keys, 1, None))):
            return
        entries = list(zip(keys, [*last[1][-1:], *run[1]], strict=True))
        for entry, following in pairwise(entries):
            if not entry < following:
                raise ValueError(f"{following} does not ascend from {entry}")

    def _append_run(self, last: Columns, run: Columns, fill: int) -> None:
        """Appends a checked run to the last block if that is not filled, else as a block."""
        starts = _starts(last[0][-1:], run[0])
        self._size += len(run[0])
        for step in self._tails:
            step.width += len(run[0])
            step.distinct += starts
        if len(last[0]) >= fill:
            self._link(self._tails, run, starts)
            return
        for column, more in zip(last, run, strict=True):
            column.extend(more)


def _place(keys: Sequence[Any], seqs: Sequence[int], key: int, seq: int) -> int:
    """Entries of a block that are before (key, seq)."""
    index = bisect_left(keys, key)
    if index < len(keys) and keys[index] == key and seqs[index] < seq:
        return bisect_left(seqs, seq, index, bisect_right(keys, key, index))
    return index


def _starts(before: Sequence[Any], keys: Sequence[Any]) -> int:
    """Distinct keys in `keys`, less one if the first goes on from `before` (0 or 1 key)."""
    return len(set(keys)) - (len(before) > 0 and before[0] == keys[0])


def _span(step: _Step, end: _Step) -> tuple[int, int]:
    """Entries and key starts from a step up to the block of `end`, along the step's level."""
    width = distinct = 0
    while step.columns is not end.columns:
        width += step.width
        distinct += step.distinct
        step = step.ahead
    return width, distinct
