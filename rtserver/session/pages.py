"""First pages of histories, for subscribe replies: read once, however many ask for the same.

After a cut thousands of clients come back to one channel with the same position. The few pages
asked for last are kept as the maps that replies hold, until a message is released or evicted, or
nobody asked for them from one look to the next.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rtserver.metrics import Metrics
from rtserver.session.messages import message_bytes, message_map
from rtserver.session.tails import Stream
from rtserver.state.channels import Message

__all__ = ["Pages"]

_MESSAGES_MAX = 1_000
_PAGES_MAX = 16


class _Page(NamedTuple):
    stream: Stream
    released: int
    first_offset: int
    messages: list[dict[str, Any]]
    position: int


class Pages:
    """The pages asked for last."""

    __slots__ = ("_metrics", "_pages", "_unasked")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._pages: dict[tuple[str, int, int], _Page] = {}
        self._unasked: dict[tuple[str, int, int], _Page] = {}  # since the last look

    def read(
        self, stream: Stream, after: int, released: int, bytes_max: int
    ) -> tuple[list[dict[str, Any]], int]:
        """Released messages after an offset, of so many bytes at most, and the position after
        them. None at all where the first is larger: subscribers get it as a push. The maps are
        shared: nobody changes them."""
        if after >= released:
            return [], after
        key = (stream.name, after, bytes_max)
        page = self._pages.get(key) or self._asked_again(key)
        if (
            page is None
            or page.stream is not stream
            or page.released != released
            or page.first_offset != stream.history.first_offset
        ):
            page = self._pages[key] = self._page(stream, after, released, bytes_max)
            if len(self._pages) > _PAGES_MAX:
                del self._pages[next(iter(self._pages))]
        return page.messages, page.position

    def forget(self) -> None:
        """Gives the memory back (now and then) of what nobody asked for since the last call: a
        storm may take longer than the time between two."""
        self._pages, self._unasked = {}, self._pages

    def _asked_again(self, key: tuple[str, int, int]) -> _Page | None:
        page = self._unasked.pop(key, None)
        if page is not None:
            self._pages[key] = page
        return page

    def _page(self, stream: Stream, after: int, released: int, bytes_max: int) -> _Page:
        self._metrics.history_reads += 1
        history = stream.history
        found = history.read(after, _MESSAGES_MAX, released)
        kept = _within(found, bytes_max)
        position = max(after, history.first_offset - 1)
        if len(kept) == len(found) < _MESSAGES_MAX:
            position = released
        elif kept:
            position = kept[-1].offset
        messages = [message_map(message) for message in kept]
        return _Page(stream, released, history.first_offset, messages, position)


def _within(messages: list[Message], bytes_max: int) -> list[Message]:
    total = 0
    for count, message in enumerate(messages):
        total += message_bytes(message)
        if total > bytes_max:
            return messages[:count]
    return messages
