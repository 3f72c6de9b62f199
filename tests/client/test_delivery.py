"""Pushes of every kind, classes of channels, full buffers: with the server in one's hands."""

from __future__ import annotations

import asyncio

import pytest

import rtclient
from rtclient import Gap, Join, Leave
from tests.client.fake import FakeServer, until


def reply(kind="must", offset=0, **more):
    return {
        "class": kind,
        "epoch": "" if kind == "transient" else "e",
        "offset": offset,
        "recovered": False,
        "messages": [],
        **more,
    }


class Server(FakeServer):
    """Answers subscriptions with `subscribed`, histories with `history`."""

    def __init__(self, subscribed=None, channels=None):
        super().__init__(self.respond, channels)
        self.subscribed = subscribed or reply()
        self.history = {"messages": [], "epoch": "e", "offset": 0, "next": None}

    def respond(self, peer, request):
        answers = {"channel.subscribe": self.subscribed, "channel.history": self.history}
        peer.reply(request, answers.get(request[2], {}))

    def message(self, offset, data=None, **more):
        numbered = {} if offset is None else {"offset": offset}
        pushed = {"channel": "c", "data": data, "at": 5, **numbered, **more}
        self.peer.push("message", pushed)

    def methods(self):
        return [request[2] for request in self.requests]


def message(offset, data=None, **more):
    return {"offset": offset, "data": data, "at": 0, **more}


async def take(messages, count):
    return [await asyncio.wait_for(anext(messages), 10) for _ in range(count)]


def brief(items):
    """Offsets of messages, (lost, offset) of gaps."""
    return [
        (item.lost, item.position.offset) if isinstance(item, Gap) else item.offset
        for item in items
    ]


# --- classes ---


async def test_only_numbered_channels_have_holes():
    for kind, expected in [("must", [1, (3, 4), 5]), ("latest", [1, 5])]:
        async with (
            Server(reply(kind)) as server,
            rtclient.connect(server.url) as rt,
            rt.channel.subscribe("c") as messages,
        ):
            server.message(1)
            server.message(5)
            assert brief(await take(messages, len(expected))) == expected


async def test_a_latest_channel_begins_with_the_present_values_and_resumes_without_a_gap():
    values = [message(3, "a", key="k"), message(9, "b", key="l")]
    after = reply("latest", 14, recovered=True, messages=[message(14, "c", key="k")])
    async with (
        Server(reply("latest", 9, messages=values), {"c": after}) as server,
        rtclient.connect(server.url) as rt,
        rt.channel.subscribe("c") as messages,
    ):
        assert brief(await take(messages, 2)) == [3, 9]
        server.peer.cut()
        assert brief(await take(messages, 1)) == [14]
        assert messages.recovered
        server.channels["c"] = reply("latest", 30, messages=[message(28)])
        server.peer.cut()
        assert brief(await take(messages, 2)) == [(None, 27), 28]
        assert not messages.recovered


async def test_a_second_reader_of_a_latest_channel_gets_the_present_values_too():
    async with (
        Server(reply("latest", 9, messages=[message(3), message(9)])) as server,
        rtclient.connect(server.url) as rt,
        rt.channel.subscribe("c") as messages,
    ):
        assert brief(await take(messages, 2)) == [3, 9]
        server.history |= {"messages": [message(3), message(9)], "offset": 9}
        async with rt.channel.subscribe("c") as second:
            assert brief(await take(second, 2)) == [3, 9]
            assert not second.recovered
            server.message(12)
            assert brief(await take(second, 1)) == [12]


