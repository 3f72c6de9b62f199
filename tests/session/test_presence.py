"""Who is here: against an oracle that recounts everything, and in sizes that must not stall."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtserver.limits import Limits
from tests.world import START_MS, Peer, World

GRACE_MS = 500
INTERVAL_MS = 100
FULL = 1 << 20  # bytes that wait: more than any soft limit
USERS = ["ann", "ben", "cyd", "dee", "eve", "fay"]
CHANNELS = ["room:1", "room:2", "tiny:1"]


class Listing:
    """Who is on a channel, as far as it was read."""

    def __init__(self, limit):
        self.users = set()
        self.limit = limit
        self.after = None
        self.is_whole = False

    def add(self, page):
        self.users.update(row["user"] for row in page["users"])
        self.after = page["next"]
        self.is_whole = self.after is None


class Client:
    """One connection, and what a careful client makes of replies and pushes: for each channel
    that it listens to, the count, and the list as far as it was read and is kept up."""

    def __init__(self, world, user=None):
        self.world = world
        self.user = user
        self.peer = Peer()
        self.connection = world.connect(self.peer)
        self.asked = {}  # request id -> what to do with the reply
        self.counts = {}
        self.lists = {}
        self.pushes = []
        if user is not None:
            self.hello(user)

    def send(self, then, method, *args):
        request_id = self.world.send(method, *args, connection=self.connection)
        self.asked[request_id] = then

    def hello(self, user):
        self.user = user
        self.send(lambda reply: None, "server.hello", None, user)

    def subscribe(self, channel, listens=True):
        def subscribed(reply):
            self.counts.pop(channel, None)
            self.lists.pop(channel, None)
            if listens:
                self.counts[channel] = reply["presence"]["count"]

        self.send(subscribed, "channel.subscribe", channel, None, listens)

    def unsubscribe(self, channel):
        def unsubscribed(_reply):
            self.counts.pop(channel, None)
            self.lists.pop(channel, None)

        self.send(unsubscribed, "channel.unsubscribe", channel)

    def read_list(self, channel, limit=2):
        """Asks for the first page; `more` for the following ones."""
        self.lists[channel] = Listing(limit)
        self.more(channel)

    def more(self, channel):
        listing = self.lists[channel]
        self.send(listing.add, "channel.presence", channel, listing.after, listing.limit)

    def hear(self):
        """Takes what came, in order."""
        for frame in self.peer.take():
            if frame[0] == 1:
                assert frame[2] is None, frame
                self.asked.pop(frame[1])(frame[3])
            elif frame[1] in ("join", "leave"):
                self.pushes.append((frame[1], frame[2]))
                self.told(frame[1], **frame[2])

    def told(self, method, channel, count, users=None):
        if channel not in self.counts:
            return  # of a subscription before the present one
        self.counts[channel] = count
        if users is None:
            self.lists.pop(channel, None)
        elif channel in self.lists:
            change = set.update if method == "join" else set.difference_update
            change(self.lists[channel].users, users)

    def whole(self, channel):
        """The list, where all pages were read and no count told that it is not kept up."""
        listing = self.lists.get(channel)
        return listing.users if listing is not None and listing.is_whole else None


class Membership:
    """The oracle's view of one user on one channel, or on the server."""

    def __init__(self, since):
        self.since = since
        self.devices = 0
        self.left_at = None


class Model:
    """Recounts what the server keeps up."""

    def __init__(self, grace_ms):
        self.grace_ms = grace_ms
        self.members = {}  # (channel, user) -> Membership; channel None: the server
        self.seen = {}

    def enter(self, channel, user, now):
        if user is not None:
            member = self.members.setdefault((channel, user), Membership(now))
            member.devices += 1

    def leave(self, channel, user, now):
        if user is not None:
            member = self.members[channel, user]
            member.devices -= 1
            member.left_at = now

    def expire(self, now):
        for (channel, user), member in list(self.members.items()):
            if not member.devices and member.left_at + self.grace_ms <= now:
                del self.members[channel, user]
                if channel is None:
                    self.seen[user] = member.left_at

    def on(self, channel):
        found = [user for place, user in self.members if place == channel]
        return sorted(found)


