"""Every command of the table once through each client, against a real server.

One scenario, written for the blocking client; the asyncio client runs the same through a bridge
that awaits each result. A command that the table gains and nobody calls here fails the last test.
"""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

import rtclient
import rtclient.sync
from rtclient import results, table


class Bridge:
    """A noun of the asyncio client whose methods wait, so that one scenario fits both."""

    def __init__(self, loop, target, called, path=""):
        self._loop, self._target, self._called, self._path = loop, target, called, path

    def __getattr__(self, name):
        value = getattr(self._target, name)
        path = f"{self._path}.{name}".lstrip(".")
        if not callable(value):
            return Bridge(self._loop, value, self._called, path)

        def call(*args, **named):
            self._called.add(path)

            async def one():
                return await value(*args, **named)

            return asyncio.run_coroutine_threadsafe(one(), self._loop).result(20)

        return call


class Recorder:
    """The blocking client, remembering what was called."""

    def __init__(self, target, called, path=""):
        self._target, self._called, self._path = target, called, path

    def __getattr__(self, name):
        value = getattr(self._target, name)
        path = f"{self._path}.{name}".lstrip(".")
        if callable(value):
            self._called.add(path)
            return value
        return Recorder(value, self._called, path)


def counters(rt, who):
    name = f"{who}:likes"
    assert rt.counter.add(name) == 1
    assert rt.counter.add(name, 41, ack="synced", idempotency_key=f"{who}-1") == 42
    assert rt.counter.add(name, 41, ack="synced", idempotency_key=f"{who}-1") == 42
    assert rt.counter.get(name) == 42
    assert rt.counter.set(name, 7, timeout=5) == 7
    assert rt.counter.add_within(name, 5, max=10) == results.Within(7, 0)
    assert rt.counter.add_within(name, 5, max=10, on_limit="clamp") == results.Within(10, 3)
    many = rt.counter.add_many([(name, 1), ("bad name", 1), [f"{who}:b", 5]])
    assert many.values[::2] == [11, 5]
    assert isinstance(many.values[1], rtclient.InvalidParams)
    assert rt.counter.get_many([name, "nobody"]) == results.Values([11, 0])
    page = rt.counter.list(prefix=f"{who}:", limit=1)
    assert page == results.CounterPage([results.CounterItem(f"{who}:b", 5)], f"{who}:b")
    assert rt.counter.list(f"{who}:", page.next).items == [results.CounterItem(name, 11)]
    assert rt.counter.delete(name) == results.Deleted(True)
    with pytest.raises(rtclient.OutOfRange):
        rt.counter.add(f"{who}:b", 2**63 - 1)


def boards(rt, who):
    name = f"{who}:weekly"
    assert rt.board.create(name, mode="last") == results.Created(True)
    with pytest.raises(rtclient.Conflict) as caught:
        rt.board.create(name, "asc")
    assert caught.value.code == 201
    assert rt.board.submit(name, "ann", 310) == results.Submission(310, 1, None, True)
    submitted = rt.board.submit(name, "bob", 400, meta={"team": 1}, mode="best")
    assert submitted == results.Submission(400, 1, None, True)
    many = rt.board.submit_many(name, [("cid", 100), ("dan", "x")])
    assert many.items[0] == results.Submission(100, 3, None, True)
    assert isinstance(many.items[1], rtclient.InvalidParams)
    assert rt.board.rank(name, "bob").rank == 1
    nobody = rt.board.rank(name, "nobody", kind="dense")
    assert dataclasses.astuple(nobody) == (None, None, None, 0)
    bob, ann, cid = rt.board.top(name, 3).entries
    assert bob == results.Entry(1, "bob", 400, {"team": 1})
    assert ann == results.Entry(2, "ann", 310, None)
    assert rt.board.top(name, limit=1, offset=2).entries == [cid]
    assert rt.board.around(name, "ann", 1).entries == [bob, ann, cid]
    assert rt.board.by_score(name, 100, 310) == results.Entries([ann, cid], 2, None)
    assert rt.board.members(name, ["cid", "nobody"]).entries == [cid]
    assert rt.board.count(name) == 3
    assert rt.board.remove(name, ["cid"], ban=True) == results.Removed(1)
    with pytest.raises(rtclient.Banned):
        rt.board.submit(name, "cid", 1)
    assert rt.board.unban(name, ["cid"]) == results.Unbanned(1)
    info = rt.board.info(name)
    assert (info.name, info.order, info.mode, info.count) == (name, "desc", "last", 2)
    assert rt.board.list(f"{who}:") == results.NamePage([name], None)
    assert rt.board.delete(name) == results.Deleted(True)
    with pytest.raises(rtclient.NotFound, match=name):
        rt.board.info(name)


