"""Requests of which only a part came: all together are bounded, and the largest give way."""

from __future__ import annotations

import pytest

from rtserver.limits import Limits
from tests.transport.rig import Rig, request, say
from tests.websocket import client_frame

LIMITS = Limits(requests_total_bytes=100_000)
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture
async def rig():
    return Rig(LIMITS)


def half_frame(size):
    return (size * 2).to_bytes(4, "big") + b"x" * (size - 4)


async def look(rig):
    rig.hub.look_after(rig.now)
    await rig.settle()


async def test_the_largest_give_way_until_the_rest_fits(rig):
    clients = [rig.connect() for _ in range(4)]
    for client, size in zip(clients, (30_000, 50_000, 10_000, 40_000), strict=True):
        say(client, half_frame(size))
    await look(rig)
    assert [client.closing for client in clients] == [False, True, False, False]
    (push,) = clients[1].frames()
    assert push[2]["name"] == "overloaded"
    assert "50000 of them are yours" in push[2]["message"]
    for _ in range(3):
        await look(rig)
    assert sum(client.closing for client in clients) == 1


async def test_a_frame_that_comes_in_many_pieces_counts_whole(rig):
    client, other = rig.connect(), rig.connect()
    say(client, (200_000).to_bytes(4, "big"))
    for _ in range(110):
        say(client, b"x" * 1_000)
    say(other, half_frame(20_000))
    await look(rig)
    assert client.closing
    assert not other.closing


async def test_what_has_run_does_not_count(rig):
    client = rig.connect()
    for number in range(50):
        say(client, request(number, "channel.publish", "c", "x" * 5_000))
    await rig.settle()
    assert all(party.kept() == 0 for party in rig.hub.parties.values())
    await look(rig)
    assert not client.closing


async def test_lines_and_messages_count_too(rig):
    line, message = rig.connect(), rig.connect()
    line.protocol.data_received(b"x" * 40_000)
    message.protocol.data_received(UPGRADE)
    await rig.settle()
    frame = client_frame(1, b"[" + b"1," * 45_000)
    message.protocol.data_received(frame[:80_000])
    await rig.settle()
    kept = sorted(party.kept() for party in rig.hub.parties.values())
    assert kept[0] == 40_000
    assert 79_000 < kept[1] <= 80_000
    await look(rig)
    assert not line.closing
    assert b"overloaded" in message.bytes()


async def test_many_small_ones_are_left_alone(rig):
    """Nobody of them is worth a close; how many there may be is bounded by connections_max."""
    clients = [rig.connect() for _ in range(60)]
    for client in clients:
        say(client, half_frame(2_000))
    await look(rig)
    assert not any(client.closing for client in clients)
