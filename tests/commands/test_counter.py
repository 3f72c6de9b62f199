"""counter.*: each command's happy path, its errors, and its replay."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.limits import INT64_MAX, INT64_MIN, Limits
from tests.world import Refused, World


@pytest.fixture
def world():
    world = World()
    yield world
    world.assert_same()


def test_add_springs_up_and_returns_the_value(world):
    assert world.call("counter.add", "likes") == 1
    assert world.call("counter.add", "likes", 41) == 42
    assert world.call("counter.get", "likes") == 42


def test_get_of_an_unknown_counter_is_zero(world):
    assert world.call("counter.get", "nothing") == 0


@pytest.mark.parametrize(("start", "delta"), [(INT64_MAX, 1), (INT64_MIN, -1)])
def test_a_sum_beyond_64_bits_is_refused_and_changes_nothing(world, start, delta):
    world.call("counter.set", "big", start)
    with pytest.raises(Refused, match="out_of_range"):
        world.call("counter.add", "big", delta)
    assert world.call("counter.get", "big") == start


def test_ttl_runs_from_creation_and_ends_exactly(world):
    assert world.call("counter.add", "short", 1, 1_000) == 1
    world.now += 999
    assert world.call("counter.add", "short", 1, 5_000) == 2
    world.now += 1
    assert world.call("counter.get", "short") == 0
    assert world.call("counter.add", "short") == 1
    assert world.call("counter.list")["items"] == [{"name": "short", "value": 1}]


def test_an_expired_counter_is_absent_before_its_timer_has_fired(world):
    world.call("counter.add", "short", 7, 10)
    world.now += 10
    world.dispatcher.ctx.now = world.now
    assert world.store.counters.get(world.now, "short") == 0
    assert world.store.counters.page(world.now, "", None, 10) == ([], None)


def test_set_keeps_a_running_time_to_live(world):
    world.call("counter.add", "short", 1, 1_000)
    assert world.call("counter.set", "short", 9) == 9
    world.advance(1_000)
    assert world.call("counter.get", "short") == 0


def test_add_many_leaves_an_error_in_the_place_of_a_failed_item(world):
    world.call("counter.set", "full", INT64_MAX)
    values = world.call(
        "counter.add_many", [["a", 1], ["full", 1], ["b c", 1], ["a", 2], "x", ["a", 1.5]]
    )["values"]
    assert values[0] == 1
    assert values[3] == 3
    assert [value["error"][1] for value in values if isinstance(value, dict)] == [
        "out_of_range",
        "invalid_params",
        "invalid_params",
        "invalid_params",
    ]


def test_add_within_rejects_or_clamps(world):
    add = "counter.add_within"
    assert world.call(add, "stock", 8, 0, 10) == {"value": 8, "applied": 8}
    assert world.call(add, "stock", 3, 0, 10) == {"value": 8, "applied": 0}
    assert world.call(add, "stock", 3, 0, 10, "clamp") == {"value": 10, "applied": 2}
    assert world.call(add, "stock", -11, 0, 10, "clamp") == {"value": 0, "applied": -10}
    assert world.call(add, "stock", -1, 0) == {"value": 0, "applied": 0}


def test_add_within_moves_an_outside_value_only_inwards(world):
    world.call("counter.set", "out", 100)
    add = "counter.add_within"
    assert world.call(add, "out", 5, 0, 10, "clamp") == {"value": 100, "applied": 0}
    assert world.call(add, "out", -5, 0, 10) == {"value": 95, "applied": -5}


def test_list_pages_by_prefix(world):
    for name in ("b:2", "a:1", "b:1", "b:3", "c"):
        world.call("counter.add", name)
    page = world.call("counter.list", "b:", None, 2)
    assert [row["name"] for row in page["items"]] == ["b:1", "b:2"]
    page = world.call("counter.list", "b:", page["next"], 2)
    assert [row["name"] for row in page["items"]] == ["b:3"]
    assert page["next"] is None


def test_delete(world):
    world.call("counter.add", "gone", 5, 60_000)
    assert world.call("counter.delete", "gone") == {"deleted": True}
    assert world.call("counter.delete", "gone") == {"deleted": False}
    assert world.call("counter.get_many", ["gone", "gone"]) == {"values": [0, 0]}


def test_growth_is_bounded_but_replay_is_not():
    world = World(Limits(counters_max=2))
    world.call("counter.add", "a")
    world.call("counter.add", "b", 1, 10)
    with pytest.raises(Refused, match=r"limit_reached.*counters_max"):
        world.call("counter.add", "c")
    assert world.call("counter.add_many", [["a", 1], ["c", 1]])["values"][0] == 2
    assert world.call("counter.add", "a") == 3
    world.assert_same()


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("",),
        ("a b",),
        ("a,b",),
        ("x" * 256,),
        ("é" * 128,),
        (5,),
        ("a", "1"),
        ("a", 1.0),
        ("a", True),
        ("a", 2**63),
        ("a", 1, 0),
        ("a", 1, -5),
        ("a", 1, 1, 1),
    ],
)
def test_wrong_parameters_are_named(world, args):
    with pytest.raises(Refused, match="invalid_params"):
        world.call("counter.add", *args)


def test_plain_increments_of_a_turn_are_one_record(world):
    world.open_turn()
    for _ in range(1_000):
        world.send("counter.add", "hot", 2)
    world.send("counter.add_many", [["hot", 1], ["cold", 1]])
    world.end_turn()
    replies = [frame[3] for frame in world.peer.take()]
    assert replies[:3] == [2, 4, 6]
    assert replies[999] == 2_000
    assert world.records()[-1] == ["counter.sum", 1, [[["hot", 2_001], ["cold", 1]]]]


def test_sums_come_before_a_record_that_touches_their_counter(world):
    world.open_turn()
    world.send("counter.add", "a", 5)
    world.send("counter.add", "b", 1)
    world.send("board.submit", "board", "m", 1)
    world.send("counter.add_within", "a", 1, 0, 5)
    world.send("counter.add", "a", 1)
    world.end_turn()
    world.peer.take()
    methods = [record[0] for record in world.records()[1:]]
    assert methods == ["board.submit", "counter.sum", "counter.add_within", "counter.sum"]


def test_a_sum_of_deltas_beyond_64_bits_is_split(world):
    world.open_turn()
    for delta in (INT64_MIN, INT64_MAX, INT64_MAX, -INT64_MAX, -INT64_MAX):
        world.send("counter.add", "swing", delta)
    world.end_turn()
    assert [frame[2] for frame in world.peer.take()] == [None] * 5


NAMES = st.sampled_from(["a", "b", "c"])
DELTAS = st.integers(-5, 5) | st.sampled_from([INT64_MIN, INT64_MAX])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), NAMES, DELTAS, st.none() | st.integers(1, 50)),
        st.tuples(st.just("set"), NAMES, st.integers(-5, 5)),
        st.tuples(st.just("within"), NAMES, DELTAS, st.integers(-9, 0), st.integers(0, 9)),
        st.tuples(st.just("delete"), NAMES),
        st.tuples(st.just("wait"), st.integers(1, 40)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_counters_agree_with_a_dictionary(steps):
    world = World()
    oracle: dict[str, list[int | None]] = {}  # name -> [value, due]
    for step in steps:
        _apply(world, oracle, step)
        for name in "abc":
            assert world.call("counter.get", name) == oracle.get(name, [0])[0]
    world.assert_same()


def _apply(world, oracle, step):
    kind, *rest = step
    if kind == "wait":
        world.now += rest[0]
        for name in [n for n, (_, due) in oracle.items() if due is not None and due <= world.now]:
            del oracle[name]
        return
    name = rest[0]
    value = oracle.get(name, [0, None])[0]
    if kind == "delete":
        assert world.call("counter.delete", name) == {"deleted": name in oracle}
        oracle.pop(name, None)
    elif kind == "set":
        assert world.call("counter.set", name, rest[1]) == rest[1]
        oracle.setdefault(name, [0, None])[0] = rest[1]
    elif kind == "within":
        _, delta, low, high = rest
        fits = low <= value + delta <= high
        inwards = value + delta <= high if delta < 0 and value > high else False
        inwards = inwards or (value + delta >= low if delta > 0 and value < low else False)
        answer = world.call("counter.add_within", name, delta, low, high)
        if fits or delta == 0:
            assert answer["applied"] == delta
        elif not (value > high or value < low) and not inwards:
            assert answer["applied"] == 0
        if answer["applied"]:
            oracle.setdefault(name, [0, None])[0] = value + answer["applied"]
    else:
        _, delta, ttl = rest
        if not INT64_MIN <= value + delta <= INT64_MAX:
            with pytest.raises(Refused, match="out_of_range"):
                world.call("counter.add", name, delta, ttl)
            return
        assert world.call("counter.add", name, delta, ttl) == value + delta
        if name not in oracle:
            oracle[name] = [0, None if ttl is None else world.now + ttl]
        oracle[name][0] = value + delta
