"""The recency list against an ordered dict, and its check() against damage."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtserver.structs import StructureBroken
from rtserver.structs.recency import RecencyList


class Node:
    __slots__ = ("__weakref__", "number", "touched_after", "touched_before")

    def __init__(self, number: int) -> None:
        self.number = number
        self.touched_before: Any = None
        self.touched_after: Any = None


numbers = st.integers(0, 9)


class RecencyMachine(RuleBasedStateMachine):
    """Every operation answers as a list of numbers, oldest touch first, does."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = [Node(number) for number in range(10)]
        self.made: RecencyList[Node] = RecencyList()
        self.oracle: list[int] = []

    @rule(number=numbers)
    def touch(self, number: int) -> None:
        if number in self.oracle:
            self.oracle.remove(number)
        self.oracle.append(number)
        self.made.touch(self.nodes[number])

    @rule(number=numbers)
    def remove(self, number: int) -> None:
        node = self.nodes[number]
        if number not in self.oracle:
            with pytest.raises(KeyError):
                self.made.remove(node)
            return
        self.oracle.remove(number)
        self.made.remove(node)
        assert node.touched_before is None
        assert node.touched_after is None

    @rule(count=st.integers(0, 3))
    def release(self, count: int) -> None:
        del self.oracle[:count]
        assert self.made.release(count) == (not self.oracle)

    @invariant()
    def same(self) -> None:
        self.made.check()
        assert [node.number for node in self.made] == self.oracle
        assert len(self.made) == len(self.oracle)
        assert [node.number in self.oracle for node in self.nodes] == [
            node in self.made for node in self.nodes
        ]
        oldest = self.made.oldest()
        assert (oldest.number if oldest else None) == (self.oracle[0] if self.oracle else None)


TestRecency = RecencyMachine.TestCase
TestRecency.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def filled(count: int = 5) -> RecencyList[Node]:
    made: RecencyList[Node] = RecencyList()
    for number in range(count):
        made.touch(Node(number))
    return made


def test_released_objects_are_freed_without_the_collector() -> None:
    gc.disable()
    try:
        made = filled()
        seen = [weakref.ref(node) for node in made]
        made.remove(next(iter(made)))
        assert [ref() is None for ref in seen] == [True] + [False] * 4
        assert made.release(10)
        assert all(ref() is None for ref in seen)
    finally:
        gc.enable()


def test_the_object_just_yielded_may_be_removed() -> None:
    made = filled()
    for node in made:
        made.remove(node)
    assert len(made) == 0


def damage_size(made: RecencyList[Node]) -> None:
    made._size += 1


def damage_back(made: RecencyList[Node]) -> None:
    list(made)[2].touched_before = None


def damage_ahead(made: RecencyList[Node]) -> None:
    list(made)[2].touched_after = None


def damage_cycle(made: RecencyList[Node]) -> None:
    list(made)[4].touched_after = made.oldest()


def damage_newest(made: RecencyList[Node]) -> None:
    made._newest = made._oldest


DAMAGES = [value for name, value in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_finds_damage(damage: Any) -> None:
    made = filled()
    damage(made)
    with pytest.raises(StructureBroken):
        made.check()
