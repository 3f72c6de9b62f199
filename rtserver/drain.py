"""The end of a server's life as its clients see it: drain, the last replies, a close that says why.

Whoever can come back is given time: a connection with a session, an event stream and a poll get the
push `drain` with a delay of their own, spread over `limits.drain_ms`, and are served meanwhile; the
others are closed at once. What is left when that time is over is closed too. Every close tells how
long to wait, spread the same way, so that not all come back at one moment. A connection whose
replies wait for a sync is closed when they have left. All of it goes in slices, and takes at most
`drain_ms` and twice the grace.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable

from rtserver import __version__
from rtserver.errors import CLOSE_DRAIN
from rtserver.hub import Hub
from rtserver.session.connection import Connection

__all__ = ["Drain"]

_GRACE_S = 5.0  # for replies to be synced, then for the last bytes to be taken
_SLICE = 500  # connections in one turn
_POLL_S = 0.01
_MESSAGE = f"rtserver {__version__} stops; reconnect to resume"


class Drain:
    """Closes all connections of a hub, which accepts no more of them."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._turn = hub.turn
        self._drain_ms = hub.limits.drain_ms
        self._hurried = False
        self._loop = asyncio.get_running_loop()

    def hurry(self) -> None:
        """Gives no more time to anybody."""
        self._hurried = True

    async def run(self) -> None:
        """Returns when all connections are gone, or had their time, or the server failed."""
        until = self._loop.time() + self._drain_ms / 1_000
        leaving = await self._announce()
        await self._close(leaving)
        await self._wait(until)
        await self._close(self._hub.parties.values())
        await self._wait(self._loop.time() + _GRACE_S)

    async def _announce(self) -> list[Connection]:
        """Tells those who may stay for a while; answers the others."""
        leaving: list[Connection] = []
        for connections in _slices(self._hub.parties.values()):
            if self._is_over:
                break
            self._turn.open()
            for connection in connections:
                if self._drain_ms and _comes_back(connection):
                    connection.push("drain", {"retry_after_ms": self._delay_ms()})
                else:
                    leaving.append(connection)
            await asyncio.sleep(0)
        return leaving

    async def _close(self, connections: Iterable[Connection]) -> None:
        left = list(connections)
        until = self._loop.time() + _GRACE_S
        while left and not self._is_over:
            waits = self._loop.time() < until
            later: list[Connection] = []
            for some in _slices(left):
                self._turn.open()
                for connection in some:
                    if connection.waiting and waits:
                        later.append(connection)
                    elif connection.is_open:
                        connection.close(CLOSE_DRAIN, _MESSAGE, self._delay_ms() or None)
                await asyncio.sleep(0)
            left = later
            if left:
                await asyncio.sleep(_POLL_S)

    async def _wait(self, until: float) -> None:
        """Until nobody is left, at most so long."""
        while self._hub.parties and self._loop.time() < until and not self._is_over:
            await asyncio.sleep(_POLL_S)

    @property
    def _is_over(self) -> bool:
        return self._hurried or bool(self._turn.stopped)

    def _delay_ms(self) -> int:
        return secrets.randbelow(self._drain_ms + 1)


def _comes_back(connection: Connection) -> bool:
    """Whether a client is there that can go on elsewhere where it was (those with a stamp carry a
    cursor)."""
    return connection.session is not None or connection.stamp is not None


def _slices(connections: Iterable[Connection]) -> Iterable[list[Connection]]:
    everybody = list(connections)
    for start in range(0, len(everybody), _SLICE):
        yield [one for one in everybody[start : start + _SLICE] if one.is_open]
