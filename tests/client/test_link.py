"""One connection after another: writing, reconnecting, closing, cancelling, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import os
import random

import pytest

import rtclient
from rtclient import ledger as ledger_module
from rtclient import link as link_module
from tests.client.fake import FakeServer, until


def silent(peer, request):
    """Answers nothing."""


# --- calling ---


async def test_calls_of_one_turn_leave_in_one_write_and_answers_find_their_callers():
    def backwards(peer, request):
        held.append(request)
        if len(held) == 100:
            peer.send(*([1, request[1], None, request[3][0]] for request in reversed(held)))

    held = []
    async with FakeServer(backwards) as server, rtclient.connect(server.url) as rt:
        results = await asyncio.gather(*(rt.counter.get(str(n)) for n in range(100)))
        assert results == [str(n) for n in range(100)]
        assert server.peer.reads == [1, 100]


async def test_it_can_be_awaited_or_entered_and_says_who_it_is():
    async with FakeServer() as server:
        rt = await rtclient.connect(server.url, user="ann", role="user", name="shop")
        assert await rt.call("echo", 1, "two") == [1, "two"]
        await rt.close()
        await rt.close()
        async with await rtclient.connect(f"rt://bob:secret@127.0.0.1:{server.port}"):
            pass
        first, second = server.hellos
        assert (first["user"], first["role"], first["client"]) == ("ann", "user", "shop")
        assert (second["user"], second["token"], second["version"]) == ("bob", "secret", 1)


async def test_the_first_connection_fails_fast_with_its_cause():
    async with FakeServer() as server:
        url = server.url
    with pytest.raises(rtclient.ConnectionLost, match="cannot connect to rt://") as caught:
        await rtclient.connect(url)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.retryable


async def test_a_refused_hello_is_raised():
    async with FakeServer() as server:
        server.hello = lambda peer, request: peer.refuse(request, 400, "forbidden", "not you")
        with pytest.raises(rtclient.Forbidden, match="not you"):
            await rtclient.connect(server.url)
        await server.peer.lost


async def test_a_server_that_does_not_say_hello_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(link_module, "_CONNECT_S", 0.05)
    async with FakeServer() as server:
        server.hello = silent
        with pytest.raises(rtclient.ConnectionLost, match="no answer"):
            await rtclient.connect(server.url)
        await server.peer.lost


async def test_something_that_is_no_server_is_an_error_not_a_hang():
    async def shout(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listener = await asyncio.start_server(shout, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(rtclient.ConnectionLost):
        await rtclient.connect(f"rt://127.0.0.1:{port}")
    listener.close()


async def test_named_parameters_become_positional():
    async with FakeServer() as server, rtclient.connect(server.url) as rt:
        assert await rt.call("board.top", "weekly", limit=3) == ["weekly", 3]
        assert await rt.call("board.top", name="weekly", kind="dense", timeout=5) == [
            *["weekly", None, None, None, None],
            "dense",
        ]
        assert server.peer.requests[-1][4] == {"timeout_ms": 5_000}
        with pytest.raises(TypeError, match="named limits"):
            rt.call("board.top", "weekly", limits=3)
        with pytest.raises(TypeError, match="by position"):
            rt.call("no.such", x=1)
        with pytest.raises(ValueError, match=r"rt\.channel\.subscribe"):
            rt.call("channel.subscribe", "room")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_fork_inside_the_loop_is_told_that_no_loop_runs():
    async with FakeServer() as server, rtclient.connect(server.url) as rt:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                rt.counter.get("x")
            except RuntimeError as error:
                os.write(writer, str(error).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(writer)
        assert os.read(reader, 1_000) == b"no running event loop"
        os.close(reader)
        assert await rt.counter.get("x") == ["x"]


# --- cancelling ---


async def test_cancelling_never_disturbs_others():
    """Delays, reordered and dropped replies, storms of cancellations and timeouts: whoever gets
    an answer gets her own."""
    chance = random.Random(7)
    held = []

    def unreliable(peer, request):
        held.append((peer, request))
        if chance.random() < 0.3:
            chance.shuffle(held)
            for _ in range(chance.randrange(len(held) + 1)):
                to, answered = held.pop()
                if chance.random() < 0.9:
                    to.reply(answered, answered[3][0])

    async def one(rt, n):
        try:
            return await rt.counter.get(f"{n}", timeout=chance.choice([0.002, 0.02, 0.05]))
        except rtclient.Timeout:
            return None

    async with FakeServer(unreliable) as server, rtclient.connect(server.url) as rt:
        answered = 0
        for _ in range(30):
            tasks = [asyncio.create_task(one(rt, n)) for n in range(25)]
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.005]))
            for task in chance.sample(tasks, 8):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for n, result in enumerate(results):
                assert result in (None, str(n)) or isinstance(result, asyncio.CancelledError)
                answered += result == str(n)
        assert answered > 100
        server.answer = lambda peer, request: peer.reply(request, request[3][0])
        assert await rt.counter.get("after") == "after"


async def test_a_call_cancelled_in_its_own_turn_is_not_sent():
    async with FakeServer() as server, rtclient.connect(server.url) as rt:
        dropped = rt.counter.get("dropped")
        kept = rt.counter.get("kept")
        dropped.cancel()
        assert await kept == ["kept"]
        assert [request[3] for request in server.requests] == [["kept"]]


# --- backpressure ---


async def test_a_server_that_does_not_read_stops_the_writing_not_the_loop():
    async with FakeServer(silent) as server, rtclient.connect(server.url) as rt:
        server.peer.transport.pause_reading()
        calls = [rt.channel.publish("room", b"x" * 100_000) for _ in range(200)]
        await asyncio.sleep(0.1)
        transport = rt._link._socket.transport
        assert rt._link._socket.paused
        assert transport.get_write_buffer_size() < 1_000_000
        server.peer.transport.resume_reading()
        await until(lambda: len(server.requests) == 200)
        for request in server.requests:
            server.peer.reply(request, {"offset": 1, "epoch": "e"})
        await asyncio.gather(*calls)


async def test_more_keyed_writes_than_may_be_under_way_follow_their_answers(monkeypatch):
    monkeypatch.setattr(ledger_module, "WINDOW", 3)
    async with FakeServer() as server, rtclient.connect(server.url) as rt:
        calls = [rt.counter.set("x", n) for n in range(20)]
        assert await asyncio.gather(*calls) == [["x", n] for n in range(20)]
        assert max(server.peer.reads) <= 3


async def test_more_than_may_wait_is_refused_at_once():
    async with FakeServer(silent) as server:
        rt = await rtclient.connect(server.url)
        rt._link.ledger._bytes_max = 10_000
        calls = [rt.channel.publish("room", "x" * 1_000) for _ in range(9)]
        with pytest.raises(rtclient.Overloaded):
            rt.channel.publish("room", "x" * 1_000)
        server.answer = lambda peer, request: peer.reply(request, {"offset": 1, "epoch": "e"})
        server.peer.cut()
        await asyncio.gather(*calls)
        await rt.close()


# --- reconnecting ---


async def test_it_reconnects_and_sends_again_what_may_be_sent_again(caplog):
    caplog.set_level(logging.INFO, "rtclient")
    async with FakeServer(silent) as server, rtclient.connect(server.url) as rt:
        write = rt.board.delete("weekly")
        plain = rt.counter.add("likes")
        read = rt.counter.get("likes")
        await until(lambda: len(server.requests) == 3)
        server.answer = lambda peer, request: peer.reply(request, {"deleted": True})
        server.peer.cut()
        with pytest.raises(rtclient.OutcomeUnknown):
            await plain
        waiting = rt.counter.add("likes")
        assert not rt.connected
        assert (await write).deleted
        assert await read == {"deleted": True}
        await waiting
        again = (await server.next_peer(2)).requests
        assert [request[2] for request in again] == ["board.delete", "counter.get", "counter.add"]
        first = server.peers[0].requests[0]
        assert again[0] == first
        assert rt.connected
        assert "reconnecting" in caplog.text


async def test_it_tries_for_ever_and_a_dead_server_costs_only_time():
    async with FakeServer() as server:
        rt = await rtclient.connect(server.url)
        server.listener.close()
        server.peer.cut()
        call = rt.counter.get("x")
        await until(lambda: rt._link._attempts >= 3)
        await server.listen(server.port)
        assert await call == ["x"]
        await rt.close()


async def test_without_reconnecting_the_end_is_the_end():
    async with FakeServer(silent) as server:
        rt = await rtclient.connect(server.url, reconnect=False)
        call = rt.counter.get("x")
        await until(lambda: server.requests)
        server.peer.cut()
        with pytest.raises(rtclient.ConnectionLost):
            await call
        with pytest.raises(rtclient.ConnectionLost):
            rt.counter.get("x")
        await rt.close()


async def test_a_call_in_an_outage_ends_with_its_timeout():
    async with FakeServer() as server:
        rt = await rtclient.connect(server.url, timeout=0.1)
        server.listener.close()
        server.peer.cut()
        await until(lambda: not rt.connected)
        with pytest.raises(rtclient.Timeout, match="nothing was done"):
            await rt.counter.add("x")
        with pytest.raises(rtclient.Timeout, match=r"within 0\.01 s"):
            await rt.counter.add("x", timeout=0.01)
        await rt.close()


async def test_garbage_from_the_server_is_a_reason_to_reconnect():
    async with FakeServer() as server, rtclient.connect(server.url) as rt:
        server.peer.transport.write(b"\xff\xff\xff\xff")
        await server.next_peer(2)
        assert await rt.call("echo", 1) == [1]


def test_the_longest_wait_doubles_up_to_its_bound(monkeypatch):
    monkeypatch.undo()
    waits = [link_module._longest_wait_s(attempts) for attempts in (0, 1, 2, 7, 8, 10_000)]
    assert waits == [0.1, 0.2, 0.4, 12.8, 20.0, 20.0]


# --- being closed ---


@pytest.mark.parametrize("code", [4000, 4001, 4499])
async def test_a_resumable_close_is_followed_by_a_reconnect(code):
    async with FakeServer() as server, rtclient.connect(server.url) as rt:
        server.peer.close(code, retry_after_ms=20)
        await server.next_peer(2)
        assert await rt.call("echo", 1) == [1]


async def test_a_final_close_ends_the_client_and_says_why():
    async with FakeServer(silent) as server:
        rt = await rtclient.connect(server.url)
        read, write = rt.counter.get("x"), rt.counter.set("x", 1)
        await until(lambda: len(server.requests) == 2)
        server.peer.close(4501, "frame_too_large", "mend it")
        with pytest.raises(rtclient.ConnectionLost, match="frame_too_large") as caught:
            await read
        assert caught.value.details["code"] == 4501
        assert not caught.value.retryable
        with pytest.raises(rtclient.OutcomeUnknown):
            await write
        with pytest.raises(rtclient.ConnectionLost, match="mend it"):
            rt.counter.get("x")
        await rt.close()
        assert len(server.peers) == 1


async def test_a_final_close_at_the_door_is_raised_by_connect():
    async with FakeServer() as server:
        server.hello = lambda peer, request: peer.close(4500, "protocol_error")
        with pytest.raises(rtclient.ConnectionLost, match="protocol_error"):
            await rtclient.connect(server.url)


async def test_closing_waits_for_answers_that_are_still_to_come():
    def later(peer, request):
        asyncio.get_running_loop().call_later(0.05, peer.reply, request, 5)

    async with FakeServer(later) as server:
        async with rtclient.connect(server.url) as rt:
            call = rt.counter.add("x")
        assert await call == 5
        with pytest.raises(rtclient.Closed):
            rt.counter.add("x")
        assert await server.peer.lost is None


async def test_closing_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(link_module, "_DRAIN_S", 0.05)
    async with FakeServer(silent) as server:
        rt = await rtclient.connect(server.url)
        read, write = rt.counter.get("x"), rt.counter.add("x")
        await rt.close()
        with pytest.raises(rtclient.Closed):
            await read
        with pytest.raises(rtclient.OutcomeUnknown):
            await write


async def test_closing_in_an_outage_ends_at_once():
    async with FakeServer() as server:
        rt = await rtclient.connect(server.url)
        server.listener.close()
        server.peer.cut()
        await until(lambda: not rt.connected)
        call = rt.counter.get("x")
        await rt.close()
        with pytest.raises(rtclient.Closed):
            await call
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
