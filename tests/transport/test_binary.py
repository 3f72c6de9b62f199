"""Frames over a stream: however the bytes are cut, the answers are the same."""

from __future__ import annotations

import asyncio
import itertools

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.limits import Limits
from tests.transport.rig import Rig, request

STREAM = b"".join(
    [
        request(1, "counter.add", "a", 2),
        request(2, "counter.add", "x" * 300),  # an error among successes
        request(3, "server.nothing"),
        request(4, "channel.publish", "c", {"text": "y" * 100}),
        request(5, "counter.get", "a"),
    ]
)


async def answers(pieces, limits=None):
    rig = Rig(limits)
    client = rig.connect()
    for piece in pieces:
        client.protocol.data_received(piece)
        await asyncio.sleep(0)
    await rig.settle()
    return client.frames()


@pytest.fixture(scope="module")
def expected():
    return asyncio.run(answers([STREAM]))


def test_whole(expected):
    assert [frame[1] for frame in expected] == [1, 2, 3, 4, 5]
    assert [frame[2] and frame[2][1] for frame in expected] == [
        None,
        "invalid_params",
        "unknown_method",
        None,
        None,
    ]


@pytest.mark.parametrize("cut", range(1, len(STREAM)))
def test_cut_once_anywhere(expected, cut):
    assert asyncio.run(answers([STREAM[:cut], STREAM[cut:]])) == expected


def test_byte_by_byte(expected):
    assert asyncio.run(answers([STREAM[at : at + 1] for at in range(len(STREAM))])) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, len(STREAM) - 1), max_size=8),
    st.integers(1, 4),
    st.integers(1_100, 5_000),
)
def test_cut_often_with_little_budget(expected, cuts, cost, outbox):
    """Also when requests wait for later turns and for a congested outbox."""
    limits = Limits(connection_cost_per_turn=cost, outbox_soft_bytes=outbox)
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in itertools.pairwise(edges) if a < b]
    assert asyncio.run(answers(pieces, limits)) == expected


# --- what cannot be parsed ---


@pytest.mark.parametrize(
    ("bad", "name", "close"),
    [
        (b"\x01\x00\x00\x00", "frame_too_large", 4501),
        (b"\x00\x10\x00\x01", "frame_too_large", 4501),
        (b"\x00\x00\x00\x00", "protocol_error", 4500),
        (b"\x00\x00\x00\x01\xc0", "protocol_error", 4500),
        (b"\x00\x00\x00\x01\xc1", "protocol_error", 4500),
        (b"\x00\x00\x00\x02\x90\x90", "protocol_error", 4500),
        (b"\x00\x00\x00\x05\xdd\xff\xff\xff\xff", "protocol_error", 4500),
        (b"\x47\x45\x54\x20", "frame_too_large", 4501),
    ],
)
@pytest.mark.parametrize("piecewise", [False, True])
async def test_what_came_before_is_answered_what_follows_is_not_read(bad, name, close, piecewise):
    rig = Rig()
    client = rig.connect()
    stream = request(1, "counter.add", "a") + bad + request(2, "counter.add", "a")
    pieces = [stream[at : at + 1] for at in range(len(stream))] if piecewise else [stream]
    for piece in pieces:
        if not client.closing:
            client.protocol.data_received(piece)
            await asyncio.sleep(0)
    await rig.settle()
    first, error, push = client.frames()
    assert first == [1, 1, None, 1]
    assert error[:2] == [1, None]
    assert error[2][1] == name
    assert push[:2] == [2, "close"]
    assert (push[2]["code"], push[2]["name"]) == (close, name)
    assert client.closing
    assert rig.store.counters.get(rig.now, "a") == 1


async def test_the_largest_frame_and_one_byte_more():
    limits = Limits(frame_bytes_max=4_096)
    base = len(request(1, "channel.publish", "c", b"")) - 4 + 1  # the longer bytes header
    frame = request(1, "channel.publish", "c", b"x" * (4_096 - base))
    assert len(frame) == 4 + 4_096
    ((_, _, error, result),) = await answers([frame], limits)
    assert error is None
    assert result["offset"] == 1
    bigger = request(1, "channel.publish", "c", b"x" * (4_097 - base))
    refused, _close = await answers([bigger[:4]], limits)
    assert refused[2][1] == "frame_too_large"


async def test_a_large_frame_in_small_pieces_is_one_frame():
    data = b"x" * 900_000
    frame = request(1, "channel.publish", "c", data)
    pieces = [frame[at : at + 1_000] for at in range(0, len(frame), 1_000)]
    ((_, _, _, result),) = await answers(pieces)
    assert result["offset"] == 1


# --- half-closed ---


async def test_a_half_closed_peer_is_let_go_when_its_last_reply_has_left():
    rig = Rig()
    client = rig.connect()
    client.protocol.data_received(request(1, "counter.add", "a", ack="synced"))
    assert client.protocol.eof_received()
    await rig.settle()
    assert not client.closing
    rig.sync()
    await rig.settle()
    assert client.frames() == [[1, 1, None, 1]]
    assert client.closing


async def test_a_half_closed_subscriber_stays():
    rig = Rig()
    reader, writer = rig.connect(), rig.connect()
    reader.protocol.data_received(request(1, "channel.subscribe", "c"))
    assert reader.protocol.eof_received()
    await rig.settle()
    writer.protocol.data_received(request(1, "channel.publish", "c", 7))
    await rig.settle()
    assert [frame[1] for frame in reader.frames()] == [1, "message"]
    assert not reader.closing


async def test_a_half_frame_at_the_end_is_nothing():
    rig = Rig()
    client = rig.connect()
    client.protocol.data_received(STREAM[:-3])
    client.protocol.eof_received()
    await rig.settle()
    assert len(client.frames()) == 4
    assert client.closing


async def test_a_lost_connection_leaves_nothing_behind():
    rig = Rig()
    client = rig.connect()
    client.protocol.data_received(
        request(1, "channel.subscribe", "c") + request(2, "counter.add", "a", ack="synced")
    )
    client.abort()
    await rig.settle()
    rig.sync()
    await rig.settle()
    assert rig.hub.connections == len(rig.hub.parties) == rig.router.subscriptions == 0
    assert rig.store.counters.get(rig.now, "a") == 1


def test_the_frame_of_protocol_md_is_this_one():
    body = msgpack.packb([0, 1, "counter.add", ["likes", 1]])
    assert (len(body).to_bytes(4, "big") + body).hex(" ", 1).startswith("00 00 00 17 94 00 01 ab")
