"""Who is here: against an oracle that recounts everything, and in sizes that must not stall."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtserver.limits import Limits
from tests.world import Peer, World

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


def turn(world, *clients):
    """Ends the turn that is open and opens the next one."""
    world.end_turn()
    for client in clients:
        client.hear()
    world.open_turn()


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

    @initialize(grace_ms=st.sampled_from([0, GRACE_MS]), slice_size=st.sampled_from([1, 1_000]))
    def begin(self, grace_ms, slice_size):
        self.limits = Limits(
            presence_grace_ms=grace_ms,
            presence_interval_ms=INTERVAL_MS,
            presence_per_turn=slice_size,
            presence_pushes_per_turn=slice_size,
        )
        self.start(World(self.limits))

    def start(self, world):
        self.world = world
        self.world.call("channel.configure", "tiny", *[None] * 8, 2)
        self.world.open_turn()
        self.model = Model(self.limits.presence_grace_ms)
        self.clients = []
        self.quiet_until = 0

    def client(self, data):
        """Some client whose requests run."""
        ready = [client for client in self.clients if not client.connection.congested]
        return data.draw(st.sampled_from(ready)) if ready else None

    # --- what happens ---

    @rule(user=st.none() | st.sampled_from(USERS))
    def connect(self, user):
        self.clients.append(Client(self.world, user))
        self.model.enter(None, user, self.world.now)

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

    @rule(ms=st.sampled_from([0, 1, INTERVAL_MS - 1, GRACE_MS - 1, GRACE_MS]))
    def ends_turn(self, ms):
        self.model.expire(self.world.now)
        self.end_slices()
        for client in self.clients:
            client.hear()
        if self.world.now >= self.quiet_until:
            self.agree(*(channel for channel in CHANNELS if channel != "tiny:1"))
        else:
            assert not any(client.pushes for client in self.clients)
        self.world.now += ms
        self.world.open_turn()

    def end_slices(self):
        """Turn after turn, as the server does while there is work."""
        self.world.end_turn()
        presence = self.world.presence
        while (due := presence.next_due()) is not None and due <= self.world.now:
            self.world.open_turn()
            self.world.end_turn()

    @rule()
    def settle(self):
        """Counts of large channels, and those who missed a push, have to wait for an interval."""
        self.ends_turn(max(0, self.quiet_until - self.world.now))
        self.ends_turn(INTERVAL_MS)
        self.ends_turn(0)
        self.agree(*CHANNELS)

    @rule()
    def restart(self):
        now = self.world.now
        self.start(World(self.limits, restarted_ms=now))
        self.quiet_until = now + self.limits.presence_grace_ms

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
        if not hasattr(self, "model"):
            return
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
        if not hasattr(self, "model"):
            return
        for user in USERS:
            state = self.world.presence.state(user)
            member = self.model.members.get((None, user))
            here = member is not None
            assert (state["status"] == "online") == here
            assert state["devices"] == (member.devices if here else 0)
            assert state["last_seen"] == (None if here else self.model.seen.get(user))
            assert (self.world.presence.version(user) > 0) == here

    def teardown(self):
        if not hasattr(self, "world"):
            return
        self.settle()
        for client in list(self.clients):
            self.world.disconnect(client.connection)
        self.world.now += GRACE_MS
        self.world.open_turn()
        self.end_slices()
        assert set(self.world.presence.stats().values()) == {0}
        assert self.world.presence.next_due() is None
        self.world.assert_same()


PresenceMachine.TestCase.settings = settings(
    max_examples=400, stateful_step_count=40, deadline=None
)
TestPresence = PresenceMachine.TestCase
