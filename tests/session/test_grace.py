"""Places that hang on connections: kept for a while after the last sign of life, then given up."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtserver.session.grace import Grace
from rtserver.session.people import People
from tests.sales import Shop
from tests.transport.rig import Rig, request, say
from tests.world import Peer

GRACE_MS = 10_000
QUEUE = {"rate_per_s": 1_000, "active_max": 1, "pass_ms": 10**9, "grace_ms": GRACE_MS}


class Door:
    """A sale in which everybody waits, and people who come and go."""

    def __init__(self, **queue):
        self.shop = Shop(queue={**QUEUE, **queue})
        self.world = self.shop.world
        self.shop.say("pause")

    def connect(self, user, *, pushes=True):
        peer = Peer()
        connection = self.world.connect(peer, "user", None)
        connection.user = user
        connection.pushes = pushes
        self.world.presence.identified(connection)
        return connection, peer

    def join(self, user):
        """On a connection that stays."""
        connection, peer = self.connect(user)
        self.world.call_on(connection, peer, "sale.join", "s")
        return connection

    def call(self, user, method="sale.join"):
        """Over HTTP."""
        connection, peer = self.connect(user, pushes=False)
        answer = self.world.call_on(connection, peer, method, "s")
        self.world.disconnect(connection)
        return answer

    def leave(self, *connections):
        self.world.open_turn()
        for connection in connections:
            self.world.disconnect(connection)
        self.world.end_turn()

    def waits(self, user):
        return self.world.store.sales.find("s").room.is_tied(user)

    def restart(self):
        """All connections are gone, and nobody knows of them."""
        world = self.world
        last_seen, limits = world.store.last_seen, world.limits
        world.presence.people = People(last_seen, limits)
        world.presence.grace = Grace(world.store.sales, world.presence.people, limits)
        world.presence.grace.restarted(world.now)
        world.advance(0)


def abandoned(shop):
    return [step["user"] for step in shop.steps() if step["step"] == "abandoned"]


def test_a_place_is_kept_for_the_grace_period_and_then_given_up():
    door = Door()
    ann, bob = door.join("ann"), door.join("bob")
    door.leave(ann)
    door.world.advance(GRACE_MS - 1)
    assert door.waits("ann")
    door.world.advance(1)
    assert not door.waits("ann")
    assert door.waits("bob")
    assert abandoned(door.shop) == ["ann"]
    assert bob.is_open
    door.shop.settle()


def test_who_comes_back_in_time_keeps_it():
    door = Door()
    door.leave(door.join("ann"))
    door.world.advance(GRACE_MS - 1)
    again, _ = door.connect("ann")
    door.world.advance(10 * GRACE_MS)
    assert door.waits("ann")
    door.leave(again)
    door.world.advance(GRACE_MS - 1)
    assert door.waits("ann"), "the period begins anew"
    door.world.advance(1)
    assert not door.waits("ann")


def test_any_device_keeps_it():
    door = Door()
    first = door.join("ann")
    other, _ = door.connect("ann")
    door.leave(first)
    door.world.advance(3 * GRACE_MS)
    assert door.waits("ann")
    door.leave(other)
    door.world.advance(GRACE_MS)
    assert not door.waits("ann")


def test_a_place_that_a_back_end_took_stays():
    door = Door()
    door.shop.ask("sale.join", "service", name="s", user="ann")
    connection, _ = door.connect("ann")
    door.leave(connection)
    door.world.advance(10 * GRACE_MS)
    assert door.shop.say("place")["state"] == "waiting"


def test_a_place_that_she_takes_over_from_a_back_end_hangs_on_her():
    door = Door()
    door.shop.ask("sale.join", "service", name="s", user="ann")
    assert not door.waits("ann")
    door.leave(door.join("ann"))
    door.world.advance(GRACE_MS)
    assert door.shop.say("place")["state"] == "none"


def test_who_only_calls_keeps_it_by_calling():
    door = Door()
    door.call("ann")
    for _ in range(5):
        door.world.advance(GRACE_MS - 1)
        assert door.call("ann", "sale.place")["state"] == "waiting"
    door.world.advance(GRACE_MS - 1)
    door.call("ann", "sale.join")
    door.world.advance(GRACE_MS - 1)
    assert door.waits("ann")
    door.world.advance(1)
    assert not door.waits("ann")


def test_the_question_of_another_is_no_sign_of_her():
    door = Door()
    door.call("ann")
    door.world.advance(GRACE_MS - 1)
    door.shop.ask("sale.place", "service", name="s", user="ann")
    door.world.advance(1)
    assert not door.waits("ann")


def test_without_grace_a_place_is_for_those_who_stay_connected():
    door = Door(grace_ms=0)
    ann = door.join("ann")
    door.world.advance(1_000)
    assert door.waits("ann")
    door.leave(ann)
    assert not door.waits("ann")
    door.call("bob")
    assert not door.waits("bob")


def test_only_who_waits_gives_up():
    """A pass has its own end, and holds theirs."""
    door = Door()
    ann = door.join("ann")
    door.shop.say("open")
    passed = door.shop.say("place")
    assert passed["state"] == "admitted"
    door.leave(ann)
    door.world.advance(GRACE_MS)
    assert door.shop.say("place") == passed


def test_each_sale_has_its_own_grace():
    door = Door()
    world = door.world
    other = Shop(world, name="t", queue={**QUEUE, "grace_ms": 3 * GRACE_MS})
    other.ask("sale.pause", name="t")
    connection, peer = door.connect("ann")
    for name in "st":
        world.call_on(connection, peer, "sale.join", name)
    door.leave(connection)
    rooms = [world.store.sales.find(name).room for name in "st"]
    world.advance(GRACE_MS)
    assert [room.is_tied("ann") for room in rooms] == [False, True]
    world.advance(2 * GRACE_MS)
    assert [room.is_tied("ann") for room in rooms] == [False, False]


def test_a_grace_that_is_made_shorter_counts_from_when_she_left():
    door = Door()
    door.leave(door.join("ann"))
    door.world.advance(1_000)
    door.shop.ask("sale.configure", name="s", queue={"grace_ms": 500})
    door.world.advance(1_000)
    assert not door.waits("ann")


def test_whose_place_is_given_up_is_told_and_the_next_moves_up():
    door = Door()
    ann, (bob, peer) = door.join("ann"), door.connect("bob")
    door.world.call_on(bob, peer, "sale.join", "s")
    name = "$sale:s:user:bob"
    told = door.world.call_on(bob, peer, "channel.subscribe", name)["state"]
    assert told["position"] == 2
    door.leave(ann)
    door.world.advance(GRACE_MS)
    assert [frame[2]["data"]["position"] for frame in peer.take()] == [1]


def test_the_end_of_a_sale_forgets_who_was_away():
    door = Door()
    connections = [door.join(f"u{number}") for number in range(700)]
    door.leave(*connections)
    grace = door.world.presence.grace
    assert grace.next_due() == door.world.now + GRACE_MS
    door.shop.say("close")
    for _ in range(4):
        door.world.advance(1_000)
    assert grace.next_due() is None
    assert abandoned(door.shop) == []
    door.shop.say("delete")
    door.leave(door.connect("u1")[0])


def test_after_a_restart_all_have_one_fresh_period():
    door = Door()
    door.join("ann"), door.join("bob"), door.call("cid"), door.call("dan")
    door.shop.ask("sale.join", "service", name="s", user="eva")
    door.restart()
    door.world.advance(GRACE_MS - 2)
    connection, _ = door.connect("ann")
    door.call("cid", "sale.place")
    door.leave(door.connect("dan")[0])
    door.world.advance(1)
    assert [door.waits(user) for user in ("ann", "bob", "cid", "dan")] == [True] * 4
    door.world.advance(1)
    assert [door.waits(user) for user in ("ann", "bob", "cid", "dan")] == [True, False, True, True]
    door.world.advance(GRACE_MS)
    assert sorted(abandoned(door.shop)) == ["bob", "cid", "dan"]
    assert connection.is_open
    assert door.shop.ask("sale.place", name="s", user="eva")["state"] == "waiting"
    door.shop.settle()


def test_after_a_restart_there_is_time_to_come_back_even_without_grace():
    door = Door(grace_ms=0)
    door.join("ann"), door.join("bob")
    door.restart()
    door.world.advance(door.world.limits.presence_grace_ms - 1)
    assert door.waits("ann")
    door.connect("ann")
    door.world.advance(1)
    assert [door.waits("ann"), door.waits("bob")] == [True, False]


def test_many_are_given_up_in_slices():
    door = Door()
    connections = [door.join(f"u{number}") for number in range(1_300)]
    world, grace = door.world, door.world.presence.grace
    door.leave(*connections[:1_200])
    world.open_turn()
    back = [door.connect(f"u{number}") for number in range(100)]
    now = world.now + GRACE_MS
    sizes = []
    while (given_up := grace.due(now, 500)) is not None:
        assert set(given_up.users) <= set(grace.due(now, 500).users), "until it is done"
        sizes.append(len(given_up.users))
        world.dispatcher.issue("sale.abandon", ["s", given_up.users])
        grace.done(given_up)
    world.end_turn()
    assert sizes == [400, 500, 200]
    assert len(back) + 100 == len(world.store.sales.find("s").room)
    assert grace.next_due() is None


def test_many_who_waited_at_a_restart_are_gone_through_in_slices():
    door = Door()
    for number in range(1_300):
        door.join(f"u{number}")
    door.restart()
    world, grace = door.world, door.world.presence.grace
    for number in range(0, 1_300, 2):
        door.connect(f"u{number}")
    now = world.now + GRACE_MS
    world.open_turn()
    sizes = []
    while (given_up := grace.due(now, 500)) is not None:
        sizes.append(len(given_up.users))
        world.dispatcher.issue("sale.abandon", ["s", given_up.users])
        grace.done(given_up)
    world.end_turn()
    assert sizes == [250, 250, 150]
    assert len(world.store.sales.find("s").room) == 650


async def test_without_room_in_the_log_places_stay_and_nothing_spins():
    rig = Rig()
    client = rig.connect()
    say(client, request(1, "server.hello", None, "ann"))
    say(client, request(2, "sale.create", "s", {"a": 1}, 1, 1_000, None, None, QUEUE))
    say(client, request(3, "sale.pause", "s"), request(4, "sale.join", "s"))
    await rig.settle()
    room = rig.store.sales.find("s").room
    assert room.is_tied("ann")
    client.protocol.connection_lost(None)
    rig.clock.advance(GRACE_MS)
    rig.log.room, rig.log.full = 100, True
    rig.turn.open()
    await rig.settle()
    assert room.is_tied("ann")
    turns = rig.turn._turns
    await rig.settle()
    assert rig.turn._turns == turns
    rig.log.room = 1 << 30
    rig.turn.open()
    await rig.settle()
    assert not room.is_tied("ann")
    assert rig.log.records[-1][0] == "sale.abandon"


async def test_the_turn_wakes_when_a_grace_period_is_over():
    rig = Rig()
    client = rig.connect()
    say(client, request(1, "server.hello", None, "ann"))
    queue = {**QUEUE, "grace_ms": 30}
    say(client, request(2, "sale.create", "s", {"a": 1}, 1, 1_000, None, None, queue))
    say(client, request(3, "sale.pause", "s"), request(4, "sale.join", "s"))
    await rig.settle()
    client.protocol.connection_lost(None)
    await rig.settle()
    rig.clock.advance(30)
    for _ in range(100):
        await asyncio.sleep(0.01)
        if not rig.store.sales.find("s").room.is_tied("ann"):
            return
    pytest.fail("nobody gave her place up")


class Coming(RuleBasedStateMachine):
    """Who waits was connected, or gave a sign, within the grace period; nobody else gives up."""

    @initialize()
    def begin(self):
        self.door = Door()
        self.world = self.door.world
        self.devices = {user: [] for user in ("u0", "u1", "u2")}
        self.alive_at = {}  # of those who are tied: the last sign of life

    def users(self):
        return list(self.devices)

    user = st.sampled_from(["u0", "u1", "u2"])

    @rule(user=user)
    def connect(self, user):
        self.devices[user].append(self.door.connect(user))

    @rule(user=user)
    def disconnect(self, user):
        if self.devices[user]:
            self.sign()
            self.door.leave(self.devices[user].pop()[0])

    @rule(user=user)
    def join(self, user):
        if self.devices[user]:
            connection, peer = self.devices[user][0]
            self.world.call_on(connection, peer, "sale.join", "s")
        else:
            self.door.call(user)
        self.alive_at[user] = self.world.now

    @rule(user=user)
    def join_for(self, user):
        if not self.known(user):
            self.door.shop.ask("sale.join", "service", name="s", user=user)
            self.alive_at.pop(user, None)

    @rule(user=user)
    def ask(self, user):
        self.door.call(user, "sale.place")
        if user in self.alive_at:
            self.alive_at[user] = self.world.now

    @rule(user=user)
    def leave_line(self, user):
        self.door.shop.ask("sale.leave", name="s", user=user)
        self.alive_at.pop(user, None)

    @rule()
    def restart(self):
        for user in self.devices:
            self.devices[user] = []
        self.door.restart()
        self.alive_at = dict.fromkeys(self.alive_at, self.world.now)

    @rule(ms=st.sampled_from([1, 4_000, 7_000, GRACE_MS]))
    def wait(self, ms):
        self.sign()
        self.world.advance(ms)

    def sign(self):
        """Who is connected is alive."""
        for user, devices in self.devices.items():
            if devices and user in self.alive_at:
                self.alive_at[user] = self.world.now

    def known(self, user):
        return self.world.store.sales.find("s").room.knows(user)

    @invariant()
    def places_are_kept_as_promised(self):
        if not hasattr(self, "door"):
            return
        self.world.advance(0)
        self.sign()
        for user in self.users():
            tied = self.door.waits(user)
            if user in self.alive_at and self.world.now - self.alive_at[user] >= GRACE_MS:
                self.alive_at.pop(user)
            assert tied == (user in self.alive_at), user


Coming.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestComing = Coming.TestCase