class PresenceMachine(RuleBasedStateMachine):
    """A turn is open all the time; any number of things happen in it."""

    @initialize(
        grace_ms=st.sampled_from([0, GRACE_MS]),
        slice_size=st.sampled_from([1, 1_000]),
        restarted=st.booleans(),
    )
    def begin(self, grace_ms, slice_size, restarted):
        limits = Limits(
            presence_grace_ms=grace_ms,
            presence_interval_ms=INTERVAL_MS,
            presence_per_turn=slice_size,
            presence_pushes_per_turn=slice_size,
        )
        self.world = World(limits, restarted_ms=START_MS if restarted else None)
        self.world.call("channel.configure", "tiny", *[None] * 8, 2)
        self.world.open_turn()
        self.model = Model(grace_ms)
        self.clients = []
        self.quiet_until = START_MS + grace_ms if restarted else 0
        for channel in CHANNELS:
            self.listens(None, channel)
        self.ends_turn(0)

    def client(self, data):
        """Some client whose requests run."""
        ready = [client for client in self.clients if not client.connection.congested]
        return data.draw(st.sampled_from(ready)) if ready else None

    # --- what happens ---

    @rule(user=st.none() | st.sampled_from(USERS))
    def connect(self, user):
        self.clients.append(Client(self.world, user))
        self.model.enter(None, user, self.world.now)

    @rule(user=st.none() | st.sampled_from(USERS), channel=st.sampled_from(CHANNELS))
    def listens(self, user, channel):
        """The usual beginning: subscribe, then read the list."""
        self.connect(user)
        client = self.clients[-1]
        self.model.enter(channel, user, self.world.now)
        client.subscribe(channel)
        client.read_list(channel, 100)

    @rule(user=st.sampled_from(USERS), channel=st.sampled_from(CHANNELS), seen=st.booleans())
    def passes_by(self, user, channel, seen):
        """Comes and goes within a turn, and somebody may read a list in between."""
        visitor = Client(self.world, user)
        visitor.subscribe(channel, listens=False)
        for client in self.clients if seen else ():
            if channel in client.counts and not client.connection.congested:
                client.read_list(channel, 100)
        for place in (None, channel):
            self.model.enter(place, user, self.world.now)
            self.model.leave(place, user, self.world.now)
        self.world.disconnect(visitor.connection)

    @rule(data=st.data(), user=st.sampled_from(USERS))
    def becomes_known(self, data, user):
        client = self.client(data)
        if client is not None and client.user != user:
            for channel in [None, *client.connection.subscriptions]:
                self.model.enter(channel, user, self.world.now)
                self.model.leave(channel, client.user, self.world.now)
            client.hello(user)

    @rule(data=st.data(), channel=st.sampled_from(CHANNELS), listens=st.booleans())
    def subscribe(self, data, channel, listens):
        client = self.client(data)
        if client is not None:
            self.model.enter(channel, client.user, self.world.now)
            if channel in client.connection.subscriptions:
                self.model.leave(channel, client.user, self.world.now)
            client.subscribe(channel, listens)

    @rule(data=st.data())
    def unsubscribe(self, data):
        client = self.client(data)
        if client is not None and client.connection.subscriptions:
            channel = data.draw(st.sampled_from(sorted(client.connection.subscriptions)))
            self.model.leave(channel, client.user, self.world.now)
            client.unsubscribe(channel)

    @rule(data=st.data())
    def drop(self, data):
        if self.clients:
            client = data.draw(st.sampled_from(self.clients))
            for channel in [None, *client.connection.subscriptions]:
                self.model.leave(channel, client.user, self.world.now)
            self.clients.remove(client)
            self.world.disconnect(client.connection)

    @rule(data=st.data(), limit=st.integers(1, 3))
    def read_list(self, data, limit):
        client = self.client(data)
        if client is not None:
            for channel in client.counts:
                client.read_list(channel, limit)

    @rule(data=st.data())
    def read_on(self, data):
        client = self.client(data)
        for channel in [] if client is None else list(client.lists):
            if client.whole(channel) is None:
                client.more(channel)

    @rule(data=st.data(), full=st.booleans())
    def outbox(self, data, full):
        if self.clients:
            client = data.draw(st.sampled_from(self.clients))
            client.peer.stuck = FULL if full else 0
            client.connection.measure()

    @rule(user=st.sampled_from(USERS), channel=st.sampled_from(CHANNELS), data=st.data())
    def joins_while_outboxes_are_full(self, user, channel, data):
        some = st.lists(st.sampled_from(self.clients), max_size=2) if self.clients else st.just([])
        full = data.draw(some)
        for client in full:
            client.peer.stuck = FULL
            client.connection.measure()
        self.listens(user, channel)
        self.ends_turn(0)
        for client in full:
            client.peer.stuck = 0
            client.connection.measure()

    @rule(ms=st.sampled_from([0, 1, INTERVAL_MS - 1, GRACE_MS - 1, GRACE_MS]))
    def ends_turn(self, ms):
        self.world.end_turn()
        self.begin_turns()
        for client in self.clients:
            client.hear()
        if self.world.now >= self.quiet_until:
            self.agree(*(channel for channel in CHANNELS if channel != "tiny:1"))
        else:
            assert not any(client.pushes for client in self.clients)
        self.world.end_turn()
        self.world.now += ms
        self.begin_turns()

    def begin_turns(self):
        """Turn after turn, as the server does while there is work; the last one is open."""
        self.model.expire(self.world.now)
        self.world.open_turn()
        presence = self.world.presence
        while (due := presence.next_due()) is not None and due <= self.world.now:
            self.world.end_turn()
            self.world.open_turn()

    @rule()
    def settle(self):
        """Counts of large channels, and those who missed a push, have to wait for an interval
        after the last change."""
        self.ends_turn(GRACE_MS)
        self.ends_turn(INTERVAL_MS)
        self.ends_turn(0)
        self.agree(*CHANNELS)

    # --- what must hold ---

    def agree(self, *channels):
        """What each client was told is what is so."""
        for client in self.clients:
            if client.connection.congested:
                continue
            missed = self.missed(client)
            for channel in client.counts:
                if channel not in channels or channel in missed:
                    continue
                expected = self.model.on(channel)
                assert client.counts[channel] == len(expected)
                users = client.whole(channel)
                assert users is None or sorted(users) == expected

    def missed(self, client):
        """Channels of which a push did not fit its outbox; it is told within an interval."""
        rooms = ((name, self.world.presence.room(name)) for name in client.counts)
        return [name for name, room in rooms if client.connection in room.audience.missed]

    @invariant()
    def counts_and_lists_are_exact(self):
        presence = self.world.presence
        presence.check()
        for channel in CHANNELS:
            listed, following = presence.page(channel, None, 100)
            assert following is None
            expected = self.model.on(channel)
            assert [row["user"] for row in listed] == expected
            for row in listed:
                member = self.model.members[channel, row["user"]]
                assert (row["devices"], row["since"]) == (member.devices, member.since)
            anonymous = sum(
                client.user is None and channel in client.connection.subscriptions
                for client in self.clients
            )
            assert presence.anonymous(channel) == anonymous

    @invariant()
    def users_are_as_they_are(self):
        for user in USERS:
            state = self.world.presence.state(user)
            member = self.model.members.get((None, user))
            here = member is not None
            assert (state["status"] == "online") == here
            assert state["devices"] == (member.devices if here else 0)
            assert state["last_seen"] == (None if here else self.model.seen.get(user))
            assert (self.world.presence.version(user) > 0) == here

    def teardown(self):
        self.settle()
        for client in list(self.clients):
            self.world.disconnect(client.connection)
        self.world.now += GRACE_MS
        self.begin_turns()
        self.world.end_turn()
        assert set(self.world.presence.stats().values()) == {0}
        assert self.world.presence.next_due() is None
        self.world.assert_same()


