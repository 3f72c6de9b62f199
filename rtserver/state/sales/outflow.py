"""How fast a queue moves: departures from its head within about the last minute.

A ring of twelve buckets of five seconds, so that counting and asking cost the same however many
leave. The first ones to leave can be passed over: they fill a room that was empty, which says
nothing of the pace at which it goes on.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Outflow"]

_BUCKETS = 12
_BUCKET_MS = 5_000
_SOONEST_MS = 10_000  # what was seen for a shorter time is no measure


class Outflow:
    """Departures by time; `passed_over` of them are not counted. Time never goes backwards."""

    __slots__ = ("_buckets", "_newest", "_passed_over", "_since")

    def __init__(self, passed_over: int) -> None:
        self._passed_over = passed_over
        self._since: int | None = None  # when counting began
        self._newest = 0  # the number of the bucket that was counted into last
        self._buckets = [0] * _BUCKETS

    def count(self, now: int, departures: int) -> None:
        """So many left the head of the queue."""
        ignored = min(departures, self._passed_over)
        self._passed_over -= ignored
        if self._passed_over:
            return
        if self._since is None:
            self._since = now
        newest = now // _BUCKET_MS
        for number in range(max(self._newest + 1, newest - _BUCKETS + 1), newest + 1):
            self._buckets[number % _BUCKETS] = 0
        self._newest = newest
        self._buckets[newest % _BUCKETS] += departures - ignored

    def pace(self, now: int) -> tuple[int, int] | None:
        """(departures, ms in which they happened); None where there is no measure, because
        counting has just begun or nobody left for a minute."""
        if self._since is None:
            return None
        oldest = now // _BUCKET_MS - _BUCKETS + 1
        elapsed = now - max(self._since, oldest * _BUCKET_MS)
        numbers = range(max(oldest, self._newest - _BUCKETS + 1), self._newest + 1)
        departures = sum(self._buckets[number % _BUCKETS] for number in numbers)
        return (departures, elapsed) if departures and elapsed >= _SOONEST_MS else None

    def dump(self) -> list[Any]:
        return [self._passed_over, self._since, self._newest, list(self._buckets)]

    def load(self, row: list[Any]) -> None:
        self._passed_over, self._since, self._newest, self._buckets = row
