"""Counters: named 64-bit integers that spring up at first use.

Promises: an operation that cannot be applied whole is not applied at all. A counter with a time
to live ends at its deadline exactly (`now >= expires_at` is expired), also before its timer has
freed the memory. Costs: one dictionary access for a counter that exists; a new one also enters
the ordered index that `page` reads, a few microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rtserver.errors import LIMIT_REACHED, OUT_OF_RANGE, RtError
from rtserver.limits import INT64_MAX, INT64_MIN
from rtserver.state.chunks import in_chunks
from rtserver.state.growth import Growth
from rtserver.state.timers import Timers
from rtserver.structs.ordered_names import OrderedNames
from rtserver.structs.sharded_map import ShardedMap
from rtserver.structs.tally import Tally, new_tally

__all__ = ["TIMER_KIND", "Counters"]

TIMER_KIND = "counter"


class Counters:
    """All counters. `count_max` is only set while commands are checked, not on replay."""

    __slots__ = ("_expiring", "_expiry", "_growth", "_names", "_timers", "count_max", "tally")

    def __init__(self, timers: Timers, growth: Growth) -> None:
        self.tally: Tally = new_tally()  # names and values; the compiled fast path uses it too
        self._names = OrderedNames()
        self._expiry: ShardedMap[tuple[int, int]] = ShardedMap()  # name -> (due_ms, timer id)
        self._expiring = False  # whether any counter ever had a time to live: spares a look-up
        self._timers = timers
        self._growth = growth
        self.count_max: int | None = None

    def __len__(self) -> int:
        return len(self.tally)

    @property
    def total(self) -> int:
        """The sum of all values: compared when a snapshot is rehearsed."""
        return self.tally.total

    # --- reading ---

    def get(self, now: int, name: str) -> int:
        value = self.tally.get(name)
        if value is None or (self._expiring and self._expired(now, name)):
            return 0
        return value

    def page(
        self, now: int, prefix: str, after: str | None, limit: int
    ) -> tuple[list[tuple[str, int]], str | None]:
        """Up to `limit` (name, value) by name that start with prefix, and where to go on."""
        names = self._names.page(prefix, after, limit)
        rows = [
            (name, self.get(now, name))
            for name in names
            if not (self._expiring and self._expired(now, name))
        ]
        return rows, names[-1] if len(names) == limit else None

    # --- writing ---

    def add(self, now: int, name: str, delta: int, ttl_ms: int | None = None) -> int:
        """The new value. `ttl_ms` counts only when this creates the counter."""
        if self._expiring and self._expired(now, name):
            return self._create(now, name, delta, ttl_ms)
        try:
            value = self.tally.add(name, delta)
        except OverflowError as error:
            raise _beyond(name, error.args[0]) from None
        return self._create(now, name, delta, ttl_ms) if value is None else value

    def add_within(
        self, now: int, name: str, delta: int, low: int | None, high: int | None, *, clamp: bool
    ) -> tuple[int, int]:
        """(value, applied): the delta kept inside [low, high]; 0 applied where it does not fit.

        A value that is outside already may move towards the bounds, never further away.
        """
        value = self.get(now, name)
        wanted = value + delta
        if delta > 0:
            wanted = min(wanted, max(value, INT64_MAX if high is None else high))
        elif delta < 0:
            wanted = max(wanted, min(value, INT64_MIN if low is None else low))
        applied = wanted - value
        if applied != delta and not clamp:
            applied = 0
        if applied:
            value = self.add(now, name, applied)
        return value, applied

    def set(self, now: int, name: str, value: int) -> int:
        """Gives a counter a value; a running time to live goes on."""
        return self.add(now, name, value - self.get(now, name))

    def delete(self, now: int, name: str) -> bool:
        """True when there was one."""
        existed = name in self.tally and not self._expired(now, name)
        self._remove(name)
        return existed

    def expire(self, now: int, name: str, timer_id: int) -> None:
        """The timer of a counter fired; nothing happens when it was renewed since."""
        expiry = self._expiry.get(name)
        if expiry is not None and expiry[1] == timer_id and expiry[0] <= now:
            self._remove(name)

    def _create(self, now: int, name: str, value: int, ttl_ms: int | None) -> int:
        if not INT64_MIN <= value <= INT64_MAX:
            raise _beyond(name, value)
        if name not in self.tally:
            self._check_room()
        self._remove(name)  # an expired one whose timer has not fired yet
        self._insert(name, value)
        if ttl_ms is not None:
            due = now + ttl_ms
            self._set_deadline(name, due, self._timers.add(due, TIMER_KIND, name))
        return value

    def _check_room(self) -> None:
        self._growth.check()
        if self.count_max is not None and len(self.tally) >= self.count_max:
            raise RtError(
                LIMIT_REACHED,
                f"there are {len(self.tally)} counters, at most {self.count_max}"
                " (limits.counters_max)",
            )

    def _insert(self, name: str, value: int) -> None:
        self.tally.put(name, value)
        self._names.add(name)

    def _set_deadline(self, name: str, due: int, timer_id: int) -> None:
        self._expiring = True
        self._expiry.insert(name, (due, timer_id))
        self.tally.mark(name)

    def _remove(self, name: str) -> None:
        if name not in self.tally:
            return
        self.tally.pop(name)
        self._names.remove(name)
        if name in self._expiry:
            self._timers.cancel(*self._expiry.pop(name))

    def _expired(self, now: int, name: str) -> bool:
        expiry = self._expiry.get(name)
        return expiry is not None and expiry[0] <= now

    # --- snapshots ---

    def dump(self) -> Iterator[list[Any]]:
        """Rows of [name, value, due_ms | None, timer id | None], a thousand a chunk."""
        expiry = self._expiry
        return in_chunks(
            [name, value, *(expiry.get(name) or (None, None))] for name, value in self.tally.items()
        )

    def load(self, rows: list[Any]) -> None:
        for name, value, due, timer_id in rows:
            self._insert(name, value)
            if due is not None:
                self._set_deadline(name, due, timer_id)

    def check(self) -> None:
        """Raises StructureBroken where values, names and total disagree."""
        self.tally.check()
        self._names.check()
        if len(self._names) != len(self.tally):
            raise ValueError(f"{len(self._names)} names for {len(self.tally)} counters")


def _beyond(name: str, value: int) -> RtError:
    return RtError(
        OUT_OF_RANGE,
        f"counter {name!r} would become {value}, expected {INT64_MIN} to {INT64_MAX}",
        {"name": name},
    )
