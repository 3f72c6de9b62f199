"""Goes on playing, at the speed of a person who watches: what the demo's page shows.

The month begins again and again. Each departure counts, adds its delay to the board of
destinations and moves its carrier's price on a `latest` channel; a long delay is announced in the
room. All of it goes through the SDK like any back end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

import rtclient
from rtserver.demo.flights import Flight

__all__ = ["LIVE", "Prices", "play_live"]

LIVE: Final = "live:"  # begins the names of all that is counted and ranked here
_BOARD: Final = "live:delays"
_TICKER: Final = "ticker:carriers"
_ROOM: Final = "room:tower"
_FLIGHTS_A_ROUND: Final = 3
_ROUND_S: Final = 0.3
_ANNOUNCED_MIN: Final = 90  # minutes of delay that the tower speaks of


class Prices:
    """What each carrier is worth: up with a departure on time, down with a late one."""

    _START: Final = 100.0
    _LATE_MIN: Final = 15  # minutes from which a departure counts as late
    _RISE: Final = 0.004
    _FALL_A_MINUTE: Final = 0.0002
    _FALL_MAX: Final = 0.03
    _HOME: Final = 0.002  # of the way back to the start, so that nobody leaves the scale

    def __init__(self) -> None:
        self._prices: dict[str, float] = {}

    def after(self, flight: Flight) -> dict[str, float]:
        """{price, change} of its carrier once it has departed, or did not."""
        old = self._prices.get(flight.carrier, self._START)
        delay_min = 240 if flight.delay_min is None else flight.delay_min
        if delay_min < self._LATE_MIN:
            new = old * (1 + self._RISE)
        else:
            new = old * (1 - min(self._FALL_MAX, delay_min * self._FALL_A_MINUTE))
        new += (self._START - new) * self._HOME
        self._prices[flight.carrier] = new
        return {"price": round(new, 2), "change": round(new - old, 2)}


async def play_live(rt: rtclient.Client, flights: Sequence[Flight]) -> None:
    """Plays until it is cancelled. An outage of the server is waited for."""
    await rt.channel.configure("ticker", class_="latest")
    prices = Prices()
    while True:
        await _begin_month(rt)
        for start in range(0, len(flights), _FLIGHTS_A_ROUND):
            await _play_round(rt, flights[start : start + _FLIGHTS_A_ROUND], prices)
            await asyncio.sleep(_ROUND_S)


async def _begin_month(rt: rtclient.Client) -> None:
    if _BOARD in (await rt.board.list(_BOARD)).items:
        await rt.board.delete(_BOARD)
    await rt.board.create(_BOARD, mode="sum")


async def _play_round(rt: rtclient.Client, flights: Sequence[Flight], prices: Prices) -> None:
    counts = [("live:departures", len(flights))]
    counts += [(f"live:from:{flight.origin}", 1) for flight in flights]
    late = [(flight.destination, flight.delay_min or 0) for flight in flights if flight.late]
    if late:
        counts.append(("live:delay-minutes", sum(minutes for _, minutes in late)))
    calls: list[Awaitable[object]] = [
        rt.counter.add_many(counts),
        rt.channel.publish_many(
            [(_TICKER, prices.after(flight), flight.carrier) for flight in flights]
        ),
        *(rt.channel.publish(_ROOM, {"text": text}) for text in _announcements(flights)),
    ]
    if late:
        calls.append(rt.board.submit_many(_BOARD, late))
    try:
        await asyncio.gather(*calls)
    except rtclient.Error as error:
        if not error.retryable and not isinstance(error, rtclient.OutcomeUnknown):
            raise


def _announcements(flights: Sequence[Flight]) -> list[str]:
    return [
        f"{flight.carrier} {flight.number} to {flight.destination} left {flight.origin}"
        f" {flight.delay_min // 60} h {flight.delay_min % 60} min late"
        for flight in flights
        if flight.delay_min is not None and flight.delay_min >= _ANNOUNCED_MIN
    ]
