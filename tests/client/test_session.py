"""What a client keeps over its connections: session, heartbeat, token, and how it leaves."""

from __future__ import annotations

import asyncio
import time

import pytest

import rtclient
import rtclient.sync
from rtclient import credentials as credentials_module
from rtclient import link as link_module
from tests.client.fake import FakeServer, in_thread, until


def silent(peer, request):
    """Answers nothing."""


def echo(peer, request):
    peer.reply(request, request[3])


# --- session ---


async def test_a_new_connection_goes_on_with_the_session():
    async with FakeServer() as server, rtclient.connect(server.url) as rt:
        assert "session" not in server.hellos[0]
        server.says = {"session": "other"}
        server.peer.cut()
        await server.next_peer(2)
        await until(lambda: rt.session == "other")
        assert server.hellos[1]["session"] == "s"


# --- heartbeat ---


async def test_the_heartbeat_is_negotiated_and_can_be_left_out():
    async with FakeServer() as server:
        for heartbeat, asked in [(2, 2_000), (None, None)]:
            async with rtclient.connect(server.url, heartbeat=heartbeat):
                assert server.hellos[-1].get("heartbeat_ms") == asked
        async with rtclient.connect(server.url):
            assert server.hellos[-1]["heartbeat_ms"] == 20_000


async def test_a_quiet_client_pings_and_stays():
    async with FakeServer() as server:
        server.says = {"heartbeat_ms": 20}
        async with rtclient.connect(server.url) as rt:
            await until(lambda: len(server.requests) >= 5)
            assert {(request[1], request[2]) for request in server.requests} == {(0, "server.ping")}
            assert rt.connected
            assert len(server.peers) == 1


async def test_a_server_that_says_nothing_is_given_up():
    async with FakeServer(silent) as server:
        server.says = {"heartbeat_ms": 20}
        async with rtclient.connect(server.url) as rt:
            read, plain = rt.counter.get("x"), rt.counter.add("x")
            with pytest.raises(rtclient.OutcomeUnknown, match="silent for more than"):
                await plain
            server.answer = echo
            assert await read == ["x"]
            assert len(server.peers) >= 2


async def test_any_bytes_are_a_sign_of_life():
    async with FakeServer(silent) as server:
        server.says = {"heartbeat_ms": 60}
        async with rtclient.connect(server.url):
            for _ in range(30):
                server.peer.push("something", {})
                await asyncio.sleep(0.01)
            assert len(server.peers) == 1


async def test_a_blocked_loop_does_not_blame_the_server():
    async with FakeServer() as server:
        server.says = {"heartbeat_ms": 30}
        async with rtclient.connect(server.url) as rt:
            for _ in range(3):
                await asyncio.sleep(0.04)
                time.sleep(0.15)
            assert await rt.counter.get("x") == ["x"]
            assert len(server.peers) == 1


# --- token ---


async def test_a_token_is_fetched_for_each_connection():
    async def fetch():
        tokens.append(f"t{len(tokens)}")
        return tokens[-1]

    tokens = []
    async with FakeServer() as server:
        async with rtclient.connect(server.url, token=fetch) as rt:
            server.peer.close(4005, "token_expired")
            await server.next_peer(2)
            await until(lambda: rt.connected)
        async with rtclient.connect(server.url, token=lambda: "plain"):
            pass
        assert [hello["token"] for hello in server.hellos] == ["t0", "t1", "plain"]


async def test_a_token_that_cannot_be_fetched_is_an_error_then_tried_again():
    def fetch():
        failures.append(1)
        if len(failures) in (1, 3):
            raise LookupError("no token today")
        return "t"

    failures = []
    async with FakeServer() as server:
        with pytest.raises(rtclient.ConnectionLost, match="no token today"):
            await rtclient.connect(server.url, token=fetch)
        async with rtclient.connect(server.url, token=fetch) as rt:
            server.peer.cut()
            assert await rt.counter.get("x") == ["x"]
            assert len(failures) == 4


