"""Whether the state may grow: asked before anything new is made, or anything made longer.

What grows is decided where it is made, so updates of what exists, reads and deletions never ask.
The process says no while it uses more memory than it may; replay never hears of that. What has a
bound of its own beside the memory's (idempotency keys, sources, subscriptions) does not ask.
"""

from __future__ import annotations

from rtserver.errors import RtError

__all__ = ["Growth"]


class Growth:
    """`refusal` is why nothing may grow, or None."""

    __slots__ = ("refusal",)

    def __init__(self) -> None:
        self.refusal: RtError | None = None

    def check(self) -> None:
        """Raises the refusal."""
        if self.refusal is not None:
            raise self.refusal.with_traceback(None)  # it is raised again and again
