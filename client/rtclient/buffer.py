"""What waits for one reader: items in their order, with a count of their bytes.

A conflating buffer keeps of each key only the newest message, in the place of the newest. Costs:
one append and one popleft an item; conflating, one move in a dict.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from itertools import count
from typing import Final, Literal, get_args

from rtclient.items import Item
from rtclient.results import Message

__all__ = ["BUFFER_BYTES", "BUFFER_DEFAULT", "Buffer", "Overflow", "check_buffer"]

BUFFER_DEFAULT: Final = 10_000
BUFFER_BYTES: Final = 16 * 1024 * 1024

Overflow = Literal["history", "gap", "conflate", "error"]
"""What happens to a reader who is slower than her channel, see `rtclient.subscription`."""


def check_buffer(items_max: int, overflow: str) -> None:
    """Raises ValueError, naming what is wrong."""
    if items_max < 1:
        raise ValueError(f"buffer is {items_max}, expected at least 1 message")
    if overflow not in get_args(Overflow):
        names = ", ".join(map(repr, get_args(Overflow)))
        raise ValueError(f"overflow is {overflow!r}, expected one of {names}")


class Buffer:
    """At most about `items_max` items and BUFFER_BYTES bytes; whoever puts asks `is_full` first."""

    __slots__ = ("_bytes", "_items", "_items_max", "_newest", "_serial", "conflates")

    def __init__(self, items_max: int, *, conflates: bool) -> None:
        self.conflates = conflates
        self._items_max = items_max
        self._items: deque[tuple[Item, int]] = deque()  # with about their bytes
        self._newest: OrderedDict[Hashable, tuple[Item, int]] = OrderedDict()  # when conflating
        self._serial = count()  # keys of items that are no messages
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items) + len(self._newest)

    @property
    def free(self) -> int:
        """Items until it is full."""
        return self._items_max - len(self)

    @property
    def is_full(self) -> bool:
        return len(self) >= self._items_max or self._bytes >= BUFFER_BYTES

    @property
    def is_half_free(self) -> bool:
        return len(self) <= self._items_max // 2 and self._bytes <= BUFFER_BYTES // 2

    def put(self, item: Item, size: int) -> None:
        self._bytes += size
        if not self.conflates:
            self._items.append((item, size))
            return
        key = item.key if isinstance(item, Message) else next(self._serial)
        _, replaced = self._newest.pop(key, (None, 0))
        self._bytes -= replaced
        self._newest[key] = (item, size)

    def replaces(self, message: Message) -> bool:
        """Whether putting the message needs no more room."""
        return self.conflates and message.key in self._newest

    def take(self) -> Item:
        """The oldest item. Raises IndexError or KeyError when there is none."""
        if self._items:
            item, size = self._items.popleft()
        else:
            _, (item, size) = self._newest.popitem(last=False)
        self._bytes -= size
        return item

    def clear(self) -> None:
        self._items.clear()
        self._newest.clear()
        self._bytes = 0
