"""Who a connection acts for: decided once from a token, a key or a session, then carried along."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["RANKS", "Identity"]

RANKS: Final[dict[str, int]] = {
    "anonymous": 0,
    "user": 1,
    "service": 2,
    "admin": 3,
    "internal": 4,  # only the server itself: timers, start, snapshots
}


class Identity(NamedTuple):
    """A user or a service, and what it may do.

    rank: its role as a number (RANKS). expires_at: in ms, when what proved it ends;
    None where that does not expire. service: the name of the key that a back end proved.
    """

    rank: int
    user: str | None = None
    expires_at: int | None = None
    service: str | None = None

    @property
    def is_somebody(self) -> bool:
        return self.user is not None or self.service is not None

    @property
    def party(self) -> str:
        """Who it is, for comparing and for people."""
        if self.service is not None:
            return f"the service {self.service!r}"
        return "nobody" if self.user is None else f"the user {self.user!r}"
