"""Tails: lists of the state that are read as channels of the class `must`."""

from __future__ import annotations

import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtserver.limits import Limits
from rtserver.session.cursor import cursor_of, positions_in
from rtserver.session.tails import Tail
from rtserver.state.channels import Message
from rtserver.wire.codec import pack
from tests.world import Peer, Refused, World

NAME = "$list:a"


class Lists:
    """What a state would keep: {name: (number, values)}."""

    def __init__(self):
        self.all = {"a": (7, [])}
        self.reads = 0

    def open(self, parts):
        return ListTail(self, *parts)


class ListTail(Tail):
    def __init__(self, lists, name):
        self._lists = lists
        self._name = name

    @property
    def epoch(self):
        found = self._lists.all.get(self._name)
        return None if found is None else f"era.{found[0]}"

    @property
    def top(self):
        return len(self._lists.all[self._name][1])

    def read(self, after, limit, upto):
        self._lists.reads += 1
        values = self._lists.all[self._name][1]
        rows = enumerate(values[after : min(upto, after + limit)], after + 1)
        return [
            Message(f"$list:{self._name}", seq, 5, pack(value), None, None) for seq, value in rows
        ]


@pytest.fixture
def lists():
    return Lists()


@pytest.fixture
def world(lists):
    return World(kinds={"list": lists.open})


def add(world, lists, *values, synced=False):
    """A turn with a command that makes the list longer."""
    world.open_turn()
    lists.all["a"][1].extend(values)
    ack = "synced" if synced else "logged"
    world.send("counter.add", "x", connection=world.connect(Peer()), options={"ack": ack})
    world.end_turn()


def told(peer):
    """Values that were pushed, in order; offsets are checked on the way."""
    pushes = [frame[2] for frame in peer.take() if frame[0] == 2 and frame[1] == "message"]
    assert all(push["channel"] == NAME for push in pushes)
    offsets = [push["offset"] for push in pushes]
    assert offsets == sorted(set(offsets))
    return [push["data"] for push in pushes]


def later(world):
    world.advance(world.limits.watch_interval_ms)


def test_it_is_a_must_channel_from_now_on(world, lists):
    lists.all["a"][1].extend(["old"])
    reply = world.call("channel.subscribe", NAME)
    assert reply == {
        "class": "must",
        "epoch": "era.7",
        "offset": 1,
        "recovered": False,
        "messages": [],
    }
    add(world, lists, "x", "y")
    later(world)
    assert told(world.peer) == ["x", "y"]
    later(world)
    assert told(world.peer) == []


@pytest.mark.parametrize(
    ("since", "recovered", "offsets"),
    [
        (["era.7", 2], True, [3, 4, 5]),
        (["era.7", 0], True, [1, 2, 3, 4, 5]),
        (["era.7", 5], True, []),
        (["era.7", 6], False, []),
        (["era.6", 2], False, []),
        ({"last": 2}, False, [4, 5]),
        ({"last": 9}, False, [1, 2, 3, 4, 5]),
    ],
)
def test_it_is_read_from_any_position(world, lists, since, recovered, offsets):
    lists.all["a"][1].extend("abcde")
    reply = world.call("channel.subscribe", NAME, since)
    assert reply["recovered"] is recovered
    assert [message["offset"] for message in reply["messages"]] == offsets
    assert reply["offset"] == 5


def test_what_does_not_fit_the_reply_follows(world, lists):
    lists.all["a"][1].extend([number, "x" * 1_000] for number in range(1_500))
    reply = world.call("channel.subscribe", NAME, ["era.7", 0])
    first = [message["data"][0] for message in reply["messages"]]
    assert 100 < len(first) < 300
    assert reply["offset"] == len(first)
    add(world, lists, [1_500, ""])
    rest = [push[2]["data"][0] for push in world.pushed]
    for _ in range(20):
        later(world)
        rest += [value[0] for value in told(world.peer)]
    assert first + rest == list(range(1_501))


def test_nothing_is_shown_before_it_is_synced(world, lists):
    lists.all["a"][1].append("old")
    world.call("channel.subscribe", NAME)
    world.now += 100
    add(world, lists, "new", synced=True)
    later(world)
    assert told(world.peer) == []
    late = Peer()
    reader = world.connect(late)
    world.open_turn()
    world.send("channel.subscribe", NAME, ["era.7", 0], connection=reader)
    world.end_turn()
    ((_, _, _, reply),) = late.take()
    assert [message["data"] for message in reply["messages"]] == ["old"]
    assert reply["offset"] == 1
    world.sync()
    assert told(world.peer) == ["new"]
    assert told(late) == ["new"]


def test_what_is_opened_while_a_reply_waits_shows_nothing_before_the_sync(world, lists):
    """How much of it is safe is not known: all of it comes with the sync, from where she was."""
    lists.all["a"][1].extend("abc")
    add(world, lists, "d", synced=True)
    first, second = Peer(), Peer()
    world.open_turn()
    world.send("channel.subscribe", NAME, ["era.7", 2], connection=world.connect(first))
    world.send("channel.subscribe", NAME, connection=world.connect(second))
    world.end_turn()
    ((_, _, _, resumed),), ((_, _, _, anew),) = first.take(), second.take()
    assert (resumed["offset"], resumed["recovered"], resumed["messages"]) == (2, True, [])
    assert (anew["offset"], anew["messages"]) == (4, [])
    later(world)
    assert told(first) == told(second) == []
    world.sync()
    assert told(first) == ["c", "d"]
    assert told(second) == []
    add(world, lists, "e")
    later(world)
    assert told(first) == told(second) == ["e"]


