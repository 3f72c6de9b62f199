"""What a waiting room costs: bytes a waiter and microseconds an operation, without commands.

`python -m bench.waiting_room [--waiters 1000000]` prints one row a way to fill a room: before the
start, after it, and before it with limits a user and an address. Each is measured in a process of
its own; RTSERVER_PURE=1 measures the plain form. Names have 10 bytes. Memory is the growth of the
resident set over all joins; times are processor time, the mean: `join` over all, `the last` over
the last 10,000, `place` over 10,000 at random, `admit` a user over the first 10,000.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from bench.skiplist import resident_bytes
from rtserver.compiled import active_modules
from rtserver.state.sales.room import WaitingRoom
from rtserver.state.sales.terms import QueueTerms

RUN = 10_000
WAYS = {
    "before": (QueueTerms(1_000_000, 10**9), False),
    "after": (QueueTerms(1_000_000, 10**9), True),
    "with limits": (QueueTerms(1_000_000, 10**9, per_address=9, joins_per_user=9), False),
}


def measure(way: str, waiters: int) -> list[float]:
    """One row: bytes, then microseconds."""
    gc.disable()
    terms, started = WAYS[way]
    room = WaitingRoom(terms, "a" * 32, "b" * 32, started=started)
    before = resident_bytes()
    spent = last = 0
    for first in range(0, waiters, RUN):
        users = [f"u{number:09}" for number in range(first, first + RUN)]
        addresses = [
            f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(first, first + RUN)
        ]
        began = time.thread_time_ns()
        for user, address in zip(users, addresses, strict=True):
            room.join(0, user, tied=True, address=address)
        last = time.thread_time_ns() - began
        spent += last
    grown = resident_bytes() - before
    chosen = [f"u{random.randrange(waiters):09}" for _ in range(RUN)]
    began = time.thread_time_ns()
    for user in chosen:
        room.place(0, user)
    placed = time.thread_time_ns() - began
    if not started:
        room.start(0)
    began, admitted = time.thread_time_ns(), 0
    while admitted < RUN:
        admitted += len(room.admit(admitted, waiters))
    entered = time.thread_time_ns() - began
    return [
        grown / waiters,
        spent / waiters / 1e3,
        last / RUN / 1e3,
        placed / RUN / 1e3,
        entered / admitted / 1e3,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--waiters", type=int, default=1_000_000, help=f"in runs of {RUN}")
    waiters = parser.parse_args().waiters // RUN * RUN
    form = "compiled" if active_modules() else "plain"
    heads = ("bytes", "join", "the last", "place", "admit")
    sys.stdout.write(f"{form:<12}" + "".join(f"{head:>10}" for head in heads) + "\n")
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        for way, cells in zip(WAYS, fresh.map(measure, WAYS, [waiters] * len(WAYS)), strict=True):
            sys.stdout.write(f"{way:<12}" + "".join(f"{cell:>10.2f}" for cell in cells) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
