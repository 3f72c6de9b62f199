"""Watches: whole states, the newest there is, over every transport and restarts of the server."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rtclient
import rtclient.sync
from rtclient import BoardState, CounterState, SaleState, Step, UserPresence, WholePlace
from rtclient.results import Balance, Entry, Hold, Order
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


def balance(free, held=0, sold=0):
    return {"stock": free + held + sold, "free": free, "held": held, "sold": sold}


SALE = {
    "full": True,
    "state": "open",
    "total": balance(5, 2),
    "waiting": 3,
    "active": 1,
    "items": {"cup": balance(4, 1), "seat": balance(1, 1)},
    "opens_at": 50,
    "closes_at": None,
    "seed_sha256": "5e",
    "seed": "s",
}
WATCHED = {"class": "latest", "epoch": "w", "offset": 1, "recovered": False, "messages": []}


def test_a_difference_of_a_sale_holds_what_changed():
    change = {"waiting": 2, "items": {"seat": balance(0, 2)}}
    after = applied(SALE, change)
    assert after == {**SALE, **change, "items": {"cup": balance(4, 1), "seat": balance(0, 2)}}
    assert applied(after, {"waiting": 1}) == {**after, "waiting": 1}
    assert SALE["items"]["seat"] == balance(1, 1)


async def test_a_sale_is_a_typed_state():
    def answer(peer, request):
        peer.reply(request, {**WATCHED, "state": SALE})

    async with (
        FakeServer(answer) as server,
        rtclient.connect(server.url) as rt,
        rt.sale.watch("a:b") as watch,
    ):
        first = await state(watch)
        assert first == SaleState(
            "open",
            Balance(7, 5, 2, 0),
            3,
            1,
            {"cup": Balance(5, 4, 1, 0), "seat": Balance(2, 1, 1, 0)},
            50,
            None,
            "5e",
            "s",
        )
        change = {"total": balance(4, 3), "items": {"cup": balance(3, 2)}}
        push = {"channel": "$sale:a%3Ab", "offset": 2, "data": change, "at": 0}
        server.peer.push("message", push)
        second = await state(watch)
        assert second.total == Balance(7, 4, 3, 0)
        assert second.items == {**first.items, "cup": Balance(5, 3, 2, 0)}
        assert (second.state, second.waiting) == ("open", 3)


async def test_a_place_is_that_of_the_clients_own_user_unless_it_says_whose():
    hold = {"hold": "h1", "items": {"cup": 2}, "expires_at": 90}
    order = {"order": "o2", "state": "sold", "user": "ann", "items": {"seat": 1}, "at": 5}
    told = {"state": "holding", "position": None, "eta_ms": None, "pass_id": "p"}
    told |= {"pass_expires_at": 70, "holds": [hold], "orders": [{**order, "refunded": {}}]}

    def answer(peer, request):
        peer.reply(request, {**WATCHED, "state": {"full": True, **told}})

    async with FakeServer(answer) as server:
        server.says = {"user": "ann"}
        async with rtclient.connect(server.url, user="ann") as rt:
            assert rt.user == "ann"
            async with rt.sale.watch_place("a%b") as watch:
                assert await state(watch) == WholePlace(
                    "holding",
                    None,
                    None,
                    "p",
                    70,
                    [Hold("h1", {"cup": 2}, 90)],
                    [Order("o2", "sold", "ann", {"seat": 1}, 5, None, {})],
                )
            async with rt.sale.watch_place("x", "bob:1"):
                pass
        asked = [one[3][0] for one in server.requests if one[2] == "channel.subscribe"]
        assert asked == ["$sale:a%25b:user:ann", "$sale:x:user:bob%3A1"]
    async with FakeServer(answer) as server, rtclient.connect(server.url) as rt:
        with pytest.raises(ValueError, match="needs a user"):
            rt.sale.watch_place("x")


async def test_a_ledger_is_followed_step_by_step():
    def step(seq):
        row = {"seq": seq, "at": 7, "step": "reserved", "caller": "shop", "user": "ann"}
        data = {**row, "hold": "h1", "items": {"cup": 1}, "reference": None}
        return {"channel": "$sale:x:ledger", "offset": seq, "data": data, "at": 7}

    def answer(peer, request):
        peer.reply(request, {**WATCHED, "class": "must", "epoch": "e", "offset": 4})

    async with (
        FakeServer(answer) as server,
        rtclient.connect(server.url) as rt,
        rt.sale.follow_ledger("x") as steps,
    ):
        assert steps.position == ("e", 4)
        server.peer.push("message", step(5))
        gap = {"channel": "$sale:x:ledger", "why": "slow", "from": 6, "to": 6}
        server.peer.push("gap", gap)
        server.peer.push("message", step(7))
        first = await asyncio.wait_for(anext(steps), 10)
        assert first == Step(5, 7, "reserved", "shop", "ann", "h1", {"cup": 1}, None)
        assert steps.position == ("e", 5)
        assert isinstance(await anext(steps), rtclient.Gap)
        assert (await anext(steps)).seq == 7
        async with rt.sale.follow_ledger("x") as others:
            assert others.position == ("e", 7)
            server.peer.push("message", step(8))
            assert (await asyncio.wait_for(anext(others), 10)).seq == 8
        assert [request[2] for request in server.requests].count("channel.history") == 0


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


async def test_a_sale_and_a_place_in_it_are_watched(url):
    name = f"show:{url[:2]}"
    async with rtclient.connect(url, user="ann") as rt:
        await rt.sale.create(name, {"cup": 3, "mug": 1}, per_user=2)
        async with rt.sale.watch(name) as sales, rt.sale.watch_place(name) as places:
            left = {"cup": Balance(3, 3, 0, 0), "mug": Balance(1, 1, 0, 0)}
            assert (await state(sales)).items == left
            assert (await state(places)).holds == []
            hold = await rt.sale.reserve(name, items={"cup": 2})
            while (now := await state(sales)).total.held != 2:
                pass
            assert now.items == {**left, "cup": Balance(3, 1, 2, 0)}
            while not (place := await state(places)).holds:
                pass
            assert place.holds == [hold]
            sold = await rt.sale.confirm(hold.hold, "pay-1")
            while not (place := await state(places)).orders:
                pass
            assert (place.orders[0].order, place.holds) == (sold.order, [])
        await rt.sale.close(name)


async def test_a_ledger_is_followed_by_a_slow_reader_and_over_a_restart(real, url):
    name = f"kept:{url[:2]}"
    async with rtclient.connect(url, user="ann") as rt:
        await rt.sale.create(name, {"cup": 3})
        async with rt.sale.follow_ledger(name, buffer=3) as steps:
            known = (await rt.sale.ledger(name)).items
            assert known[-1].seq == steps.position.offset
            hold = (await rt.sale.reserve(name, items={"cup": 1})).hold
            for _ in range(20):
                await rt.sale.extend(hold, 1)
            for _ in range(10):
                known.append(await asyncio.wait_for(anext(steps), 10))
            await asyncio.to_thread(real.restart)
            await rt.sale.cancel(hold)
            while known[-1].step != "cancelled":
                known.append(await asyncio.wait_for(anext(steps), 10))
            assert (await rt.sale.ledger(name)).items == known
            place = steps.position
        async with rt.sale.follow_ledger(name, since=(place.epoch, place.offset - 1)) as steps:
            assert steps.recovered
            assert await asyncio.wait_for(anext(steps), 10) == known[-1]


def test_the_blocking_client_follows_sales_too(real):
    with rtclient.sync.connect(real.url, user="ann") as rt:
        rt.sale.create("blocking", {"cup": 3})
        with (
            rt.sale.watch("blocking") as sales,
            rt.sale.watch_place("blocking") as places,
            rt.sale.follow_ledger("blocking") as steps,
        ):
            assert sales.next(10).total.free == 3
            assert places.channel == "$sale:blocking:user:ann"
            hold = rt.sale.reserve("blocking", items={"cup": 1})
            step = steps.next(10)
            assert (step.step, step.user, step.items) == ("reserved", "ann", {"cup": 1})
            while not (place := places.next(10)).holds:
                pass
            assert place.holds == [hold]
