"""Pure data structures: no domain words, no input or output, no clock, no chance of their own.

The server runs without automatic garbage collection and may not stall, so every structure here
keeps to three rules. No operation resizes, scans or frees more than a few thousand entries,
however many there are. No structure holds reference cycles that outlive its entries. What is
discarded whole is freed in slices: `release(entries_max)` until it answers True. Results never
depend on `hash()` or on the generator that draws the height of a skiplist's towers.
"""

from __future__ import annotations

__all__ = ["StructureBroken", "expect"]


class StructureBroken(Exception):
    """An invariant of a structure does not hold: a defect, or memory that was damaged.

    Raised by the `check()` of each structure, which visits every entry and is for tests and
    for audits, not for the loop.
    """


def expect(holds: bool, message: str) -> None:
    """Raises `StructureBroken` with `message` unless `holds`."""
    if not holds:
        raise StructureBroken(message)
