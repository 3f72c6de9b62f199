"""Users who were sent away for a while. Volatile, and bounded: whose time ends first gives way."""

from __future__ import annotations

from rtserver.errors import BLOCKED, RtError

__all__ = ["Blocks"]


class Blocks:
    """(user, channel) pairs until a time; the channel None is all of the server."""

    __slots__ = ("_blocks_max", "_until")

    def __init__(self, blocks_max: int) -> None:
        self._blocks_max = blocks_max
        self._until: dict[tuple[str, str | None], int] = {}

    def __len__(self) -> int:
        return len(self._until)

    def block(self, user: str, channel: str | None, until: int, now: int) -> None:
        if len(self._until) >= self._blocks_max and (user, channel) not in self._until:
            self._make_room(now)
        self._until[user, channel] = until

    def _make_room(self, now: int) -> None:
        """A sweep now and then, so that most calls cost nothing."""
        self._until = {pair: until for pair, until in self._until.items() if until > now}
        if len(self._until) >= self._blocks_max:
            del self._until[min(self._until, key=self._until.__getitem__)]

    def check(self, user: str | None, channel: str | None, now: int) -> None:
        """Raises RtError blocked, with how long it still lasts."""
        if not self._until or user is None:
            return
        until = self._until.get((user, channel), 0)
        if until > now:
            where = "" if channel is None else f" from {channel!r}"
            raise RtError(
                BLOCKED,
                f"{user!r} was sent away{where} for another {until - now} ms",
                {"retry_after_ms": until - now},
            )
