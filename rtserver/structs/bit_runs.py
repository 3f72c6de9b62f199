"""Runs of set bits in an integer, for what lies side by side and is free or not.

Place 0 is the lowest bit and the leftmost. Costs a few operations on the whole integer, so a few
hundred nanoseconds for as many places as a row of seats has.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["run_around", "runs", "starts_of_runs"]


def run_around(bits: int, place: int) -> tuple[int, int]:
    """How many bits are set in a row right before and right after a place."""
    above = (bits >> place) >> 1
    below = ~bits & ((1 << place) - 1)
    return place - below.bit_length(), (~above & (above + 1)).bit_length() - 1


def starts_of_runs(bits: int, least: int) -> int:
    """The first places of those runs that have at least so many bits, as a bit each."""
    whole = bits
    covered = 1  # bits that are set from a place on, wherever `whole` has one
    while covered < least:
        step = min(covered, least - covered)
        whole &= whole >> step
        covered += step
    return whole & ~(bits << 1)


def runs(bits: int, least: int = 1) -> Iterator[tuple[int, int]]:
    """(first place, length) of each run that has at least so many bits, from the left."""
    starts = starts_of_runs(bits, least)
    while starts:
        place = (starts & -starts).bit_length() - 1
        starts &= starts - 1
        yield place, run_around(bits, place)[1] + 1
