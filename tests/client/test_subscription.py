"""Reading channels: what a user sees, mostly against a real server."""

from __future__ import annotations

import asyncio

import pytest

import rtclient
from rtclient import buffer as buffer_module
from rtclient import subscription as subscription_module
from tests.client.fake import FakeServer, until


async def offsets(messages, count):
    return [(await asyncio.wait_for(anext(messages), 10)).offset for _ in range(count)]


async def test_messages_come_with_all_they_have(real):
    async with rtclient.connect(real.url, user="ann") as rt:
        async with rt.channel.subscribe("full:1") as messages:
            published = await rt.channel.publish("full:1", {"text": "hi"}, key="k")
            message = await anext(messages)
        assert (message.offset, message.data, message.key) == (1, {"text": "hi"}, "k")
        assert (message.sender, message.channel) == ("ann", "full:1")
        assert message.at > 1_700_000_000_000
        assert messages.position == (published.epoch, 1)
        assert messages.channel == "full:1"
        with pytest.raises(StopAsyncIteration):
            await anext(messages)


async def test_since_resumes_where_one_was_or_a_little_before(real):
    async with rtclient.connect(real.url) as rt:
        await rt.channel.publish_many([["since:1", n] for n in range(10)])
        async with rt.channel.subscribe("since:1", since={"last": 4}) as messages:
            assert await offsets(messages, 2) == [7, 8]
            assert not messages.recovered
            position = messages.position
        async with rt.channel.subscribe("since:1", since=position) as messages:
            assert messages.recovered
            assert await offsets(messages, 2) == [9, 10]
            async with rt.channel.subscribe("since:1", since=position, buffer=1) as second:
                assert second.recovered
                assert await offsets(second, 2) == [9, 10]
                await rt.channel.publish("since:1", "new")
                assert await offsets(second, 1) == await offsets(messages, 1) == [11]
            async with rt.channel.subscribe("since:1", since={"last": 2}) as second:
                assert await offsets(second, 2) == [10, 11]
            async with rt.channel.subscribe("since:1", since={"last": 0}) as second:
                await rt.channel.publish("since:1", "newer")
                assert await offsets(second, 1) == [12]


async def test_a_position_that_is_gone_is_a_gap(real):
    async with rtclient.connect(real.url) as rt:
        published = await rt.channel.publish("gone:1", "x")
        for since in [("another", 5), (published.epoch, 99)]:
            for _ in range(2):  # the first to subscribe, then one who joins her
                async with (
                    rt.channel.subscribe("gone:1"),
                    rt.channel.subscribe("gone:1", since=since) as messages,
                ):
                    gap = await anext(messages)
                    assert isinstance(gap, rtclient.Gap)
                    assert gap.lost is None
                    assert gap.position == messages.position == (published.epoch, 1)
                    assert not messages.recovered
            async with rt.channel.subscribe("gone:1", since=since) as messages:
                assert isinstance(await anext(messages), rtclient.Gap)
                assert messages.position == (published.epoch, 1)


async def test_what_the_history_no_longer_has_is_counted(real):
    async with rtclient.connect(real.url) as rt:
        first = await rt.channel.publish("old:1", 0)
        for _ in range(3):
            await rt.channel.publish_many([["old:1", n] for n in range(500)])
        async with rt.channel.subscribe("old:1", since=(first.epoch, 1)) as messages:
            gap, message = await anext(messages), await anext(messages)
            assert (gap.lost, message.offset) == (500, 502)
            assert gap.position == (first.epoch, 501)
            assert await offsets(messages, 999) == list(range(503, 1_502))
            async with rt.channel.subscribe("old:1", since=(first.epoch, 1)) as second:
                assert (await anext(second)).lost == 500
                assert not second.recovered


async def test_a_slow_reader_loses_nothing_and_holds_up_nobody(real):
    async with (
        rtclient.connect(real.url) as rt,
        rt.channel.subscribe("slow:1", buffer=10) as slow,
        rt.channel.subscribe("slow:1") as fast,
    ):
        await rt.channel.publish_many([["slow:1", n] for n in range(800)])
        assert await offsets(fast, 800) == list(range(1, 801))
        assert slow.buffered == 10
        assert await rt.counter.add("meanwhile") >= 1
        assert await offsets(slow, 500) == list(range(1, 501))
        await rt.channel.publish_many([["slow:1", n] for n in range(100)])
        assert await offsets(slow, 400) == list(range(501, 901))
        assert await offsets(fast, 100) == list(range(801, 901))


async def test_a_reader_who_calls_between_messages_never_waits_for_herself(real):
    async with (
        rtclient.connect(real.url) as rt,
        rt.channel.subscribe("calls:1", buffer=1) as messages,
    ):
        await rt.channel.publish_many([["calls:1", n] for n in range(200)])
        for n in range(1, 201):
            assert (await anext(messages)).offset == n
            await rt.counter.add("calls")


async def test_a_buffer_is_bounded_in_bytes_too(real, monkeypatch):
    monkeypatch.setattr(buffer_module, "BUFFER_BYTES", 50_000)
    async with rtclient.connect(real.url) as rt, rt.channel.subscribe("bytes:1") as messages:
        for _ in range(50):
            await rt.channel.publish("bytes:1", b"x" * 10_000)
        assert messages.buffered < 10
        assert await offsets(messages, 50) == list(range(1, 51))


async def test_a_refused_subscription_raises_where_it_is_entered(real):
    async with rtclient.connect(real.url) as rt:
        for _ in range(2):
            with pytest.raises(rtclient.NotFound, match="nothing to watch"):
                async with rt.channel.subscribe("$reserved"):
                    pass
        with pytest.raises(ValueError, match="buffer is 0"):
            rt.channel.subscribe("x", buffer=0)


