"""Every promise through a proxy that cuts, delays and halves, and through restarts of the server.

All that was published is delivered, in order, once; every write counts once; a watch ends at the
state that is true.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

import rtclient
from rtclient import CounterState
from tests.client.proxy import Proxy

READERS = 6
MESSAGES = 400
WRITERS = 4


async def read_all(rt, channel, ready, overflow):
    """Data of all messages up to the last; a Gap fails."""
    found = []
    async with rt.channel.subscribe(channel, buffer=50, overflow=overflow) as messages:
        ready.set_result(None)
        async for message in messages:
            assert isinstance(message, rtclient.Message), message
            found.append((message.offset, message.data))
            if message.data == MESSAGES - 1:
                return found


async def publish_all(rt, channel, pace):
    for n in range(MESSAGES):
        await rt.channel.publish(channel, n)
        await asyncio.sleep(pace())


async def write_all(rt, n):
    """Keyed writes, awaited one by one and in bundles; how many there were."""
    for step in range(60):
        await asyncio.gather(
            rt.counter.add_within("within", 1, max=10**9),
            rt.board.submit("sums", f"m{n}", 1, mode="sum"),
        )
        if step % 7 == 0:
            await asyncio.sleep(0.01)
    return 60


@pytest.mark.parametrize("scheme", ["rt", "ws"])
async def test_nothing_is_lost_doubled_or_out_of_order(real, scheme):
    chance = random.Random(5)
    address = rtclient.url.parse_url(real.url)
    channel = f"proxy:{scheme}"
    async with Proxy(address.host, address.port, chance) as proxy, contextlib.AsyncExitStack() as s:
        url = f"{scheme}://127.0.0.1:{proxy.port}"

        async def client():
            for _ in range(100):  # the first connection may be cut as well
                with contextlib.suppress(rtclient.ConnectionLost):
                    return await s.enter_async_context(rtclient.connect(url, heartbeat=1))
            raise AssertionError("no connection")

        direct = await s.enter_async_context(rtclient.connect(real.url))
        await direct.board.create("sums", mode="sum")
        before = await direct.counter.get("within")
        sums = await score_sum(direct)
        ready = [asyncio.get_running_loop().create_future() for _ in range(READERS)]
        readers = [
            asyncio.create_task(read_all(await client(), channel, one, "history")) for one in ready
        ]
        writers = [asyncio.create_task(write_all(await client(), n)) for n in range(WRITERS)]
        watcher = await client()
        watch = await s.enter_async_context(watcher.counter.watch("within"))
        await asyncio.wait_for(asyncio.gather(*ready), 30)
        publisher = asyncio.create_task(
            publish_all(await client(), channel, lambda: chance.uniform(0, 0.004))
        )
        for kill in (True, False):
            await asyncio.sleep(0.5)
            await asyncio.to_thread(real.restart, kill=kill)
        await asyncio.wait_for(asyncio.gather(publisher, *writers), 60)
        for found in await asyncio.wait_for(asyncio.gather(*readers), 60):
            assert [data for _, data in found] == list(range(MESSAGES))
            offsets = [offset for offset, _ in found]
            assert offsets == list(range(offsets[0], offsets[0] + MESSAGES))
        assert await direct.counter.get("within") == before + 60 * WRITERS
        assert await score_sum(direct) == sums + 60 * WRITERS
        proxy.calm = True
        final = CounterState(before + 60 * WRITERS)
        async with asyncio.timeout(30):
            while await anext(watch) != final:
                pass
        assert proxy.cuts > 10


async def score_sum(rt):
    return sum(entry.score for entry in (await rt.board.top("sums", 100)).entries)
