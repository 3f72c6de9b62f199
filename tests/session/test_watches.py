"""Watched things: one look an interval, the full state first, differences after."""

from __future__ import annotations

import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtserver.limits import Limits
from tests.world import Peer, Refused, World


@pytest.fixture
def world():
    return World()


def later(world):
    """The pushes after the next look."""
    world.pushed.clear()
    world.advance(world.limits.watch_interval_ms)
    return [frame[2] for frame in world.peer.take() if frame[0] == 2]


def test_a_counter_is_told_once_an_interval(world):
    assert world.call("channel.subscribe", "$counter:likes")["state"]["value"] == 0
    for _ in range(50):
        world.call("counter.add", "likes")
    (push,) = later(world)
    assert push["data"] == {"full": True, "value": 50}
    assert later(world) == []


def test_names_inside_are_percent_encoded(world):
    world.call("counter.set", "a:b%c", 3)
    assert world.call("channel.subscribe", "$counter:a%3Ab%25c")["state"]["value"] == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("$nothing:x", r"\$nothing:x.* is nothing to watch"),
        ("$counter", "is nothing to watch"),
        ("$counter:a:b", r"such as \$counter:a%3Ab \(in a URL \$counter:a%253Ab\)"),
        ("$board:b:top:0", "n is '0', expected 1 to 1000"),
        ("$board:b:top:1001", "expected 1 to 1000"),
        ("$board:b:around:ann:x", "radius is 'x', expected 1 to 100"),
        ("$board:b", "expected \\$board"),
        ("$counter:%6Cikes", "nothing else is encoded"),
        ("$%63ounter:likes", "nothing else is encoded"),
        ("$counter:a%3ab", "nothing else is encoded"),
    ],
)
def test_what_cannot_be_watched_is_refused(world, name, message):
    with pytest.raises(Refused, match=message):
        world.call("channel.subscribe", name)
    assert len(world.watches) == 0


def test_nothing_is_published_to_a_watched_thing(world):
    with pytest.raises(Refused, match="reserved"):
        world.call("channel.publish", "$counter:likes", 1)


def test_a_board_is_told_by_differences(world):
    for number, member in enumerate(["ann", "bob", "cid", "dan"]):
        world.call("board.submit", "b", member, 100 - number)
    world.call("channel.subscribe", "$board:b:top:3")
    world.call("board.submit", "b", "cid", 100)
    (push,) = later(world)
    assert push["data"] == {
        "enter": [],
        "move": [
            {"rank": 2, "member": "cid", "score": 100},
            {"rank": 3, "member": "bob", "score": 99},
        ],
        "leave": [],
        "count": 4,
    }
    world.call("board.delete", "b")
    (push,) = later(world)
    assert push["data"] == {"full": True, "entries": [], "count": 0}


def test_metadata_that_changes_is_told(world):
    world.call("board.submit", "b", "ann", 1)
    world.call("channel.subscribe", "$board:b:top:3")
    world.call("board.submit", "b", "ann", 1, None, {"team": 2})
    (push,) = later(world)
    assert push["data"]["entries"][0]["meta"] == {"team": 2}


def test_what_waits_for_a_sync_is_not_told_before(world):
    world.call("channel.subscribe", "$counter:likes")
    world.peer.take()
    world.now += 100
    world.open_turn()
    world.send("counter.add", "likes", options={"ack": "synced"})
    world.end_turn()
    assert world.peer.take() == []
    late = Peer()
    watcher = world.connect(late)
    world.open_turn()
    world.send("channel.subscribe", "$counter:likes", connection=watcher)
    world.router.written(world.seq)
    world.flush()
    ((_, _, _, reply),) = late.take()
    assert reply["state"]["value"] == 0
    world.sync()
    assert [frame[2]["data"]["value"] for frame in world.peer.take() if frame[0] == 2] == [1]
    assert [frame[2]["data"]["value"] for frame in late.take()] == [1]


def test_a_reader_who_was_congested_gets_the_whole_state(world):
    for number in range(4):
        world.call("board.submit", "b", f"m{number}", number)
    world.call("channel.subscribe", "$board:b:top:4")
    world.peer.stuck = 10**9
    world.connection.measure()
    for number in range(4):
        world.open_turn()
        world.dispatcher.issue("board.submit", ["b", f"m{number}", 100 + number, None, None, None])
        world.end_turn()
        world.advance(30)
    world.peer.take()
    world.peer.stuck = 0
    world.connection.measure()
    world.advance(30)
    pushes = [frame[2] for frame in world.peer.take()]
    assert [push["data"]["full"] for push in pushes] == [True]
    assert [entry["score"] for entry in pushes[0]["data"]["entries"]] == [103, 102, 101, 100]


