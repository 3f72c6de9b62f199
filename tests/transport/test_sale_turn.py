"""Sales and the turn: expiry and confirm in one turn, many holds due at once, replies that wait."""

from __future__ import annotations

import asyncio

import msgpack
import pytest

from rtserver.limits import Limits
from tests.transport.rig import Rig, request, say
from tests.world import World

HOLD_MS = 10_000


@pytest.fixture
async def rig():
    rig = Rig()
    await rig.settle()
    return rig


class Shop:
    """A client that makes sales and asks for things, each call with the next id."""

    def __init__(self, rig):
        self.rig = rig
        self.transport = rig.connect()
        self.last_id = 0
        self.replies = {}

    def request(self, method, *params, **options):
        self.last_id += 1
        return request(self.last_id, method, *params, **options)

    def say(self, *requests):
        say(self.transport, *requests)

    def heard(self):
        """What was answered since: {id: result or name of the error}."""
        found = {}
        for kind, *rest in self.transport.frames():
            if kind == 1:
                request_id, error, result = rest
                found[request_id] = result if error is None else error[1]
        self.replies |= found
        return found

    async def ask(self, method, *params, **options):
        """One call, synced."""
        self.say(self.request(method, *params, **options))
        await self.rig.settle()
        self.rig.sync()
        await self.rig.settle()
        self.heard()
        return self.replies[self.last_id]

    async def open(self, stock=5, **terms):
        items = {"a": stock}
        await self.ask("sale.create", "s", items, terms.get("per_user", 0), HOLD_MS)

    async def hold(self, user, count=1):
        return (await self.ask("sale.reserve", "s", user, {"a": count}))["hold"]

    async def balance(self):
        return (await self.ask("sale.status", "s"))["items"]["a"]


@pytest.fixture
async def shop(rig):
    shop = Shop(rig)
    await shop.open()
    return shop


def appended(rig):
    """The records of each block since the last call."""
    found = [records for kind, records in rig.events if kind == "append"]
    rig.events.clear()
    return found


# --- expiry and confirm in one turn ---


async def test_at_its_deadline_a_hold_expires_before_the_confirm_of_that_turn(rig, shop):
    hold = await shop.hold("ann")
    rig.clock.advance(HOLD_MS)
    appended(rig)
    assert await shop.ask("sale.confirm", hold) == "expired"
    assert appended(rig) == [["timers.fire"]]
    assert (await shop.ask("sale.get", hold))["state"] == "expired"
    assert await shop.balance() == {"stock": 5, "free": 5, "held": 0, "sold": 0}


async def test_a_moment_before_it_is_sold_and_does_not_expire_afterwards(rig, shop):
    hold = await shop.hold("ann")
    rig.clock.advance(HOLD_MS - 1)
    assert (await shop.ask("sale.confirm", hold))["already"] is False
    rig.clock.advance(1)
    assert (await shop.ask("sale.get", hold))["state"] == "sold"
    rig.clock.advance(10 * HOLD_MS)
    assert await shop.balance() == {"stock": 5, "free": 4, "held": 0, "sold": 1}


async def test_in_the_turn_of_its_expiry_it_can_be_taken_again(rig, shop):
    hold = await shop.hold("ann")
    rig.clock.advance(HOLD_MS)
    appended(rig)
    assert (await shop.ask("sale.confirm", hold, None, None, "retake"))["items"] == {"a": 1}
    assert appended(rig) == [["timers.fire", "sale.confirm"]]
    assert await shop.balance() == {"stock": 5, "free": 4, "held": 0, "sold": 1}


async def test_what_expires_is_there_for_others_in_the_same_turn(rig, shop):
    hold = await shop.hold("ann", 5)
    rig.clock.advance(HOLD_MS)
    appended(rig)
    shop.say(
        shop.request("sale.reserve", "s", "bob", {"a": 5}),
        shop.request("sale.confirm", hold, None, None, "retake"),
        shop.request("sale.confirm", hold),
    )
    await rig.settle()
    assert list(shop.heard().values()) == ["sold_out", "expired"]
    rig.sync()
    await rig.settle()
    (taken,) = shop.heard().values()
    assert taken["items"] == {"a": 5}
    assert appended(rig) == [["timers.fire", "sale.reserve"]]


async def test_time_that_moves_between_two_requests_moves_them_into_two_turns(rig, shop):
    """A confirm before the leap, one behind it, and an expiry between them."""
    one, other = await shop.hold("ann"), await shop.hold("bob")
    appended(rig)
    rig.dispatcher.ctx.host.advance = advance(rig)
    shop.say(
        shop.request("sale.confirm", one),
        shop.request("server.advance", HOLD_MS),
        shop.request("sale.confirm", other),
        shop.request("sale.confirm", one),
    )
    await rig.settle()
    rig.sync()
    await rig.settle()
    first, _, late, again = [told for _, told in sorted(shop.heard().items())]
    assert first["already"] is False
    assert late == "expired"
    assert again["already"] is True
    assert appended(rig) == [["sale.confirm"], ["timers.fire"]]


def advance(rig):
    """As host.py does it."""

    def leap(ms):
        rig.clock.advance(ms)
        rig.turn.cut()
        return {"jumped_ms": ms, "now": rig.clock.now_ms()}

    return leap


# --- many at once ---


