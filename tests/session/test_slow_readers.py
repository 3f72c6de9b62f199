"""Peers that read slowly, not at all, or fall silent: bounded, told why, and nothing skipped."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.config import Config, Namespace
from rtserver.limits import Limits
from rtserver.state.settings import settings_of
from tests.transport.rig import Rig, request
from tests.world import Peer, World


async def subscribed(rig):
    reader = rig.connect()
    reader.protocol.data_received(request(1, "channel.subscribe", "c"))
    await rig.settle()
    reader.frames()
    return reader


async def publish(rig, count, size=1_000):
    writer = rig.connect()
    for _ in range(count):
        writer.protocol.data_received(request(1, "channel.publish", "c", "x" * size))
        await asyncio.sleep(0)
    await rig.settle()


def offsets(frames):
    return [frame[2]["offset"] for frame in frames if frame[1] == "message"]


def second(rig, ms=1_000):
    """What the server does once a second, so much later."""
    rig.clock.advance(ms)
    rig.turn.open()
    rig.hub.look_after(rig.dispatcher.ctx.now)


async def test_a_reader_who_stops_becomes_a_cursor_and_catches_up_in_order():
    rig = Rig()
    await rig.settle()
    reader = await subscribed(rig)
    reader.takes = 0
    await publish(rig, 600)
    waiting = len(reader.stuck)
    assert waiting < 300_000
    for _ in range(10):
        reader.take_stuck()
        await rig.settle()
    assert offsets(reader.frames()) == [*range(1, 601)]


async def test_a_burst_beyond_the_soft_limit_follows_at_once():
    """A kernel that takes everything never calls back: the next turn must go on by itself."""
    rig = Rig()
    await rig.settle()
    reader, writer = await subscribed(rig), rig.connect()
    items = [["c", "x" * 60_000]] * 12
    writer.protocol.data_received(request(1, "channel.publish_many", items))
    await rig.settle()
    assert offsets(reader.frames()) == [*range(1, 13)]


async def test_a_reader_whom_the_history_has_passed_is_closed_with_a_resume_code():
    rig = Rig()
    await rig.settle()
    reader = await subscribed(rig)
    reader.takes = 0
    await publish(rig, 1_500)
    reader.take_stuck()
    await rig.settle()
    *messages, close = reader.frames()
    assert offsets(messages) == [*range(1, len(messages) + 1)]
    assert close[1] == "close"
    assert close[2]["code"] == 4001
    assert reader.closing


async def test_who_takes_no_byte_for_long_is_closed():
    rig = Rig()
    await rig.settle()
    reader = await subscribed(rig)
    reader.takes = 0
    await publish(rig, 1)
    for _ in range(12):
        second(rig)
        await rig.settle()
    assert reader.closing
    reader.abort()
    await rig.settle()
    assert rig.metrics.closes == {"slow_consumer": 1}


async def test_who_takes_bytes_slowly_is_not_closed():
    rig = Rig()
    await rig.settle()
    reader = await subscribed(rig)
    reader.takes = 0
    await publish(rig, 200)
    for _ in range(30):
        reader.stuck = reader.stuck[100:]
        second(rig)
        await rig.settle()
    assert not reader.closing


async def test_more_than_the_hard_limit_is_closed():
    rig = Rig(Limits(outbox_soft_bytes=1_000, outbox_hard_bytes=50_000))
    await rig.settle()
    reader = await subscribed(rig)
    reader.takes = 0
    await publish(rig, 1, size=60_000)
    second(rig)
    await rig.settle()
    assert reader.closing


async def test_all_outboxes_together_are_bounded():
    rig = Rig(Limits(outbox_total_bytes=30_000))
    await rig.settle()
    readers = [await subscribed(rig) for _ in range(10)]
    for reader in readers:
        reader.takes = 0
    await publish(rig, 10)
    second(rig)
    await rig.settle()
    left = [reader for reader in readers if not reader.closing]
    assert 20_000 < sum(len(reader.stuck) for reader in left) <= 30_000
    await publish(rig, 10)  # those that are closed take nothing and hide nobody
    second(rig)
    await rig.settle()
    left = [reader for reader in readers if not reader.closing]
    assert 0 < sum(len(reader.stuck) for reader in left) <= 30_000


async def test_only_negotiated_heartbeats_cut_the_silent():
    rig = Rig()
    await rig.settle()
    silent, patient, alive = rig.connect(), rig.connect(), rig.connect()
    patient.protocol.data_received(request(1, "server.ping"))
    for client in (silent, alive):
        client.protocol.data_received(
            request(1, "server.hello", None, None, None, None, None, None, 1, 5_000)
        )
    for _ in range(11):
        second(rig)
        alive.protocol.data_received(b"\x00\x00\x00\x0f\x93\x02\xabserver.ping\x90")
        await rig.settle()
    assert silent.closing
    assert silent.frames()[-1][2]["code"] == 4002
    assert not patient.closing
    assert not alive.closing


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.integers(1, 2_000), st.booleans()),
            st.tuples(st.just("takes"), st.integers(0, 3_000), st.just(False)),
            st.tuples(st.just("sync"), st.just(0), st.just(False)),
        ),
        max_size=40,
    ),
    st.integers(1, 30),
)
def test_a_subscriber_gets_every_offset_once_in_order_or_a_close(steps, history_count):
    async def run():
        rig = Rig(Limits(outbox_soft_bytes=3_000))
        config = Config(namespaces={"default": Namespace(history_count=history_count)})
        rig.dispatcher.issue("settings.apply", [settings_of(config)])
        await rig.settle()
        reader, writer = await subscribed(rig), rig.connect()
        published = 0
        for step, number, synced in steps:
            if step == "publish":
                published += 1
                options = {"ack": "synced"} if synced else {}
                writer.protocol.data_received(
                    request(published, "channel.publish", "c", "x" * number, **options)
                )
            elif step == "takes":
                reader.take_stuck()
                reader.takes = number
            else:
                rig.sync()
            await asyncio.sleep(0)
        for _ in range(5):
            rig.sync()
            await rig.settle()
            reader.take_stuck()
            await rig.settle()
        frames = reader.frames()
        got = offsets(frames)
        assert got == [*range(1, len(got) + 1)]
        if len(got) < published:
            assert frames[-1][2]["code"] == 4001

    asyncio.run(run())


def configure(rig, **kinds):
    rig.turn.open()
    for namespace, kind in kinds.items():
        rig.dispatcher.issue("channel.configure", [namespace, kind, 3, *[None] * 7, False])


def keyed(key, number):
    return request(1, "channel.publish", "tick:x", f"{number}" + "x" * 50_000, key)


async def test_a_slow_reader_of_latest_gets_the_newest_of_each_key():
    rig = Rig()
    configure(rig, tick="latest")
    await rig.settle()
    reader, writer = rig.connect(), rig.connect()
    reader.protocol.data_received(request(1, "channel.subscribe", "tick:x"))
    await rig.settle()
    reader.frames()
    reader.takes = 0
    for number in range(30):
        writer.protocol.data_received(keyed("abc"[number % 3], number))
        await rig.settle()
    assert len(reader.stuck) < 400_000
    reader.take_stuck()
    await rig.settle()
    last = [frame[2] for frame in reader.frames()][-3:]
    assert [push["data"].rstrip("x") for push in last] == ["27", "28", "29"]
    assert [push["offset"] for push in last] == [28, 29, 30]


async def test_a_slow_reader_of_latest_is_told_when_keys_are_gone():
    rig = Rig()
    configure(rig, tick="latest")
    await rig.settle()
    reader, writer = rig.connect(), rig.connect()
    reader.protocol.data_received(request(1, "channel.subscribe", "tick:x"))
    await rig.settle()
    reader.frames()
    reader.takes = 0
    for number in range(30):
        writer.protocol.data_received(keyed(f"key{number}", number))
        await rig.settle()
    reader.take_stuck()
    await rig.settle()
    frames = reader.frames()
    (gap,) = [frame[2] for frame in frames if frame[1] == "gap"]
    sent = [frame[2]["offset"] for frame in frames if frame[1] == "message"]
    assert gap == {"channel": "tick:x", "from": sent[-4] + 1, "to": 27, "why": "history"}
    assert sent[-3:] == [28, 29, 30]
    assert rig.metrics.gaps == 1


async def test_transient_messages_are_dropped_first_and_counted():
    rig = Rig()
    configure(rig, typing="transient")
    await rig.settle()
    reader, writer = rig.connect(), rig.connect()
    reader.protocol.data_received(request(1, "channel.subscribe", "typing:1"))
    await rig.settle()
    reader.frames()
    reader.takes = 0
    for _ in range(30):
        writer.protocol.data_received(request(1, "channel.publish", "typing:1", "x" * 50_000))
        await rig.settle()
    assert len(reader.stuck) < 400_000
    reader.take_stuck()
    await rig.settle()
    frames = reader.frames()
    heard = sum(frame[1] == "message" for frame in frames)
    (gap,) = [frame[2] for frame in frames if frame[1] == "gap"]
    assert gap == {"channel": "typing:1", "lost": 30 - heard, "why": "slow"}
    assert rig.metrics.dropped == 30 - heard
    writer.protocol.data_received(request(1, "channel.publish", "typing:1", "again"))
    await rig.settle()
    assert [frame[2]["data"] for frame in reader.frames()] == ["again"]


async def test_many_small_messages_congest_by_their_number():
    rig = Rig(Limits(outbox_soft_messages=100))
    await rig.settle()
    reader = await subscribed(rig)
    reader.takes = 0
    await publish(rig, 300, size=1)
    assert 100 <= reader.protocol.connection.pending_messages <= 101
    for _ in range(5):
        reader.take_stuck()
        await rig.settle()
    assert offsets(reader.frames()) == [*range(1, 301)]


async def test_a_slow_reader_whose_newest_message_is_gone_hears_the_next():
    rig = Rig()
    rig.turn.open()
    rig.dispatcher.issue("channel.configure", ["tick", "latest", 0, *[None] * 7, False])
    await rig.settle()
    reader, writer = rig.connect(), rig.connect()
    reader.protocol.data_received(request(1, "channel.subscribe", "tick:x"))
    await rig.settle()
    reader.frames()
    reader.takes = 0
    for number in range(10):
        writer.protocol.data_received(keyed("a", number))
        await rig.settle()
    reader.take_stuck()
    await rig.settle()
    assert [frame[1] for frame in reader.frames()][-1] == "gap"
    writer.protocol.data_received(keyed("a", 10))
    await rig.settle()
    assert [frame[2]["offset"] for frame in reader.frames()] == [11]


def test_readers_who_are_behind_take_turns():
    world = World()
    for number in range(300):
        world.call("channel.publish", "c", number)
    channel = world.store.channels.get("c")
    peers = [Peer() for _ in range(3)]
    for peer in peers:
        world.router.subscribe(world.connect(peer), channel, ["era.1", 0], 10)
    for _ in range(3):
        world.router.catch_up(100)
    world.flush()
    assert [len(peer.take()) for peer in peers] == [100, 100, 100]
