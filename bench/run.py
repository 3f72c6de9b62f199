"""One run: its settings, its load generator and its room on disk; what every workload is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.load import Generator
from bench.machine import Cores

__all__ = ["Run"]

_QUICK_SHARE = 200  # a smoke run has so many times fewer entities


@dataclass(frozen=True, slots=True)
class Run:
    """The settings of one run and its means."""

    generator: Generator
    cores: Cores
    directory: Path  # where servers keep their data; gone after the run
    rounds: int
    warmups: int  # rounds before those that count
    seconds: float  # of one timed round
    quick: bool
    huge: bool  # also what takes minutes and gigabytes
    say: Callable[[str], None]  # progress, for whoever waits

    def sized(self, count: int) -> int:
        """`count` entities, or far fewer in a smoke run."""
        return max(1, count // _QUICK_SHARE) if self.quick else count