def channels(rt, who):
    name = f"{who}:news"
    first = rt.channel.publish(name, {"n": 1}, key="k")
    assert first.offset == 1
    second, failed = rt.channel.publish_many([(name, b"\x00two"), ("$no", 3)]).items
    assert second == results.Published(2, first.epoch)
    assert isinstance(failed, rtclient.InvalidParams)
    history = rt.channel.history(name, limit=10)
    assert [message.data for message in history.messages] == [{"n": 1}, b"\x00two"]
    assert [message.key for message in history.messages] == ["k", None]
    assert history.messages[0].sender == who
    assert (history.epoch, history.offset, history.next) == (first.epoch, 2, None)
    assert rt.channel.history(name, after=1).messages == history.messages[1:]
    rules = rt.channel.configure(f"{who}-prices", class_="latest", history_count=50)
    assert (rules.class_, rules.history_count, rules.history_ms) == ("latest", 50, 600_000)


def presence(rt, who):
    said = rt.presence.set("away", "lunch")
    assert (said.user, said.status, said.note) == (who, "away", "lunch")
    here, nobody = rt.presence.get([who, f"{who}-2"]).users
    assert here == said
    assert (nobody.devices, nobody.last_seen) == (0, None)
    assert rt.channel.presence(f"{who}:news").count == 0
    with pytest.raises(rtclient.Unauthenticated):
        rt.server.auth("no token")
    assert rt.server.kick(f"{who}-2").ended == 0


HALL = {f"a{n}": {"stock": 1, "zone": "z", "row": "a", "seat": n} for n in (1, 2, 3)}
QUEUE = {"rate_per_s": 100, "active_max": 1, "pass_ms": 60_000}


def sales(rt, who):
    name = f"{who}:show"
    made = rt.sale.create(name, {"shirt": 2, **HALL}, per_user=4, queue=QUEUE)
    assert made.created is True
    assert rt.sale.create(name, {"shirt": 2, **HALL}, 4, queue=QUEUE).created is False
    assert rt.sale.list(f"{who}:") == results.NamePage([name], None)
    assert rt.sale.pause(name) == results.SalePhase("paused")
    with pytest.raises(rtclient.NotOpen) as caught:
        rt.sale.reserve(name, items={"shirt": 1})
    assert caught.value.details["state"] == "paused"
    assert rt.sale.open(name).state == "open"
    assert rt.sale.configure(name, hold_ms=30_000).state == "open"
    with pytest.raises(rtclient.NoPass):
        rt.sale.reserve(name, items={"shirt": 1})
    assert rt.sale.join(name).state in ("waiting", "admitted")
    rt.server.advance(1_000)
    behind = rt.sale.join(name, user="eve")
    assert (behind.state, behind.position) == ("waiting", 1)
    assert rt.sale.leave(name, user="eve") == results.Left(True)
    buys(rt, who, name)
    assert rt.sale.restock(name, {"mug": 5}).items == {"mug": results.Balance(5, 5, 0, 0)}
    assert rt.sale.close(name, release=True).state == "closed"
    steps = rt.sale.ledger(name)
    assert [step.seq for step in steps.items] == list(range(1, len(steps.items) + 1))
    assert steps.items[0].step == "created"
    audit = rt.sale.audit(name)
    assert (audit.ok, audit.steps, audit.problems) == (True, len(steps.items), [])
    assert rt.sale.delete(name) == results.Deleted(True)


