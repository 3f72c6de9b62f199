"""Above `limits.memory_max` nothing grows, and everything else goes on."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.config import Config, Namespace
from rtserver.errors import MEMORY_FULL, RtError
from rtserver.limits import Limits
from rtserver.memory import Memory, resident_bytes
from rtserver.state.settings import settings_of
from tests.world import Refused, World, content


@pytest.fixture
def world():
    """Something of everything, and then no memory."""
    world = World()
    world.call("counter.add", "old", 5)
    world.call("counter.add", "brief", 1, 60_000)
    world.call("board.submit", "b", "ann", 10)
    world.call("board.create", "empty")
    world.call("channel.publish", "c", "first", "k")
    fill(world)
    return world


def fill(world):
    world.store.growth.refusal = RtError(MEMORY_FULL, "full")


def refused(world, method, *args, **options):
    before = content(world.store)
    records = len(world.records())
    with pytest.raises(Refused) as error:
        world.call(method, *args, **options)
    assert error.value.name == "memory_full"
    assert content(world.store) == before
    assert len(world.records()) == records


GROWING = [
    ("counter.add", "new"),
    ("counter.add", "new", 1, 60_000),
    ("counter.add_within", "new", 3),
    ("counter.set", "new", 3),
    ("board.create", "other"),
    ("board.submit", "other", "ann", 1),
    ("board.submit", "b", "bob", 1),
    ("board.submit", "b", "ann", 11, None, {"name": "Ann"}),
    ("board.submit", "b", "ann", 11, None, None, 60_000),
    ("board.submit_many", "other", [["ann", 1]]),
    ("board.remove", "b", ["ann"], True),
    ("channel.publish", "c", "more"),
    ("channel.publish", "new", "more"),
    ("channel.subscribe", "new"),
]


@pytest.mark.parametrize("call", GROWING, ids=str)
def test_what_grows_is_refused_and_leaves_no_trace(world, call):
    refused(world, *call)
    refused(world, *call, idempotency_key="k")
    world.assert_same()


def test_updates_reads_and_deletions_go_on(world):
    assert world.call("counter.add", "old", 2) == 7
    assert world.call("counter.set", "old", 9) == 9
    assert world.call("counter.add_within", "old", 1, 0, 10)["value"] == 10
    assert world.call("counter.add", "old", 1, 60_000) == 11  # the time to live is of no account
    assert world.call("counter.get", "new") == 0
    assert world.call("board.create", "empty") == {"created": False}
    assert world.call("board.submit", "b", "ann", 20)["changed"]
    assert world.call("board.top", "b")["count"] == 1
    assert world.call("board.remove", "b", ["ann"]) == {"removed": 1}
    assert world.call("channel.history", "c")["messages"]
    assert world.call("channel.subscribe", "c")["offset"] == 1
    assert world.call("channel.unsubscribe", "c")["unsubscribed"]
    assert world.call("counter.delete", "old") == {"deleted": True}
    assert world.call("board.delete", "b") == {"deleted": True}
    world.assert_same()


def test_vectors_apply_what_does_not_grow(world):
    values = world.call("counter.add_many", [["old", 1], ["new", 1], ["old", 1]])["values"]
    assert (values[0], values[2]) == (6, 7)
    assert values[1]["error"][1] == "memory_full"
    items = world.call("board.submit_many", "b", [["bob", 1], ["ann", 30]])["items"]
    assert items[0]["error"][1] == "memory_full"
    assert items[1]["score"] == 30
    items = world.call("channel.publish_many", [["c", 1], ["new", 2]])["items"]
    assert [item["error"][1] for item in items] == ["memory_full", "memory_full"]
    world.assert_same()


def test_a_counter_past_its_deadline_may_be_used_again(world):
    """It takes the place of the old one, whether or not its timer has fired."""
    world.now += 60_000
    world.dispatcher.ctx.now = world.now
    assert world.store.counters.add(world.now, "brief", 3) == 3


def test_it_ends(world):
    refused(world, "counter.add", "new")
    world.store.growth.refusal = None
    assert world.call("counter.add", "new") == 1
    assert world.call("board.submit", "b", "bob", 1)["rank"] == 2
    assert world.call("channel.publish", "c", "more")["offset"] == 2
    world.assert_same()


# --- histories ---


def configured(**rules):
    world = World()
    world.dispatcher.issue(
        "settings.apply", [settings_of(Config(namespaces={"n": Namespace(**rules)}))]
    )
    world.end_turn()
    return world


def test_a_history_that_is_full_goes_on(world):
    world = configured(history_count=3)
    for number in range(3):
        world.call("channel.publish", "n:1", number)
    fill(world)
    assert world.call("channel.publish", "n:1", 3)["offset"] == 4
    assert len(world.call("channel.history", "n:1")["messages"]) == 3


def test_a_history_at_its_bytes_goes_on(world):
    world = configured(history_bytes=4_096)
    for _ in range(5):
        world.call("channel.publish", "n:1", "x" * 1_000)
    fill(world)
    assert world.call("channel.publish", "n:1", "x" * 1_000)["offset"] == 6


def test_latest_replaces_and_takes_no_new_key(world):
    world = configured(kind="latest")
    world.call("channel.publish", "n:1", 1, "k")
    fill(world)
    assert world.call("channel.publish", "n:1", 2, "k")["offset"] == 2
    refused(world, "channel.publish", "n:1", 1, "other")


def test_transient_messages_keep_nothing(world):
    world = configured(kind="transient")
    fill(world)
    assert world.call("channel.publish", "n:1", 1) == {"offset": 0, "epoch": ""}


# --- the bound ---


def test_without_a_bound_nothing_is_full():
    memory = Memory(0, lambda: 1 << 60)
    assert memory.look() is None
    assert memory.stats() == {"resident": 1 << 60, "max": 0, "full": False}


def test_the_refusal_names_both_numbers():
    memory = Memory(1_000, lambda: 1_234)
    refusal = memory.look()
    assert refusal is not None
    assert refusal.kind is MEMORY_FULL
    assert "1234" in refusal.message
    assert "1000" in refusal.message


@given(st.lists(st.integers(0, 2_000), max_size=50))
def test_it_begins_above_the_bound_and_ends_well_below(readings):
    left = list(readings)
    memory = Memory(1_000, lambda: left.pop(0))
    was_full = False
    for reading in readings:
        full = memory.look() is not None
        assert full == memory.full
        assert full or reading <= 1_000
        if full and not was_full:
            assert reading > 1_000
        if was_full and not full:
            assert reading <= 950
        was_full = full


def test_what_was_freed_is_given_back_while_it_is_full():
    """Or deleting would never end it."""
    resident = [1_500]
    memory = Memory(1_000, lambda: resident[0], lambda: resident.__setitem__(0, 100))
    looks = 0
    while memory.look() is not None:
        looks += 1
        assert looks < 100
    assert resident == [100]


def test_what_the_system_says():
    before = resident_bytes()
    assert before > 1 << 20
    block = os.urandom(64 << 20)
    assert resident_bytes() >= before + (60 << 20)
    del block


def test_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setattr("rtserver.memory._STATM", "/nonexistent")
    assert resident_bytes() > 1 << 20


# --- a model ---

NAMES = st.sampled_from(["a", "b", "c", "d"])
CALLS = st.one_of(
    st.tuples(st.just("counter.add"), NAMES),
    st.tuples(st.just("counter.set"), NAMES, st.integers(-5, 5)),
    st.tuples(st.just("counter.delete"), NAMES),
    st.tuples(st.just("board.submit"), NAMES, NAMES, st.integers(-5, 5)),
    st.tuples(st.just("board.remove"), NAMES, st.lists(NAMES, min_size=1)),
    st.tuples(st.just("channel.publish"), NAMES, st.integers(-5, 5)),
    st.sampled_from([("full",), ("room",)]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(CALLS, max_size=30))
def test_nothing_grows_while_full(calls):
    world = World(Limits())
    for method, *args in calls:
        if method == "full":
            fill(world)
        elif method == "room":
            world.store.growth.refusal = None
        else:
            before = sizes(world)
            with contextlib.suppress(Refused):
                world.call(method, *args)
            if world.store.growth.refusal is not None:
                assert all(now <= then for now, then in zip(sizes(world), before, strict=True))
    world.assert_same()


def sizes(world):
    totals = world.store.totals()
    return [totals[key] for key in ("counters", "boards", "members", "channels", "history_bytes")]
