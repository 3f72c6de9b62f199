"""The terms of a sale: what its creator declared, as plain values for the log.

Rows of older logs end earlier: new fields go to the end and have a default. Times are ms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["ItemTerms", "QueueTerms", "SaleTerms"]


class ItemTerms(NamedTuple):
    """One item (SKU). A numbered seat is an item of stock 1 with a place in the hall."""

    stock: int
    per_user: int = 0  # units one user may hold and buy; 0: as many as the sale's own bound says
    zone: str | None = None
    row: str | None = None
    seat: int | None = None  # seats whose numbers differ by 1 are neighbours


class QueueTerms(NamedTuple):
    """The waiting room. Fields that are 0 or False ask for nothing."""

    rate_per_s: int  # admissions
    active_max: int  # users who are admitted or hold something
    pass_ms: int = 300_000
    grace_ms: int = 300_000  # a place is kept so long for a user without a connection
    dwell_ms: int = 0  # from the admission to the first reserve
    per_address: int = 0  # places one address may take in the whole sale
    joins_per_user: int = 0  # places one user may take, one after the other
    challenge: bool = False  # joining needs a token that a verifier signed


class SaleTerms(NamedTuple):
    """The sale as a whole."""

    per_user: int = 1  # units one user may hold and buy; 0: any number
    hold_ms: int = 120_000
    opens_at: int | None = None
    closes_at: int | None = None
    queue: QueueTerms | None = None

    def as_row(self) -> list[Any]:
        """For a snapshot."""
        *fields, queue = self
        return [*fields, None if queue is None else list(queue)]

    @classmethod
    def of_row(cls, row: list[Any]) -> SaleTerms:
        *fields, queue = row
        return cls(*fields, *[None if queue is None else QueueTerms(*queue)])
