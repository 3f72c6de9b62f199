"""Presence within the turn: woken without bytes, logged with room only, gone with the sockets."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from rtserver.limits import Limits
from tests.transport.rig import Rig, request, say

GRACE_MS = 20


async def new_rig(**limits):
    rig = Rig(Limits(presence_grace_ms=GRACE_MS, **limits))
    await rig.settle()
    return rig


def come(rig, user, channel="room"):
    client = rig.connect()
    say(
        client,
        request(1, "server.hello", None, user),
        request(2, "channel.subscribe", channel),
    )
    return client


async def listener(rig, channel="room"):
    client = rig.connect()
    say(client, request(1, "channel.subscribe", channel, None, True))
    await rig.settle()
    client.frames()
    return client


async def told(reader):
    """The next frame, whenever it comes: nobody sends a byte."""
    async with asyncio.timeout(10):
        while not (frames := reader.frames()):
            await asyncio.sleep(0.005)
    return frames


def appended(rig):
    return [name for kind, names in rig.events if kind == "append" for name in names]


async def test_a_grace_period_ends_without_a_byte_from_anybody():
    rig = await new_rig()
    reader, ann = await listener(rig), come(rig, "ann")
    await rig.settle()
    assert [frame[1] for frame in reader.frames()] == ["join"]
    ann.abort()
    await rig.settle()
    rig.clock.advance(GRACE_MS)
    assert await told(reader) == [
        [2, "leave", {"channel": "room", "users": ["ann"], "count": 0}],
    ]
    assert "presence.seen" in appended(rig)


async def test_a_peer_that_stops_speaking_is_gone_and_hears_on():
    rig = await new_rig()
    reader, ann = await listener(rig), come(rig, "ann")
    await rig.settle()
    ann.frames()
    ann.protocol.eof_received()
    await rig.settle()
    assert rig.presence.state("ann")["devices"] == 0
    say(reader, request(2, "channel.publish", "room", "hi"))
    await rig.settle()
    assert [frame[1] for frame in ann.frames()] == ["message"]
    ann.abort()
    await rig.settle()
    assert rig.presence.anonymous("room") == 1  # the reader
    rig.presence.check()


async def test_without_room_in_the_log_who_was_seen_waits_and_nothing_spins():
    rig = await new_rig()
    reader, ann = await listener(rig), come(rig, "ann")
    await rig.settle()
    rig.log.fits = False
    say(reader, request(2, "counter.add", "likes"))
    await rig.settle()
    ann.abort()
    await rig.settle()
    rig.clock.advance(GRACE_MS)
    turns = rig.metrics.turn.count
    await rig.settle()
    assert rig.metrics.turn.count - turns < 5
    rig.log.fits = True
    async with asyncio.timeout(10):
        while "presence.seen" not in appended(rig):
            await asyncio.sleep(0.005)
            rig.turn.open()
    await rig.settle()
    (_, left) = [frame for frame in reader.frames() if frame[0] == 2]
    assert left[1:] == ["leave", {"channel": "room", "users": ["ann"], "count": 0}]


async def test_a_thousand_connections_that_are_cut_at_once_leave_in_slices():
    rig = await new_rig(presence_per_turn=100)
    reader = await listener(rig)
    clients = [come(rig, f"user{number}") for number in range(1_000)]
    for _ in range(20):
        await rig.settle()
    assert rig.presence.count("room") == 1_000
    for client in clients:
        client.abort()
    for _ in range(5):
        await rig.settle()
    rig.clock.advance(10 * GRACE_MS)
    rig.turn.open()
    counts = [rig.presence.count("room")]
    assert counts == [900]
    async with asyncio.timeout(30):
        while counts[-1]:
            await asyncio.sleep(0)
            counts.append(rig.presence.count("room"))
    assert max(one - two for one, two in pairwise(counts)) == 100
    reader.frames()
    async with asyncio.timeout(30):
        while rig.presence.people.unseen or len(rig.store.last_seen) < 1_000:
            await asyncio.sleep(0)
    assert rig.presence.stats() == {"users": 0, "members": 0, "channels": 1}