async def test_misuse_is_named(real):
    async with rtclient.connect(real.url) as rt:
        messages = rt.channel.subscribe("misuse:1")
        with pytest.raises(RuntimeError, match="async with"):
            await anext(messages)
        async with messages:
            with pytest.raises(RuntimeError, match="entered before"):
                await messages.__aenter__()
            waiting = asyncio.create_task(messages.wait())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="two tasks"):
                await anext(messages)
            waiting.cancel()
        with pytest.raises(RuntimeError, match="entered before"):
            await messages.__aenter__()


async def test_a_cancelled_read_takes_nothing_away(real):
    async with rtclient.connect(real.url) as rt, rt.channel.subscribe("cancel:1") as messages:
        for n in range(1, 20):
            reading = asyncio.create_task(anext(messages))
            await asyncio.sleep(0)
            publishing = rt.channel.publish("cancel:1", n)
            if n % 2:
                reading.cancel()
            await publishing
            if n % 2:
                await asyncio.wait([reading])
                assert await offsets(messages, 1) == [n]
            else:
                assert (await reading).offset == n


async def test_it_ends_with_the_client(real):
    async with rtclient.connect(real.url) as rt, rt.channel.subscribe("end:1") as messages:
        await rt.channel.publish("end:1", "last")
        await rt.close()
        assert [message.data async for message in messages] == ["last"]


async def test_a_final_close_is_raised_after_what_came_before_it():
    def subscribed(peer, request):
        peer.reply(request, {"epoch": "e", "offset": 0, "recovered": False, "messages": []})
        peer.push("message", {"channel": "c", "offset": 1, "data": "x", "at": 0})
        peer.close(4500, "protocol_error")

    async with FakeServer(subscribed) as server:
        rt = await rtclient.connect(server.url)
        async with rt.channel.subscribe("c") as messages:
            assert (await anext(messages)).data == "x"
            with pytest.raises(rtclient.ConnectionLost, match="protocol_error"):
                await anext(messages)
        await rt.close()


async def test_a_subscription_that_is_refused_on_resume_raises_its_refusal():
    def subscribed(peer, request):
        peer.reply(request, {"epoch": "e", "offset": 7, "recovered": False, "messages": []})

    channels = {"c": {"error": [400, "forbidden", "not any more", None]}}
    async with FakeServer(subscribed, channels) as server, rtclient.connect(server.url) as rt:
        async with rt.channel.subscribe("c") as messages:
            server.peer.cut()
            with pytest.raises(rtclient.Forbidden, match="not any more"):
                await anext(messages)
        assert server.hellos[1]["positions"] == {"c": ["e", 7]}


async def test_many_readers_of_a_channel_are_one_subscription():
    def answer(peer, request):
        subscribed = {"epoch": "e", "offset": 0, "recovered": False, "messages": []}
        peer.reply(request, subscribed if request[2] == "channel.subscribe" else {})

    async with FakeServer(answer) as server, rtclient.connect(server.url) as rt:
        readers = [rt.channel.subscribe("c") for _ in range(5)]
        await asyncio.gather(*(reader.__aenter__() for reader in readers))
        server.peer.push("message", {"channel": "c", "offset": 1, "data": "x", "at": 0})
        server.peer.push("message", {"channel": "elsewhere", "offset": 1, "data": "x", "at": 0})
        server.peer.push("something.new", {"a": 1})
        assert [(await anext(reader)).data for reader in readers] == ["x"] * 5
        for reader in readers[:4]:
            await reader.__aexit__(None, None, None)
        assert await rt.call("ping") == {}
        await readers[4].__aexit__(None, None, None)
        await until(lambda: server.requests[-1][2] == "channel.unsubscribe")
        methods = [request[2] for request in server.requests]
        assert methods == ["channel.subscribe", "ping", "channel.unsubscribe"]


async def test_giving_up_while_entering_leaves_nothing_behind():
    async with FakeServer(lambda peer, request: None) as server:
        async with rtclient.connect(server.url) as rt:
            entering = asyncio.create_task(rt.channel.subscribe("c").__aenter__())
            await until(lambda: server.requests)
            entering.cancel()
            await until(lambda: len(server.requests) == 2)
            assert server.requests[1][2] == "channel.unsubscribe"
            for request in server.requests:
                server.peer.reply(request, {"epoch": "e", "offset": 0, "messages": []})
        assert rt._link.feeds.positions() == {}


async def test_a_page_that_is_refused_for_now_is_asked_for_again(monkeypatch):
    monkeypatch.setattr(subscription_module, "_RETRY_S", 0.01)
    refusals = [[300, "overloaded", "later", None]] * 2
    history = {"epoch": "e", "offset": 3, "next": None}
    history["messages"] = [{"offset": n, "data": n, "at": 0} for n in (2, 3)]

    def answer(peer, request):
        if request[2] == "channel.subscribe":
            peer.reply(request, {"epoch": "e", "offset": 0, "recovered": False, "messages": []})
            for n in (1, 2, 3):
                peer.push("message", {"channel": "c", "offset": n, "data": n, "at": 0})
        elif refusals:
            peer.send([1, request[1], refusals.pop(), None])
        else:
            peer.reply(request, history)

    async with FakeServer(answer) as server, rtclient.connect(server.url) as rt:
        async with rt.channel.subscribe("c", buffer=1) as messages:
            assert await offsets(messages, 3) == [1, 2, 3]
        async with rt.channel.subscribe("c", buffer=1) as messages:
            refusals.append([400, "forbidden", "never", None])
            assert await offsets(messages, 1) == [1]
            with pytest.raises(rtclient.Forbidden):
                await anext(messages)
