"""Readers of `latest` and `transient` channels against a model of the server, over cuts.

Whatever happens, the reader of a `latest` channel ends with the newest value of each key, and is
told of a loss only where the server let go of values; the reader of a `transient` one gets messages
in order, once, and between two that are no neighbours gaps that add up, or one that nobody can
count.
"""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import rtclient
from rtclient import Gap, wire
from rtclient.feeds import Feeds
from rtclient.ledger import Ledger
from rtclient.subscription import Subscription

KEYS = ("k", "l", "m", None)
PAGE_MAX = 2
READERS_MAX = 4


class Latest:
    """The newest message of each key."""

    def __init__(self, epoch):
        self.epoch = epoch
        self.first = 1
        self.top = 0
        self.kept = {}  # key -> message, by ascending offsets

    def publish(self, key, data):
        self.top += 1
        self.kept.pop(key, None)
        message = {"offset": self.top, "data": data, "at": 0}
        self.kept[key] = message if key is None else {**message, "key": key}

    def evict(self):
        if self.kept:
            self.first = self.kept.pop(next(iter(self.kept)))["offset"] + 1

    def read(self, after, limit=1_000):
        return [message for message in self.kept.values() if message["offset"] > after][:limit]

    def subscribe(self, since):
        position, recovered = self.first - 1, False
        if since is not None and since[0] == self.epoch and since[1] <= self.top:
            recovered = since[1] + 1 >= self.first
            position = since[1] if recovered else self.first - 1
        found = self.read(position, PAGE_MAX)
        position = found[-1]["offset"] if len(found) == PAGE_MAX else self.top
        return position, {
            "class": "latest",
            "epoch": self.epoch,
            "offset": position,
            "recovered": recovered,
            "messages": found,
        }


class Reader:
    """A subscription, and what came of it."""

    def __init__(self, subscription):
        self.subscription = subscription
        self.joining = None
        self.newest = {}  # of each key, by (epoch, offset)
        self.last = None  # transient data, which counts up
        self.lost = 0  # since then; None: nobody can know