def test_much_at_once_is_read_one_reader_at_a_time(world, lists):
    world.call("channel.subscribe", NAME)
    world.now += 100
    add(world, lists, *range(5_000))
    found = told(world.peer)
    assert 0 < len(found) <= 1_000
    for _ in range(25):
        world.advance(0)
        found += told(world.peer)
    assert found == list(range(5_000))
    add(world, lists, "live again")
    later(world)
    assert told(world.peer) == ["live again"]


def test_a_slow_reader_is_a_cursor(world, lists):
    world.call("channel.subscribe", NAME)
    world.peer.stuck = 10**9
    world.connection.measure()
    for number in range(50):
        add(world, lists, number)
        later(world)
    assert told(world.peer) == []
    world.peer.stuck = 0
    world.connection.measure()
    later(world)
    assert told(world.peer) == list(range(50))
    assert world.connection.is_open


def test_a_session_goes_on_where_it_was(world, lists):
    session = world.call("server.hello")["session"]
    world.call("channel.subscribe", NAME)
    add(world, lists, "seen")
    later(world)
    assert told(world.peer) == ["seen"]
    world.disconnect(world.connection)
    add(world, lists, "missed")
    later(world)
    peer = Peer()
    again = world.connect(peer)
    hello = world.call_on(again, peer, "server.hello", None, None, None, None, session)
    reply = hello["channels"][NAME]
    assert reply["recovered"]
    assert [message["data"] for message in reply["messages"]] == ["missed"]


def test_its_position_has_a_place_in_a_cursor(world, lists):
    lists.all["a"][1].extend("abc")
    world.call("channel.subscribe", NAME)
    cursor = cursor_of(world.router.positions(world.connection))
    assert positions_in(cursor, [NAME]) == {NAME: ["era.7", 3]}


def test_a_list_that_is_no_more_ends_its_subscriptions(world, lists):
    peers = [Peer() for _ in range(1_200)]
    for peer in peers:
        world.call_on(world.connect(peer), peer, "channel.subscribe", NAME)
    world.now += 100
    world.open_turn()
    del lists.all["a"]
    world.send("counter.add", "x")
    world.end_turn()
    ends = [[frame[1:] for frame in peer.take()] for peer in peers]
    assert 0 < sum(map(len, ends)) < 1_000, "in slices"
    for _ in range(2):
        assert world.watches.due_in(world.now) == 0
        world.advance(0)
    ends = [
        told or [frame[1:] for frame in peer.take()] for told, peer in zip(ends, peers, strict=True)
    ]
    for end in ends:
        ((method, params),) = end
        assert method == "unsubscribed"
        assert params["name"] == "not_found"
    assert len(world.watches) == 0


def test_a_tail_that_is_woken_in_its_round_is_read_once(world, lists):
    peers = [Peer() for _ in range(3)]
    for peer in peers:
        world.call_on(world.connect(peer), peer, "channel.subscribe", NAME)
    for ends in (False, True):
        world.now += 100
        world.open_turn()
        lists.all["a"][1].append("x")
        if ends:
            del lists.all["a"]
        world.watches.wake(NAME)
        world.send("counter.add", "x")
        world.end_turn()
        expected = ["unsubscribed"] if ends else ["message"]
        assert [[frame[1] for frame in peer.take()] for peer in peers] == [expected] * 3


def test_another_list_of_the_name_is_another_life(world, lists):
    lists.all["a"][1].extend("ab")
    world.call("channel.subscribe", NAME)
    lists.all["a"] = (8, ["new"])
    peer = Peer()
    reply = world.call_on(world.connect(peer), peer, "channel.subscribe", NAME, ["era.7", 2])
    assert (reply["epoch"], reply["offset"], reply["recovered"]) == ("era.8", 1, False)
    assert [frame[1] for frame in world.peer.take()] == ["unsubscribed"]


def begins_anew(lists, *values):
    lists.all["a"] = (8, list(values))


def test_nothing_of_another_life_is_released_as_if_it_were_of_this(world, lists):
    world.call("channel.subscribe", NAME)
    world.now += 100
    add(world, lists, "x", "y", synced=True)
    later(world)
    begins_anew(lists, "of", "another", "life")
    world.sync()
    assert [frame[1] for frame in world.peer.take()] in ([], ["unsubscribed"])


def test_who_is_behind_reads_nothing_of_another_life(world, lists):
    lists.all["a"][1].extend(["x", "y" * 1_000] * 500)
    reply = world.call("channel.subscribe", NAME, ["era.7", 0])
    assert reply["offset"] < 1_000, "there is more to come"
    world.peer.stuck = 10**9
    world.connection.measure()
    later(world)
    world.peer.take()
    begins_anew(lists, *["another life"] * 1_000)
    world.peer.stuck = 0
    world.connection.measure()
    world.open_turn()
    world.end_turn()  # before the next look, which ends what was followed
    assert "message" not in [frame[1] for frame in world.peer.take()]


