"""The conflated history against a plain dict of keys."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtserver.structs import StructureBroken
from rtserver.structs.conflated import ConflatedHistory

keys = st.sampled_from([None, "a", "b", "c", "d"])


class ConflatedMachine(RuleBasedStateMachine):
    """Every operation answers as a dict of key -> (offset, item, bytes, at_ms) does."""

    def __init__(self) -> None:
        super().__init__()
        self.made: ConflatedHistory[str] = ConflatedHistory(7)
        self.oracle: dict[str | None, tuple[int, str, int, int]] = {}
        self.top = 6
        self.lost = 6  # the highest offset that was evicted

    @rule(entries=st.lists(st.tuples(keys, st.integers(0, 99), st.integers(0, 50)), max_size=9))
    def append(self, entries):
        for key, size, at_ms in entries:
            self.top += 1
            assert self.made.append(f"item {self.top}", size, at_ms, key) == self.top
            self.oracle[key] = (self.top, f"item {self.top}", size, at_ms)

    @rule(count_max=st.integers(0, 6), bytes_max=st.integers(0, 400), before=st.integers(0, 50))
    def trim(self, count_max, bytes_max, before):
        evicted = 0
        while self.oracle:
            key = min(self.oracle, key=lambda one: self.oracle[one][0])
            offset, _, _, at_ms = self.oracle[key]
            total = sum(size for _, _, size, _ in self.oracle.values())
            if len(self.oracle) <= count_max and total <= bytes_max and at_ms >= before:
                break
            del self.oracle[key]
            self.lost = offset
            evicted += 1
        assert self.made.trim(count_max, bytes_max, before) == evicted

    @rule(after=st.integers(0, 60), limit=st.integers(1, 6), upto=st.integers(0, 60))
    def read(self, after, limit, upto):
        found = sorted(row for row in self.oracle.values() if after < row[0] <= upto)
        assert self.made.read(after, limit, upto) == [item for _, item, _, _ in found[:limit]]

    @invariant()
    def agrees(self):
        self.made.check()
        assert len(self.made) == len(self.oracle)
        assert self.made.top == self.top
        assert self.made.first_offset == self.lost + 1
        assert self.made.bytes == sum(size for _, _, size, _ in self.oracle.values())


ConflatedMachine.TestCase.settings = settings(max_examples=150, deadline=None)
TestConflated = ConflatedMachine.TestCase


def test_check_sees_a_wrong_sum():
    history: ConflatedHistory[str] = ConflatedHistory()
    history.append("a", 5, 0, "k")
    history.bytes = 4
    with pytest.raises(StructureBroken, match="5 bytes"):
        history.check()
