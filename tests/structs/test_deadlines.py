"""Deadlines against a sorted list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rtserver.structs.deadlines import Deadlines

steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 9)),
        st.tuples(st.just("discard"), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.integers(0, 15)),
        st.tuples(st.just("take"), st.integers(1, 4)),
    ),
    max_size=60,
)


@given(steps, st.integers(0, 20))
def test_like_a_sorted_list(steps, patience):
    deadlines: Deadlines[int] = Deadlines(patience)
    model: list[tuple[int, int]] = []
    now = 0
    for step, value in steps:
        if step == "add" and value not in [key for _, key in model]:
            deadlines.add(value, now)
            model.append((now + patience, value))
        elif step == "discard":
            deadlines.discard(value)
            model = [entry for entry in model if entry[1] != value]
        elif step == "wait":
            now += value
        elif step == "take":
            due = [key for at, key in model if at <= now][:value]
            assert deadlines.take_due(now, value) == due
            model = [entry for entry in model if entry[1] not in due]
        assert len(deadlines) == len(model)