def test_history_reads_what_readers_may_see_while_somebody_follows(world, lists):
    lists.all["a"][1].extend("abcde")
    with pytest.raises(Refused, match="subscribe to it"):
        world.call("channel.history", NAME)
    world.call("channel.subscribe", NAME)
    add(world, lists, "f", synced=True)
    page = world.call("channel.history", NAME, 1, None, 2)
    assert [(one["offset"], one["data"]) for one in page["messages"]] == [(2, "b"), (3, "c")]
    assert (page["epoch"], page["offset"], page["next"]) == ("era.7", 5, 3)
    newest = world.call("channel.history", NAME)
    assert [one["data"] for one in newest["messages"]] == list("abcde")
    with pytest.raises(Refused, match="subscribe to it"):
        world.call("channel.history", "$counter:x")
    lists.all["a"] = (8, ["another life"])
    with pytest.raises(Refused, match="subscribe to it"):
        world.call("channel.history", NAME)


def test_nothing_is_kept_and_nothing_is_read_without_readers(world, lists):
    world.call("channel.subscribe", NAME)
    tail = world.watches.get(NAME)
    add(world, lists, "x", synced=True)
    later(world)
    world.call("channel.unsubscribe", NAME)
    world.router.forget_pages()
    world.router.forget_pages()
    assert sys.getrefcount(tail) == 2
    reads = lists.reads
    add(world, lists, "y")
    later(world)
    world.sync()
    assert lists.reads == reads
    assert len(world.watches) == 0
    assert not world.router.holds


class Reading(RuleBasedStateMachine):
    """Readers who come, go, resume and are slow see each value once, in order, and none before
    its sync."""

    def __init__(self):
        super().__init__()
        self.lists = Lists()
        self.world = World(Limits(outbox_soft_messages=100), kinds={"list": self.lists.open})
        self.number = 0
        self.safe = 0  # values that may be shown while a reply waits for its sync
        self.readers = {}  # name -> (peer, connection) or None
        self.position = {}  # name -> [epoch, offset]
        self.seen = {}  # name -> values

    def values(self):
        return self.lists.all["a"][1]

    @rule(count=st.sampled_from([1, 2, 7, 600]), synced=st.booleans())
    def add(self, count, synced):
        if not self.world.dispatcher.waiting:
            self.safe = self.number
        values = range(self.number, self.number + count)
        self.number += count
        add(self.world, self.lists, *values, synced=synced)
        self.take()

    @rule(ms=st.integers(0, 45))
    def wait(self, ms):
        self.world.advance(ms)
        self.take()

    @rule()
    def sync(self):
        self.world.sync()
        self.take()

    @rule(name=st.sampled_from("pqr"))
    def come(self, name):
        if self.readers.get(name) is not None:
            return
        peer = Peer()
        connection = self.world.connect(peer)
        since = self.position.get(name)
        self.readers[name] = (peer, connection)
        self.world.open_turn()
        self.world.send("channel.subscribe", NAME, since, connection=connection)
        self.world.end_turn()
        frames = peer.take()
        reply = frames[0][3]
        if since is None:
            self.seen[name] = list(range(reply["offset"]))
        else:
            assert reply["recovered"]
        self.note(name, reply["epoch"], reply["messages"])
        self.position[name] = [reply["epoch"], reply["offset"]]
        self.note(name, reply["epoch"], [frame[2] for frame in frames[1:]])

    @rule(name=st.sampled_from("pqr"))
    def go(self, name):
        reader = self.readers.pop(name, None)
        if reader is not None:
            self.world.disconnect(reader[1])

    @rule(name=st.sampled_from("pqr"), stuck=st.booleans())
    def slow(self, name, stuck):
        reader = self.readers.get(name)
        if reader is not None:
            reader[0].stuck = 10**9 if stuck else 0
            reader[1].measure()

    def take(self):
        self.world.peer.take()
        for name, (peer, _) in self.readers.items():
            pushes = [frame[2] for frame in peer.take() if frame[0] == 2]
            self.note(name, None, pushes)

    def note(self, name, epoch, messages):
        safe = self.safe if self.world.dispatcher.waiting else self.number
        for message in messages:
            assert message["offset"] <= safe
            self.seen[name].append(message["data"])
            assert message["offset"] == len(self.seen[name])
            self.position[name] = [epoch or self.position[name][0], message["offset"]]

    @invariant()
    def in_order(self):
        for seen in self.seen.values():
            assert seen == self.values()[: len(seen)]

    def teardown(self):
        """In the end everybody has everything."""
        self.world.sync()
        for peer, connection in self.readers.values():
            peer.stuck = 0
            connection.measure()
        for _ in range(2 + len(self.values()) // 50):
            self.world.advance(20)
            self.take()
        for name in self.readers:
            assert self.seen[name] == self.values()


Reading.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestReading = Reading.TestCase
