"""The sale from its creation to the verdict: its own server, a hall, a crowd, a reconciliation.

Bounded in time: the sale is closed after the seconds that were asked for, holds end by themselves
soon after, and nobody waits for anything longer than that. Leaves no process and, unless told to,
no file behind.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

import rtclient
from rtserver.demo.process import serving
from rtserver.demo.sale.access import Access
from rtserver.demo.sale.books import Books, read_books, read_log
from rtserver.demo.sale.bots import hammer
from rtserver.demo.sale.crowd import Crowd
from rtserver.demo.sale.diary import Diary
from rtserver.demo.sale.hall import pages_of_seats
from rtserver.demo.sale.plans import PARTY_MAX, PER_ADDRESS, Times, draw
from rtserver.demo.sale.reconcile import reconcile
from rtserver.demo.sale.report import report
from rtserver.demo.sale.screen import Screen

__all__ = ["Sold", "run_sale_demo", "sell"]

SALE: Final = "hall"
_SHOP_CONNECTIONS: Final = 4
_BOTS: Final = 6
_BOTS_ADDRESS: Final = "198.51.100.7"
_SLACK_S: Final = 20.0  # beyond the end of the last hold, on a machine that has other things to do
_LOOK_S: Final = 0.05
_GC_THRESHOLD: Final = (100_000, 50, 1_000)  # a collection walks all buyers, while answers wait


class Sold(NamedTuple):
    """A sale that is over. seconds: from its opening to its close."""

    diary: Diary
    books: Books
    seconds: float


async def run_sale_demo(
    buyers: int, seats: int, seed: int | None, seconds: float, data: Path | None
) -> int:
    """Sells, prints and checks; returns the exit code."""
    if data is not None and data.exists() and any(data.iterdir()):
        raise click.UsageError(f"--data is {data}, which is not empty")
    seed = random.randrange(10**6) if seed is None else seed
    click.echo(
        f"{buyers:,} buyers for {seats:,} seats; --seed {seed} sends the same ones", err=True
    )
    gc.set_threshold(*_GC_THRESHOLD)
    try:
        sold = await sell(buyers, seats, seed, seconds, data)
    except (ExceptionGroup, rtclient.Error, TimeoutError) as error:
        first = _first(error)
        if not isinstance(first, rtclient.Error | TimeoutError):
            raise
        raise click.ClickException(f"the sale broke off: {first!r}") from error
    findings = reconcile(sold.diary, sold.books)
    return report(sold.diary, sold.books, findings, buyers, sold.seconds)


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def sell(
    buyers: int, seats: int, seed: int, seconds: float, data: Path | None = None
) -> Sold:
    """The whole sale at a server of its own, whose log is read when it has ended."""
    with tempfile.TemporaryDirectory(prefix="rtserver-demo-") as made:
        directory = data or Path(made) / "data"
        access = Access()
        config = access.configure(Path(made), directory)
        async with serving("--config", str(config), err=True) as url:
            sold = await _sell(url, access, buyers, seats, seed, seconds)
        sold.books.log = read_log(directory, SALE)
    return sold


async def _sell(
    url: str, access: Access, buyers: int, seats: int, seed: int, seconds: float
) -> Sold:
    times = Times.of(seconds)
    diary = Diary()
    async with AsyncExitStack() as stack:
        shop = [
            await stack.enter_async_context(access.connect_shop(url))
            for _ in range(_SHOP_CONNECTIONS)
        ]
        skus = await _create(shop[0], seats, times, diary)
        crowd = Crowd(
            SALE,
            draw(seed, buyers, times),
            times,
            diary,
            shop,
            lambda plan: access.connect_buyer(url, plan.user, plan.address),
        )
        stack.push_async_callback(crowd.stop)
        screen = Screen(diary, buyers, lambda: crowd.came)
        async with _around(
            crowd.follow(),
            _watch(shop[1], screen),
            screen.run(),
            *(_bot(url, access, number, skus, seed, diary) for number in range(_BOTS)),
        ):
            await _let_in(crowd, screen, times)
            took = await _close(shop[0], crowd, times)
            screen.draw()
            books = await _read(shop[0], crowd)
    return Sold(diary, books, took)


# --- the sale ---


async def _create(rt: rtclient.Client, seats: int, times: Times, diary: Diary) -> list[str]:
    """A hall and a queue that suit each other: all seats could be held in a fifth of the time."""
    rate = max(2, math.ceil(0.75 * seats / (0.2 * times.whole)))
    queue = {
        "rate_per_s": rate,
        "active_max": max(4, math.ceil(rate * times.whole / 10)),
        "pass_ms": _ms(times.grant),
        "grace_ms": _ms(times.grace),
        "dwell_ms": _ms(times.dwell),
        "per_address": PER_ADDRESS,
    }
    first, *others = pages_of_seats(seats)
    created = await rt.sale.create(
        SALE,
        first,
        per_user=PARTY_MAX,
        hold_ms=_ms(times.hold),
        opens_at=int(time.time() * 1_000) + _ms(times.opens),
        queue=queue,
    )
    diary.seed_sha256 = created.seed_sha256
    for page in others:
        await rt.sale.restock(SALE, page)
    return [sku for page in (first, *others) for sku in page]


def _ms(seconds: float) -> int:
    return int(seconds * 1_000)


async def _let_in(crowd: Crowd, screen: Screen, times: Times) -> None:
    """Until all came and nothing is left for anybody, or the time is over."""
    coming = asyncio.create_task(crowd.come())
    try:
        async with asyncio.timeout(times.whole):
            await asyncio.shield(coming)
            while screen.is_left or crowd.visiting:
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        pass
    finally:
        coming.cancel()


async def _close(rt: rtclient.Client, crowd: Crowd, times: Times) -> float:
    """Ends the sale, and waits for the last holds; how many seconds it was open."""
    await rt.sale.close(SALE)
    ended = time.time()
    status = await rt.sale.status(SALE, limit=1)
    await crowd.tell()
    assert status.opens_at is not None, "it was created so"
    try:
        async with asyncio.timeout(3 * times.hold + _SLACK_S):
            await crowd.done()
            while (await rt.sale.status(SALE, limit=1)).total.held:
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise TimeoutError("visits or holds have not ended, long after their time") from None
    return ended - status.opens_at / 1_000


async def _read(rt: rtclient.Client, crowd: Crowd) -> Books:
    """The books, once the last step was pushed too."""
    books = await read_books(rt, SALE, crowd.pushed)
    deadline = time.monotonic() + _SLACK_S
    while len(crowd.pushed) < len(books.steps) and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_S)
    return books


# --- what goes on beside it ---


@asynccontextmanager
async def _around(*lives: Any) -> AsyncIterator[None]:
    """Runs them as long as the block; the first error of one of them ends it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(life) for life in lives]
        yield
        for task in tasks:
            task.cancel()


async def _watch(rt: rtclient.Client, screen: Screen) -> None:
    async with rt.sale.watch(SALE) as states:
        async for state in states:
            screen.state = state


async def _bot(
    url: str, access: Access, number: int, skus: Sequence[str], seed: int, diary: Diary
) -> None:
    user = f"bot-{number}"
    async with access.connect_buyer(url, user, _BOTS_ADDRESS) as rt:
        await hammer(rt, SALE, skus, seed + number, diary)