async def test_a_transient_channel_has_no_offsets_and_an_outage_is_a_gap():
    async with (
        Server(reply("transient"), {"c": reply("transient")}) as server,
        rtclient.connect(server.url) as rt,
        rt.channel.subscribe("c") as messages,
    ):
        for n in range(3):
            server.message(None, n)
        assert [(item.offset, item.data) for item in await take(messages, 3)] == [
            (0, 0),
            (0, 1),
            (0, 2),
        ]
        server.peer.cut()
        (gap,) = await take(messages, 1)
        assert gap.lost is None
        assert "no history" in gap.reason
        assert server.hellos[1]["positions"] == {"c": ["", 0]}
        server.message(None, 3)
        assert [item.data for item in await take(messages, 1)] == [3]


# --- gaps the server tells ---


async def test_gaps_come_where_they_were():
    async with (
        Server() as server,
        rtclient.connect(server.url) as rt,
        rt.channel.subscribe("c") as messages,
    ):
        server.message(1)
        server.peer.push("gap", {"channel": "c", "from": 2, "to": 6, "why": "history"})
        server.message(7)
        server.peer.push("gap", {"channel": "c", "lost": 4, "why": "slow"})
        server.peer.push("gap", {"channel": "elsewhere", "lost": 4, "why": "slow"})
        server.peer.push("gap", {"channel": "c", "lost": None, "why": "new reason"})
        items = await take(messages, 5)
        assert brief(items) == [1, (5, 6), 7, (4, 7), (None, 7)]
        assert "more slowly" in items[3].reason
        assert items[4].reason == "new reason"
        assert messages.position == ("e", 7)


async def test_a_subscription_that_the_server_ends_raises_why():
    async with (
        Server() as server,
        rtclient.connect(server.url) as rt,
        rt.channel.subscribe("c") as messages,
    ):
        server.message(1)
        ended = {"channel": "c", "code": 400, "name": "forbidden", "message": "not any more"}
        server.peer.push("unsubscribed", ended)
        server.message(2)
        assert brief(await take(messages, 1)) == [1]
        with pytest.raises(rtclient.Forbidden, match="not any more"):
            await anext(messages)
        await messages.__aexit__(None, None, None)
        async with rt.channel.subscribe("c"):
            assert server.methods() == ["channel.subscribe"] * 2


# --- presence ---


async def test_joins_and_leaves_are_for_those_who_asked():
    here = reply(presence={"count": 2})
    async with (
        Server(here) as server,
        rtclient.connect(server.url) as rt,
        rt.channel.subscribe("c", presence=True) as present,
        rt.channel.subscribe("c") as plain,
    ):
        assert server.requests[0][3] == ["c", None, True]
        assert (present.count, plain.count) == (2, None)
        server.peer.push("join", {"channel": "c", "users": ["ann", "bob"], "count": 4})
        server.message(1)
        server.peer.push("leave", {"channel": "c", "count": 1_000})
        join, said, leave = await take(present, 3)
        assert join == Join("c", ("ann", "bob"), 4)
        assert said.offset == 1
        assert leave == Leave("c", (), 1_000)
        assert present.count == 1_000
        assert brief(await take(plain, 1)) == [1]


async def test_presence_is_asked_for_again_where_the_session_is_lost():
    async with (
        Server() as server,
        rtclient.connect(server.url) as rt,
        rt.channel.subscribe("c") as plain,
    ):
        server.message(1)
        await take(plain, 1)
        server.subscribed = reply(offset=1, recovered=True, presence={"count": 2})
        async with rt.channel.subscribe("c", presence=True) as present:
            assert server.requests[-1][3] == ["c", ["e", 1], True]
            assert present.count == 2
            server.channels["c"] = reply(offset=1, recovered=True)
            server.says = {"resumed": True}
            server.peer.cut()
            await server.next_peer(2)
            await until(lambda: rt.connected)
            server.subscribed = reply(offset=1, recovered=True, presence={"count": 9})
            server.says = {"resumed": False}
            server.peer.cut()
            await until(lambda: present.count == 9)
            assert server.methods() == ["channel.subscribe"] * 3
            server.message(2)
            assert brief(await take(present, 1)) == brief(await take(plain, 1)) == [2]


