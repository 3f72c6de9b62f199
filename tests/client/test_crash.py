"""A real server that is killed, stopped and started again under clients at work."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

import rtclient
import rtclient.sync
from rtclient.testing import start_server

RESTARTS = 3
WRITERS = 8


@pytest.fixture
def mortal():
    with start_server(manual_clock=False) as server:
        yield server


class Work:
    """What writers did and heard, and what a reader saw."""

    def __init__(self):
        self.over = False
        self.published = []  # data of acknowledged messages
        self.sums = 0  # acknowledged keyed increments
        self.added = 0  # acknowledged plain increments
        self.unknown = 0  # plain increments whose outcome nobody knows
        self.seen = []

    async def write(self, rt, writer):
        for number in range(10**9):
            if self.over:
                return
            await rt.channel.publish("crash:1", [writer, number])
            self.published.append((writer, number))
            await rt.board.submit("crash", "ann", 1, mode="sum")
            self.sums += 1
            try:
                await rt.counter.add("crash")
                self.added += 1
            except rtclient.OutcomeUnknown:
                self.unknown += 1
            await asyncio.sleep(0.02)

    async def read(self, rt, since):
        async with rt.channel.subscribe("crash:1", since) as messages:
            self.began.set()
            async for message in messages:
                assert isinstance(message, rtclient.Message), message
                self.seen.append(message)
                if message.data == "over":
                    return


@pytest.mark.parametrize("kill", [True, False])
async def test_acknowledged_writes_are_there_once_and_readers_miss_nothing(mortal, kill):
    work = Work()
    work.began = asyncio.Event()
    async with rtclient.connect(mortal.url) as rt, rtclient.connect(mortal.url) as other:
        reading = asyncio.create_task(work.read(other, None))
        await work.began.wait()
        writing = [asyncio.create_task(work.write(rt, writer)) for writer in range(WRITERS)]
        for _ in range(RESTARTS):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(mortal.restart, kill=kill)
        await asyncio.sleep(0.3)
        work.over = True
        await asyncio.gather(*writing)
        await rt.channel.publish("crash:1", "over")
        await asyncio.wait_for(reading, 20)

        times = Counter(tuple(message.data) for message in work.seen[:-1])
        assert sorted(times) == sorted(work.published)
        assert set(times.values()) == {1}
        first = work.seen[0].offset
        assert [message.offset for message in work.seen] == list(
            range(first, first + len(work.seen))
        )
        assert len(work.published) > 10 * RESTARTS
        assert (await rt.board.rank("crash", "ann")).score == work.sums
        assert work.added <= await rt.counter.get("crash") <= work.added + work.unknown


async def test_a_position_kept_over_a_crash_goes_on_in_another_client(mortal):
    async with rtclient.connect(mortal.url) as rt:
        async with rt.channel.subscribe("kept:1") as messages:
            await rt.channel.publish("kept:1", 1)
            assert (await anext(messages)).data == 1
            position = messages.position
        await rt.channel.publish("kept:1", 2)
    await asyncio.to_thread(mortal.restart)
    async with (
        rtclient.connect(mortal.url) as rt,
        rt.channel.subscribe("kept:1", since=position) as messages,
    ):
        assert messages.recovered
        assert (await anext(messages)).data == 2


def test_blocking_clients_live_through_it_too(mortal):
    seen, added, unknown = [], [], []
    began = threading.Event()

    def read():
        with rt.channel.subscribe("sync:1") as messages:
            began.set()
            for message in messages:
                seen.append(message.data)
                if message.data == "over":
                    return

    def write(writer):
        for number in range(30):
            rt.channel.publish("sync:1", [writer, number])
            try:
                rt.counter.add("sync")
                added.append(1)
            except rtclient.OutcomeUnknown:
                unknown.append(1)

    with rtclient.sync.connect(mortal.url) as rt:
        threads = [threading.Thread(target=read)]
        threads += [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
        threads[0].start()
        began.wait(10)
        for thread in threads[1:]:
            thread.start()
        mortal.restart()
        for thread in threads[1:]:
            thread.join(30)
        rt.channel.publish("sync:1", "over")
        threads[0].join(30)
        assert sorted(seen[:-1]) == [[w, n] for w in range(4) for n in range(30)]
        assert len(added) <= rt.counter.get("sync") <= len(added) + len(unknown)
