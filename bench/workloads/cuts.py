"""A thousand subscribers and a steady publisher, through cuts and restarts: is anything lost?

Subscribers are rtclient over WebSocket, behind a proxy that is cut for two seconds again and again;
then the server is stopped in order and started, then killed and started. The publisher is rtclient
too and never cut from a server that runs. Counted is what the subscribers' iterators hand out.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import rtclient
from bench.contest import WrongState
from bench.cutter import Cutter
from bench.listeners import WAIT_S
from bench.machine import pinned
from bench.peers import Rtserver
from bench.report import OURS, Measure, Result
from bench.run import Run
from bench.supplies import CHANNEL

__all__ = ["measure"]

_SUBSCRIBERS = 1_000
_PROCESSES = 4
_RATE = 20  # messages a second: fewer than the history holds over the longest way back
_CUTS = 3
_CUT_S = 2.0
_BETWEEN_S = 2.0
_QUICK_SHARE = 10
_EXTRA_S = 30


def measure(run: Run) -> Result:
    """Workload `cuts`."""
    result = Result(
        "cuts",
        f"{run.sized(_SUBSCRIBERS):,} subscribers (rtclient, ws://) of one channel with {_RATE}"
        " messages a second",
    )
    with Rtserver(run.directory / "ours", run.cores.server) as server:
        asyncio.run(_Trial(run, result, server).run())
    result.notes += [
        f"cuts: {_CUTS} of {_CUT_S:g} s, {_BETWEEN_S:g} s apart; restarts: one each. After each of"
        f" the three, everybody gets up to {WAIT_S:g} s for what is still missing",
        "delivered: of the messages that were acknowledged to the publisher, at all subscribers"
        " together; duplicates and order as the SDK hands them out",
    ]
    return result


class _Trial:
    """One server, one publisher, many subscribers."""

    def __init__(self, run: Run, result: Result, server: Rtserver) -> None:
        self._run = run
        self._result = result
        self._server = server
        self._published = 0
        self._listeners: list[asyncio.subprocess.Process] = []
        share = _QUICK_SHARE if run.quick else 1
        self._cut_s, self._between_s = _CUT_S / share, _BETWEEN_S / share

    async def run(self) -> None:
        address = self._server.address
        async with Cutter(address) as self._cutter, Cutter(address) as self._door, self._audience():
            url = f"rt://127.0.0.1:{self._door.address[1]}"
            async with rtclient.connect(url, timeout=WAIT_S) as rt:
                await self._event(rt, "cuts of 2 s", self._cuts)
                await self._event(rt, "restart by SIGTERM", lambda: self._restart(Rtserver.stop))
                await self._event(rt, "restart by kill -9", lambda: self._restart(Rtserver.kill))

    @asynccontextmanager
    async def _audience(self) -> AsyncIterator[None]:
        count = self._run.sized(_SUBSCRIBERS)
        each = max(1, count // _PROCESSES)
        url = f"ws://127.0.0.1:{self._cutter.address[1]}/ws"
        words = (sys.executable, "-m", "bench.listeners", url, str(each), CHANNEL)
        try:
            for _ in range(count // each):
                with pinned(self._run.cores.load):
                    one = await asyncio.create_subprocess_exec(
                        *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                    )
                self._listeners.append(one)
            for one in self._listeners:
                if await _line(one) != "ready\n":
                    raise WrongState("subscribers did not get through")
            self._count = each * len(self._listeners)
            yield
        finally:
            for one in self._listeners:
                if one.returncode is None:
                    one.kill()
                await one.wait()

    async def _event(
        self, rt: rtclient.Client, name: str, act: Callable[[], Awaitable[None]]
    ) -> None:
        before = self._published
        publishing = asyncio.create_task(self._publish(rt))
        await asyncio.sleep(self._between_s)
        await act()
        await asyncio.sleep(self._between_s)
        self._is_over = True
        await publishing
        counts = await self._report()
        due = (self._published - before) * self._count
        self._run.say(f"{name}: {counts['delivered']:,} of {due:,}, {dict(counts)}")
        self._result.measures += [
            Measure(f"{name}: {quantity}", OURS, unit, [value])
            for quantity, unit, value in (
                ("delivered", "%", 100 * counts["delivered"] / due),
                ("out of order", "", counts["out_of_order"]),
                ("duplicates", "", counts["duplicates"]),
                ("gaps told", "", counts["gaps"]),
            )
        ]

    async def _publish(self, rt: rtclient.Client) -> None:
        """Numbers, each once the one before it was acknowledged."""
        self._is_over = False
        while not self._is_over:
            await rt.channel.publish(CHANNEL, self._published + 1)
            self._published += 1
            await asyncio.sleep(1 / _RATE)

    async def _report(self) -> Counter[str]:
        """What all got since the last report."""
        counts: Counter[str] = Counter()
        for one in self._listeners:
            assert one.stdin is not None, "it is a pipe"
            one.stdin.write(f"{self._published}\n".encode())
        for one in self._listeners:
            counts.update(json.loads(await _line(one)))
        return counts

    async def _cuts(self) -> None:
        for number in range(_CUTS):
            if number:
                await asyncio.sleep(self._between_s)
            self._cutter.cut()
            await asyncio.sleep(self._cut_s)
            self._cutter.mend()

    async def _restart(self, end: Callable[[Rtserver], None]) -> None:
        await asyncio.to_thread(end, self._server)
        await asyncio.to_thread(self._server.start)
        self._cutter.target = self._door.target = self._server.address


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None, "it is a pipe"
    line = await asyncio.wait_for(process.stdout.readline(), WAIT_S + _EXTRA_S)
    return line.decode()
