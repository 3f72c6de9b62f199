"""Many subscribers of one channel, each a client of its own, that count what they get.

`python -m bench.listeners URL COUNT CHANNEL` connects them all and prints a line; then each line
on stdin that holds a number makes them wait until everybody has that message, or WAIT_S at most,
and print one line of JSON: what came since the last report. Messages are integers, each one more
than the one before. End of input ends it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import AsyncExitStack

import uvloop

import rtclient

__all__ = ["WAIT_S", "Listener"]

WAIT_S = 60.0
_OPENING = 50  # at a time
_POLL_S = 0.05


class Listener:
    """What one subscriber got."""

    def __init__(self, counts: Counter[str]) -> None:
        self.newest = 0
        self._counts = counts
        self._seen: set[int] = set()

    async def listen(
        self, subscription: rtclient.Subscription[rtclient.Message | rtclient.Gap]
    ) -> None:
        async for item in subscription:
            if isinstance(item, rtclient.Gap):
                self._counts["gaps"] += 1
            else:
                self.take(item.data)

    def take(self, number: int) -> None:
        """One message."""
        if number in self._seen:
            self._counts["duplicates"] += 1
            return
        self._seen.add(number)
        self._counts["delivered"] += 1
        self._counts["out_of_order"] += number < self.newest
        self.newest = max(self.newest, number)


async def _main(url: str, count: int, channel: str) -> None:
    counts: Counter[str] = Counter()
    opening = asyncio.Semaphore(_OPENING)
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        listeners = [Listener(counts) for _ in range(count)]

        async def begin(listener: Listener) -> asyncio.Task[None]:
            async with opening:
                rt = await stack.enter_async_context(rtclient.connect(url))
                messages = await stack.enter_async_context(rt.channel.subscribe(channel))
                return tasks.create_task(listener.listen(messages))

        begun = await asyncio.gather(*map(begin, listeners))
        _print("ready")
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            await _all_have(listeners, int(line))
            _print(json.dumps(counts))
            counts.clear()
        for task in begun:
            task.cancel()


async def _all_have(listeners: list[Listener], number: int) -> None:
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while any(one.newest < number for one in listeners):
        if asyncio.get_running_loop().time() > deadline:
            return
        await asyncio.sleep(_POLL_S)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
