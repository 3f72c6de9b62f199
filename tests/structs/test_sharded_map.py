"""The sharded map against a dict, with small shards, and its check() against damage."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtserver.structs import StructureBroken
from rtserver.structs.sharded_map import SHARD_MAX, ShardedMap

names = st.integers(0, 300).map(str)


class Stubborn(str):
    """A name whose hash agrees with that of every other."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 5


class Settled(str):
    """A name that hashes the same in every process: what it shows is no matter of chance."""

    __slots__ = ()

    def __hash__(self) -> int:
        return zlib.crc32(self.encode())


class ShardedMapMachine(RuleBasedStateMachine):
    """Every operation on a map of small shards answers as a dict does."""

    @initialize(shard_max=st.integers(1, 9))
    def build(self, shard_max: int) -> None:
        self.made: ShardedMap[int] = ShardedMap(shard_max)
        self.oracle: dict[str, int] = {}

    @rule(name=names, value=st.integers())
    def insert(self, name: str, value: int) -> None:
        self.made.insert(name, value)
        self.oracle[name] = value

    @rule(start=st.integers(0, 300), count=st.integers(1, 150))
    def insert_run(self, start: int, count: int) -> None:
        for number in range(start, start + count):
            self.insert(str(number), -number)

    @rule(name=names)
    def pop(self, name: str) -> None:
        if name in self.oracle:
            assert self.made.pop(name) == self.oracle.pop(name)
        else:
            with pytest.raises(KeyError):
                self.made.pop(name)

    @rule(start=st.integers(0, 300), count=st.integers(1, 150))
    def pop_run(self, start: int, count: int) -> None:
        for number in range(start, start + count):
            self.pop(str(number))

    @rule(name=names)
    def ask(self, name: str) -> None:
        made = self.made
        assert made.get(name) == self.oracle.get(name)
        assert made.get(name, "none") == self.oracle.get(name, "none")
        assert (name in made) == (name in self.oracle)
        assert made.shards[hash(name) & made.mask].get(name) == self.oracle.get(name)

    @rule(slice_size=st.integers(1, 100))
    def release(self, slice_size: int) -> None:
        while not self.made.release(slice_size):
            assert 0 < len(self.made) == max(0, len(self.oracle) - slice_size)
            for _ in range(slice_size):
                self.oracle.popitem()
        self.oracle = {}

    @invariant()
    def same(self) -> None:
        if hasattr(self, "made"):
            self.made.check()
            assert len(self.made) == len(self.oracle)
            items = list(self.made.items())
            assert len(items) == len(self.oracle)
            assert dict(items) == self.oracle


TestShardedMap = ShardedMapMachine.TestCase
TestShardedMap.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def filled(count: int = 300, shard_max: int = 8) -> ShardedMap[int]:
    made: ShardedMap[int] = ShardedMap(shard_max)
    for number in range(count):
        made.insert(f"name{number}", number)
    made.check()
    return made


def test_a_small_map_is_one_dict() -> None:
    made = filled(SHARD_MAX, SHARD_MAX)
    assert len(made.shards) == 1
    made.insert("one more", 1)
    assert len(made.shards) >= 2
    made.check()


def test_no_shard_is_large() -> None:
    made: ShardedMap[int] = ShardedMap(64)
    for number in range(20_000):
        made.insert(Settled(f"name{number}"), number)
    made.check()
    assert max(map(len, made.shards)) <= 64
    assert len(made.shards) <= 20_000 // 2


def test_hashes_that_agree_do_not_double_the_directory_without_end() -> None:
    made: ShardedMap[int] = ShardedMap(64)
    for number in range(1_000):
        made.insert(Stubborn(number), number)
    made.check()
    assert len(made.shards) < 1_000
    assert all(made.get(Stubborn(number)) == number for number in range(1_000))


def test_splits_come_one_at_a_time() -> None:
    made: ShardedMap[int] = ShardedMap(64)
    splits = []
    for number in range(20_000):
        before = made._distinct()
        made.insert(f"name{number}", number)
        splits.append(made._distinct() - before)
    assert max(splits) == 1
    assert max(sum(splits[start : start + 320]) for start in range(1_000, 19_000, 320)) <= 11


def test_release_takes_no_more_than_it_is_allowed() -> None:
    made = filled(100)
    assert not made.release(30)
    assert len(made) == 70
    assert not made.release(0)
    assert made.release(70)
    assert made.mask == 0
    made.insert("again", 1)
    made.check()


def damage_size(made: ShardedMap[int]) -> None:
    made._size -= 1


def damage_mask(made: ShardedMap[int]) -> None:
    made.mask >>= 1


def damage_next(made: ShardedMap[int]) -> None:
    made._next -= 1


def damage_limit(made: ShardedMap[int]) -> None:
    made._split_above = 1


def damage_place(made: ShardedMap[int]) -> None:
    one, other = [slot for slot, shard in enumerate(made.shards[:10]) if shard][:2]
    made.shards[one], made.shards[other] = made.shards[other], made.shards[one]


def damage_slot(made: ShardedMap[int]) -> None:
    made.shards[-1] = {}


DAMAGES = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_finds_damage(damage: Any) -> None:
    made = filled()
    damage(made)
    with pytest.raises(StructureBroken):
        made.check()
