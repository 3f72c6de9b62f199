"""A tally: names with 64-bit integers, and what was added to each since the notes were taken.

The values never stall (a ShardedMap; in the compiled form a NameTable). The notes are for a
journal that writes one sum a name for any number of additions. Costs: one look-up an operation.
The compiled twin answers the same, from 48 bytes a name of ten characters instead of some 150.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from rtserver.compiled import twin
from rtserver.limits import INT64_MAX, INT64_MIN
from rtserver.structs import expect
from rtserver.structs.sharded_map import ShardedMap

__all__ = ["Tally", "new_tally"]


class Tally:
    """See the module. A value is at most 64 bits, which callers of `put` see to."""

    __slots__ = ("_notes", "_values", "total")

    def __init__(self) -> None:
        self._values: ShardedMap[int] = ShardedMap()
        self._notes: dict[str, int] = {}
        self.total = 0  # the sum of all values

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> int | None:
        return self._values.get(name)

    def items(self) -> Iterator[tuple[str, int]]:
        """Every name with its value once, in no order that means anything. No change meanwhile."""
        return self._values.items()

    # --- changing ---

    def add(self, name: str, delta: int) -> int | None:
        """The new value of a name; None where it is absent. Raises OverflowError, with nothing
        changed, where that has more than 64 bits."""
        values = self._values
        shard = values.shards[hash(name) & values.mask]
        value = shard.get(name)
        if value is None:
            return None
        value += delta
        if not INT64_MIN <= value <= INT64_MAX:
            raise OverflowError(value)
        shard[name] = value
        self.total += delta
        return value

    def put(self, name: str, value: int) -> None:
        """Gives a name a value, whether or not it is there."""
        self.total += value - self._values.get(name, 0)
        self._values.insert(name, value)

    def pop(self, name: str) -> int:
        """Takes a name out; KeyError where it is absent. Its notes stay."""
        value = self._values.pop(name)
        self.total -= value
        return value

    def mark(self, name: str) -> None:
        """The compiled form of commands is to leave this name to the plain one, as long as it
        stays: there is more to it than a number."""

    # --- notes ---

    def note(self, name: str, delta: int) -> bool:
        """Adds to the sum noted for a name that is there; False, with nothing changed, where the
        sum would have more than 64 bits."""
        total = self._notes.get(name, 0) + delta
        if not INT64_MIN <= total <= INT64_MAX:
            return False
        self._notes[name] = total
        return True

    def noted(self, name: str) -> bool:
        """Whether there is a note for the name."""
        return name in self._notes

    @property
    def notes(self) -> int:
        """How many names have a note."""
        return len(self._notes)

    def take_notes(self) -> list[tuple[str, int]]:
        """The names with their sums, in the order of their first note; there are none after."""
        taken = list(self._notes.items())
        self._notes.clear()
        return taken

    # --- memory ---

    def release(self, entries_max: int) -> bool:
        """Frees a slice of a tally without notes; True when it is empty and new. From the first
        call until then nothing else may be called."""
        if not self._values.release(entries_max):
            return False
        self.total = 0
        return True

    def check(self) -> None:
        """Raises `StructureBroken` unless the map holds and `total` is its sum. O(n)."""
        self._values.check()
        total = sum(value for _, value in self._values.items())
        expect(total == self.total, f"the values sum up to {total}, the total says {self.total}")


def new_tally() -> Tally:
    """An empty tally, in compiled form where there is one."""
    compiled = twin(__name__)
    return Tally() if compiled is None else cast(Tally, compiled.Tally())
