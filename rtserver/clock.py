"""The server's time: milliseconds since 1970 UTC, never backwards, immune to clock steps.

Owns one rule: time advances with the monotonic clock and drifts towards the wall clock by at
most 500 ppm (the slew rate of adjtime(3)), so a step of the system clock expires no hold and
ends no season early. State never reads a clock; each turn takes one reading and passes it on.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["SLEW_PPM", "Clock", "ManualClock", "SteadyClock", "monotonic_us", "wall_ms"]

SLEW_PPM = 500
_SLEW_EVERY_US = 100_000


def wall_ms() -> int:
    """The system's wall clock, milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def monotonic_us() -> int:
    """Microseconds of the monotonic clock, for durations only."""
    return time.monotonic_ns() // 1_000


class Clock(Protocol):
    """What a turn needs: one reading of the time."""

    def now_ms(self) -> int: ...

    def wall_offset_ms(self) -> int:
        """How far the wall clock is ahead of this clock (negative: behind)."""

    def accept_wall(self) -> int:
        """Take over a wall clock that is ahead; returns the milliseconds jumped (0 or more)."""


class SteadyClock:
    """Monotonic time from a given start, slewed towards the wall clock."""

    __slots__ = ("_anchor_monotonic_us", "_anchor_us", "_last_ms")

    def __init__(self, start_ms: int) -> None:
        self._anchor_us = start_ms * 1_000
        self._anchor_monotonic_us = monotonic_us()
        self._last_ms = start_ms

    def now_ms(self) -> int:
        elapsed_us = monotonic_us() - self._anchor_monotonic_us
        if elapsed_us >= _SLEW_EVERY_US:
            self._slew(elapsed_us)
            elapsed_us = 0
        now = (self._anchor_us + elapsed_us) // 1_000
        if now > self._last_ms:
            self._last_ms = now
        return self._last_ms

    def _slew(self, elapsed_us: int) -> None:
        """Moves the anchor to the present, corrected towards the wall clock."""
        steady_us = self._anchor_us + elapsed_us
        correction_max = elapsed_us * SLEW_PPM // 1_000_000
        difference = wall_ms() * 1_000 - steady_us
        self._anchor_us = steady_us + max(-correction_max, min(correction_max, difference))
        self._anchor_monotonic_us += elapsed_us

    def wall_offset_ms(self) -> int:
        return wall_ms() - self.now_ms()

    def accept_wall(self) -> int:
        jump_ms = max(0, self.wall_offset_ms())
        self._anchor_us += jump_ms * 1_000
        return jump_ms


class ManualClock:
    """Time that moves only when told to (`serve --manual-clock`, tests)."""

    __slots__ = ("_now_ms",)

    def __init__(self, start_ms: int) -> None:
        self._now_ms = start_ms

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, ms: int) -> int:
        """Moves time forward by `ms` (0 or more) and returns the new time."""
        if ms < 0:
            raise ValueError(f"time never goes backwards: ms is {ms}, expected 0 or more")
        self._now_ms += ms
        return self._now_ms

    def wall_offset_ms(self) -> int:
        return 0

    def accept_wall(self) -> int:
        return 0
