"""Sets of ranks against plain sets, over many words, and their check() against damage."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtserver.structs import StructureBroken
from rtserver.structs.rank_sets import RankSets

KINDS = 3
ranks = st.integers(0, 3) | st.integers(1_022, 1_026) | st.sampled_from([5_000, 1_000_000])
kinds = st.integers(0, KINDS - 1)


class RankSetsMachine(RuleBasedStateMachine):
    """Every operation answers as a list of sets does."""

    def __init__(self) -> None:
        super().__init__()
        self.made = RankSets(KINDS)
        self.oracle: list[set[int]] = [set() for _ in range(KINDS)]

    @rule(kind=kinds, rank=ranks)
    def change(self, kind: int, rank: int) -> None:
        members = self.oracle[kind]
        if rank in members:
            members.remove(rank)
            assert self.made.discard(kind, rank) == (not members)
        else:
            assert self.made.add(kind, rank) == (not members)
            members.add(rank)

    @rule(asked=st.lists(kinds, unique=True))
    def lowest(self, asked: list[int]) -> None:
        union = set().union(*(self.oracle[kind] for kind in asked))
        assert self.made.lowest(asked) == min(union, default=None)

    @rule(kind=kinds, rank=ranks)
    def contains(self, kind: int, rank: int) -> None:
        assert ((kind, rank) in self.made) == (rank in self.oracle[kind])

    @invariant()
    def sound(self) -> None:
        self.made.check()


TestRankSets = RankSetsMachine.TestCase
TestRankSets.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_check_finds_a_summary_that_differs() -> None:
    made = RankSets(KINDS)
    made.add(1, 5_000)
    made._summaries[1] ^= 1
    with pytest.raises(StructureBroken):
        made.check()


def test_check_finds_an_empty_word() -> None:
    made = RankSets(KINDS)
    made.add(1, 5_000)
    made._words[0] = 0
    with pytest.raises(StructureBroken):
        made.check()
