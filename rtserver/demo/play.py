"""Plays flights through the SDK over TCP, then checks every number against the recount."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import rtclient
from rtserver.demo.flights import Flight, Recount

__all__ = ["BOARD_CARRIERS", "BOARD_DELAYS", "Played", "check", "clear", "play"]

BOARD_DELAYS = "delay-minutes:planes"
BOARD_CARRIERS = "flights:carriers"
_CHUNK = 150  # flights a round: their three counters each fit one vector command
_IN_FLIGHT = 8  # rounds that may wait for their answers

T = TypeVar("T")


class Played(NamedTuple):
    """How long it took, and how many departures a subscriber was told of."""

    seconds: float
    updates: int
    followed: str
    heard: int


async def clear(rt: rtclient.Client) -> None:
    """Removes what an earlier run left in the data directory."""
    for board in (BOARD_DELAYS, BOARD_CARRIERS):
        if board in (await rt.board.list(board)).items:
            await rt.board.delete(board)
    while names := [row.name for row in (await rt.counter.list("flights:", limit=1000)).items]:
        await asyncio.gather(*(rt.counter.delete(name) for name in names))


async def play(rt: rtclient.Client, flights: list[Flight], tell: Callable[[int], None]) -> Played:
    """Counts, ranks and publishes every flight, in order; `tell` hears of progress."""
    await rt.board.create(BOARD_DELAYS, mode="sum")
    await rt.board.create(BOARD_CARRIERS, mode="sum")
    followed = flights[0].channel
    expected = sum(flight.channel == followed for flight in flights)
    async with rt.channel.subscribe(followed) as departures:
        listener = asyncio.create_task(_listen(departures, expected))
        started = time.perf_counter()
        updates = await _play_all(rt, flights, tell)
        seconds = time.perf_counter() - started
        heard = await asyncio.wait_for(listener, 30)
    return Played(seconds, updates, followed, heard)


async def _listen(
    departures: rtclient.Subscription[rtclient.Message | rtclient.Gap], expected: int
) -> int:
    """How many departures came, in order and without a gap; ends with the expected one."""
    heard = 0
    async for departure in departures:
        if isinstance(departure, rtclient.Gap):
            raise AssertionError(f"departures were lost: {departure}")
        heard += 1
        if heard == expected:
            break
    return heard


async def _play_all(rt: rtclient.Client, flights: list[Flight], tell: Callable[[int], None]) -> int:
    window = asyncio.Semaphore(_IN_FLIGHT)
    updates = 0

    async def one(chunk: list[Flight]) -> None:
        nonlocal updates
        try:
            done = await _play_chunk(rt, chunk)
            updates += done  # not in one step: `+=` would read the sum before the await
            tell(len(chunk))
        finally:
            window.release()

    async with asyncio.TaskGroup() as rounds:
        for chunk in _chunks(flights, _CHUNK):
            await window.acquire()
            rounds.create_task(one(chunk))
    return updates


async def _play_chunk(rt: rtclient.Client, chunk: list[Flight]) -> int:
    """Four vector commands; calls of one client are sent in the order they are made."""
    counts = [(name, 1) for flight in chunk for name in flight.counters]
    carriers = [(flight.carrier, 1) for flight in chunk]
    delays = [(flight.plane, flight.delay_min) for flight in chunk if flight.late]
    departures = [(flight.channel, flight.departure()) for flight in chunk]
    calls: list[Awaitable[object]] = [
        rt.counter.add_many(counts),
        rt.board.submit_many(BOARD_CARRIERS, carriers),
        rt.channel.publish_many(departures),
    ]
    if delays:
        calls.append(rt.board.submit_many(BOARD_DELAYS, delays))
    await asyncio.gather(*calls)
    return len(counts) + len(carriers) + len(delays) + len(departures)


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


# --- checking ---


async def check(rt: rtclient.Client, recount: Recount, played: Played) -> tuple[int, list[str]]:
    """(how many numbers were compared, what differs)."""
    wrong: list[str] = []
    compared = await _check_counters(rt, recount, wrong)
    compared += await _check_board(rt, BOARD_CARRIERS, recount.ranking(recount.carriers), wrong)
    compared += await _check_board(rt, BOARD_DELAYS, recount.ranking(recount.delays), wrong)
    expected = recount.departures[played.followed]
    if played.heard != expected:
        wrong.append(f"{played.followed}: heard {played.heard} departures, expected {expected}")
    return compared + 1, wrong


async def _check_counters(rt: rtclient.Client, recount: Recount, wrong: list[str]) -> int:
    found: dict[str, int] = {}
    after: str | None = None
    while True:
        page = await rt.counter.list("flights:", after, limit=1000)
        found.update((row.name, row.value) for row in page.items)
        after = page.next
        if after is None:
            break
    for name in sorted(found.keys() | recount.counters.keys()):
        if found.get(name) != recount.counters.get(name):
            wrong.append(f"{name}: {found.get(name)}, expected {recount.counters.get(name)}")
    return len(found)


async def _check_board(
    rt: rtclient.Client, name: str, expected: list[tuple[str, int]], wrong: list[str]
) -> int:
    """Every place of the board: member, score and rank."""
    for offset in range(0, len(expected) + 1, 1000):
        page = await rt.board.top(name, 1000, offset)
        found = [(entry.member, entry.score, entry.rank) for entry in page.entries]
        wanted = [
            (member, score, place)
            for place, (member, score) in enumerate(
                expected[offset : offset + 1000], start=offset + 1
            )
        ]
        wrong += [
            f"{name}: place {want[2]} is {got}, expected {want}"
            for got, want in itertools.zip_longest(found, wanted, fillvalue=("", 0, 0))
            if got != want
        ]
    return len(expected)
