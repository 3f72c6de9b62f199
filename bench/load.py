"""The load generator: a process of its own that sends prepared batches and counts replies.

A connection sends a batch, waits for all its replies and sends the next (as redis-benchmark -P
does), so the depth is what is outstanding at most. Connections share one supply of batches. Per
batch the generator makes one send, one or two receives and one pass over the replies; the
report shows what it reaches alone (against `peers.Canned`). It never decides what is sent.
"""

from __future__ import annotations

import gc
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from multiprocessing import get_context
from typing import Self

from bench.requests import Batch, CountReplies

__all__ = ["Generator", "Outcome", "Plan"]

_SILENCE_S = 30  # without any reply: something is broken
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """What one round sends. Travels to the generator's process, which makes the batches."""

    address: tuple[str, int]
    supply: Callable[[], Sequence[Batch]]  # a module's function or a partial of one
    count: CountReplies
    connections: int
    seconds: float | None = None  # the supply is repeated so long; None: sent once, to its end


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one round brought."""

    replies: int
    seconds: float  # from the first send to the last reply
    p50_us: float  # from a batch's send to the last of its replies
    p99_us: float

    @property
    def rate(self) -> float:
        """Replies a second."""
        return self.replies / self.seconds


class Generator:
    """Runs plans in one process, pinned to `core` (None: anywhere)."""

    def __init__(self, core: int | None) -> None:
        self._pool = ProcessPoolExecutor(
            1, get_context("spawn"), initializer=_prepare, initargs=(core,)
        )

    def run(self, plan: Plan) -> Outcome:
        """One round. Raises RequestFailed, TimeoutError, ConnectionError."""
        return self._pool.submit(_run, plan).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pool.shutdown()


def _prepare(core: int | None) -> None:
    gc.disable()
    if core is not None:
        os.sched_setaffinity(0, {core})


class _Connection:
    """One socket with at most one batch under way."""

    __slots__ = ("_count", "_rest", "_socket", "due", "sent_at")

    def __init__(self, made: socket.socket, count: CountReplies) -> None:
        self.due = 0  # replies that are missing
        self.sent_at = 0.0
        self._socket = made
        self._count = count
        self._rest = b""  # the beginning of a reply

    def send(self, batch: Batch) -> None:
        data, self.due = batch
        self.sent_at = time.perf_counter()
        self._socket.sendall(data)

    def receive(self) -> None:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionError("the peer closed the connection")
        if self._rest:
            data = self._rest + data
        count, stop = self._count(data)
        self._rest = data[stop:]
        self.due -= count


def _run(plan: Plan) -> Outcome:
    supply = plan.supply()
    batches = iter(supply) if plan.seconds is None else cycle(supply)
    sockets = [
        socket.create_connection(plan.address, timeout=_SILENCE_S) for _ in range(plan.connections)
    ]
    with selectors.DefaultSelector() as selector:
        for made in sockets:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(made, plan.count)
            selector.register(made, selectors.EVENT_READ, connection)
        replies, seconds, waits = _drive(selector, batches, plan.seconds or float("inf"))
    for made in sockets:
        made.close()
    waits.sort()
    return Outcome(replies, seconds, _quantile_us(waits, 0.50), _quantile_us(waits, 0.99))


def _drive(
    selector: selectors.BaseSelector, batches: Iterator[Batch], seconds: float
) -> tuple[int, float, list[float]]:
    """Keeps every connection busy, then waits for what is outstanding.

    -> replies, seconds, and how long each batch took in seconds.
    """
    clock = time.perf_counter
    waits: list[float] = []
    replies = busy = 0
    started = clock()
    for key in selector.get_map().values():
        batch = next(batches, None)
        if batch is not None:
            key.data.send(batch)
            replies += batch[1]
            busy += 1
    while busy:
        ready = selector.select(_SILENCE_S)
        if not ready:
            raise TimeoutError(f"no reply for {_SILENCE_S} seconds")
        for key, _ in ready:
            connection = key.data
            connection.receive()
            if connection.due > 0:
                continue
            now = clock()
            waits.append(now - connection.sent_at)
            batch = next(batches, None) if now - started < seconds else None
            if batch is None:
                busy -= 1
            else:
                connection.send(batch)
                replies += batch[1]
    return replies, clock() - started, waits


def _quantile_us(ordered: list[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))] * 1e6
