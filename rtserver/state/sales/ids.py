"""Ids of holds, `h<sale>-<number>-<tag>` in hexadecimal; that of an order begins with o."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["HoldId", "parse_id"]

_DIGITS_MAX = 15  # of a number, so that it fits 64 bits


class HoldId(NamedTuple):
    """An id, taken apart."""

    kind: str  # h or o
    sale: int
    number: int
    tag: int


def parse_id(text: str) -> HoldId | None:
    """None of what is no such id, or has numbers that no sale and no hold ever gets."""
    parts = text[1:].split("-")
    if text[:1] not in ("h", "o") or len(parts) != 3 or len(parts[2]) != 16:
        return None
    if len(parts[0]) > _DIGITS_MAX or len(parts[1]) > _DIGITS_MAX:
        return None
    try:
        sale, number, tag = (int(part, 16) for part in parts)
    except ValueError:
        return None
    if text[1:] != f"{sale:x}-{number:x}-{tag:016x}":
        return None
    return HoldId(text[0], sale, number, tag)