def test_watches_are_bounded_and_forgotten_with_their_last_subscriber():
    world = World(Limits(watches_max=1))
    world.call("channel.subscribe", "$counter:a")
    with pytest.raises(Refused, match=r"limits\.watches_max"):
        world.call("channel.subscribe", "$counter:b")
    world.call("channel.subscribe", "$counter:a")
    world.call("channel.unsubscribe", "$counter:a")
    assert len(world.watches) == 0
    world.call("channel.subscribe", "$counter:b")


def test_versions_never_go_back(world):
    first = world.call("channel.subscribe", "$counter:a")
    world.call("counter.add", "a")
    later(world)
    world.call("channel.unsubscribe", "$counter:a")
    again = world.call("channel.subscribe", "$counter:a")
    assert again["epoch"] == first["epoch"]
    assert again["offset"] > first["offset"] + 1


def test_many_watches_are_looked_at_in_slices():
    world = World(Limits(watches_per_turn=3, subscriptions_per_connection_max=100))
    connections = [world.connect(Peer()) for _ in range(10)]
    for number, connection in enumerate(connections):
        world.call("counter.set", f"c{number}", 0)
        world.open_turn()
        world.dispatcher.ctx.enter(connection)
        world.router.watch(connection, f"$counter:c{number}", world.now)
        world.end_turn()
    for number in range(10):
        world.call("counter.add", f"c{number}")
    told = []
    for _ in range(6):
        world.advance(world.limits.watch_interval_ms)
        told.append(sum(1 for connection in connections if connection._sink.take()))
    assert max(told) <= 3
    assert sum(told) >= 10


def test_nothing_is_kept_of_a_watch_that_ended_also_where_nothing_changes(world):
    for _ in range(3):
        world.call("channel.subscribe", "$counter:likes")
        watch = world.watches.get("$counter:likes")
        world.call("channel.unsubscribe", "$counter:likes")
        assert sys.getrefcount(watch) == 2  # of this test, and of the question
    assert len(world.watches) == 0


def test_the_states_of_many_watches_are_made_in_slices():
    world = World(Limits(watches_per_turn=30))
    world.call("board.submit_many", "b", [[f"m{number}", number] for number in range(20)])
    for place in range(5):
        world.call("channel.subscribe", f"$board:b:around:m{place}:100")
    world.now += world.limits.watch_interval_ms
    world.call("board.submit", "b", "m0", 50)
    told = [len(world.pushed)]
    for _ in range(4):
        world.advance(0)
        told.append(sum(frame[1] == "message" for frame in world.peer.take()))
    assert sum(told) == 5
    assert max(told) <= 2


class Watching(RuleBasedStateMachine):
    """A client that applies differences always has what a fresh subscriber is told."""

    def __init__(self):
        super().__init__()
        self.world = World()
        self.names = ["$board:b:top:3", "$board:b:around:m1:1", "$counter:c"]
        self.states = {}
        for name in self.names:
            reply = self.world.call("channel.subscribe", name)
            self.states[name] = reply["state"]

    def take(self, frames):
        for frame in frames:
            push = frame[2]
            state = self.states[push["channel"]]
            self.states[push["channel"]] = applied(state, push["data"])

    @rule(member=st.sampled_from(["m0", "m1", "m2", "m3", "m4"]), score=st.integers(0, 5))
    def submit(self, member, score):
        self.world.call("board.submit", "b", member, score, "last")

    @rule(member=st.sampled_from(["m0", "m1", "m2"]))
    def remove(self, member):
        if self.world.store.boards.get("b") is not None:
            self.world.call("board.remove", "b", [member])

    @rule(delta=st.integers(-2, 2))
    def add(self, delta):
        self.world.call("counter.add", "c", delta)

    @rule()
    def drop(self):
        if self.world.store.boards.get("b") is not None:
            self.world.call("board.delete", "b")

    @rule(ms=st.integers(0, 40))
    def wait(self, ms):
        self.world.advance(ms)

    @invariant()
    def follows(self):
        self.world.advance(25)
        pushed, self.world.pushed = self.world.pushed, []
        self.take(pushed + self.world.peer.take())
        board = self.world.store.boards.get("b")
        top = around = {"entries": [], "count": 0}
        if board is not None:
            top = self.world.call("board.top", "b", 3)
            around = self.world.call("board.around", "b", "m1", 1)
        for name, asked in zip(self.names, (top, around), strict=False):
            state = self.states[name]
            assert (state["entries"], state["count"]) == (asked["entries"], asked["count"])
        assert self.states["$counter:c"]["value"] == self.world.call("counter.get", "c")


def applied(state, change):
    if change.get("full"):
        return change
    entries = {entry["member"]: entry for entry in state["entries"]}
    for member in change["leave"]:
        del entries[member]
    for entry in change["enter"] + change["move"]:
        entries[entry["member"]] = entry
    ranked = sorted(entries.values(), key=lambda entry: entry["rank"])
    return {"full": True, "entries": ranked, "count": change["count"]}


Watching.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestWatching = Watching.TestCase
