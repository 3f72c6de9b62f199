"""The skiplist against a sorted Python list, and its check() against damage."""

from __future__ import annotations

import gc
import random
import weakref
from bisect import bisect_left, bisect_right, insort
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rtserver.structs import StructureBroken
from rtserver.structs.skiplist import _END, Skiplist

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

few_ints = st.integers(0, 12)
many_ints = st.integers(INT64_MIN, INT64_MAX) | st.sampled_from([INT64_MIN, INT64_MAX])
seqs = st.integers(0, 40) | st.sampled_from([INT64_MIN, INT64_MAX])


class SkiplistMachine(RuleBasedStateMachine):
    """Every operation on a list of small blocks answers as a sorted list of tuples does."""

    @initialize(
        keys=st.sampled_from([few_ints, many_ints]),
        item_type=st.sampled_from([None, "I"]),
        block_max=st.integers(4, 9),
    )
    def build(self, keys: Any, item_type: str | None, block_max: int) -> None:
        self.keys = keys
        self.made: Skiplist[int] = Skiplist(item_type, block_max)
        self.oracle: list[tuple[Any, int, int]] = []
        self.items = 0

    def some_key(self, data: st.DataObject) -> Any:
        known = [entry[0] for entry in self.oracle[::7]]
        return data.draw(self.keys | st.sampled_from(known) if known else self.keys)

    def insert(self, key: Any, seq: int) -> None:
        index = bisect_left(self.oracle, (key, seq))
        if self.oracle[index : index + 1] and self.oracle[index][:2] == (key, seq):
            with pytest.raises(ValueError, match="is present"):
                self.made.insert(key, seq, 0)
            return
        self.items += 1
        assert self.made.insert(key, seq, self.items) == index
        self.oracle.insert(index, (key, seq, self.items))

    @rule(data=st.data(), seq=seqs)
    def insert_one(self, data: st.DataObject, seq: int) -> None:
        self.insert(self.some_key(data), seq)

    @rule(data=st.data(), seed=st.integers(0, 999), count=st.integers(5, 60))
    def insert_many(self, data: st.DataObject, seed: int, count: int) -> None:
        keys = data.draw(st.lists(self.keys, min_size=1, max_size=10))
        chance = random.Random(seed)
        for _ in range(count):
            self.insert(chance.choice(keys), chance.randrange(1000))

    @rule(count=st.integers(1, 20))
    def append(self, count: int) -> None:
        if self.oracle and self.oracle[-1][1] < INT64_MAX - count:
            key, seq, _ = self.oracle[-1]
            for more in range(1, count + 1):
                self.insert(key, seq + more)

    @precondition(lambda self: self.oracle)
    @rule(data=st.data(), seed=st.integers(0, 999), run=st.booleans())
    def remove_some(self, data: st.DataObject, seed: int, run: bool) -> None:
        count = data.draw(st.integers(1, len(self.oracle)))
        start = data.draw(st.integers(0, len(self.oracle) - count))
        gone = self.oracle[start : start + count]
        if not run:
            random.Random(seed).shuffle(gone)
        for key, seq, _ in gone:
            index = bisect_left(self.oracle, (key, seq))
            assert self.made.remove(key, seq) == index
            del self.oracle[index]

    @rule(data=st.data(), seq=seqs)
    def remove_absent(self, data: st.DataObject, seq: int) -> None:
        key = self.some_key(data)
        if not any(entry[:2] == (key, seq) for entry in self.oracle):
            with pytest.raises(KeyError):
                self.made.remove(key, seq)

    @rule()
    def pop_first(self) -> None:
        if self.oracle:
            assert self.made.pop_first() == self.oracle.pop(0)
        else:
            with pytest.raises(IndexError):
                self.made.pop_first()

    @rule(count=st.integers(0, 30))
    def release(self, count: int) -> None:
        del self.oracle[:count]
        assert self.made.release(count) == (not self.oracle)

    @rule(data=st.data(), count=st.integers(0, 40))
    def load_sorted(self, data: st.DataObject, count: int) -> None:
        drawn = data.draw(st.sets(st.tuples(self.keys, st.integers(50, 99)), max_size=count))
        floor = self.oracle[-1][:2] if self.oracle else (float("-inf"), INT64_MIN)
        run = [(key, seq, 7) for key, seq in sorted(drawn) if (key, seq) > floor]
        columns = [list(column) for column in zip(*run, strict=True)] or [[], [], []]
        self.made.load_sorted(*columns)
        self.oracle += run

    @rule(data=st.data(), seq=seqs)
    def ask_by_key(self, data: st.DataObject, seq: int) -> None:
        key = self.some_key(data)
        keys = [entry[0] for entry in self.oracle]
        assert self.made.rank(key, seq) == bisect_left(self.oracle, (key, seq))
        assert self.made.rank_of_key(key) == bisect_left(keys, key)
        assert self.made.rank_past_key(key) == bisect_right(keys, key)
        assert self.made.distinct_before(key) == len({other for other in keys if other < key})

    @rule(start=st.integers(-2, 200), count=st.integers(-1, 100))
    def ask_by_index(self, start: int, count: int) -> None:
        expected = self.oracle[start : start + max(count, 0)] if start >= 0 else []
        assert self.made.slice(start, count) == expected
        if 0 <= start < len(self.oracle):
            assert self.made.entry(start) == self.oracle[start]
        else:
            with pytest.raises(IndexError):
                self.made.entry(start)

    @invariant()
    def same(self) -> None:
        if hasattr(self, "made"):
            self.made.check()
            assert len(self.made) == len(self.oracle)
            assert list(self.made) == self.oracle


