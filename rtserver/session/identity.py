"""Who a connection acts for: decided once from a token, a key or a session, then carried along."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Identity"]


class Identity(NamedTuple):
    """A user or a service, and what it may do.

    rank: its role as a number (commands.table.ROLES). expires_at: in ms, when what proved it ends;
    None where that does not expire. service: the name of the key that a back end proved.
    """

    rank: int
    user: str | None = None
    expires_at: int | None = None
    service: str | None = None
