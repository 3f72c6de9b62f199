"""One client program as an application would write it, measured from inside.

`python -m bench.clients LIBRARY STYLE HOW --port P --seconds S --keys K` increments counters with
rtclient or redis-py and prints one line of JSON. HOW is `single` (one call after another),
`tasks` (50 at once, each one call after another) or the number of operations in a batch.
Both libraries run on asyncio's own loop.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import rtclient
import rtclient.sync

__all__ = ["TASKS"]

TASKS = 50
Step = Callable[[int], int]  # number of the step -> operations it did
AsyncStep = Callable[[int], Awaitable[int]]


class _Names:
    """Counters in turn."""

    def __init__(self, keys: int) -> None:
        self._names = [f"n:{number:08}" for number in range(keys)]

    def one(self, n: int) -> str:
        return self._names[n % len(self._names)]

    def some(self, n: int, count: int) -> list[str]:
        return [self.one(n * count + i) for i in range(count)]


# --- blocking ---


def _ours(options: argparse.Namespace, names: _Names) -> Step:
    rt = rtclient.sync.connect(f"rt://127.0.0.1:{options.port}")
    if options.how == "single":
        return lambda n: rt.counter.add(names.one(n)) and 1
    size = int(options.how)

    def batch(n: int) -> int:
        with rt.batch() as collected:
            promised = [collected.counter.add(name) for name in names.some(n, size)]
        return sum(1 for one in promised if one.result())

    return batch


def _theirs(options: argparse.Namespace, names: _Names) -> Step:
    peer: Any = importlib.import_module("redis").Redis(port=options.port)
    if options.how == "single":
        return lambda n: peer.incr(names.one(n)) and 1
    size = int(options.how)

    def batch(n: int) -> int:
        pipeline = peer.pipeline(transaction=False)
        for name in names.some(n, size):
            pipeline.incr(name)
        return len(pipeline.execute())

    return batch


def _run_blocking(step: Step, seconds: float) -> tuple[int, float]:
    started = now = time.perf_counter()
    done = n = 0
    while now - started < seconds:
        done += step(n)
        n += 1
        now = time.perf_counter()
    return done, now - started


# --- asyncio ---


async def _ours_async(options: argparse.Namespace, names: _Names) -> AsyncStep:
    rt = await rtclient.connect(f"rt://127.0.0.1:{options.port}")

    async def single(n: int) -> int:
        await rt.counter.add(names.one(n))
        return 1

    async def batch(n: int) -> int:
        async with rt.batch() as collected:
            promised = [collected.counter.add(name) for name in names.some(n, int(options.how))]
        return sum(1 for one in promised if one.result())

    return batch if options.how.isdigit() else single


async def _theirs_async(options: argparse.Namespace, names: _Names) -> AsyncStep:
    library: Any = importlib.import_module("redis.asyncio")
    pool = library.BlockingConnectionPool(port=options.port, max_connections=TASKS)
    peer = library.Redis(connection_pool=pool)

    async def single(n: int) -> int:
        await peer.incr(names.one(n))
        return 1

    async def batch(n: int) -> int:
        async with peer.pipeline(transaction=False) as pipeline:
            for name in names.some(n, int(options.how)):
                pipeline.incr(name)
            return len(await pipeline.execute())

    return batch if options.how.isdigit() else single


async def _run_async(options: argparse.Namespace, names: _Names) -> tuple[int, float]:
    make = _ours_async if options.library == "rtclient" else _theirs_async
    step = await make(options, names)
    started = time.perf_counter()
    numbers = iter(range(sys.maxsize))

    async def work() -> int:
        done = 0
        while time.perf_counter() - started < options.seconds:
            done += await step(next(numbers))
        return done

    workers = TASKS if options.how == "tasks" else 1
    done = sum(await asyncio.gather(*(work() for _ in range(workers))))
    return done, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description="Increments counters as an application does.")
    parser.add_argument("library", choices=["rtclient", "redis"])
    parser.add_argument("style", choices=["asyncio", "blocking"])
    parser.add_argument("how", help="single, tasks, or the operations of a batch")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--keys", type=int, required=True)
    options = parser.parse_args()
    names = _Names(options.keys)
    gc.freeze()
    if options.style == "asyncio":
        done, seconds = asyncio.run(_run_async(options, names))
    else:
        make = _ours if options.library == "rtclient" else _theirs
        done, seconds = _run_blocking(make(options, names), options.seconds)
    sys.stdout.write(json.dumps({"operations": done, "seconds": seconds}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