TestSkiplist = SkiplistMachine.TestCase
TestSkiplist.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)


def filled(count: int = 400, block_max: int = 8) -> Skiplist[int]:
    made: Skiplist[int] = Skiplist("I", block_max)
    for seq in range(count):
        made.insert(seq * 7919 % 101, seq, seq)
    made.check()
    return made


def blocks_of(made: Skiplist[Any]) -> int:
    count, step = 0, made._heads[0]
    while step is not _END:
        count, step = count + 1, step.ahead
    return count


def test_real_block_size_under_random_changes() -> None:
    chance = random.Random(5)
    made: Skiplist[str] = Skiplist()
    oracle: list[tuple[int, int]] = []
    for seq in range(20_000):
        entry = (chance.randrange(3_000), seq)
        insort(oracle, entry)
        assert made.insert(*entry, f"{seq}") == bisect_left(oracle, entry)
    made.check()
    chance.shuffle(oracle)
    for entry in oracle[1_000:]:
        made.remove(*entry)
    made.check()
    assert [entry[:2] for entry in made] == sorted(oracle[:1_000])
    assert blocks_of(made) <= 1_000 // 128 + 1


@pytest.mark.parametrize("order", ["ascending", "descending", "strided"])
def test_few_blocks_stay_when_most_entries_go(order: str) -> None:
    made = filled(4_000, 16)
    gone = [entry for index, entry in enumerate(made) if index % 20]
    if order == "descending":
        gone.reverse()
    elif order == "strided":
        gone.sort(key=lambda entry: entry[1] * 7919 % 4_001)
    for key, seq, _ in gone:
        made.remove(key, seq)
    made.check()
    assert len(made) == 200
    assert blocks_of(made) <= 200 // 4 + 1


def test_an_underfull_block_is_evened_out_with_a_full_neighbour() -> None:
    made: Skiplist[int] = Skiplist("I", 16)
    for seq in range(33):
        made.insert(seq, seq, seq)
    for seq in range(13):
        made.remove(seq, seq)
    made.check()
    assert [len(step.columns[0]) for step in (made._heads[0], made._heads[0].ahead)] == [9, 10]


def test_ascending_inserts_fill_their_blocks() -> None:
    made: Skiplist[int] = Skiplist("I", 16)
    for seq in range(1_600):
        assert made.insert(seq, seq, seq) == seq
    assert blocks_of(made) == 100


def test_from_sorted_and_load_sorted_chunk_after_chunk() -> None:
    entries = list(filled())
    keys, seqs, items = (list(column) for column in zip(*entries, strict=True))
    whole: Skiplist[int] = Skiplist.from_sorted(keys, seqs, items, "I", 8)
    whole.check()
    assert list(whole) == entries
    pieces: Skiplist[int] = Skiplist("I", 8)
    for start in range(0, 400, 17):
        stop = start + 17
        pieces.load_sorted(keys[start:stop], seqs[start:stop], items[start:stop])
        pieces.check()
    assert list(pieces) == entries


@pytest.mark.parametrize(
    ("keys", "seqs"),
    [([1, 3, 2], [0, 0, 0]), ([1, 1], [5, 5]), ([1, 1], [5, 4]), ([1], [0, 1])],
)
def test_a_run_that_does_not_ascend_is_refused(keys: list[int], seqs: list[int]) -> None:
    with pytest.raises(ValueError, match=r"does not ascend|1 keys"):
        Skiplist.from_sorted(keys, seqs, [0] * len(keys))


