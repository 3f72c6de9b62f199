"""The hall whose seats are sold: two zones, rows of 25, front rows first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

__all__ = ["pages_of_seats"]

_ROW: Final = 25
_STALLS: Final = 0.6  # of all seats; the rest is the balcony
_PAGE: Final = 500  # seats that are loaded at once


def pages_of_seats(count: int) -> Iterator[dict[str, Any]]:
    """The seats as `sale.create` and `sale.restock` take them."""
    stalls = int(count * _STALLS)
    seats = [
        *(_seat("stalls", place) for place in range(stalls)),
        *(_seat("balcony", place) for place in range(count - stalls)),
    ]
    for start in range(0, count, _PAGE):
        yield dict(seats[start : start + _PAGE])


def _seat(zone: str, place: int) -> tuple[str, dict[str, Any]]:
    row, seat = place // _ROW + 1, place % _ROW + 1
    terms = {"stock": 1, "zone": zone, "row": f"{row:04}", "seat": seat}
    return f"{zone}-{row:04}-{seat:02}", terms
