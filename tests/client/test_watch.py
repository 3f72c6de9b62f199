"""Watches: whole states, the newest there is, over every transport and restarts of the server."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rtclient
import rtclient.sync
from rtclient import BoardState, CounterState, UserPresence
from rtclient.results import Entry
from rtclient.states import applied, watch_name
from tests.client.fake import FakeServer

MEMBERS = st.sampled_from("abcdefgh")


def entries(*members):
    return [{"rank": n, "member": m, "score": 100 - n} for n, m in enumerate(members, 1)]


@pytest.fixture(params=["url", "ws_url"])
def url(real, request):
    return getattr(real, request.param)


async def state(watch):
    return await asyncio.wait_for(anext(watch), 10)


async def until_state(watch, expected):
    """States in between may be skipped."""
    while (found := await state(watch)) != expected:
        pass
    return found


# --- differences ---


@given(
    st.lists(MEMBERS, unique=True, max_size=5),
    st.lists(MEMBERS, unique=True, max_size=5),
)
def test_a_difference_leads_from_one_state_to_the_next(before, after):
    old = {"full": True, "entries": entries(*before), "count": 9}
    new = {"full": True, "entries": entries(*after), "count": 8}
    change = {
        "enter": [entry for entry in new["entries"] if entry["member"] not in before],
        "move": [entry for entry in new["entries"] if entry["member"] in before],
        "leave": [member for member in before if member not in after],
        "count": 8,
    }
    copy = {**old, "entries": list(old["entries"])}
    assert applied(old, change) == new
    assert old == copy
    assert applied(old, new) is new


def test_names_inside_are_encoded():
    assert watch_name("board", "a:b", "around", "50%") == "$board:a%3Ab:around:50%25"


# --- with the server in one's hands ---


async def test_differences_are_applied_once_for_all_readers_and_slow_ones_skip():
    def answer(peer, request):
        full = {"full": True, "entries": entries("a", "b"), "count": 2}
        subscribed = {"class": "latest", "epoch": "w1", "offset": 7, "recovered": False}
        if request[2] == "channel.subscribe":
            peer.reply(request, {**subscribed, "messages": [], "state": full})
        else:
            peer.reply(request, {})

    async with FakeServer(answer) as server, rtclient.connect(server.url) as rt:
        channel = "$board:x:top:2"
        async with (
            rt.board.watch_top("x", 2) as first,
            rt.board.watch_top("x", 2) as second,
            rt.channel.subscribe(channel) as raw,
        ):
            assert first.channel == channel
            begin = BoardState([Entry(1, "a", 99, None), Entry(2, "b", 98, None)], 2)
            assert await state(first) == await state(second) == begin
            for offset, member in [(8, "c"), (9, "d")]:
                change = {"enter": entries(member), "move": [], "leave": ["b"], "count": offset}
                change["enter"][0]["rank"] = 2
                change["leave"] = [{"c": "b", "d": "c"}[member]]
                server.peer.push(
                    "message", {"channel": channel, "offset": offset, "data": change, "at": 0}
                )
            await rt.call("ping")
            for watch in (first, second):
                newest = await state(watch)
                assert [entry.member for entry in newest.entries] == ["a", "d"]
                assert newest.count == 9
            message = await anext(raw)
            assert (message.offset, message.data["count"], raw.buffered) == (9, 9, 0)
            assert [request[2] for request in server.requests].count("channel.subscribe") == 1

            resumed = {"full": True, "entries": [], "count": 0}
            server.channels[channel] = {
                "class": "latest",
                "epoch": "w2",
                "offset": 1,
                "recovered": False,
                "messages": [],
                "state": resumed,
            }
            server.peer.cut()
            assert await state(first) == BoardState([], 0)
            server.peer.push("message", {"channel": channel, "offset": 1, "data": {}, "at": 0})
            again = {"full": True, "entries": entries("z"), "count": 1}
            server.peer.push("message", {"channel": channel, "offset": 2, "data": again, "at": 0})
            assert (await until_state(first, BoardState([Entry(1, "z", 99, None)], 1))).count == 1


async def test_presence_is_a_typed_state():
    told = {"full": True, "user": "ann", "status": "away", "note": None, "devices": 2}

    def answer(peer, request):
        peer.reply(
            request,
            {
                "class": "latest",
                "epoch": "w",
                "offset": 1,
                "recovered": False,
                "messages": [],
                "state": {**told, "idle": True, "last_seen": 9},
            },
        )

    async with FakeServer(answer) as server, rtclient.connect(server.url) as rt:
        async with rt.presence.watch("ann:1") as watch:
            assert await state(watch) == UserPresence("ann", "away", None, 2, True, 9)
        assert server.requests[0][3] == ["$presence:ann%3A1"]


# --- with the real one ---


async def test_a_counter_is_watched(url):
    name = f"a:b%{url[:2]}"
    async with rtclient.connect(url) as rt, rt.counter.watch(name) as watch:
        assert await state(watch) == CounterState(0)
        await rt.counter.add(name, 5)
        assert await state(watch) == CounterState(5)
        for _ in range(50):
            await rt.counter.add(name, 1)
        await until_state(watch, CounterState(55))


async def test_a_board_is_watched(url):
    name = f"board:{url[:2]}"
    async with rtclient.connect(url) as rt:
        await rt.board.submit_many(name, [[f"m{n}", n] for n in range(20)])
        async with (
            rt.board.watch_top(name, 3) as top,
            rt.board.watch_around(name, "m10", 1) as around,
        ):
            assert [entry.member for entry in (await state(top)).entries] == ["m19", "m18", "m17"]
            near = await state(around)
            assert [entry.member for entry in near.entries] == ["m11", "m10", "m9"]
            assert near.count == 20
            await rt.board.submit(name, "m10", 100)
            newest = await state(top)
            assert [entry.member for entry in newest.entries] == ["m10", "m19", "m18"]
            assert newest.entries[0] == Entry(1, "m10", 100, None)
            assert [entry.rank for entry in (await state(around)).entries] == [1, 2]


async def test_what_cannot_be_watched_is_refused_where_it_is_entered(url):
    async with rtclient.connect(url) as rt:
        with pytest.raises(rtclient.Error):
            async with rt.board.watch_top("no such board", 0):
                pass


def test_the_blocking_client_watches_too(url):
    name = f"sync:{url[:2]}"
    with rtclient.sync.connect(url) as rt, rt.counter.watch(name) as watch:
        assert watch.channel == f"$counter:sync%3A{url[:2]}"
        assert next(watch) == CounterState(0)
        with pytest.raises(rtclient.Timeout):
            watch.next(0.01)
        adding = threading.Timer(0.05, rt.counter.add, (name, 3))
        adding.start()
        for found in watch:
            assert found == CounterState(3)
            break
        adding.join()
        with rt.board.watch_top(f"b:{name}") as top:
            assert top.next(5) == BoardState([], 0)
            rt.board.submit(f"b:{name}", "m", 1)
            assert top.next(5).count == 1


async def test_a_watch_survives_a_restart(real):
    for url in (real.url, real.ws_url):
        async with rtclient.connect(url) as rt, rt.counter.watch("x") as watch:
            before = (await state(watch)).value
            await rt.counter.add("x")
            await until_state(watch, CounterState(before + 1))
            await asyncio.to_thread(real.restart)
            assert await state(watch) == CounterState(before + 1)
            await rt.counter.add("x")
            await until_state(watch, CounterState(before + 2))


async def test_a_user_is_watched_and_a_channel_tells_who_comes(real, url):
    room = f"here:{url[:2]}"
    real.advance(60_000)  # after a start nobody is told of joins for a while
    async with (
        rtclient.connect(url, user=f"bob{url[:2]}") as bob,
        bob.channel.subscribe(room, presence=True) as messages,
        bob.presence.watch("ann") as watch,
    ):
        assert messages.count == 1
        assert (await state(watch)).devices == 0
        async with rtclient.connect(url, user="ann") as ann:
            async with ann.channel.subscribe(room):
                join = await asyncio.wait_for(anext(messages), 10)
                assert join == rtclient.Join(room, ("ann",), 2)
                assert messages.count == 2
            while (found := await state(watch)).devices != 1:
                pass
            assert found.user == "ann"
            await ann.presence.set("away", "lunch")
            while (found := await state(watch)).status != "away":
                pass
            assert found.note == "lunch"
