"""What is told of sales: coarse where it is large, seldom where it matters little, and at once to
whoever is let in."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtserver.limits import Limits
from rtserver.session.sale_subjects import coarse, place_channel
from rtserver.wire.names import encode_part
from tests.sales import Shop
from tests.world import Peer, Refused, World

QUEUE = {"rate_per_s": 1_000, "active_max": 2, "pass_ms": 60_000, "grace_ms": 10_000}
NO_UNITS = {"stock": 0, "free": 0, "held": 0, "sold": 0}


class Watcher:
    """One who watches one thing and applies what is told, as clients do."""

    def __init__(self, world, name):
        self.world = world
        self.peer = Peer()
        self.connection = world.connect(self.peer)
        self.told = []
        self.state = world.call_on(self.connection, self.peer, "channel.subscribe", name)["state"]

    def take(self):
        """The pushes since the last call."""
        found = [frame[2]["data"] for frame in self.peer.take() if frame[1] == "message"]
        for data in found:
            self.state = data if data.get("full") else applied(self.state, data)
        self.told += found
        return found


def applied(state, change):
    items = {**state["items"], **change.get("items", {})}
    return {**state, **change, "items": items}


def place(user):
    return place_channel("s", user)


def join(shop, *users):
    for user in users:
        shop.ask("sale.join", name="s", user=user)


def crowd(count, **queue):
    """A sale in which so many wait, and nobody was let in; users are u1, u2, ... in this order."""
    shop = Shop(queue={**QUEUE, **queue})
    shop.say("pause")
    join(shop, *(f"u{number}" for number in range(1, count + 1)))
    shop.world.advance(1_000)
    return shop


# --- the sale ---


def test_the_whole_state_of_a_sale():
    shop = Shop(queue=QUEUE, opens_in=1_000)
    join(shop, "ann", "bob", "cid")
    watcher = Watcher(shop.world, "$sale:s")
    status = shop.say("status")
    told = ("state", "total", "items", "opens_at", "closes_at", "seed_sha256")
    assert watcher.state == {
        "full": True,
        **{field: status[field] for field in told},
        "waiting": 3,
        "active": 0,
        "seed": None,
    }
    shop.world.advance(1_000)
    shop.world.advance(1_000)
    watcher.take()
    assert watcher.state["state"] == "open"
    assert (watcher.state["waiting"], watcher.state["active"]) == (1, 2)
    assert len(watcher.state["seed"]) == 64


def test_a_sale_that_does_not_exist_says_so_and_may_come():
    world = World()
    watcher = Watcher(world, "$sale:s")
    place_watcher = Watcher(world, place("ann"))
    assert watcher.state["state"] == place_watcher.state["state"] == "none"
    assert (watcher.state["total"], watcher.state["items"]) == (NO_UNITS, {})
    shop = Shop(world)
    world.advance(1_000)
    watcher.take()
    place_watcher.take()
    assert watcher.state["items"] == shop.balances()
    assert place_watcher.state["state"] == "admitted"
    shop.say("close")
    shop.say("delete")
    world.advance(1_000)
    assert watcher.take()[-1]["state"] == place_watcher.take()[-1]["state"] == "none"


def test_only_what_changed_is_told():
    shop = Shop()
    watcher = Watcher(shop.world, "$sale:s")
    shop.say("reserve items=a:2")
    shop.world.advance(250)
    assert watcher.take() == [
        {
            "total": {"stock": 19, "free": 17, "held": 2, "sold": 0},
            "items": {"a": {"stock": 10, "free": 8, "held": 2, "sold": 0}},
        }
    ]
    shop.say("pause")
    shop.world.advance(250)
    assert watcher.take() == [{"state": "paused"}]


def test_the_items_of_a_large_sale_are_not_told_one_by_one():
    shop = Shop(items={f"i{number}": 1 for number in range(100)})
    watcher = Watcher(shop.world, "$sale:s")
    assert len(watcher.state["items"]) == 100
    shop.ask("sale.restock", name="s", items={"more": 5})
    shop.world.advance(250)
    (told,) = watcher.take()
    assert told["full"]
    assert told["items"] == {}
    assert told["total"]["stock"] == 105


def test_a_sale_is_told_of_four_times_a_second_however_often_it_changes():
    shop = Shop(items={"a": 1_000}, per_user=0)
    watcher = Watcher(shop.world, "$sale:s")
    for _ in range(100):
        shop.say("reserve items=a:1")
        shop.say("cancel hold=HOLD") if shop.hold else None
        shop.world.advance(10)
    assert 3 <= len(watcher.take()) <= 5


def test_many_who_wait_are_told_in_round_numbers():
    shop = crowd(150)
    watcher = Watcher(shop.world, "$sale:s")
    assert watcher.state["waiting"] == 150
    join(shop, "x1")
    shop.world.advance(250)
    assert watcher.take() == [{"waiting": 160}]
    join(shop, "x2", "x3")
    shop.world.advance(250)
    assert watcher.take() == []


@given(st.integers(0, 10**9))
def test_a_coarse_number_is_never_smaller_and_has_two_digits(number):
    told = coarse(number)
    if number <= 100:
        assert told == number
    else:
        assert number <= told < number * 1.1
        assert int(str(told)[2:]) == 0
        assert coarse(number - 1) <= told == coarse(told)


# --- a place ---


def test_the_whole_state_of_a_place():
    shop = Shop(queue=QUEUE)
    watcher = Watcher(shop.world, place("ann"))
    assert watcher.state == {
        "full": True,
        "state": "none",
        "position": None,
        "eta_ms": None,
        "pass_id": None,
        "pass_expires_at": None,
        "holds": [],
        "orders": [],
    }
    join(shop, "ann")
    assert [state["state"] for state in watcher.take()] == ["admitted"], "at once"
    passed = watcher.state["pass_id"]
    held = shop.ask("sale.reserve", name="s", user="ann", items={"a": 1}, pass_id=passed)
    shop.world.advance(100)
    watcher.take()
    assert watcher.state == {"full": True, **shop.say("place user=ann")}
    assert (watcher.state["state"], watcher.state["holds"]) == ("holding", [held])
    shop.ask("sale.confirm", hold=held["hold"], reference="r")
    shop.world.advance(100)
    watcher.take()
    assert watcher.state["state"] == "done"
    assert watcher.state["orders"][0]["reference"] == "r"


@pytest.mark.parametrize(
    "words",
    ["extend ms=5", "cancel", "confirm", "confirm items=a:1", "reserve items=c:1 hold=HOLD"],
)
def test_what_happens_to_a_hold_is_told(words):
    shop = Shop()
    watcher = Watcher(shop.world, place("ann"))
    shop.hold = shop.say("reserve items=a:2")["hold"]
    shop.world.advance(1_000)
    watcher.take()
    shop.say(words)
    shop.world.advance(100)
    assert watcher.take()
    assert watcher.state == {"full": True, **shop.say("place user=ann")}


def test_a_refund_is_told():
    shop = Shop()
    shop.hold = shop.say("reserve items=a:2")["hold"]
    shop.say("confirm")
    watcher = Watcher(shop.world, place("ann"))
    shop.say("refund items=a:1")
    shop.world.advance(1_000)
    watcher.take()
    assert watcher.state["orders"][0]["refunded"] == {"a": 1}


@pytest.mark.parametrize("queue", [None, {**QUEUE, "active_max": 1}], ids=["plain", "queued"])
def test_the_end_of_a_sale_is_told_to_who_has_nothing(queue):
    shop = Shop(queue=queue, items={"a": 1})
    join(shop, "ann", "bob")
    watcher = Watcher(shop.world, place("bob"))
    assert watcher.state["state"] == ("admitted" if queue is None else "waiting")
    passed = shop.say("place")["pass_id"]
    hold = shop.ask("sale.reserve", name="s", user="ann", items={"a": 1}, pass_id=passed)["hold"]
    shop.ask("sale.confirm", hold=hold)
    shop.world.advance(1_000)
    assert watcher.take()[-1]["state"] == "sold_out"


def test_a_hold_that_expires_is_told_in_that_turn():
    shop = Shop(queue=QUEUE)
    join(shop, "ann")
    watcher = Watcher(shop.world, place("ann"))
    passed = watcher.state["pass_id"]
    shop.ask("sale.reserve", name="s", user="ann", items={"a": 1}, pass_id=passed)
    shop.world.advance(59_990)
    watcher.take()
    assert watcher.state["state"] == "holding"
    shop.world.advance(10)
    assert [state["state"] for state in watcher.take()] == ["none"]


@pytest.mark.parametrize(
    ("position", "told", "rests"), [(100, 100, 20), (143, 150, 1_000), (1_234, 1_300, 10_000)]
)
def test_who_is_far_back_is_told_roughly_and_seldom(position, told, rests):
    shop = crowd(position)
    watcher = Watcher(shop.world, place(f"u{position}"))
    assert watcher.state["position"] == told
    for number in range(1, position // 10):
        shop.ask("sale.leave", name="s", user=f"u{number}")
    waited = 0
    while not watcher.take():
        shop.world.advance(20)
        waited += 20
    assert rests - 20 <= waited <= rests
    asked = shop.ask("sale.place", name="s", user=f"u{position}")
    assert watcher.state["position"] == coarse(asked["position"])


def test_a_time_to_wait_is_told_in_steps():
    shop = Shop(queue={**QUEUE, "active_max": 1})
    join(shop, "ann", "bob", "cid")
    exact = shop.ask("sale.place", name="s", user="cid")["eta_ms"]
    told = Watcher(shop.world, place("cid")).state["eta_ms"]
    assert told >= exact
    assert told == coarse(-(-exact // 1_000)) * 1_000


def test_whoever_is_let_in_is_told_at_once_among_any_number_of_watchers():
    world = World(Limits(watches_per_turn=10, watches_max=1_000))
    shop = Shop(world, queue={**QUEUE, "active_max": 1})
    users = [f"u{number}" for number in range(300)]
    join(shop, *users)
    watchers = {user: Watcher(world, place(user)) for user in users}
    for ahead, user in pairwise(users[:6]):
        world.advance(7)
        shop.ask("sale.leave", name="s", user=ahead)
        assert watchers[user].take()[-1]["state"] == "admitted"


def test_an_admission_waits_for_the_sync_of_what_made_room():
    shop = Shop(queue={**QUEUE, "active_max": 1})
    join(shop, "ann", "bob")
    world = shop.world
    watcher = Watcher(world, place("bob"))
    world.now += 100
    world.open_turn()
    world.send("sale.leave", "s", "ann")
    world.end_turn()
    assert watcher.take() == []
    world.advance(40)
    assert watcher.take() == []
    world.sync()
    assert [state["state"] for state in watcher.take()] == ["admitted"]


def test_names_of_sales_and_users_are_encoded():
    world = World()
    shop = Shop(world, name="a:b%", queue=QUEUE)
    watcher = Watcher(world, f"$sale:{encode_part('a:b%')}:user:{encode_part('%3A:')}")
    shop.ask("sale.join", name="a:b%", user="%3A:")
    assert watcher.take()[-1]["state"] == "admitted"


class Following(RuleBasedStateMachine):
    """Whatever happens: a while later, watchers have what whoever asks is told."""

    @initialize(queue=st.booleans(), scheduled=st.booleans())
    def begin(self, queue, scheduled):
        self.shop = Shop(
            queue={**QUEUE, "pass_ms": 15_000} if queue else None,
            items={"a": 2, "b": 1},
            per_user=3,
            hold_ms=10_000,
            **({"opens_in": 2_000} if scheduled else {}),
        )
        self.world = self.shop.world
        self.users = ["u0", "u1", "u2", "u3"]
        self.ids = []
        self.watchers = {user: Watcher(self.world, place(user)) for user in self.users}
        self.sale = Watcher(self.world, "$sale:s")

    def attempt(self, method, **named):
        try:
            return self.shop.ask(method, **named)
        except Refused:
            return None

    user = st.integers(0, 3)

    @rule(user=user)
    def join(self, user):
        self.attempt("sale.join", name="s", user=self.users[user])

    @rule(user=user)
    def leave(self, user):
        self.attempt("sale.leave", name="s", user=self.users[user])

    @rule(user=user, item=st.sampled_from("ab"), replace=st.booleans())
    def reserve(self, user, item, replace):
        name = self.users[user]
        found = self.shop.ask("sale.place", name="s", user=name)
        hold = found["holds"][0]["hold"] if replace and found["holds"] else None
        pass_id = found["pass_id"]
        named = {"name": "s", "user": name, "items": {item: 1}, "pass_id": pass_id, "hold": hold}
        made = self.attempt("sale.reserve", **named)
        if made:
            self.ids.append(made["hold"])

    @rule(which=st.integers(0, 3), verb=st.sampled_from(["cancel", "confirm", "extend"]))
    def end(self, which, verb):
        if self.ids:
            more = {"ms": 700} if verb == "extend" else {}
            self.attempt(f"sale.{verb}", hold=self.ids[-1 - which % len(self.ids)], **more)

    @rule(which=st.integers(0, 3), restock=st.booleans())
    def refund(self, which, restock):
        if self.ids:
            hold = self.ids[-1 - which % len(self.ids)]
            self.attempt("sale.refund", order="o" + hold[1:], restock=restock)

    @rule(verb=st.sampled_from(["pause", "open", "open"]))
    def staff(self, verb):
        self.attempt(f"sale.{verb}", name="s")

    @rule()
    def restock(self):
        self.attempt("sale.restock", name="s", items={"a": 1})

    @rule()
    def configure(self):
        self.attempt("sale.configure", name="s", per_user=4, queue={**QUEUE, "active_max": 3})

    @rule(ms=st.sampled_from([5, 60, 900, 9_000]))
    def wait(self, ms):
        self.world.advance(ms)

    @rule()
    def look(self):
        """After a second all have rested."""
        self.world.advance(1_100)
        for user, watcher in self.watchers.items():
            watcher.take()
            asked = self.shop.ask("sale.place", name="s", user=user)
            if asked["eta_ms"] is not None:
                asked["eta_ms"] = watcher.state["eta_ms"]  # it follows the time
            assert watcher.state == {"full": True, **asked}, user
        self.sale.take()
        status = self.shop.say("status")
        assert self.sale.state == {
            "full": True,
            **{key: status[key] for key in self.sale.state if key != "full"},
        }

    @rule()
    def look_too(self):
        self.look()

    @rule()
    def look_again(self):
        self.look()

    @invariant()
    def all_are_told_of_one_sale(self):
        for watcher in getattr(self, "watchers", {}).values():
            watcher.take()
            assert watcher.state["full"]


Following.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestFollowing = Following.TestCase


# --- the ledger ---


def test_the_ledger_is_a_channel_that_loses_nothing():
    shop = Shop()
    world = shop.world
    peer = Peer()
    staff = world.connect(peer, "service")
    name = "$sale:s:ledger"
    reply = world.call_on(staff, peer, "channel.subscribe", name, [f"era.{1}", 0])
    assert (reply["class"], reply["recovered"], reply["offset"]) == ("must", True, 2)
    told = [message["data"] for message in reply["messages"]]
    shop.hold = shop.say("reserve items=a:2")["hold"]
    world.advance(20)
    shop.say("confirm reference=r")
    world.advance(20)
    pushes = [frame[2] for frame in peer.take()]
    assert [push["offset"] for push in pushes] == [3, 4]
    assert all(push["channel"] == name for push in pushes)
    told += [push["data"] for push in pushes]
    assert told == shop.steps()
    assert [step["at"] for step in told[2:]] == [push["at"] for push in pushes]
    shop.say("close")
    world.advance(20)
    shop.say("delete")
    world.advance(20)
    assert [frame[1] for frame in peer.take()] == ["message", "unsubscribed"]


def test_only_the_ledger_of_a_sale_that_exists_is_read():
    with pytest.raises(Refused, match="there is no sale 's', so it has no ledger"):
        World().call("channel.subscribe", "$sale:s:ledger")


@pytest.mark.parametrize(
    "name", ["$sale:s:", "$sale:s:user", "$sale:s:user:a:b", "$sale:s:ledger:x"]
)
def test_what_a_sale_does_not_have(name):
    with pytest.raises(Refused, match=r"expected \$sale:<name>, \$sale:<name>:user:<user> or"):
        World().call("channel.subscribe", name)