class Delivering(RuleBasedStateMachine):
    """One `latest` channel and one `transient` channel."""

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.epochs = itertools.count(1)
        self.data = itertools.count(1)
        self.told = itertools.count(1)
        self.latest = Latest("e0")
        self.published = {}
        self.evicted = False
        self.readers = []
        self.run(self.begin)

    def run(self, action, *args):
        async def steps():
            action(*args)
            for _ in range(5):
                await asyncio.sleep(0)

        self.runner.run(steps())

    def begin(self):
        loop = asyncio.get_running_loop()
        self.ledger = Ledger(loop, "me", lambda: None, timeout_s=None, retry_writes=True)
        self.feeds = Feeds(self.ledger, loop)
        self.connect()
        self.greeted = True

    def connect(self):
        self.out = []
        self.cursor = None  # of the subscription to the latest channel
        self.listens = False
        self.dropped = 0  # transient messages that no gap push has told of

    def teardown(self):
        for _ in range(60):
            self.exchange(100)
            self.all_read(100)
        for reader in self.readers:
            reader.joining.result()
            if reader.subscription.channel == "latest":
                for key, message in self.latest.kept.items():
                    assert reader.newest[key] == (self.latest.epoch, message["offset"])
        self.run(self.leave_all)
        self.exchange(100)
        assert (self.cursor, self.listens) == (None, False)
        self.run(self.ledger.end, rtclient.Closed("over"))
        self.runner.close()

    def leave_all(self):
        for reader in self.readers:
            reader.subscription._leave()

    # --- what happens ---

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=6))
    def change(self, keys):
        for key in keys:
            data = next(self.data)
            self.latest.publish(key, data)
            self.published[self.latest.epoch, self.latest.top] = (key, data)

    @rule(count=st.integers(1, 6), fits=st.booleans())
    def tell(self, count, fits):
        """Transient messages; where they do not fit into the outbox the server drops them."""
        for _ in range(count):
            data = next(self.told)
            if not self.listens:
                continue
            if not fits:
                self.dropped += 1
                continue
            self.tell_dropped()
            self.out.append(("push", "message", {"channel": "transient", "data": data, "at": 0}))

    def tell_dropped(self):
        if self.dropped:
            gap = {"channel": "transient", "lost": self.dropped, "why": "slow"}
            self.out.append(("push", "gap", gap))
            self.dropped = 0

    @precondition(lambda self: len(self.readers) < READERS_MAX)
    @rule(
        name=st.sampled_from(["latest", "transient"]),
        buffer=st.integers(1, 6),
        overflow=st.sampled_from(["history", "history", "gap", "conflate"]),
    )
    def join(self, name, buffer, overflow):
        if overflow == "conflate":
            buffer = max(buffer, len(KEYS))
        if overflow == "gap" and name == "latest":
            overflow = "history"  # would lose values, and say so
        if overflow == "conflate" and name == "transient":
            overflow = "gap"
        reader = Reader(Subscription(self.feeds, name, None, buffer, overflow))

        def enter():
            entering = reader.subscription.__aenter__()
            reader.joining = asyncio.get_running_loop().create_task(entering)

        self.run(enter)
        self.readers.append(reader)

    @rule(count=st.integers(1, 6))
    def all_read(self, count):
        for reader in self.readers:
            self.run(self.read, reader, count)

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), count=st.integers(1, 6))
    def one_reads(self, data, count):
        self.run(self.read, data.draw(st.sampled_from(self.readers)), count)

    def read(self, reader, count):
        subscription = reader.subscription
        for _ in range(min(count, subscription.buffered)):
            before = subscription.position
            item = subscription.take()
            if subscription.channel == "latest":
                self.check_latest(reader, before, item)
            else:
                self.check_transient(reader, item)

    @rule()
    def requests_arrive(self):
        if not self.greeted:
            return
        for frame in wire.Frames().cut(self.ledger.take(10**6))[0]:
            self.out.append(("reply", frame[1], self.respond(frame[2], frame[3])))

    def respond(self, method, params):
        if method == "channel.unsubscribe":
            if params[0] == "latest":
                self.cursor = None
            else:
                self.listens = False
            return {}
        if method == "channel.history":
            name, after, _, limit = params
            assert name == "latest", "a transient channel has no history"
            found = self.latest.read(after, min(limit, PAGE_MAX))
            more = found and found[-1]["offset"] < self.latest.top
            return {
                "messages": found,
                "epoch": self.latest.epoch,
                "offset": self.latest.top,
                "next": found[-1]["offset"] if more else None,
            }
        return self.subscribe(params[0], params[1] if len(params) > 1 else None)

    def subscribe(self, name, since):
        if name == "transient":
            self.listens = True
            self.dropped = 0
            return {
                "class": "transient",
                "epoch": "",
                "offset": 0,
                "recovered": False,
                "messages": [],
            }
        self.cursor, reply = self.latest.subscribe(since)
        return reply

    @rule()
    def pushes_leave(self):
        self.tell_dropped()
        if self.cursor is None:
            return
        if self.cursor + 1 < self.latest.first:
            gap = {"from": self.cursor + 1, "to": self.latest.first - 1, "why": "history"}
            self.out.append(("push", "gap", {"channel": "latest", **gap}))
            self.cursor = self.latest.first - 1
        for message in self.latest.read(self.cursor):
            self.out.append(("push", "message", {**message, "channel": "latest"}))
            self.cursor = message["offset"]
        self.cursor = max(self.cursor, self.latest.top)

    @rule(count=st.integers(1, 8))
    def frames_arrive(self, count):
        self.run(self.deliver, count)

    @rule(frames=st.integers(1, 100))
    def exchange(self, frames):
        self.requests_arrive()
        self.pushes_leave()
        self.run(self.deliver, frames)

    def deliver(self, count):
        for kind, what, content in self.out[:count]:
            if kind == "reply":
                self.ledger.reply(what, None, content)
            elif kind == "hello":
                self.feeds.resume(content)
                self.greeted = True
            elif what == "message":
                self.feeds.message(content, 100)
            else:
                self.feeds.push(what, content)
        del self.out[:count]

    @rule(what=st.sampled_from(["evict", "cut", "cut", "epoch", "leave"]), n=st.integers(0, 9))
    def mishap(self, what, n):
        if what == "evict":
            self.evicted = True
            self.latest.evict()
        elif what == "leave" and self.readers:
            self.run(self.leave, self.readers.pop(n % len(self.readers)))
        elif what in ("cut", "epoch"):
            if what == "epoch":
                self.evicted = True
                self.latest = Latest(f"e{next(self.epochs)}")
            self.run(self.ledger.lost, "cut")
            self.connect()
            positions = self.feeds.positions()
            replies = {name: self.subscribe(name, list(at)) for name, at in positions.items()}
            self.out.append(("hello", None, replies))
            self.greeted = False

    def leave(self, reader):
        if reader.joining.done():
            reader.subscription._leave()
        else:
            reader.joining.cancel()

    # --- what must hold ---

    def check_latest(self, reader, before, item):
        if isinstance(item, Gap):
            assert self.evicted, "a gap although nothing was lost"
            return
        epoch = reader.subscription.position.epoch
        assert item.offset > before.offset
        assert (item.key, item.data) == self.published[epoch, item.offset]
        reader.newest[item.key] = (epoch, item.offset)

    def check_transient(self, reader, item):
        if isinstance(item, Gap):
            uncounted = item.lost is None or reader.lost is None
            reader.lost = None if uncounted else reader.lost + item.lost
            return
        assert item.offset == 0
        if reader.last is not None:
            assert item.data > reader.last, "a message came twice or out of order"
            assert reader.lost in (None, item.data - reader.last - 1)
        reader.last, reader.lost = item.data, 0


TestDelivering = Delivering.TestCase
TestDelivering.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
