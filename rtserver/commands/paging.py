"""Replies that list things end at a bound of bytes, and say where to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from rtserver.limits import REPLY_BYTES_MAX

__all__ = ["fitting", "name_bytes"]

T = TypeVar("T")

_ROW_BYTES = 32  # of a listed thing beside its name


def name_bytes(name: str) -> int:
    """About what a named thing adds to a reply."""
    return len(name.encode("utf-8")) + _ROW_BYTES


def fitting(rows: Iterable[T], size: Callable[[T], int]) -> list[T]:
    """The first rows that fit into one reply together, at least one where there is one."""
    total = 0
    kept: list[T] = []
    for row in rows:
        total += size(row)
        if total > REPLY_BYTES_MAX and kept:
            break
        kept.append(row)
    return kept