async def test_a_token_is_renewed_in_place_before_it_expires(monkeypatch):
    monkeypatch.setattr(credentials_module, "_RENEW_MIN_S", 0.01)

    def answer(peer, request):
        renewed.append((request[2], request[3]))
        more = {} if len(renewed) == 3 else {"expires_at": int(time.time() * 1000) + 50}
        peer.reply(request, {"user": "ann", **more})

    renewed = []
    async with FakeServer(answer) as server:
        server.says = {"expires_at": int(time.time() * 1000) + 50}
        async with rtclient.connect(server.url, token=lambda: "fresh") as rt:
            await until(lambda: len(renewed) == 3)
            await asyncio.sleep(0.1)
            assert renewed == [("server.auth", ["fresh"])] * 3
            assert rt.connected
            assert len(server.peers) == 1
        async with rtclient.connect(server.url, token="fixed"):
            await asyncio.sleep(0.1)
        assert len(renewed) == 3


async def test_a_refused_token_ends_it_only_where_asking_again_is_in_vain():
    def refusing(peer, request):
        peer.refuse(request, 402, "token_expired", "too late")

    async with FakeServer() as server:
        fixed = await rtclient.connect(server.url, token="t")
        fetched = await rtclient.connect(server.url, token=lambda: "t")
        greet, server.hello = server.hello, refusing
        for peer in list(server.peers):
            peer.cut()
        await server.next_peer(5)
        server.hello = greet
        assert await fetched.counter.get("x") == ["x"]
        with pytest.raises(rtclient.TokenExpired):
            await fixed.counter.get("x")
        await fixed.close()
        await fetched.close()


# --- drain ---


async def test_a_drain_lets_calls_finish_and_goes_on_elsewhere():
    held = []
    async with (
        FakeServer(lambda peer, request: held.append(request)) as server,
        rtclient.connect(server.url) as rt,
    ):
        first = server.peer
        under_way = [rt.counter.add("x"), rt.counter.set("x", 1)]
        await until(lambda: len(held) == 2)
        first.push("drain", {"retry_after_ms": 0})
        await asyncio.sleep(0.05)
        later = rt.counter.add("y")
        server.answer = echo
        await asyncio.sleep(0.05)
        assert len(server.peers) == 1
        assert len(held) == 2
        for request in held:
            first.reply(request, 7)
        assert await asyncio.gather(*under_way) == [7, 7]
        assert await later == ["y", 1]
        assert [request[2] for request in server.requests] == [
            "counter.add",
            "counter.set",
            "counter.add",
        ]
        assert len(server.peers) == 2
        assert rt.connected


async def test_a_drain_waits_for_the_delay_it_names():
    async with FakeServer() as server, rtclient.connect(server.url) as rt:
        server.peer.push("drain", {"retry_after_ms": 150})
        server.peer.push("drain", {"retry_after_ms": 0})
        await asyncio.sleep(0.05)
        assert await rt.counter.get("x") == ["x"]
        assert len(server.peers) == 1
        await server.next_peer(2)
        assert await rt.counter.get("x") == ["x"]


async def test_a_drain_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(link_module, "_DRAIN_S", 0.05)
    async with FakeServer(silent) as server, rtclient.connect(server.url) as rt:
        write, plain = rt.counter.set("x", 1), rt.counter.add("x")
        await until(lambda: len(server.requests) == 2)
        server.answer = echo
        server.peer.push("drain", {"retry_after_ms": 0})
        assert await write == ["x", 1]
        with pytest.raises(rtclient.OutcomeUnknown):
            await plain


def test_the_blocking_client_beats_while_a_thread_calls_by_itself():
    """The socket is lent to the calling thread, and taken back for each beat."""
    with in_thread(FakeServer()) as (server, _):
        server.says = {"heartbeat_ms": 20}
        with rtclient.sync.connect(server.url) as rt:
            until_s = time.monotonic() + 0.5
            calls = 0
            while time.monotonic() < until_s:
                assert rt.call("echo", calls) == [calls]
                calls += 1
            time.sleep(0.1)
            assert len(server.peers) == 1
            pings = [request for request in server.requests if request[2] == "server.ping"]
            assert len(pings) >= 3