async def test_presence_that_is_refused_ends_only_those_who_asked():
    async with (
        Server() as server,
        rtclient.connect(server.url) as rt,
        rt.channel.subscribe("c") as plain,
    ):
        server.answer = lambda peer, request: peer.refuse(request, 400, "forbidden", "not yours")
        with pytest.raises(rtclient.Forbidden, match="not yours"):
            await rt.channel.subscribe("c", presence=True).__aenter__()
        server.message(1)
        assert brief(await take(plain, 1)) == [1]


# --- full buffers ---


async def all_arrived(server, rt):
    """What was pushed has come."""
    await rt.call("ping")


@pytest.mark.parametrize("kind", ["must", "transient"])
async def test_gap_lets_the_oldest_go_and_counts_them(kind):
    async with (
        Server(reply(kind)) as server,
        rtclient.connect(server.url) as rt,
        rt.channel.subscribe("c", buffer=3, overflow="gap") as messages,
    ):
        for n in range(1, 9):
            server.message(None if kind == "transient" else n, n)
        await all_arrived(server, rt)
        assert messages.buffered == 4
        gap, *rest = await take(messages, 4)
        assert gap.lost == 5
        assert "slower" in gap.reason
        assert [item.data for item in rest] == [6, 7, 8]
        if kind == "must":
            assert gap.position == ("e", 5)
            assert messages.position == ("e", 8)
        assert "channel.history" not in server.methods()


async def test_history_without_a_history_is_a_gap():
    async with (
        Server(reply("transient")) as server,
        rtclient.connect(server.url) as rt,
        rt.channel.subscribe("c", buffer=2) as messages,
    ):
        for n in range(5):
            server.message(None, n)
        await all_arrived(server, rt)
        gap, *rest = await take(messages, 3)
        assert gap.lost == 3
        assert [item.data for item in rest] == [3, 4]


async def test_gaps_that_give_way_are_summed_up():
    async with (
        Server() as server,
        rtclient.connect(server.url) as rt,
        rt.channel.subscribe("c", buffer=2, overflow="gap") as messages,
    ):
        server.message(1)
        server.peer.push("gap", {"channel": "c", "from": 2, "to": 4, "why": "history"})
        for n in range(5, 9):
            server.message(n)
        await all_arrived(server, rt)
        assert brief(await take(messages, 3)) == [(6, 6), 7, 8]


async def test_conflate_keeps_the_newest_of_each_key():
    async with (
        Server() as server,
        rtclient.connect(server.url) as rt,
        rt.channel.subscribe("c", buffer=2, overflow="conflate") as messages,
    ):
        for n in range(1, 9):
            server.message(n, n, key="ab"[n % 2])
        await all_arrived(server, rt)
        assert messages.buffered == 2
        assert [(item.key, item.data) for item in await take(messages, 2)] == [("b", 7), ("a", 8)]
        assert messages.position == ("e", 8)
        for n in range(9, 13):
            server.message(n, n, key=str(n))
        await all_arrived(server, rt)
        assert brief(await take(messages, 3)) == [(2, 10), 11, 12]


async def test_error_ends_with_what_is_in_the_buffer():
    async with (
        Server() as server,
        rtclient.connect(server.url) as rt,
        rt.channel.subscribe("c", buffer=2, overflow="error") as messages,
        rt.channel.subscribe("c") as other,
    ):
        for n in range(1, 6):
            server.message(n)
        assert brief(await take(other, 5)) == [1, 2, 3, 4, 5]
        assert brief(await take(messages, 2)) == [1, 2]
        with pytest.raises(rtclient.Overloaded, match="buffer"):
            await anext(messages)


async def test_a_policy_that_does_not_exist_is_refused():
    async with Server() as server, rtclient.connect(server.url) as rt:
        with pytest.raises(ValueError, match="overflow is 'drop'"):
            rt.channel.subscribe("c", overflow="drop")
