"""channel.*: positions, history, recovery, released offsets, readers who are behind."""

from __future__ import annotations

import pytest

from rtserver.config import Config, Namespace
from rtserver.limits import Limits
from rtserver.state.settings import settings_of
from tests.world import Peer, Refused, World


@pytest.fixture
def world():
    world = World()
    yield world
    world.assert_same()


def configured(**namespaces):
    world = World()
    world.open_turn()
    config = Config(namespaces={name: Namespace(**rules) for name, rules in namespaces.items()})
    world.dispatcher.issue("settings.apply", [settings_of(config)])
    world.end_turn()
    return world


def publish(world, count, channel="room:1"):
    for number in range(count):
        world.call("channel.publish", channel, number)


def offsets(peer):
    return [frame[2]["offset"] for frame in peer.take() if frame[1] == "message"]


def test_publish_gives_contiguous_offsets_and_an_epoch(world):
    first = world.call("channel.publish", "room:1", {"text": "hi"})
    second = world.call("channel.publish", "room:1", b"\x00", "k")
    assert (first["offset"], second["offset"]) == (1, 2)
    assert first["epoch"] == second["epoch"] == "era.1"
    assert world.call("channel.publish", "other", 0)["epoch"] == "era.2"


def test_a_subscriber_gets_what_is_published_later(world):
    world.call("channel.publish", "room:1", "before")
    reply = world.call("channel.subscribe", "room:1")
    assert (reply["offset"], reply["recovered"], reply["messages"]) == (1, False, [])
    world.call("server.hello", None, "ann")
    world.call("channel.publish", "room:1", {"n": 1}, "key")
    push = world.pushed[-1]
    assert push[:2] == [2, "message"]
    assert push[2] == {
        "channel": "room:1",
        "offset": 2,
        "data": {"n": 1},
        "key": "key",
        "sender": "ann",
        "at": world.now,
    }


def test_a_message_of_the_same_turn_comes_once(world):
    world.open_turn()
    world.send("channel.publish", "room:1", 1)
    world.send("channel.subscribe", "room:1")
    world.send("channel.publish", "room:1", 2)
    world.end_turn()
    frames = world.peer.take()
    replies = [frame for frame in frames if frame[0] == 1]
    assert replies[1][3]["offset"] == 1
    assert [frame[2]["offset"] for frame in frames if frame[0] == 2] == [2]


def test_subscribe_since_a_position_recovers(world):
    publish(world, 5)
    reply = world.call("channel.subscribe", "room:1", ["era.1", 2])
    assert reply["recovered"] is True
    assert [message["offset"] for message in reply["messages"]] == [3, 4, 5]
    reply = world.call("channel.subscribe", "room:1", {"last": 2})
    assert [message["data"] for message in reply["messages"]] == [3, 4]


@pytest.mark.parametrize("position", [["era.9", 2], ["", 5], ["era.1", 6]])
def test_another_epoch_or_an_offset_above_the_top_is_not_recovered(world, position):
    publish(world, 5)
    reply = world.call("channel.subscribe", "room:1", position)
    assert (reply["recovered"], reply["offset"], reply["messages"]) == (False, 5, [])


def test_what_left_the_history_is_not_recovered_but_the_rest_comes():
    world = configured(small={"history_count": 3})
    publish(world, 10, "small:1")
    reply = world.call("channel.subscribe", "small:1", ["era.1", 4])
    assert reply["recovered"] is False
    assert [message["offset"] for message in reply["messages"]] == [8, 9, 10]
    reply = world.call("channel.subscribe", "small:1", ["era.1", 7])
    assert reply["recovered"] is True
    world.assert_same()


def test_a_subscription_before_the_first_message_opens_the_channel(world):
    reply = world.call("channel.subscribe", "new")
    assert (reply["epoch"], reply["offset"]) == ("era.1", 0)
    world.call("channel.publish", "new", 1)
    assert world.call("channel.subscribe", "new", ["era.1", 0])["recovered"] is True


