"""Rows in pieces of a bounded size: of a snapshot, of a reply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from rtserver.limits import REPLY_BYTES_MAX
from rtserver.wire.codec import pack

__all__ = ["fitting", "fitting_places", "in_chunks", "packed_bytes"]

T = TypeVar("T")

_ROWS = 1_000


def in_chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """The rows in order, a thousand a piece; no piece is empty."""
    left = iter(rows)
    while chunk := list(islice(left, _ROWS)):
        yield chunk


def packed_bytes(row: Any) -> int:
    """What a row takes in a reply."""
    return len(pack(row))


def fitting(rows: Iterable[T], size: Callable[[T], int]) -> list[T]:
    """The first rows that fit into one reply together, at least one where there is one. At most one
    more is asked for."""
    total = 0
    kept: list[T] = []
    for row in rows:
        total += size(row)
        if total > REPLY_BYTES_MAX and kept:
            break
        kept.append(row)
    return kept


def fitting_places(
    places: Iterable[tuple[int, T]], following: int | None
) -> tuple[list[T], int | None]:
    """The same of (place, row) pairs, and where to go on: after the place of the last row that
    fits, or at `following` where all do."""
    total = last = 0
    kept: list[T] = []
    for place, row in places:
        total += packed_bytes(row)
        if total > REPLY_BYTES_MAX and kept:
            return kept, last
        kept.append(row)
        last = place
    return kept, following