PresenceMachine.TestCase.settings = settings(
    max_examples=120, stateful_step_count=50, deadline=None
)
TestPresence = PresenceMachine.TestCase


# --- what exactly is told ---


def new_world(**limits):
    usual = {"presence_grace_ms": GRACE_MS, "presence_interval_ms": INTERVAL_MS}
    world = World(Limits(**{**usual, **limits}))
    world.open_turn()
    return world


def told(world, *clients, ms=0):
    """Ends the turn; what each client was told; the next turn is open, so much later."""
    world.end_turn()
    found = []
    for client in clients:
        client.hear()
        found.append(client.pushes[:])
        client.pushes.clear()
    world.now += ms
    world.open_turn()
    return found[0] if len(found) == 1 else found


def on(world, user, channel="room:1", listens=False):
    client = Client(world, user)
    client.subscribe(channel, listens)
    return client


def listener(world, channel="room:1"):
    """Nobody in particular, who listens."""
    client = on(world, None, channel, listens=True)
    told(world, client)
    return client


def test_the_joins_of_a_turn_are_one_push_and_so_are_its_leaves():
    world = new_world()
    reader = listener(world)
    clients = [on(world, user) for user in USERS[:4]]
    assert told(world, reader) == [
        ("join", {"channel": "room:1", "users": ["ann", "ben", "cyd", "dee"], "count": 4})
    ]
    for client in clients[:3]:
        world.disconnect(client.connection)
    assert told(world, reader, ms=GRACE_MS) == []
    on(world, "eve")
    assert told(world, reader) == [
        ("join", {"channel": "room:1", "users": ["eve"], "count": 2}),
        ("leave", {"channel": "room:1", "users": ["ann", "ben", "cyd"], "count": 2}),
    ]