def test_history_pages_both_ways(world):
    publish(world, 10)

    def page(*args):
        reply = world.call("channel.history", "room:1", *args)
        return [message["offset"] for message in reply["messages"]], reply["next"]

    assert page(None, None, 3) == ([8, 9, 10], 8)
    assert page(None, 8, 3) == ([5, 6, 7], 5)
    assert page(None, 3) == ([1, 2], None)
    assert page(0, None, 4) == ([1, 2, 3, 4], 4)
    assert page(8) == ([9, 10], None)
    assert page(2, 5) == ([3, 4], None)
    assert page(10) == ([], None)
    assert world.call("channel.history", "unknown")["epoch"] is None


def test_a_reply_is_bounded_in_bytes_and_the_rest_follows(world):
    for _ in range(10):
        world.call("channel.publish", "room:1", "x" * 100_000)
    reply = world.call("channel.history", "room:1", 0)
    assert (len(reply["messages"]), reply["next"]) == (2, 2)
    reply = world.call("channel.history", "room:1")
    assert [message["offset"] for message in reply["messages"]] == [9, 10]
    world.peer.take()
    reply = world.call("channel.subscribe", "room:1", ["era.1", 0])
    assert (reply["offset"], len(reply["messages"])) == (2, 2)
    assert reply["recovered"] is True
    seen = [push[2]["offset"] for push in world.pushed if push[1] == "message"]
    while seen[-1:] != [10]:
        world.advance(1)
        seen += offsets(world.peer)
    assert seen == [3, 4, 5, 6, 7, 8, 9, 10]


def test_a_synced_message_is_shown_to_nobody_before_its_sync(world):
    peer = Peer()
    reader = world.connect(peer)
    world.call_on(reader, peer, "channel.subscribe", "room:1")
    world.open_turn()
    world.send("channel.publish", "room:1", "synced", options={"ack": "synced"})
    world.send("channel.publish", "room:1", "behind it")
    world.send("channel.publish", "room:2", "free")
    world.end_turn()
    assert offsets(peer) == []
    assert len(world.peer.take()) == 2
    late = world.connect(Peer())
    world.open_turn()
    world.send("channel.subscribe", "room:1", {"last": 5}, connection=late)
    world.send("channel.history", "room:1")
    world.end_turn()
    assert world.peer.take()[-1][3]["offset"] == 0
    world.sync()
    assert offsets(peer) == [1, 2]
    assert world.peer.take()[-1][3]["offset"] == 1


def test_a_slow_reader_becomes_a_cursor_and_catches_up():
    world = World(Limits(outbox_soft_bytes=1_000, outbox_hard_bytes=10_000))
    peer = Peer()
    reader = world.connect(peer)
    world.call_on(reader, peer, "channel.subscribe", "room:1")
    peer.stuck = 5_000
    publish(world, 30)
    assert offsets(peer) == [1]
    assert reader.pending_bytes <= 5_000
    peer.stuck = 0
    reader.measure()
    seen = []
    while len(seen) < 29:
        world.advance(1)
        seen += offsets(peer)
    assert seen == list(range(2, 31))
    publish(world, 1)
    assert offsets(peer) == [31]


def test_a_reader_whom_the_history_has_passed_is_closed_with_a_resume_code():
    world = configured(small={"history_count": 3})
    world.limits = Limits(outbox_soft_bytes=1_000, outbox_hard_bytes=10_000)
    peer = Peer()
    reader = world.connect(peer)
    world.call_on(reader, peer, "channel.subscribe", "small:1")
    peer.stuck = 5_000
    publish(world, 10, "small:1")
    peer.take()
    peer.stuck = 0
    reader.measure()
    world.advance(1)
    close = peer.take()[-1]
    assert close[1] == "close"
    assert (close[2]["code"], close[2]["name"]) == (4001, "slow_consumer")
    assert peer.ended


def test_history_is_bounded_by_age_and_bytes():
    world = configured(young={"history_ms": 60_000}, lean={"history_bytes": 1_000})
    publish(world, 3, "young:1")
    for _ in range(30):
        world.call("channel.publish", "lean:1", "x" * 50)
    assert world.store.channels.get("lean:1").history.bytes <= 1_000
    world.advance(90_000)
    world.advance(90_000)
    assert len(world.store.channels.get("young:1").history) == 0
    reply = world.call("channel.subscribe", "young:1", ["era.1", 3])
    assert reply["recovered"] is True
    world.assert_same()


