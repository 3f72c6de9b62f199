"""Who says nothing, or not who she is, has a bounded time and a bounded number of bytes."""

from __future__ import annotations

import pytest

from rtserver.config import AuthConfig, ServiceKey
from rtserver.limits import Limits
from rtserver.session.auth import secret_hash
from tests.transport.rig import Rig, request, say

AUTH = AuthConfig(services={"shop": ServiceKey(hash=secret_hash("sesame"))})
TOKEN = "key:shop:sesame"
HELLO = request(1, "server.hello", None, None, TOKEN)
LIMITS = Limits(unauthenticated_ms_max=5_000, unauthenticated_bytes_max=2_000, silent_ms_max=60_000)


class Time:
    def __init__(self, monkeypatch):
        self.us = 1_000_000
        monkeypatch.setattr("rtserver.hub.monotonic_us", lambda: self.us)

    def passes(self, rig, ms):
        self.us += ms * 1_000
        rig.hub.look_after(rig.now)


@pytest.fixture
def time(monkeypatch):
    return Time(monkeypatch)


@pytest.fixture
async def rig(time):
    return Rig(LIMITS, AUTH)


def close_of(client):
    (push,) = [frame for frame in client.frames() if frame[:2] == [2, "close"]]
    return push[2]["name"]


# --- silence ---


@pytest.mark.parametrize("said", [b"", b"\r\n", b"GE"])
async def test_a_socket_that_says_nothing_is_closed(rig, time, said):
    client = rig.connect()
    if said:
        client.protocol.data_received(said)
    time.passes(rig, 4_900)
    assert not client.closing
    time.passes(rig, 200)
    assert client.closing
    await rig.settle()
    assert rig.hub.connections == 0


async def test_in_development_there_is_time_to_type(time):
    rig = Rig(LIMITS)
    client = rig.connect()
    time.passes(rig, 59_000)
    assert not client.closing
    time.passes(rig, 2_000)
    assert client.closing


async def test_thousands_of_silent_sockets_go_in_slices(rig, time):
    clients = [rig.connect() for _ in range(1_200)]
    time.passes(rig, 6_000)
    assert 0 < sum(client.closing for client in clients) < 1_200
    for _ in range(3):
        rig.hub.look_after(rig.now)
    assert all(client.closing for client in clients)
    await rig.settle()
    assert not len(rig.hub._silent)


async def test_who_left_or_spoke_is_forgotten(rig):
    for said in (None, HELLO, b"GET /livez HTTP/1.1\r\n\r\n"):
        client = rig.connect()
        if said is None:
            client.abort()
        else:
            client.protocol.data_received(said)
        await rig.settle()
        assert not len(rig.hub._silent)


# --- not saying who ---


async def test_a_connection_that_does_not_say_who_it_is_is_closed(rig, time):
    client = rig.connect()
    say(client, request(1, "server.ping"))
    await rig.settle()
    time.passes(rig, 4_900)
    await rig.settle()
    assert not client.closing
    time.passes(rig, 200)
    await rig.settle()
    assert close_of(client) == "unauthenticated"
    assert client.closing
    assert rig.metrics.closes["unauthenticated"] == 1


@pytest.mark.parametrize("method", ["server.hello", "server.auth"])
async def test_who_proves_it_may_stay(rig, time, method):
    client = rig.connect()
    args = (TOKEN,) if method == "server.auth" else (None, None, TOKEN)
    say(client, request(1, method, *args))
    await rig.settle()
    assert client.frames()[0][2] is None
    time.passes(rig, 6_000)
    for number in range(200):
        say(client, request(number, "counter.add", "a" * 50))
    await rig.settle()
    assert not client.closing
    assert client.frames()[-1][3] == 200


async def test_a_wrong_secret_proves_nothing(rig, time):
    client = rig.connect()
    say(client, request(1, "server.hello", None, None, "key:shop:wrong"))
    await rig.settle()
    assert client.frames()[0][2][1] == "unauthenticated"
    time.passes(rig, 6_000)
    await rig.settle()
    assert close_of(client) == "unauthenticated"


@pytest.mark.parametrize("size", [10, 1_000])
async def test_bytes_are_counted_before_it_is_known(rig, size):
    client = rig.connect()
    sent = 0
    while not client.closing:
        piece = request(1, "server.ping", *[0] * size)
        say(client, piece)
        await rig.settle()
        sent += len(piece)
        assert sent < 4_000
    assert sent > 2_000
    assert close_of(client) == "unauthenticated"


async def test_half_a_frame_counts(rig):
    client = rig.connect()
    say(client, b"\x00\x0f\x00\x00" + b"x" * 3_000)
    await rig.settle()
    assert close_of(client) == "unauthenticated"


async def test_lines_count(rig):
    client = rig.connect()
    say(client, b"x" * 3_000)
    await rig.settle()
    assert client.closing


async def test_what_comes_with_the_proof_is_not_counted(rig):
    client = rig.connect()
    say(client, HELLO, *[request(2, "counter.add", "a" * 50) for _ in range(200)])
    await rig.settle()
    assert not client.closing
    assert client.frames()[-1][3] == 200


async def test_where_anybody_may_stay_nothing_is_bounded(time):
    rig = Rig(LIMITS, AuthConfig(anonymous=True, services=AUTH.services))
    client = rig.connect()
    for _ in range(100):
        say(client, request(1, "server.ping", *[0] * 50))
    await rig.settle()
    time.passes(rig, 50_000)
    await rig.settle()
    assert not client.closing


async def test_who_left_is_not_remembered(rig, time):
    client = rig.connect()
    say(client, request(1, "server.ping"))
    await rig.settle()
    client.abort()
    await rig.settle()
    assert not len(rig.hub._unproven)
    time.passes(rig, 6_000)