def test_a_chunk_must_ascend_from_the_one_before() -> None:
    made: Skiplist[int] = Skiplist.from_sorted([1, 2], [0, 0], [0, 0])
    with pytest.raises(ValueError, match="does not ascend"):
        made.load_sorted([2], [0], [0])
    made.check()
    assert len(made) == 2


def test_a_block_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        Skiplist(None, 3)


@pytest.mark.parametrize(
    "entry",
    [(2**63, 0, 0), (1.5, 0, 0), (5, 2**63, 0), (5, -(2**63) - 1, 0), (5, 999, -1), (5, 999, "x")],
)
def test_what_does_not_fit_a_column_changes_nothing(entry: tuple[Any, Any, Any]) -> None:
    made = filled()
    before = list(made)
    with pytest.raises((OverflowError, TypeError)):
        made.insert(*entry)
    made.check()
    assert list(made) == before


def test_release_takes_no_more_than_it_is_allowed() -> None:
    made = filled(100)
    assert not made.release(30)
    assert len(made) == 70
    assert not made.release(0)
    assert made.release(1_000)
    assert made.insert(3, 3, 3) == 0
    made.check()


class Item:
    """Something that can be weakly referred to."""


def test_entries_are_freed_without_the_collector() -> None:
    gc.disable()
    try:
        made: Skiplist[Item] = Skiplist(None, 4)
        seen = []
        for seq in range(200):
            item = Item()
            seen.append(weakref.ref(item))
            made.insert(seq, seq, item)
        del item
        made.remove(0, 0)
        made.release(9)
        assert [ref() is None for ref in seen] == [True] * 10 + [False] * 190
        del made
        assert all(ref() is None for ref in seen)
    finally:
        gc.enable()


def test_a_long_chain_of_blocks_is_dropped_without_recursion() -> None:
    count = 200_000
    made: Skiplist[int] = Skiplist.from_sorted(range(count), range(count), range(count))
    tiny: Skiplist[int] = Skiplist("I", 4)
    tiny.load_sorted(range(count), range(count), range(count))
    assert len(made) == len(tiny) == count
    del made, tiny


def damage_order(made: Skiplist[int]) -> None:
    keys = made._heads[0].columns[0]
    keys[0], keys[-1] = keys[-1], keys[0]


def damage_seq(made: Skiplist[int]) -> None:
    made._heads[0].columns[1][1] = made._heads[0].columns[1][0]


def damage_columns(made: Skiplist[int]) -> None:
    del made._heads[0].ahead.columns[2][0]


def damage_size(made: Skiplist[int]) -> None:
    made._size += 1


def damage_width(made: Skiplist[int]) -> None:
    made._heads[1].ahead.width += 1


def damage_last_width(made: Skiplist[int]) -> None:
    made._tails[0].width -= 1


def damage_distinct(made: Skiplist[int]) -> None:
    made._heads[-1].distinct -= 1


def damage_fence(made: Skiplist[int]) -> None:
    made._heads[0].ahead.fence_key += 1_000


def damage_fence_seq(made: Skiplist[int]) -> None:
    made._heads[0].ahead.fence_seq = INT64_MIN
    made._heads[0].ahead.fence_key = INT64_MIN


def damage_tower(made: Skiplist[int]) -> None:
    made._heads[1].ahead.fence_seq -= 1


def damage_down(made: Skiplist[int]) -> None:
    made._heads[1].ahead.down = made._heads[0]


def damage_tail(made: Skiplist[int]) -> None:
    made._tails[0] = made._heads[0]


def damage_path(made: Skiplist[int]) -> None:
    made._path.pop()


def damage_levels(made: Skiplist[int]) -> None:
    made._levels_down = range(0, -1, -1)


def damage_top(made: Skiplist[int]) -> None:
    made._grow()


def damage_underfull(made: Skiplist[int]) -> None:
    made._block_min = 9


def damage_overfull(made: Skiplist[int]) -> None:
    made._block_max = 3


def damage_links(made: Skiplist[int]) -> None:
    made._heads[0].ahead = made._heads[0].ahead.ahead


DAMAGES = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_finds_damage(damage: Any) -> None:
    made = filled()
    damage(made)
    with pytest.raises((StructureBroken, KeyError)):
        made.check()
