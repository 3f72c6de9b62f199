"""The ordered names against a sorted set, with small blocks, and their check() against damage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtserver.structs import StructureBroken
from rtserver.structs.ordered_names import OrderedNames

names = st.text(alphabet="ab\x7f\U0001f600é", max_size=4)


class OrderedNamesMachine(RuleBasedStateMachine):
    """Every operation answers as a sorted set does."""

    @initialize(block_max=st.integers(4, 9))
    def build(self, block_max: int) -> None:
        self.made = OrderedNames(block_max)
        self.oracle: set[str] = set()

    @rule(added=st.lists(names, max_size=40))
    def add(self, added: list[str]) -> None:
        for name in added:
            assert self.made.add(name) == (name not in self.oracle)
            self.oracle.add(name)

    @rule(removed=st.lists(names, max_size=10))
    def remove(self, removed: list[str]) -> None:
        for name in removed:
            assert self.made.remove(name) == (name in self.oracle)
            self.oracle.discard(name)

    @rule(data=st.data())
    def remove_run(self, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(self.oracle)))
        for name in sorted(self.oracle)[start : start + data.draw(st.integers(0, 60))]:
            assert self.made.remove(name)
            self.oracle.discard(name)

    @rule(prefix=st.just("") | names, after=st.none() | names, limit=st.integers(0, 30))
    def page(self, prefix: str, after: str | None, limit: int) -> None:
        matching = sorted(name for name in self.oracle if name.startswith(prefix))
        if after is not None:
            matching = [name for name in matching if name > after]
        assert self.made.page(prefix, after, limit) == matching[:limit]

    @rule(count=st.integers(0, 30))
    def release(self, count: int) -> None:
        kept = max(0, len(self.oracle) - count)
        self.oracle = set(sorted(self.oracle)[:kept])
        assert self.made.release(count) == (not self.oracle)

    @rule(name=names)
    def contains(self, name: str) -> None:
        assert (name in self.made) == (name in self.oracle)

    @invariant()
    def same(self) -> None:
        if hasattr(self, "made"):
            self.made.check()
            assert len(self.made) == len(self.oracle)
            assert self.made.page(limit=10_000) == sorted(self.oracle)


TestOrderedNames = OrderedNamesMachine.TestCase
TestOrderedNames.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


def filled(count: int = 300, block_max: int = 8) -> OrderedNames:
    made = OrderedNames(block_max)
    for number in range(count):
        made.add(f"{number * 7919 % 10_007:05}")
    made.check()
    return made


@pytest.mark.parametrize("step", [1, -1])
def test_few_blocks_stay_when_most_names_go(step: int) -> None:
    made = filled(2_000, 16)
    listed = made.page(limit=2_000)
    for index in range(2_000)[::step]:
        if index % 20:
            assert made.remove(listed[index])
    made.check()
    assert made.page(limit=2_000) == listed[::20]
    assert len(made._blocks) <= 100 // 4 + 1


def test_paging_visits_every_name_once() -> None:
    made = filled()
    seen: list[str] = []
    while page := made.page("0", seen[-1] if seen else None, 7):
        assert len(page) <= 7
        seen += page
    assert seen == [name for name in made.page(limit=300) if name.startswith("0")]


def test_ascending_names_fill_their_blocks() -> None:
    made = OrderedNames(16)
    for number in range(1_600):
        made.add(f"{number:05}")
    assert len(made._blocks) == 100


def damage_order(made: OrderedNames) -> None:
    made._blocks[1].reverse()


def damage_repeat(made: OrderedNames) -> None:
    made._blocks[1][1] = made._blocks[1][0]


def damage_fence(made: OrderedNames) -> None:
    made._fences[1] = made._blocks[1][-1]


def damage_low_fence(made: OrderedNames) -> None:
    made._fences[2] = made._blocks[1][0]


def damage_first_fence(made: OrderedNames) -> None:
    made._fences[0] = "0"


def damage_size(made: OrderedNames) -> None:
    made._size += 1


def damage_fences(made: OrderedNames) -> None:
    made._fences.pop()


def damage_empty(made: OrderedNames) -> None:
    made._blocks.append([])
    made._fences.append("~")


def damage_underfull(made: OrderedNames) -> None:
    made._size -= len(made._blocks[1]) - 1
    del made._blocks[1][1:]


def damage_overfull(made: OrderedNames) -> None:
    made._block_max = 4


DAMAGES = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_finds_damage(damage: Any) -> None:
    made = filled()
    damage(made)
    with pytest.raises(StructureBroken):
        made.check()