async def test_ten_thousand_holds_due_at_once_are_spread_over_turns():
    count = 10_000
    rig = Rig(Limits(turn_ms_max=1_000))  # the machine may be slow; slices do not depend on it
    await rig.settle()
    shop = Shop(rig)
    await shop.open(stock=count)
    first = await shop.hold("first")
    for start in range(1, count, 500):
        shop.say(
            *[
                shop.request("sale.reserve", "s", f"u{n}", {"a": 1}, ack="logged")
                for n in range(start, min(count, start + 500))
            ]
        )
        await rig.settle()
    holds = list(shop.heard().values())
    last = holds[-1]["hold"]
    sale = rig.store.sales.find("s")
    assert sale.book.held == count
    rig.clock.advance(HOLD_MS)
    turns = await expiring(rig, shop, sale, last)
    assert sale.book.held == 0
    assert sale.book.free == count
    assert max(turns) <= 400
    assert len(turns) >= count // 400
    assert await shop.ask("sale.confirm", first) == "expired"
    assert (await shop.ask("sale.audit", "s"))["ok"]


async def expiring(rig, shop, sale, last):
    """How many holds each turn ended. Others are served meanwhile, and a hold that is due and has
    not had its turn yet is expired all the same."""
    turns = []
    served = 0
    while sale.book.held:
        before = sale.book.held
        if before > 1_000:
            shop.say(shop.request("sale.confirm", last), shop.request("server.ping"))
        else:
            rig.turn.open()
        while rig.turn.is_open:
            await asyncio.sleep(0)
        if before > 1_000:
            expired, pong = shop.heard().values()
            assert (expired, type(pong)) == ("expired", dict), (expired, pong)
            served += 1
        turns.append(before - sale.book.held)
    assert served > 10
    return turns


# --- replies and the sync ---


async def test_a_confirm_is_answered_when_it_is_synced(rig, shop):
    hold = await shop.hold("ann")
    shop.say(shop.request("sale.confirm", hold, "r"))
    await rig.settle()
    assert shop.heard() == {}
    assert rig.log.sync_requests
    assert rig.store.sales.find("s").book.sold == 1
    rig.sync()
    await rig.settle()
    (told,) = shop.heard().values()
    assert told["order"] == "o" + hold[1:]


async def test_logged_ones_do_not_wait_for_it(rig, shop):
    one, other = await shop.hold("ann"), await shop.hold("bob")
    shop.say(
        shop.request("sale.confirm", one),
        shop.request("sale.confirm", other, ack="logged"),
        shop.request("sale.cancel", other, ack="logged"),
        shop.request("sale.status", "s"),
    )
    await rig.settle()
    sold, refused, status = shop.heard().values()
    assert sold["order"] == "o" + other[1:]
    assert refused == "already_confirmed"
    assert status["total"]["sold"] == 2
    rig.sync()
    await rig.settle()
    (told,) = shop.heard().values()
    assert told["order"] == "o" + one[1:]


async def test_a_second_answer_waits_for_the_first_ones_sync(rig, shop):
    """Whoever asks again, with the key or without it, hears of nothing that may be lost yet."""
    hold = await shop.hold("ann")
    confirm = ("sale.confirm", hold, "r")
    shop.say(
        shop.request(*confirm, idempotency_key="k"),
        shop.request(*confirm, idempotency_key="k", ack="logged"),
        shop.request(*confirm),
    )
    await rig.settle()
    assert shop.heard() == {}
    rig.sync()
    await rig.settle()
    assert [told["already"] for told in shop.heard().values()] == [False, False, True]


# --- a full disk ---


async def test_on_a_full_disk_nothing_moves_and_a_due_hold_is_expired_all_the_same(rig, shop):
    hold = await shop.hold("ann")
    rig.log.room, rig.log.full = 0, True
    assert await shop.ask("sale.reserve", "s", "bob", {"a": 1}) == "disk_full"
    assert await shop.ask("sale.confirm", hold) == "disk_full"
    rig.clock.advance(HOLD_MS)
    assert (await shop.ask("sale.get", hold))["state"] == "expired"
    assert await shop.balance() == {"stock": 5, "free": 4, "held": 1, "sold": 0}
    rig.log.room, rig.log.full = 1 << 30, False
    assert await shop.ask("sale.confirm", hold) == "expired"
    assert await shop.balance() == {"stock": 5, "free": 5, "held": 0, "sold": 0}


def test_sales_that_fall_due_together_share_what_a_turn_may_cost():
    world = World()
    for number in range(30):
        world.call("sale.create", f"s{number}", {"a": 100}, 0, 1_000)
        for _ in range(50):
            world.call("sale.reserve", f"s{number}", "ann", {"a": 1})
    world.now += 1_000
    turns = 0
    while any(sale.book.held for sale in world.store.sales.all()):
        before = sum(len(sale.ledger) for sale in world.store.sales.all())
        world.open_turn()
        world.end_turn()
        turns += 1
        assert sum(len(sale.ledger) for sale in world.store.sales.all()) - before <= 600
        assert turns < 20
    assert turns > 2
    world.assert_same()


# --- notifications ---


@pytest.mark.parametrize("watched", ["$sale:s", "$sale:s:user:ann", "$sale:s:ledger"])
async def test_what_a_notification_did_is_shown_when_it_is_synced(rig, shop, watched):
    """Nobody waits for its reply, so only the pushes do."""
    watcher = Shop(rig)
    await watcher.ask("channel.subscribe", watched)
    body = msgpack.packb([2, "sale.reserve", ["s", "ann", {"a": 1}]])
    shop.say(len(body).to_bytes(4, "big") + body)
    await rig.settle()
    assert rig.store.sales.get("s").book.held == 1
    await asyncio.sleep(0.3)
    rig.turn.open()
    await rig.settle()
    assert watcher.transport.frames() == []
    rig.sync()
    await rig.settle()
    ((kind, method, params),) = watcher.transport.frames()
    assert (kind, method, params["channel"]) == (2, "message", watched)
    assert shop.heard() == {}
