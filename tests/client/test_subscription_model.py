"""Readers of channels against a model of the server's router, over connections that are cut.

The model keeps bounded histories, answers with small pages, feeds readers who are behind from a
cursor, and sometimes begins a new epoch. Whatever happens, a reader gets what was published, in
order, once; where something is missing she gets a Gap with the right count; and in the end she
has read everything.
"""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import rtclient
from rtclient import wire
from rtclient.feeds import Feeds
from rtclient.ledger import Ledger
from rtclient.subscription import Subscription

HISTORY_MAX = 12
PAGE_MAX = 4
READERS_MAX = 4
GAPS_MAX = 2  # that may stand in a buffer beyond its bound
PUSHES_AT_ONCE = 3  # to a cursor that is behind


class ModelChannel:
    """One channel of the model server."""

    def __init__(self, epoch):
        self.epoch = epoch
        self.first = 1
        self.messages = []

    @property
    def top(self):
        return self.first + len(self.messages) - 1

    def publish(self, data):
        self.messages.append(data)
        if len(self.messages) > HISTORY_MAX:
            self.trim(1)

    def trim(self, count):
        count = min(count, len(self.messages))
        del self.messages[:count]
        self.first += count

    def read(self, after, limit):
        offsets = range(max(after + 1, self.first), self.top + 1)[:limit]
        return [self.message(offset) for offset in offsets]

    def message(self, offset):
        return {"offset": offset, "data": self.messages[offset - self.first], "at": 0}


class ModelServer:
    """Subscriptions of one connection, as rtserver.session.router keeps them."""

    def __init__(self, channels):
        self.channels = channels
        self.cursors = {}  # position of each subscription
        self.out = []  # frames on their way to the client, in order

    def hello(self, positions):
        replies = {}
        for name, position in positions.items():
            replies[name] = self.subscribe(name, position)
        self.out.append(("hello", replies))

    def request(self, frame):
        _, call_id, method, params, *_ = frame
        name = params[0]
        if method == "channel.subscribe":
            result = self.subscribe(name, params[1] if len(params) > 1 else None)
        elif method == "channel.unsubscribe":
            result = {"unsubscribed": self.cursors.pop(name, None) is not None}
        else:
            result = self.history(name, *params[1:])
        self.out.append((call_id, result))

    def subscribe(self, name, since):
        channel = self.channels[name]
        position, recovered = channel.top, False
        if isinstance(since, dict):
            position = max(channel.first - 1, channel.top - since["last"])
        elif since is not None:
            epoch, offset = since
            if epoch == channel.epoch and offset <= channel.top:
                recovered = offset + 1 >= channel.first
                position = offset if recovered else channel.first - 1
        messages = channel.read(position, PAGE_MAX)
        position = messages[-1]["offset"] if messages else position
        self.cursors[name] = position
        return {
            "epoch": channel.epoch,
            "offset": position,
            "recovered": recovered,
            "messages": messages,
        }

    def history(self, name, after=None, before=None, limit=1_000):
        channel = self.channels[name]
        limit = min(limit, PAGE_MAX)
        if after is None:
            after = max(channel.first - 1, channel.top - limit)
        found = channel.read(after, limit)
        more = found and found[-1]["offset"] < channel.top
        return {
            "messages": found,
            "epoch": channel.epoch,
            "offset": channel.top,
            "next": found[-1]["offset"] if more else None,
        }

    def push(self):
        """What the end of a turn sends. False: the history has moved past a cursor, and the
        connection is closed."""
        for name, position in self.cursors.items():
            channel = self.channels[name]
            if position + 1 < channel.first:
                return False
            for message in channel.read(position, PUSHES_AT_ONCE):
                self.out.append(("push", {**message, "channel": name}))
                self.cursors[name] = message["offset"]
        return True


class Reader:
    """A subscription and the task that enters it."""

    def __init__(self, subscription, buffer):
        self.subscription = subscription
        self.buffer = buffer
        self.joining = None


