"""The map that `new_map` gives, in whichever form is built, against a dict.

Values live as long as they are in it, and no longer.
"""

from __future__ import annotations

import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtserver.structs.sharded_map import new_map

names = st.one_of(st.integers(0, 300).map(str), st.sampled_from(["é", "名前", "x" * 255]))


class Value:
    __slots__ = ()


class NameMapMachine(RuleBasedStateMachine):
    """Every operation answers as a dict does."""

    def __init__(self) -> None:
        super().__init__()
        self.made = new_map()
        self.oracle: dict[str, Value] = {}

    @rule(name=names)
    def insert(self, name: str) -> None:
        value = Value()
        self.made.insert(name, value)
        self.oracle[name] = value

    @rule(start=st.integers(0, 300), count=st.integers(1, 150))
    def insert_run(self, start: int, count: int) -> None:
        for number in range(start, start + count):
            self.insert(str(number))

    @rule(name=names)
    def pop(self, name: str) -> None:
        if name in self.oracle:
            assert self.made.pop(name) is self.oracle.pop(name)
        else:
            with pytest.raises(KeyError):
                self.made.pop(name)

    @rule(name=names)
    def get(self, name: str) -> None:
        assert self.made.get(name) is self.oracle.get(name)
        assert (name in self.made) == (name in self.oracle)

    @rule(entries_max=st.integers(1, 200))
    def release(self, entries_max: int) -> None:
        while not self.made.release(entries_max):
            pass
        self.oracle.clear()

    @invariant()
    def agrees(self) -> None:
        assert len(self.made) == len(self.oracle)
        assert dict(self.made.items()) == self.oracle
        self.made.check()

    def teardown(self) -> None:
        value = Value()
        before = sys.getrefcount(value)
        self.made.insert("last", value)
        assert sys.getrefcount(value) == before + 1
        self.made.insert("last", value)
        assert sys.getrefcount(value) == before + 1
        del self.made
        assert sys.getrefcount(value) == before


TestNameMap = NameMapMachine.TestCase
TestNameMap.settings = settings(deadline=None, max_examples=40, stateful_step_count=30)


def test_values_go_a_slice_at_a_time():
    made = new_map()
    value = Value()
    before = sys.getrefcount(value)
    for number in range(20_000):
        made.insert(str(number), value)
    calls = 1
    while not made.release(2_000):
        calls += 1
    assert calls >= 10
    assert sys.getrefcount(value) == before
    assert len(made) == 0
    made.insert("again", value)
    assert made.get("again") is value
