"""The flights of a file, and what a plain recount of them gives."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["BUNDLED", "Flight", "Recount", "read_flights"]

BUNDLED = Path(__file__).with_name("flights-2013-01.csv.gz")


class Flight(NamedTuple):
    """One departure. The delay is None where the flight never left."""

    scheduled: str
    carrier: str
    number: str
    plane: str
    origin: str
    destination: str
    delay_min: int | None

    @property
    def counters(self) -> tuple[str, str, str]:
        return (
            f"flights:carrier:{self.carrier}",
            f"flights:airport:{self.origin}",
            f"flights:route:{self.origin}-{self.destination}",
        )

    @property
    def channel(self) -> str:
        return f"departures:{self.origin}"

    @property
    def late(self) -> bool:
        """Whether it counts for its plane's delay minutes."""
        return bool(self.plane) and self.delay_min is not None and self.delay_min > 0

    def departure(self) -> dict[str, Any]:
        """What is published of it."""
        return {
            "flight": self.carrier + self.number,
            "to": self.destination,
            "scheduled": self.scheduled,
            "delay_min": self.delay_min,
        }


def read_flights(path: Path) -> Iterator[Flight]:
    """The flights of a (gzipped) CSV file, in order of scheduled departure."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            delay = _known(row["dep_delay_min"])
            yield Flight(
                row["scheduled"],
                row["carrier"],
                row["flight"],
                _known(row["tail"]),
                row["origin"],
                row["dest"],
                int(delay) if delay else None,
            )


def _known(field: str) -> str:
    """Unknown fields are empty, or NA in the packages that this table comes from."""
    return "" if field == "NA" else field


class Recount:
    """The same numbers by a plain walk over the file: the oracle of the demo."""

    def __init__(self, flights: Iterable[Flight]) -> None:
        self.counters: Counter[str] = Counter()
        self.departures: Counter[str] = Counter()
        self.delays: dict[str, tuple[int, int]] = {}  # plane -> (-minutes, when reached)
        self.carriers: dict[str, tuple[int, int]] = {}
        for index, flight in enumerate(flights):
            self.counters.update(flight.counters)
            self.departures[flight.channel] += 1
            _raise(self.carriers, flight.carrier, 1, index)
            if flight.late and flight.delay_min is not None:
                _raise(self.delays, flight.plane, flight.delay_min, index)

    @staticmethod
    def ranking(scores: dict[str, tuple[int, int]]) -> list[tuple[str, int]]:
        """(member, score) from the best on; ties to whoever reached the score first."""
        ordered = sorted(scores.items(), key=lambda item: item[1])
        return [(member, -negative) for member, (negative, _) in ordered]


def _raise(scores: dict[str, tuple[int, int]], member: str, score: int, index: int) -> None:
    negative, _ = scores.get(member, (0, 0))
    scores[member] = (negative - score, index)
