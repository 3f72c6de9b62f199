"""Watched things: one look an interval, the full state first, differences after."""

from __future__ import annotations

import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtserver.limits import Limits
from rtserver.session.watches import Watches
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


class Doors:
    """A kind of watch that rests as long as its names say: `$door:<ms>:<number>`."""

    def __init__(self):
        self.values = {}
        self.markers = {}
        self.looks = 0

    def open(self, parts):
        return Door(self, int(parts[0]), ":".join(parts))


class Door:
    def __init__(self, doors, rest_ms, name):
        self._doors = doors
        self._rest_ms = rest_ms
        self._name = name

    def marker(self, _now):
        self._doors.looks += 1
        markers = self._doors.markers
        return markers.get(self._name, self._doors.values.get(self._name, 0))

    def state(self, _now):
        return {"full": True, "value": self._doors.values.get(self._name, 0)}

    def difference(self, _old, new):
        return new

    def rest_ms(self, _state):
        return self._rest_ms


class Hall:
    """Watches of doors, looked at by hand."""

    def __init__(self, **limits):
        self.doors = Doors()
        self.watches = Watches({"door": self.doors.open}, Limits(**limits))
        self.held = set()
        self.ms = 1_000
        self.look()

    def open(self, *names):
        for name in names:
            self.watches.open(f"$door:{name}", 0)

    def set(self, name, value):
        self.doors.values[name] = value
        self.watches.touch()

    def look(self):
        """Names of what changed."""
        found = self.watches.look(self.ms, 0, self.held.__contains__)
        return [message.channel.removeprefix("$door:") for message in found]

    def looks_after(self, ms):
        """How many looks a turn so much later takes."""
        self.ms += ms
        before = self.doors.looks
        self.look()
        return self.doors.looks - before


def test_what_rests_is_not_looked_at():
    hall = Hall()
    hall.open("0:a", "500:b")
    hall.set("500:b", 1)
    assert hall.watches.due_in(hall.ms) == 0, "the other one never rests"
    assert hall.looks_after(0) == 1
    assert hall.watches.due_in(hall.ms) == 500
    assert hall.looks_after(499) == 0
    assert hall.looks_after(1) == 1


def test_what_has_rested_is_looked_at_as_soon_as_something_changes():
    hall = Hall()
    hall.open("500:b")
    hall.ms += 10_000
    assert hall.watches.due_in(hall.ms) is None
    hall.set("500:b", 1)
    assert hall.watches.due_in(hall.ms) == 0
    assert hall.look() == ["500:b"]
    hall.set("500:b", 2)
    assert hall.watches.due_in(hall.ms) == 500


def test_what_is_woken_is_looked_at_at_once_whatever_its_marker():
    hall = Hall(watches_per_turn=5)
    hall.open(*(f"0:{number}" for number in range(100)), "500:b")
    hall.doors.markers["500:b"] = "never another"
    hall.set("500:b", 1)
    hall.look()
    hall.watches.wake("$door:500:b")
    hall.watches.wake("$door:500:nobody")
    assert hall.watches.due_in(hall.ms) == 0
    assert hall.look() == ["500:b"]
    hall.set("500:b", 2)
    hall.watches.wake("$door:500:b")
    assert hall.look() == ["500:b"]


def test_what_is_woken_while_it_is_held_back_is_looked_at_in_the_next_rounds():
    hall = Hall()
    hall.open("500:b")
    hall.set("500:b", 1)
    hall.held.add("$door:500:b")
    hall.watches.wake("$door:500:b")
    assert hall.look() == []
    assert hall.watches.due_in(hall.ms) == 20, "no spinning"
    hall.ms += 20
    assert hall.look() == []
    hall.held.clear()
    assert hall.look() == []
    hall.ms += 20
    assert hall.look() == ["500:b"]
    assert hall.watches.due_in(hall.ms) is None


def test_what_is_held_back_is_looked_at_again_without_another_change():
    hall = Hall()
    hall.open("0:a", "500:b")
    hall.set("0:a", 1)
    hall.set("500:b", 1)
    hall.held |= {"$door:0:a", "$door:500:b"}
    hall.ms += 500
    assert hall.look() == []
    hall.held.clear()
    assert hall.look() == []
    assert hall.watches.due_in(hall.ms) == 20
    hall.ms += 20
    assert sorted(hall.look()) == ["0:a", "500:b"]
    assert hall.watches.due_in(hall.ms) is None


def test_many_that_have_rested_are_looked_at_in_slices():
    hall = Hall(watches_per_turn=10)
    hall.open(*(f"500:{number}" for number in range(35)))
    hall.look()
    hall.set("500:1", 1)
    assert [hall.looks_after(500), *(hall.looks_after(0) for _ in range(4))] == [10, 10, 10, 5, 0]


def test_many_that_are_woken_are_looked_at_in_slices():
    hall = Hall(watches_per_turn=10)
    names = [f"500:{number}" for number in range(25)]
    hall.open(*names, "0:in its time")
    hall.set("0:in its time", 1)
    hall.look()
    hall.set("0:in its time", 2)
    for name in names:
        hall.set(name, 1)
        hall.watches.wake(f"$door:{name}")
    found = [hall.look() for _ in range(4)]
    assert list(map(len, found)) == [10, 10, 5, 0]
    assert [name for some in found for name in some] == names


class Resting(RuleBasedStateMachine):
    """Each change is told within its watch's rest and an interval, or at once where it is woken;
    a turn costs a bounded number of looks; nobody is looked at more often than the rest allows."""

    def __init__(self):
        super().__init__()
        self.hall = Hall(watches_per_turn=4)
        self.names = [f"{rest}:{number}" for rest in (0, 50, 300) for number in range(4)]
        self.open = set()
        self.told = {}
        self.changed_at = {}  # of what is not told yet
        self.number = 0

    @rule(place=st.integers(0, 11))
    def subscribe(self, place):
        name = self.names[place]
        if name not in self.open:
            self.hall.open(name)
            self.open.add(name)
            self.told[name] = self.hall.doors.values.get(name, 0)

    @rule(place=st.integers(0, 11))
    def unsubscribe(self, place):
        name = self.names[place]
        self.hall.watches.close(f"$door:{name}")
        self.open.discard(name)
        self.changed_at.pop(name, None)

    @rule(place=st.integers(0, 11), wake=st.booleans())
    def change(self, place, wake):
        name = self.names[place]
        self.number += 1
        self.hall.set(name, self.number)
        if name in self.open:
            self.changed_at.setdefault(name, self.hall.ms)
            if wake:
                self.hall.watches.wake(f"$door:{name}")
                self.turn()
                if len(self.open) <= 4:
                    assert name not in self.changed_at

    @rule(ms=st.sampled_from([0, 1, 20, 60, 400]))
    def wait(self, ms):
        self.hall.ms += ms
        self.turn()

    @rule()
    def settle(self):
        """As many turns as the watches themselves ask for."""
        for _ in range(40):
            due = self.hall.watches.due_in(self.hall.ms)
            if due is None:
                break
            self.hall.ms += due
            self.turn()
        assert self.hall.watches.due_in(self.hall.ms) is None
        assert not self.changed_at

    def turn(self):
        before = self.hall.doors.looks
        for name in self.hall.look():
            self.changed_at.pop(name)
        assert self.hall.doors.looks - before <= 4


Resting.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestResting = Resting.TestCase