class Reading(RuleBasedStateMachine):
    """Joins, leaves, publications, reads, cuts, in any order."""

    NAMES = ("a", "b")

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.epochs = itertools.count(1)
        self.data = itertools.count()
        self.published = {}  # (channel, epoch, offset) -> data
        self.lives = {}  # every channel object there was, by (name, epoch)
        self.channels = {name: self.new_channel(name) for name in self.NAMES}
        self.readers = []
        self.run(self.begin)

    def run(self, action, *args):
        """Runs in the loop, then lets callbacks settle."""

        async def steps():
            action(*args)
            for _ in range(5):
                await asyncio.sleep(0)

        self.runner.run(steps())

    def begin(self):
        loop = asyncio.get_running_loop()
        self.ledger = Ledger(loop, "me", lambda: None, timeout_s=None, retry_writes=True)
        self.feeds = Feeds(self.ledger, loop)
        self.server = ModelServer(self.channels)
        self.greeted = True

    def new_channel(self, name):
        channel = ModelChannel(f"e{next(self.epochs)}")
        self.lives[name, channel.epoch] = channel
        return channel

    def teardown(self):
        for _ in range(60):
            self.exchange(100)
            self.all_read(100)
        for reader in self.readers:
            assert reader.joining.done()
            reader.joining.result()
            channel = self.channels[reader.subscription.channel]
            assert reader.subscription.position == (channel.epoch, channel.top)
        self.run(self.leave_all)
        self.exchange(100)
        assert not self.server.cursors
        assert not len(self.ledger)
        self.run(self.ledger.end, rtclient.Closed("over"))
        self.runner.close()

    def leave_all(self):
        for reader in self.readers:
            reader.subscription._leave()

    # --- what happens ---

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 6))
    def publish(self, name, count):
        channel = self.channels[name]
        for _ in range(count):
            channel.publish(next(self.data))
            self.published[name, channel.epoch, channel.top] = channel.messages[-1]

    @precondition(lambda self: len(self.readers) < READERS_MAX)
    @rule(
        name=st.sampled_from(NAMES),
        buffer=st.integers(1, 6),
        since=st.none() | st.builds(dict, last=st.integers(0, 6)) | st.integers(0, 20),
    )
    def join(self, name, buffer, since):
        if isinstance(since, int):
            channel = self.channels[name]
            since = (channel.epoch, min(since, channel.top))
        reader = Reader(Subscription(self.feeds, name, since, buffer), buffer)

        def enter():
            loop = asyncio.get_running_loop()
            reader.joining = loop.create_task(reader.subscription.__aenter__())

        self.run(enter)
        self.readers.append(reader)

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), count=st.integers(1, 6))
    def one_reads(self, data, count):
        self.read(data.draw(st.sampled_from(self.readers)), count)

    @rule(count=st.integers(1, 6))
    def all_read(self, count):
        for reader in self.readers:
            self.read(reader, count)

    def read(self, reader, count):
        def take():
            subscription = reader.subscription
            for _ in range(min(count, subscription.buffered)):
                before = subscription.position
                assert subscription.buffered <= reader.buffer + GAPS_MAX
                item = subscription.take()
                self.check(subscription.channel, before, item, subscription.position)

        self.run(take)

    @rule()
    def requests_arrive(self):
        if not self.greeted:
            return  # the link sends nothing before
        for frame in wire.Frames().cut(self.ledger.take(10**6))[0]:
            self.server.request(frame)

    @rule()
    def pushes_leave(self):
        if not self.server.push():
            self.cut()

    @rule(count=st.integers(1, 8))
    def frames_arrive(self, count):
        self.run(self.deliver, count)

    @rule(frames=st.integers(1, 100))
    def exchange(self, frames):
        self.requests_arrive()
        self.pushes_leave()
        self.run(self.deliver, frames)

    @rule(
        what=st.sampled_from(["trim", "wipe", "cut", "cut", "leave", "epoch"]),
        name=st.sampled_from(NAMES),
        count=st.integers(0, HISTORY_MAX),
    )
    def mishap(self, what, name, count):
        if what == "trim":
            self.channels[name].trim(count)
        elif what == "wipe":
            self.channels[name].trim(HISTORY_MAX)
        elif what == "cut":
            self.cut()
        elif what == "epoch":  # as after a power loss: every connection is gone too
            self.channels[name] = self.new_channel(name)
            self.cut()
        elif self.readers:
            self.run(self.leave, self.readers.pop(count % len(self.readers)))

    def leave(self, reader):
        if reader.joining.done():
            reader.subscription._leave()
        else:
            reader.joining.cancel()

    def deliver(self, count):
        for what, content in self.server.out[:count]:
            if what == "push":
                self.feeds.message(content, 100)
            elif what == "hello":
                self.feeds.resume(content)
                self.greeted = True
            else:
                self.ledger.reply(what, None, content)
        del self.server.out[:count]

    def cut(self):
        self.run(self.ledger.lost, "cut")
        self.server = ModelServer(self.channels)
        self.server.hello({n: list(p) for n, p in self.feeds.positions().items()})
        self.greeted = False

    # --- what must hold ---

    def check(self, name, before, item, after):
        epoch, offset = before
        if isinstance(item, rtclient.Message):
            assert (epoch, item.offset) == after
            assert item.offset == offset + 1, "a message is missing or came twice"
            assert item.data == self.published[name, epoch, item.offset]
            assert item.channel == name
        else:
            assert item.position == after
            if item.lost is None:
                assert item.position.epoch != epoch
            else:
                assert item.position == (epoch, offset + item.lost)
                assert item.lost > 0
                assert item.position.offset < self.lives[name, epoch].first


TestReading = Reading.TestCase
TestReading.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)
