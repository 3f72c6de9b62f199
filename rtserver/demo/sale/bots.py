"""Bots: they hammer the sale with reserves, and have no pass."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final

import rtclient
from rtclient.results import Hold
from rtserver.demo.sale.diary import Diary

__all__ = ["hammer"]

_BATCH: Final = 50  # requests that leave together
_PAUSE_S: Final = 0.025  # between them, and twice as long as the answers took: bots that starve
# the people would change what is measured of these


async def hammer(
    rt: rtclient.Client, sale: str, seats: Sequence[str], seed: int, diary: Diary
) -> None:
    """Tries seats at random until cancelled; each answer that is no refusal is a contradiction."""

    def count(answer: asyncio.Future[Hold]) -> None:
        if answer.cancelled():
            return
        error = answer.exception()
        if error is None:
            diary.contradictions.append(f"a bot was answered {answer.result()}")
        elif isinstance(error, rtclient.Error) and not isinstance(error, rtclient.Closed):
            diary.refused[error.name] += 1

    chance = random.Random(seed)
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        async with rt.batch() as batch:
            for _ in range(_BATCH):
                answer = batch.sale.reserve(
                    sale, items={chance.choice(seats): 1}, pass_id=f"{chance.getrandbits(64):016x}"
                )
                answer.add_done_callback(count)
        await asyncio.sleep(max(_PAUSE_S, 2 * (loop.time() - started)))
