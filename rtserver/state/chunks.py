"""Rows of a snapshot in pieces of a bounded size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

__all__ = ["in_chunks"]

_ROWS = 1_000


def in_chunks(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """The rows in order, a thousand a piece; no piece is empty."""
    left = iter(rows)
    while chunk := list(islice(left, _ROWS)):
        yield chunk
