"""The compiled table of names against a dict."""

from __future__ import annotations

import importlib
import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtserver.compiled import active_modules

MODULE = "rtserver.structs._names"
BUILT = MODULE in active_modules()
NameTable: Any = importlib.import_module(MODULE).NameTable if BUILT else None
pytestmark = pytest.mark.skipif(not BUILT, reason="the table of names is not built or off")

int64 = st.integers(-(2**63), 2**63 - 1)
names = st.integers(0, 600).map(str) | st.sampled_from(
    ["", "x", "y" * 255, "z" * 254, "é" * 127, "名前", "\U0001f600" * 63, "a\0b", "a\0c"]
)


class NameTableMachine(RuleBasedStateMachine):
    """Every operation answers as a dict does."""

    @initialize()
    def build(self) -> None:
        self.made = NameTable()
        self.oracle: dict[str, tuple[int, int]] = {}

    @rule(name=names, first=int64, second=int64)
    def insert(self, name: str, first: int, second: int) -> None:
        self.made.insert(name, first, second)
        self.oracle[name] = first, second

    @rule(start=st.integers(0, 600), count=st.integers(1, 400))
    def insert_run(self, start: int, count: int) -> None:
        for number in range(start, start + count):
            self.insert(str(number), number, -number)

    @rule(name=names)
    def discard(self, name: str) -> None:
        assert self.made.discard(name) == (self.oracle.pop(name, None) is not None)

    @rule(start=st.integers(0, 600), count=st.integers(1, 400), step=st.integers(1, 3))
    def discard_run(self, start: int, count: int, step: int) -> None:
        for number in range(start, start + count, step):
            self.discard(str(number))

    @rule(name=names)
    def get(self, name: str) -> None:
        assert self.made.get(name) == self.oracle.get(name)

    @rule(entries_max=st.integers(1, 3_000))
    def release(self, entries_max: int) -> None:
        while not self.made.free(entries_max):
            pass
        self.oracle = {}

    @invariant()
    def same(self) -> None:
        if hasattr(self, "made"):
            self.made.check()
            assert len(self.made) == len(self.oracle)
            assert {name: both for name, *both in self.made.items()} == {
                name: list(both) for name, both in self.oracle.items()
            }


TestNameTable = NameTableMachine.TestCase
TestNameTable.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("seed", range(3))
def test_a_large_table_under_random_changes(seed: int) -> None:
    chance = random.Random(seed)
    made = NameTable()
    oracle: dict[str, tuple[int, int]] = {}
    for step in range(100_000):
        name = str(chance.randrange(30_000)) * chance.choice((1, 1, 9))
        if chance.random() < (0.8 if step // 30_000 % 2 else 0.2):
            assert made.discard(name) == (oracle.pop(name, None) is not None)
        else:
            made.insert(name, step, ~step)
            oracle[name] = step, ~step
        assert made.get(name) == oracle.get(name)
        if not step % 10_000:
            made.check()
    made.check()
    assert {name: (first, second) for name, first, second in made.items()} == oracle


def test_tables_of_every_size_keep_all_names() -> None:
    """Also where overflow buckets chain up, which depends on the key of the hash."""
    for _ in range(150):
        made = NameTable()
        for number in range(700):
            made.insert(f"n{number}", number, number)
        made.check()
        for number in range(700):
            assert made.get(f"n{number}") == (number, number)


def test_removed_names_leave_their_memory_to_others() -> None:
    made = NameTable()
    for number in range(5_000):
        made.insert(f"0:{number:04}", number, 0)
    taken = made.bytes_taken()
    for round in range(5):
        for number in range(5_000):
            assert made.discard(f"{round}:{number:04}")
            made.insert(f"{round + 1}:{number:04}", number, 0)
    assert made.bytes_taken() <= taken * 1.1
    made.check()


def test_memory_comes_back_in_slices() -> None:
    made = NameTable()
    for number in range(50_000):
        made.insert(f"name{number}", number, 0)
    assert made.bytes_taken() < 50_000 * 60
    rounds = 0
    while not made.free(1_500):
        rounds += 1
    assert rounds > 10
    assert made.bytes_taken() == 0
    made.insert("again", 1, 2)
    assert list(made.items()) == [("again", 1, 2)]
