"""The heartbeat of one connection: what keeps it alive, and finds out when it is dead.

Each interval a `server.ping` leaves, whose answer counts like any bytes. A connection on which
nothing came between two pings is a zombie (the peer's host is there and nobody answers, or a proxy
swallows everything): it is cut at most two intervals after its last byte. Costs: one timer a
connection, none a call.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from rtclient import wire
from rtclient.connection import Connection
from rtclient.errors import ConnectionLost

__all__ = ["Heartbeat"]

# Its reply is told from those to calls, which count from 1.
_PING_BODY: Final = wire.Packer().pack((0, 0, "server.ping", ()))
_PING: Final = wire.header(len(_PING_BODY)) + _PING_BODY
_GRACE_S: Final = 0.05  # a loop that was blocked reads what has come meanwhile


class Heartbeat:
    """Beats from its making to `stop`. `before_beat` is called before the connection is used."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: Connection,
        interval_s: float,
        before_beat: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._interval_s = interval_s
        self._before_beat = before_beat
        # Those who connected together shall not ping together.
        self._timer = loop.call_later(interval_s * random.uniform(0.5, 1.0), self._beat)

    def stop(self) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        self._before_beat()
        connection = self._connection
        if not connection.heard:
            self._timer = self._loop.call_later(_GRACE_S, self._judge)
            return
        connection.heard = False
        if not connection.paused:
            connection.write(_PING)
        self._timer = self._loop.call_later(self._interval_s, self._beat)

    def _judge(self) -> None:
        if self._connection.heard:
            self._beat()
            return
        self._connection.verdict = ConnectionLost(
            f"the server was silent for more than {self._interval_s:g} s", retryable=True
        )
        self._connection.abort()
