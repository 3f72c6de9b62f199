"""Deadlines of the state, in the one order in which they come due: (due, id).

A deadline never acts by itself. At the start of a turn the server asks how many are due and logs
one record that fires them, so replay fires the same ones at the same place in history.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from rtserver.structs.timers import TimerQueue

__all__ = ["Timer", "Timers"]

_CHUNK = 1_000

Timer = tuple[int, int, tuple[str, str]]  # (due_ms, id, (kind, name))


class Timers:
    """The deadlines of all domains; ids rise by one, so equal deadlines keep their order."""

    __slots__ = ("_queue", "last_id")

    def __init__(self) -> None:
        self._queue: TimerQueue[tuple[str, str]] = TimerQueue()
        self.last_id = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, due_ms: int, kind: str, name: str) -> int:
        """The id of the new timer, for `cancel`."""
        self.last_id += 1
        self._queue.add(due_ms, self.last_id, (kind, name))
        return self.last_id

    def cancel(self, due_ms: int, timer_id: int) -> None:
        """Takes a timer back. One that was popped together with the timer that cancels it is
        no longer there; its owner ignores it by its id."""
        with suppress(KeyError):
            self._queue.cancel(due_ms, timer_id)

    def next_due_ms(self) -> int | None:
        return self._queue.next_due()

    def count_due(self, now: int, limit: int) -> int:
        """How many `pop_due` would give."""
        due = self._queue.next_due()
        return 0 if due is None or due > now else self._queue.count_due(now, limit)

    def pop_due(self, now: int, limit: int) -> list[Timer]:
        """At most `limit` timers with due <= now, in order, taken out."""
        return self._queue.pop_due(now, limit)

    def dump(self) -> Iterator[list[Any]]:
        """Rows of [due_ms, id, kind, name] in order, a thousand a chunk."""
        rows: list[Any] = []
        for due, timer_id, (kind, name) in self._queue:
            rows.append([due, timer_id, kind, name])
            if len(rows) == _CHUNK:
                yield rows
                rows = []
        yield rows

    def load(self, rows: list[Any]) -> None:
        for due, timer_id, kind, name in rows:
            self._queue.add(due, timer_id, (kind, name))

    def check(self) -> None:
        self._queue.check()