def buys(rt, who, name):
    pass_id = rt.sale.place(name).pass_id
    best = rt.sale.best_available(name, count=2)
    assert (len(best.items), best.zone, best.row) == (2, "z", "a")
    seats = rt.sale.reserve(name, best={"count": 2}, pass_id=pass_id)
    assert seats.items == best.items
    assert rt.sale.extend(seats.hold, 5_000).expires_at == seats.expires_at + 5_000
    with pytest.raises(rtclient.SoldOut) as caught:
        rt.sale.reserve(name, items={"shirt": 3}, pass_id=pass_id)
    assert (caught.value.details["final"], caught.value.details["free"]) == (True, 2)
    assert rt.sale.cancel(seats.hold) == results.Cancelled(True, seats.items)
    shirts = rt.sale.reserve(name, items={"shirt": 2}, pass_id=pass_id)
    place = rt.sale.place(name)
    assert (place.state, place.holds, place.orders) == ("holding", [shirts], [])
    sold = rt.sale.confirm(shirts.hold, "pay-1", {"shirt": 1})
    assert sold == results.Confirmed(sold.order, {"shirt": 1}, False)
    assert rt.sale.confirm(shirts.hold, "pay-1").already is True
    with pytest.raises(rtclient.AlreadyConfirmed):
        rt.sale.confirm(shirts.hold, "pay-2")
    [order] = rt.sale.orders(name, user=who).orders
    assert order == results.Order(
        sold.order, "sold", who, {"shirt": 1}, order.at, "pay-1", order.refunded
    )
    assert rt.sale.place(name).orders == [order]
    bought = rt.sale.get(shirts.hold)
    assert (bought.sale, bought.state, bought.order) == (name, "sold", sold.order)
    status = rt.sale.status(name, limit=10)
    assert status.items["shirt"] == results.Balance(2, 1, 0, 1)
    assert status.total == results.Balance(5, 4, 0, 1)
    assert status.refused["sold_out"] == 1
    assert rt.sale.refund(sold.order, reference="back-1").items == {"shirt": 1}
    with pytest.raises(rtclient.AlreadyRefunded):
        rt.sale.refund(sold.order, {"shirt": 1})


def server(rt, who):
    now = rt.server.ping().now
    assert rt.server.advance(1_000) == results.Jumped(1_000, now + 1_000)
    assert rt.server.time().manual is True
    assert rt.server.accept_time().jumped_ms >= 0
    assert rt.server.info()["name"] == "rtserver"
    assert rt.server.stats()["connections"] >= 1
    snapshot = rt.server.snapshot(timeout=60)
    assert snapshot.created is True
    assert rt.call("counter.add", f"{who}:any", delta=3) == 3
    with pytest.raises(rtclient.UnknownMethod, match=r"did you mean counter\.add"):
        rt.call("counter.ad", "x")


SCENARIOS = [counters, boards, sales, channels, presence, server]


@pytest.fixture(scope="module")
def called():
    return {"asyncio": set(), "sync": set()}


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_with_asyncio(real, called, scenario):
    async with rtclient.connect(real.url, user="ann") as rt:
        bridge = Bridge(asyncio.get_running_loop(), rt, called["asyncio"])
        await asyncio.to_thread(scenario, bridge, "ann")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_blocking(real, called, scenario):
    with rtclient.sync.connect(real.url, user="bob") as rt:
        scenario(Recorder(rt, called["sync"]), "bob")


def test_every_command_was_called(called):
    for names in called.values():
        assert not table.TABLE.keys() - names