def test_aged_messages_are_freed_in_slices():
    world = configured(young={"history_ms": 60_000})
    for _ in range(10):
        world.call("channel.publish_many", [["young:1", number] for number in range(100)])
    world.now += 120_000
    world.open_turn()
    world.end_turn()
    left = len(world.store.channels.get("young:1").history)
    assert 900 < left < 1_000
    while left:
        world.advance(2)
        assert left - len(world.store.channels.get("young:1").history) <= 64
        left = len(world.store.channels.get("young:1").history)
    world.assert_same()


def test_an_idle_channel_is_forgotten_only_when_nobody_listens():
    world = configured(idle={"history_ms": 1_000, "idle_ms": 60_000})
    publish(world, 1, "idle:a")
    publish(world, 1, "idle:b")
    world.call("channel.subscribe", "idle:b")
    for _ in range(5):
        world.advance(60_000)
    assert world.store.channels.get("idle:a") is None
    assert world.store.channels.get("idle:b") is not None
    assert world.call("channel.publish", "idle:a", 1)["epoch"] == "era.3"
    world.assert_same()


def test_all_histories_together_are_bounded():
    world = World()
    world.open_turn()
    values = settings_of(Config(limits=Limits(history_total_bytes=10_000)))
    world.dispatcher.issue("settings.apply", [values])
    world.end_turn()
    for number in range(50):
        world.call("channel.publish", f"room:{number}", "x" * 400)
    assert world.store.channels.history_bytes <= 10_000
    assert len(world.store.channels.get("room:0").history) == 0
    assert len(world.store.channels.get("room:49").history) == 1
    world.assert_same()


def test_publish_many(world):
    answer = world.call(
        "channel.publish_many", [["a", 1], ["$a", 1], ["b", [1], "k"], ["a", 2, ""], ["a", 3]]
    )
    assert [item.get("offset") for item in answer["items"]] == [1, None, 1, None, 2]
    assert world.records()[-1][2][0] == [["a", 1], ["b", [1], "k"], ["a", 3]]


def test_unsubscribe(world):
    world.call("channel.subscribe", "a")
    assert world.call("channel.unsubscribe", "a") == {"unsubscribed": True}
    assert world.call("channel.unsubscribe", "a") == {"unsubscribed": False}
    world.call("channel.publish", "a", 1)
    assert world.pushed == []


def test_subscriptions_are_bounded(world):
    for number in range(5):
        world.call("channel.subscribe", f"c{number}")
    with pytest.raises(Refused, match="limit_reached"):
        world.call("channel.subscribe", "one-more")
    assert world.call("channel.subscribe", "c0")["offset"] == 0


def test_users_hear_only_what_a_namespace_opens(world):
    world.call("channel.configure", "open", *[None] * 5, "user")
    peer = Peer()
    user = world.connect(peer, role="user")
    assert world.call_on(user, peer, "channel.subscribe", "open:1")["offset"] == 0
    with pytest.raises(Refused, match=r"forbidden.*service"):
        world.call_on(user, peer, "channel.subscribe", "room:1")
    with pytest.raises(Refused, match=r"forbidden.*service"):
        world.call_on(user, peer, "channel.history", "room:1")
    with pytest.raises(Refused, match=r"forbidden.*service"):
        world.call_on(user, peer, "channel.publish", "open:1", 1)


def test_hello_resumes_every_channel_it_names(world):
    publish(world, 3, "a")
    publish(world, 1, "b")
    reply = world.call(
        "server.hello", "c", "ann", None, None, "unknown", {"a": ["era.1", 1], "b": ["era.9", 1]}
    )
    assert reply["resumed"] is False
    assert [message["offset"] for message in reply["channels"]["a"]["messages"]] == [2, 3]
    assert reply["channels"]["b"]["recovered"] is False
    world.call("channel.publish", "b", 1)
    assert world.pushed[-1][2]["channel"] == "b"


@pytest.mark.parametrize(
    "data",
    [float("nan"), float("inf"), {1: 2}, [[[]] * 3, {"a": {2: 1}}]],
)
def test_data_that_cannot_travel_everywhere_is_refused(world, data):
    with pytest.raises(Refused, match="invalid_params"):
        world.call("channel.publish", "a", data)


def test_nil_means_left_out(world):
    with pytest.raises(Refused, match="data is missing"):
        world.call("channel.publish", "a", None)
    (item,) = world.call("channel.publish_many", [["a", None]])["items"]
    assert item["error"][1] == "invalid_params"