def test_only_who_asked_is_told():
    world = new_world()
    reader, other = listener(world), on(world, None)
    on(world, "ann")
    assert told(world, reader, other)[1] == []


def test_a_push_is_encoded_once_for_all(monkeypatch):
    world = new_world()
    readers = [listener(world) for _ in range(20)]
    encoded = []
    original = readers[0].connection.form.encode_push
    monkeypatch.setattr(
        readers[0].connection.form,
        "encode_push",
        lambda *push: encoded.append(push) or original(*push),
    )
    on(world, "ann")
    assert all(len(pushes) == 1 for pushes in told(world, *readers))
    assert len(encoded) == 1


def test_another_device_and_a_reconnect_within_the_grace_period_are_no_news():
    world = new_world()
    reader = listener(world)
    phone = on(world, "ann")
    told(world, reader)
    desk = on(world, "ann")
    assert told(world, reader) == []
    world.disconnect(phone.connection)
    world.disconnect(desk.connection)
    assert told(world, reader, ms=GRACE_MS - 1) == []
    on(world, "ann")
    assert told(world, reader, ms=10 * GRACE_MS) == []
    assert told(world, reader) == []
    assert world.presence.page("room:1", None, 10)[0] == [
        {"user": "ann", "devices": 1, "since": START_MS}
    ]


def test_who_becomes_known_later_joins_then():
    world = new_world()
    reader, client = listener(world), on(world, None)
    assert told(world, reader) == []
    assert world.presence.anonymous("room:1") == 2
    client.hello("ann")
    assert told(world, reader)[0][1]["users"] == ["ann"]
    assert world.presence.anonymous("room:1") == 1
    client.hello("ben")
    assert told(world, reader, ms=GRACE_MS)[0][1]["users"] == ["ben"]
    assert told(world, reader) == [("leave", {"channel": "room:1", "users": ["ann"], "count": 1})]


@pytest.mark.parametrize("read", [False, True])
def test_who_came_and_went_untold_is_not_mentioned_unless_a_list_showed_her(read):
    world = World(Limits(presence_grace_ms=GRACE_MS), restarted_ms=START_MS)
    world.open_turn()
    reader = listener(world)
    visitor = on(world, "ann")
    if read:
        reader.read_list("room:1", 10)
    world.disconnect(visitor.connection)
    assert told(world, reader, ms=GRACE_MS) == []
    leave = ("leave", {"channel": "room:1", "users": ["ann"], "count": 0})
    assert told(world, reader) == ([leave] if read else [])
    assert reader.whole("room:1") == (set() if read else None)


def test_a_large_channel_tells_counts_at_most_once_an_interval():
    world = new_world()
    world.store.settings.configure("room", {"presence_events_max": 3})
    reader = listener(world)
    for user in USERS[:3]:
        on(world, user)
    assert len(told(world, reader)[0][1]["users"]) == 3
    crowd = [on(world, user) for user in USERS[3:]]
    assert told(world, reader, ms=1) == [("join", {"channel": "room:1", "count": 6})]
    for number in range(20):
        on(world, f"more{number}")
        assert told(world, reader, ms=1) == []
    world.now += INTERVAL_MS
    assert told(world, reader) == [("join", {"channel": "room:1", "count": 26})]
    for client in crowd:
        world.disconnect(client.connection)
    told(world, reader, ms=GRACE_MS)
    assert told(world, reader) == [("leave", {"channel": "room:1", "count": 23})]


def test_a_push_names_no_more_users_than_the_namespace_says():
    """Of ten who left, seven would be too many to name, though few are left."""
    world = new_world()
    crowd = [on(world, f"user{number}") for number in range(10)]
    reader = listener(world)
    world.store.settings.configure("room", {"presence_events_max": 3})
    for client in crowd[:9]:
        world.disconnect(client.connection)
    told(world, reader, ms=GRACE_MS)
    assert told(world, reader, ms=INTERVAL_MS) == [("leave", {"channel": "room:1", "count": 1})]
    on(world, "ann")
    assert told(world, reader) == [("join", {"channel": "room:1", "users": ["ann"], "count": 2})]


