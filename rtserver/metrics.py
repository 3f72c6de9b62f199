"""Plain integers that the server counts, and a histogram of durations.

Costs one integer addition an event. Knows nothing of exposition formats: `server.stats` shows
the numbers as they are.
"""

from __future__ import annotations

from typing import Any

__all__ = ["DurationHistogram", "Metrics"]

_BUCKETS = 40


class DurationHistogram:
    """Durations in power-of-two buckets of microseconds: bucket i counts those below 2**i µs."""

    __slots__ = ("buckets", "count", "max_us", "sum_us")

    def __init__(self) -> None:
        self.buckets = [0] * _BUCKETS
        self.count = 0
        self.sum_us = 0
        self.max_us = 0

    def record(self, us: int) -> None:
        self.buckets[min(us.bit_length(), _BUCKETS - 1)] += 1
        self.count += 1
        self.sum_us += us
        if us > self.max_us:
            self.max_us = us

    def quantile_us(self, share: float) -> int:
        """An upper bound of the quantile, at most twice its value; 0 when empty."""
        wanted = share * self.count
        seen = 0
        for index, number in enumerate(self.buckets):
            seen += number
            if number and seen >= wanted:
                return min(1 << index, self.max_us)
        return 0

    def as_map(self) -> dict[str, int]:
        return {
            "count": self.count,
            "p50_us": self.quantile_us(0.50),
            "p99_us": self.quantile_us(0.99),
            "max_us": self.max_us,
        }


class Metrics:
    """What the process has done since it started. Refusals are counted here, never in state."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "closes",
        "commands",
        "connections_opened",
        "deliveries",
        "dropped",
        "errors",
        "gaps",
        "history_reads",
        "messages_published",
        "notification_errors",
        "turn",
    )

    def __init__(self) -> None:
        self.commands = 0
        self.errors: dict[str, int] = {}
        self.closes: dict[str, int] = {}
        self.notification_errors = 0
        self.connections_opened = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.messages_published = 0
        self.deliveries = 0
        self.dropped = 0  # transient messages that a full outbox did not take
        self.gaps = 0  # times that a subscriber was told of missing messages
        self.history_reads = 0  # pages read for subscribe replies
        self.turn = DurationHistogram()

    def count_error(self, name: str, times: int = 1) -> None:
        self.errors[name] = self.errors.get(name, 0) + times

    def count_close(self, name: str) -> None:
        self.closes[name] = self.closes.get(name, 0) + 1

    def as_map(self) -> dict[str, Any]:
        return {
            "commands": self.commands,
            "errors": dict(sorted(self.errors.items())),
            "closes": dict(sorted(self.closes.items())),
            "notification_errors": self.notification_errors,
            "connections_opened": self.connections_opened,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "messages_published": self.messages_published,
            "deliveries": self.deliveries,
            "dropped": self.dropped,
            "gaps": self.gaps,
            "history_reads": self.history_reads,
            "turns": self.turn.as_map(),
        }
