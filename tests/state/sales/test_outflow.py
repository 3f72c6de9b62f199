"""The pace of a queue against a list of all departures."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.state.sales.outflow import Outflow

START = 1_700_000_000_000
gaps = st.sampled_from([0, 1, 999, 4_999, 5_000, 12_345, 59_999, 60_000, 10**9])
steps = st.lists(st.tuples(gaps, st.integers(1, 9)), min_size=1, max_size=60)


@settings(deadline=None)
@given(passed_over=st.integers(0, 12), steps=steps, later=gaps)
def test_a_pace_is_what_left_since_the_oldest_bucket(
    passed_over: int, steps: list[tuple[int, int]], later: int
) -> None:
    outflow, now = Outflow(passed_over), START
    left, since, counted = passed_over, None, []
    for gap, number in steps:
        now += gap
        outflow.count(now, number)
        ignored = min(left, number)
        left -= ignored
        if not left:
            since = now if since is None else since
            counted.append((now, number - ignored))
        again = Outflow(0)
        again.load(outflow.dump())
        outflow = again
    now += later
    began = max(since or 0, (now // 5_000 - 11) * 5_000)
    departures = sum(number for at, number in counted if at >= began)
    expected = (departures, now - began)
    if since is None or not departures or now - began < 10_000:
        assert outflow.pace(now) is None
    else:
        assert outflow.pace(now) == expected


def test_the_ones_that_fill_an_empty_room_say_nothing_of_the_pace() -> None:
    outflow = Outflow(100)
    outflow.count(START, 100)
    assert outflow.pace(START + 20_000) is None
    outflow.count(START + 20_000, 10)
    assert outflow.pace(START + 20_000) == (10, 20_000)


def test_a_minute_without_a_departure_leaves_no_measure() -> None:
    outflow = Outflow(0)
    outflow.count(START, 5)
    assert outflow.pace(START + 9_999) is None, "too short"
    assert outflow.pace(START + 10_000) == (5, 10_000)
    assert outflow.pace(START + 59_000) == (5, 59_000)
    assert outflow.pace(START + 65_000) is None
