"""Messages that must not leave yet: for each channel those that wait for a sync, and all behind.

Promises: what is held leaves in the order it came, so a channel's released offset only grows and
nothing overtakes a message that waits for its sync.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from rtserver.state.channels import UNNUMBERED, Message

__all__ = ["Held"]

# What a message waits for, while the block of its turn is not written yet; after that it is the
# sequence number to be synced, or 0 where it only waits behind others.
_NEEDS_SYNC = -1
_NEEDS_WRITE = -2


class Held:
    """All held messages, by channel."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, deque[tuple[Message, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def __contains__(self, channel: str) -> bool:
        return channel in self._held

    def keep(self, message: Message, *, synced: bool) -> None:
        """Holds a message of the present turn, for its sync or for its write."""
        waits = _NEEDS_SYNC if synced else _NEEDS_WRITE
        self._held.setdefault(message.channel, deque()).append((message, waits))

    def keep_until(self, message: Message, seq: int) -> None:
        """Holds a message of what is already written until `seq` is synced."""
        self._held.setdefault(message.channel, deque()).append((message, seq))

    def written(self, seq: int) -> None:
        """The present turn's block is in the log and ends at `seq`."""
        settled = {_NEEDS_SYNC: seq, _NEEDS_WRITE: 0}
        for held in self._held.values():
            for place in range(len(held) - 1, -1, -1):
                message, due = held[place]
                if due >= 0:
                    break
                held[place] = (message, settled[due])

    def take(self, seq: int) -> Iterator[list[Message]]:
        """What waited for no more than `seq`: a run of messages a channel, no longer held."""
        for name, held in list(self._held.items()):
            run: list[Message] = []
            while held and 0 <= held[0][1] <= seq:
                run.append(held.popleft()[0])
            if not held:
                del self._held[name]
            if run:
                yield run

    def first_offset(self, channel: str) -> int | None:
        """The offset of the first message of a channel that is held and has one."""
        held = self._held.get(channel, ())
        return next((one.offset for one, _ in held if one.offset != UNNUMBERED), None)