def test_after_a_restart_joins_are_told_together_when_the_grace_period_is_over():
    world = World(Limits(presence_grace_ms=GRACE_MS), restarted_ms=START_MS)
    world.open_turn()
    reader = listener(world)
    for user in USERS:
        on(world, user)
        assert told(world, reader, ms=10) == []
    assert world.presence.count("room:1") == 6
    assert world.presence.next_due() == START_MS + GRACE_MS
    world.now = START_MS + GRACE_MS
    (push,) = told(world, reader)
    assert push == ("join", {"channel": "room:1", "users": USERS, "count": 6})


def test_a_listener_whose_outbox_is_full_delays_nobody_and_learns_that_its_list_is_stale():
    world = new_world()
    reader, slow = listener(world), listener(world)
    slow.peer.stuck = FULL
    slow.connection.measure()
    on(world, "ann")
    assert [len(pushes) for pushes in told(world, reader, slow)] == [1, 0]
    on(world, "ben")
    assert [len(pushes) for pushes in told(world, reader, slow, ms=INTERVAL_MS)] == [1, 0]
    slow.peer.stuck = 0
    slow.connection.measure()
    told(world, reader)
    slow.hear()
    assert slow.pushes == [("join", {"channel": "room:1", "count": 2})]
    assert world.presence.next_due() is None


# --- sizes ---


def crowd_of(world, number, channel="room:1"):
    """So many users on one channel, without the cost of their requests."""
    rooms = world.presence._rooms
    for place in range(number):
        rooms.enter(channel, f"user{place:06}", world.now)


def test_a_mass_disconnect_is_worked_off_in_slices():
    world = new_world(presence_per_turn=100)
    reader = listener(world)
    crowd_of(world, 1_000)
    told(world, reader)
    for place in range(1_000):
        world.presence._rooms.leave("room:1", f"user{place:06}", world.now)
    assert world.presence.count("room:1") == 1_000
    told(world, reader, ms=GRACE_MS)
    for left in range(900, -1, -100):
        assert world.presence.count("room:1") == left
        assert world.presence.next_due() <= world.now
        told(world, reader)
    told(world, reader, ms=INTERVAL_MS)
    assert told(world, reader)[-1][1] == {"channel": "room:1", "count": 0}
    world.presence.check()


def test_many_channels_are_told_in_slices():
    world = new_world(presence_pushes_per_turn=10)
    reader = Client(world)
    others = [Client(world) for _ in range(30)]
    for place, client in enumerate(others):
        client.subscribe(f"room:{place}")
    told(world, reader)
    ann = [Client(world, "ann") for _ in range(6)]
    for place in range(30):
        ann[place % 6].subscribe(f"room:{place}", listens=False)
    for turns in range(1, 4):
        told(world, *others)
        assert sum(client.counts[f"room:{n}"] for n, client in enumerate(others)) == 10 * turns
    assert world.presence.next_due() is None


def test_a_large_channel_is_paged_while_its_members_come_and_go():
    world = new_world()
    crowd_of(world, 5_000)
    stays = {f"user{place:06}" for place in range(5_000) if place % 3}
    found, after, place = [], None, 0
    while True:
        rows, after = world.presence.page("room:1", after, 700)
        found += [row["user"] for row in rows]
        if after is None:
            break
        for number in range(place, 5_000, 30):
            world.presence._rooms.leave("room:1", f"user{number:06}", world.now)
        place += 3
        world.presence._rooms.enter("room:1", f"new{place}", world.now)
        told(world, Client(world), ms=GRACE_MS)
    assert found == sorted(set(found))
    assert stays <= set(found)
    world.presence.check()


def test_nothing_is_left_of_those_who_are_gone():
    world = new_world()
    for _ in range(3):
        clients = [on(world, f"user{number}", f"room:{number % 7}", True) for number in range(50)]
        told(world, *clients, ms=1)
        for client in clients:
            world.disconnect(client.connection)
        told(world, *clients, ms=GRACE_MS)
        told(world, *clients, ms=INTERVAL_MS)
    assert world.presence.stats() == {"users": 0, "members": 0, "channels": 0}
    assert world.presence.next_due() is None
    assert world.presence.people.unseen == 0


def test_watched_things_and_http_calls_are_no_place_to_be():
    world = new_world()
    client = Client(world, "ann")
    client.send(lambda _reply: None, "channel.subscribe", "$counter:likes")
    told(world, client)
    assert world.presence.stats() == {"users": 1, "members": 0, "channels": 0}
    client.connection.pushes = False
    world.presence.identified(client.connection)
    assert world.presence.state("ann")["devices"] == 0
