"""Classes of channels: what is kept, what a subscriber begins with, what a restart knows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.commands.kinds import TIME_MAX
from rtserver.limits import Limits
from tests.world import Peer, Refused, World


@pytest.fixture
def world():
    world = World()
    world.call("channel.configure", "tick", "latest")
    world.call("channel.configure", "typing", "transient")
    yield world
    world.assert_same()


def publish(world, channel, *pairs):
    for key, data in pairs:
        world.call("channel.publish", channel, data, key)


def shown(messages):
    return [(message["key"], message["offset"], message["data"]) for message in messages]


def test_a_subscriber_of_latest_begins_with_the_current_values(world):
    publish(world, "tick:x", ("IBM", 1), ("MSFT", 2), ("IBM", 3))
    reply = world.call("channel.subscribe", "tick:x")
    assert shown(reply["messages"]) == [("MSFT", 2, 2), ("IBM", 3, 3)]
    assert reply["offset"] == 3


def test_who_comes_back_to_latest_gets_the_keys_that_changed(world):
    publish(world, "tick:x", ("IBM", 1), ("MSFT", 2))
    epoch = world.call("channel.subscribe", "tick:x")["epoch"]
    publish(world, "tick:x", ("IBM", 3), ("IBM", 4))
    reply = world.call("channel.subscribe", "tick:x", [epoch, 2])
    assert shown(reply["messages"]) == [("IBM", 4, 4)]
    assert reply["recovered"] is True


def test_who_missed_a_key_that_is_gone_is_told(world):
    world.call("channel.configure", "tick", None, 2)
    publish(world, "tick:x", ("A", 1))
    epoch = world.call("channel.subscribe", "tick:x")["epoch"]
    publish(world, "tick:x", ("B", 2), ("C", 3), ("D", 4))
    reply = world.call("channel.subscribe", "tick:x", [epoch, 1])
    assert reply["recovered"] is False
    assert shown(reply["messages"]) == [("C", 3, 3), ("D", 4, 4)]


def test_messages_of_a_turn_are_conflated_for_live_subscribers(world):
    world.call("channel.subscribe", "tick:x")
    items = [["tick:x", number, key] for number, key in enumerate("ABABA")]
    world.call("channel.publish_many", items)
    pushed = [push[2] for push in world.pushed]
    assert shown(pushed) == [("B", 4, 3), ("A", 5, 4)]


def test_transient_messages_have_no_offset_and_leave_no_trace(world):
    records = len(world.records())
    world.call("channel.subscribe", "typing:1")
    assert world.call("channel.publish", "typing:1", "ann") == {"offset": 0, "epoch": ""}
    ((_, _, push),) = world.pushed
    assert push == {"channel": "typing:1", "data": "ann", "at": world.now}
    assert len(world.records()) == records
    assert world.store.channels.get("typing:1") is None
    assert world.call("channel.history", "typing:1")["messages"] == []


def test_a_keyed_transient_publish_is_answered_again_also_after_a_restart(world):
    first = world.call("channel.publish", "typing:1", 1, idempotency_key="k")
    assert world.call("channel.publish", "typing:1", 1, idempotency_key="k") == first


def test_only_what_is_kept_of_a_vector_is_logged(world):
    items = [["typing:1", 1], ["room:1", 2], ["$no", 3]]
    world.call("channel.publish_many", items)
    assert world.records()[-1][2][0] == [["room:1", 2]]


def test_a_namespace_of_another_class_forgets_its_past_but_not_its_offsets(world):
    publish(world, "room:1", (None, 1), (None, 2))
    epoch = world.call("channel.subscribe", "room:1")["epoch"]
    world.call("channel.configure", "room", "latest")
    publish(world, "room:1", ("k", 3))
    reply = world.call("channel.subscribe", "room:1", [epoch, 1])
    assert (reply["recovered"], reply["offset"]) == (False, 3)


@pytest.mark.parametrize("options", [{"idempotency_key": "k"}, {"source": ["s", 0, 1]}])
def test_what_was_refused_is_not_published_by_a_replay(world, options):
    user = world.connect(peer := Peer(), role="user")
    items = [["room:1", 1], ["typing:1", 2], ["room:2", 3]]
    reply = world.call_on(user, peer, "channel.publish_many", items, **options)
    assert ["error" in item for item in reply["items"]] == [True, True, True]
    assert len(world.replayed().channels) == 0


def test_a_refused_item_that_no_record_can_hold_harms_nobody(world):
    source = {"source": ["s", 0, 1]}
    reply = world.call_frame([0, 1, "channel.publish_many", [[[2**70, 1]]], source])
    assert "error" in reply["items"][0]


def test_the_longest_history_there_is_fires_its_timer(world):
    world.call("channel.configure", "room", None, None, None, TIME_MAX)
    publish(world, "room:1", (None, 1))
    for _ in range(3):
        world.advance(TIME_MAX // 8)
    assert len(world.store.channels.get("room:1").history) == 1
    with pytest.raises(Refused, match="history_ms"):
        world.call("channel.configure", "room", None, None, None, TIME_MAX + 1)


def test_subscribers_stay_when_their_namespace_becomes_transient_and_back(world):
    publish(world, "room:1", (None, 1), (None, 2))
    world.call("channel.subscribe", "room:1")
    for kind in ("transient", "must"):
        world.call("channel.configure", "room", kind)
        publish(world, "room:1", (None, kind))
    heard = [push[2] for push in world.pushed]
    assert [message["data"] for message in heard] == ["transient", "must"]
    assert [message.get("offset") for message in heard] == [None, 3]


def test_configure_answers_what_is_in_force_and_can_be_taken_back(world):
    changed = world.call("channel.configure", "room", "latest", 5, None, None, None, "user")
    assert (changed["class"], changed["history_count"], changed["subscribe"]) == (
        "latest",
        5,
        "user",
    )
    again = world.call("channel.configure", "room", None, None, 100)
    assert (again["history_count"], again["history_bytes"]) == (5, 100)
    fresh = world.call("channel.configure", "room", *[None] * 9, True)
    assert (fresh["class"], fresh["history_count"]) == ("must", 1_000)


def test_configure_refuses_what_is_wrong(world):
    with pytest.raises(Refused, match="class is 'sometimes', expected must or latest"):
        world.call("channel.configure", "room", "sometimes")


def test_configured_namespaces_are_bounded():
    world = World(Limits(namespaces_configured_max=1))
    world.call("channel.configure", "a", "latest")
    world.call("channel.configure", "a", "must")
    with pytest.raises(Refused, match="limit_reached"):
        world.call("channel.configure", "b", "latest")


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=30),
)
def test_a_reader_of_latest_who_is_cut_now_and_then_ends_with_the_same_values(changes):
    """Whatever is missed in between, values by key are those of an uninterrupted reader."""
    world = World()
    world.call("channel.configure", "tick", "latest")
    peer = Peer()
    reader = world.connect(peer)
    position = None
    values = {}

    def follow():
        reply = world.call_on(reader, peer, "channel.subscribe", "tick:x", position)
        take(reply["messages"])
        return [reply["epoch"], reply["offset"]]

    def take(messages):
        values.update({message["key"]: message["data"] for message in messages})

    position = follow()
    for number, (key, cut) in enumerate(changes):
        if cut:
            world.router.leave(reader)
        world.call("channel.publish", "tick:x", number, key)
        pushes = [frame[2] for frame in peer.take()]
        take(pushes)
        if pushes:
            position[1] = pushes[-1]["offset"]
        if cut:
            position = follow()
    assert values == {key: number for number, (key, _) in enumerate(changes)}
    world.assert_same()


def test_a_slow_reader_hears_again_after_its_channel_became_one_that_keeps():
    world = World(Limits(outbox_soft_bytes=1_000))
    world.call("channel.configure", "typing", "transient")
    reader = world.connect(peer := Peer())
    world.call_on(reader, peer, "channel.subscribe", "typing:1")
    peer.stuck = 2_000
    reader.measure()
    publish(world, "typing:1", (None, "dropped"))
    world.call("channel.configure", "typing", "must")
    publish(world, "typing:1", (None, "kept"))
    peer.stuck = 0
    reader.measure()
    world.advance(1)
    world.advance(1)
    publish(world, "typing:1", (None, "after"))
    gap, *heard = [push[2] for push in peer.take()]
    assert gap == {"channel": "typing:1", "lost": 1, "why": "slow"}
    assert [message["data"] for message in heard] == ["kept", "after"]


def test_a_slow_reader_is_told_what_it_missed_after_its_channel_became_transient():
    world = World(Limits(outbox_soft_bytes=1_000))
    reader = world.connect(peer := Peer())
    world.call_on(reader, peer, "channel.subscribe", "room:1")
    peer.stuck = 2_000
    reader.measure()
    publish(world, "room:1", (None, "kept"))
    world.call("channel.configure", "room", "transient")
    publish(world, "room:1", (None, "dropped"))
    peer.stuck = 0
    reader.measure()
    world.advance(1)
    world.advance(1)
    gap, kept = [push[2] for push in peer.take()]
    assert gap == {"channel": "room:1", "lost": 1, "why": "slow"}
    assert kept["data"] == "kept"


def test_a_held_transient_message_hides_nothing_of_a_channel_that_keeps(world):
    world.open_turn()
    world.send("channel.publish", "typing:1", 1, options={"ack": "synced"})
    world.send("channel.configure", "typing", "must")
    world.send("channel.publish", "typing:1", 2)
    reader = world.connect(peer := Peer())
    world.send("channel.subscribe", "typing:1", connection=reader)
    world.end_turn()
    ((_, _, _, reply),) = peer.take()
    assert (reply["offset"], reply["messages"]) == (0, [])
    world.sync()
    assert [push[2].get("offset") for push in peer.take()] == [None, 1]
    world.peer.take()
