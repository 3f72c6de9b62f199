"""The timer queue against a sorted list."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtserver.structs import StructureBroken
from rtserver.structs.timers import TimerQueue

moments = st.integers(0, 30) | st.integers(1_700_000_000_000, 1_700_000_000_100)


class TimerMachine(RuleBasedStateMachine):
    """Every operation answers as a dict of (due_ms, id) -> item does."""

    def __init__(self) -> None:
        super().__init__()
        self.made: TimerQueue[str] = TimerQueue()
        self.oracle: dict[tuple[int, int], str] = {}

    @rule(due_ms=moments, id=st.integers(0, 50))
    def add(self, due_ms: int, id: int) -> None:
        if (due_ms, id) in self.oracle:
            with pytest.raises(ValueError, match="is present"):
                self.made.add(due_ms, id, "")
            return
        item = self.oracle[due_ms, id] = f"{due_ms}/{id}"
        self.made.add(due_ms, id, item)

    @rule(due_ms=moments, id=st.integers(0, 50))
    def cancel(self, due_ms: int, id: int) -> None:
        if (due_ms, id) not in self.oracle:
            with pytest.raises(KeyError):
                self.made.cancel(due_ms, id)
            return
        del self.oracle[due_ms, id]
        self.made.cancel(due_ms, id)

    @rule(now_ms=moments, limit=st.integers(0, 10))
    def pop_due(self, now_ms: int, limit: int) -> None:
        due = [at for at in sorted(self.oracle) if at[0] <= now_ms][:limit]
        expected = [(*at, self.oracle.pop(at)) for at in due]
        assert self.made.count_due(now_ms, limit) == len(due)
        assert self.made.pop_due(now_ms, limit) == expected

    @rule(count=st.integers(0, 3))
    def release(self, count: int) -> None:
        for at in sorted(self.oracle)[:count]:
            del self.oracle[at]
        assert self.made.release(count) == (not self.oracle)

    @invariant()
    def same(self) -> None:
        self.made.check()
        assert len(self.made) == len(self.oracle)
        assert list(self.made) == [(*at, self.oracle[at]) for at in sorted(self.oracle)]
        assert self.made.next_due() == (min(self.oracle)[0] if self.oracle else None)


TestTimers = TimerMachine.TestCase
TestTimers.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


def test_the_moment_itself_is_due() -> None:
    made: TimerQueue[None] = TimerQueue()
    made.add(100, 1, None)
    assert made.pop_due(99, 10) == []
    assert made.pop_due(100, 10) == [(100, 1, None)]


def test_check_finds_damage() -> None:
    made: TimerQueue[None] = TimerQueue()
    made.add(100, 1, None)
    made._timers._size += 1
    with pytest.raises(StructureBroken):
        made.check()
