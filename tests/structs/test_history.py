"""The history ring against a dict of offsets, and its check() against damage."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtserver.structs import StructureBroken
from rtserver.structs.history import EVICTIONS_MAX, HistoryRing

offsets = st.integers(-5, 260)


class HistoryMachine(RuleBasedStateMachine):
    """Every operation answers as a dict of offset -> (item, bytes, at_ms) does."""

    @initialize(first=st.sampled_from([0, 1, 100, 2**40]))
    def build(self, first: int) -> None:
        self.made: HistoryRing[str] = HistoryRing(first)
        self.oracle: dict[int, tuple[str, int, int]] = {}
        self.first = self.next = first

    @rule(entries=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 50)), max_size=60))
    def append(self, entries: list[tuple[int, int]]) -> None:
        for size, at_ms in entries:
            assert self.made.append(f"item {self.next}", size, at_ms) == self.next
            self.oracle[self.next] = (f"item {self.next}", size, at_ms)
            self.next += 1

    @rule()
    def evict_first(self) -> None:
        if self.oracle:
            assert self.made.evict_first() == self.oracle.pop(min(self.oracle))[0]
        else:
            with pytest.raises(IndexError):
                self.made.evict_first()

    @rule(
        count_max=st.integers(0, 80) | st.just(10**6),
        bytes_max=st.integers(0, 3_000) | st.just(10**9),
        at_before_ms=st.integers(0, 50) | st.just(0),
    )
    def trim(self, count_max: int, bytes_max: int, at_before_ms: int) -> None:
        evicted = 0
        while self.oracle:
            oldest = min(self.oracle)
            total = sum(size for _, size, _ in self.oracle.values())
            bounded = len(self.oracle) <= count_max and total <= bytes_max
            if bounded and self.oracle[oldest][2] >= at_before_ms:
                break
            del self.oracle[oldest]
            evicted += 1
        assert self.made.trim(count_max, bytes_max, at_before_ms) == evicted

    @rule(after=offsets, limit=st.integers(0, 50), upto=offsets)
    def read(self, after: int, limit: int, upto: int) -> None:
        after, upto = self.first + after, self.first + upto
        wanted = [self.oracle[at][0] for at in sorted(self.oracle) if after < at <= upto]
        assert self.made.read(after, limit, upto) == wanted[:limit]

    @rule(count=st.integers(0, 30))
    def release(self, count: int) -> None:
        for offset in sorted(self.oracle)[:count]:
            del self.oracle[offset]
        assert self.made.release(count) == (not self.oracle)

    @invariant()
    def same(self) -> None:
        if hasattr(self, "made"):
            self.made.check()
            assert len(self.made) == len(self.oracle)
            assert self.made.top == self.next - 1
            assert self.made.first_offset == min(self.oracle, default=self.next)
            assert self.made.bytes == sum(size for _, size, _ in self.oracle.values())


TestHistory = HistoryMachine.TestCase
TestHistory.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


def test_one_trim_is_bounded() -> None:
    made: HistoryRing[int] = HistoryRing()
    for number in range(EVICTIONS_MAX + 100):
        made.append(number, 1, 0)
    assert made.trim(0, 0, 0) == EVICTIONS_MAX
    assert made.trim(0, 0, 0) == 100
    assert made.trim(0, 0, 0) == 0


class Item:
    """Something that can be weakly referred to."""


def test_an_evicted_item_is_freed_at_once() -> None:
    gc.disable()
    try:
        made: HistoryRing[Item] = HistoryRing()
        seen = []
        for _ in range(10):
            item = Item()
            seen.append(weakref.ref(item))
            made.append(item, 1, 0)
        del item
        made.trim(5, 100, 0)
        assert [ref() is None for ref in seen] == [True] * 5 + [False] * 5
    finally:
        gc.enable()


def filled() -> HistoryRing[int]:
    made: HistoryRing[int] = HistoryRing()
    for number in range(100):
        made.append(number, number, number)
    made.trim(80, 10**9, 0)
    made.check()
    return made


def damage_bytes(made: HistoryRing[int]) -> None:
    made.bytes += 1


def damage_columns(made: HistoryRing[int]) -> None:
    made._times.pop()


def damage_gap(made: HistoryRing[int]) -> None:
    made._items[0] = 7


def damage_long_gap(made: HistoryRing[int]) -> None:
    made._gap = 101


def damage_wide_gap(made: HistoryRing[int]) -> None:
    made._gap = 60


DAMAGES = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_finds_damage(damage: Any) -> None:
    made = filled()
    damage(made)
    with pytest.raises(StructureBroken):
        made.check()
