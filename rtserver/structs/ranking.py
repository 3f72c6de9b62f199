"""Names ranked by (key, seq): who is where, and what is at a place.

Owns the members, the key and seq of each, their order, and the counter of changes `seq`, from
which every `place` and `move` takes the next one: equal keys rank by who got there first. Keys
are int64 in ascending order of rank; whoever has others maps them. Ranks and places count from 0.
It keeps, without reading them, a mark per member and what a board says of itself (`descending`,
`floats`, `guarded`, `mode`, `members_max`), for compiled commands to read beside the rest.

In this form members are slots of columns, found by a sharded map and ordered by a skiplist. The
compiled twin (structs/_ranking.pyx) has no Python object a member. `new_ranking` takes the twin
where it is built. No operation of either form stalls: each moves a few blocks at most.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import cast

from rtserver.compiled import twin
from rtserver.structs import expect
from rtserver.structs.sharded_map import ShardedMap
from rtserver.structs.skiplist import BLOCK_MAX, Skiplist

__all__ = ["NAME_BYTES_MAX", "Ranking", "new_ranking"]

NAME_BYTES_MAX = 255
KEY_MIN = -(2**63)
SEQ_MAX = 2**63 - 2


class Ranking:
    """Names (at most 255 bytes of UTF-8) in order of (key, seq). `block_max` is for tests."""

    __slots__ = (
        "_free",
        "_keys",
        "_marked",
        "_names",
        "_order",
        "_seqs",
        "_slots",
        "descending",
        "floats",
        "guarded",
        "members_max",
        "mode",
        "seq",
    )

    def __init__(self, block_max: int = BLOCK_MAX) -> None:
        self.seq = 0  # changes so far; never reused
        self.descending = False  # keys are scores upside down
        self.floats = False  # keys stand for floats
        self.guarded = False  # a name may have to be refused
        self.mode = 0  # 0 best, 1 last, 2 sum
        self.members_max = -1  # -1: as many as there is memory for
        self._order: Skiplist[int] = Skiplist("I", block_max)
        self._slots: ShardedMap[int] = ShardedMap()
        self._marked: ShardedMap[bool] = ShardedMap()
        self._names: list[str] = []
        self._keys = array("q")
        self._seqs = array("q")
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    # --- change ---

    def place(self, name: str, key: int) -> int:
        """The rank of a new name; ValueError when it is ranked already or too long."""
        self._check_new(name)
        seq = self.seq + 1
        rank = self._order.insert(key, seq, self._next_slot())
        self._take_slot(name, key, seq)
        self.seq = seq
        return rank

    def move(self, name: str, key: int) -> tuple[int, int]:
        """The rank that a name had and the one it has with this key; KeyError without it.

        Also with the key that it has it goes behind all that share it.
        """
        slot = self._require(name)
        seq = self.seq + 1
        later = (key, seq) > (self._keys[slot], self._seqs[slot])
        rank = self._order.insert(key, seq, slot)
        previous = self._order.remove(self._keys[slot], self._seqs[slot])
        self._keys[slot] = key
        self._seqs[slot] = self.seq = seq
        return (previous, rank - 1) if later else (previous - 1, rank)

    def remove(self, name: str) -> int | None:
        """The rank that the name had; None when it was not there."""
        slot = self._slots.get(name)
        if slot is None:
            return None
        self._slots.pop(name)
        if name in self._marked:
            self._marked.pop(name)
        self._names[slot] = ""
        self._free.append(slot)
        return self._order.remove(self._keys[slot], self._seqs[slot])

    def mark(self, name: str, marked: bool) -> None:
        """Marks a name as one that is special in some way, or no more; KeyError without it."""
        self._require(name)
        if marked:
            self._marked.insert(name, True)
        elif name in self._marked:
            self._marked.pop(name)

    def load(self, names: Sequence[str], keys: Sequence[int], seqs: Sequence[int]) -> None:
        """Appends new names in order. ValueError, nothing changed, where one does not ascend from
        the last or is there. `seq` is for the caller to set."""
        size = len(self._order)
        last = self._order.entry(size - 1)[:2] if size else (KEY_MIN, 0)
        for entry in zip(keys, seqs, strict=True):
            if not last < entry or not 0 < entry[1] <= SEQ_MAX:
                raise ValueError(f"{entry} does not ascend from {last}")
            last = entry
        if len(set(names)) != len(keys):
            raise ValueError(f"{len(set(names))} distinct names of {len(keys)} keys")
        for name in names:
            self._check_new(name)
        slots = []
        for name, key, seq in zip(names, keys, seqs, strict=True):
            slots.append(self._next_slot())
            self._take_slot(name, key, seq)
        self._order.load_sorted(keys, seqs, slots)

    # --- reading ---

    def find(self, name: str) -> tuple[int, int] | None:
        """(key, seq) of a name; None without it."""
        slot = self._slots.get(name)
        return None if slot is None else (self._keys[slot], self._seqs[slot])

    def rank(self, name: str) -> int | None:
        """How many names are before this one; None when it is not there."""
        slot = self._slots.get(name)
        return None if slot is None else self._order.rank(self._keys[slot], self._seqs[slot])

    def marked(self, name: str) -> bool:
        """Whether a name is there and marked."""
        return name in self._marked

    def rank_of_key(self, key: int) -> int:
        """Names with a smaller key."""
        return self._order.rank_of_key(key)

    def rank_past_key(self, key: int) -> int:
        """Names with a smaller key or this one."""
        return self._order.rank_past_key(key)

    def distinct_before(self, key: int) -> int:
        """Distinct keys smaller than this one: a dense rank."""
        return self._order.distinct_before(key)

    def slice(self, start: int, count: int) -> list[tuple[str, int, int]]:
        """At most `count` of (name, key, seq) from the place `start` on."""
        names = self._names
        return [(names[slot], key, seq) for key, seq, slot in self._order.slice(start, count)]

    # --- memory ---

    def release(self, entries_max: int) -> bool:
        """Frees a slice; True when the ranking is empty. From the first call until then it may
        only be released further, and asked for its length."""
        done = self._order.release(entries_max)
        done = self._slots.release(entries_max) and done
        done = self._marked.release(entries_max) and done
        for column in (self._names, self._keys, self._seqs, self._free):
            if entries_max > 0:
                del column[-entries_max:]
            done = done and not column
        return done

    def check(self) -> None:
        """Raises `StructureBroken` unless order, columns and map agree. O(n)."""
        self._order.check()
        self._slots.check()
        self._marked.check()
        expect(len(self._slots) == len(self._order), "not every member is ranked once")
        expect(len(self._names) == len(self._slots) + len(self._free), "a slot is lost")
        for key, seq, slot in self._order:
            name = self._names[slot]
            expect(self._slots.get(name) == slot, f"{name!r} is not where its slot says")
            held = (self._keys[slot], self._seqs[slot])
            expect(held == (key, seq), f"{name!r} has another key or seq than its entry")
        for name, _ in self._marked.items():
            expect(name in self._slots, f"{name!r} is marked and gone")

    # --- slots ---

    def _check_new(self, name: str) -> None:
        if name in self._slots:
            raise ValueError(f"{name!r} is ranked already")
        if len(name) > NAME_BYTES_MAX // 4:
            size = len(name.encode())
            if size > NAME_BYTES_MAX:
                raise ValueError(f"a name of {size} bytes, at most {NAME_BYTES_MAX}")

    def _require(self, name: str) -> int:
        slot = self._slots.get(name)
        if slot is None:
            raise KeyError(name)
        return slot

    def _next_slot(self) -> int:
        return self._free[-1] if self._free else len(self._names)

    def _take_slot(self, name: str, key: int, seq: int) -> None:
        """Fills the slot that `_next_slot` named."""
        if self._free:
            slot = self._free.pop()
            self._names[slot] = name
            self._keys[slot] = key
            self._seqs[slot] = seq
        else:
            slot = len(self._names)
            self._names.append(name)
            self._keys.append(key)
            self._seqs.append(seq)
        self._slots.insert(name, slot)


_twin = twin(__name__)


def new_ranking() -> Ranking:
    """An empty ranking, of the compiled form where there is one."""
    return cast(Ranking, _twin.Ranking()) if _twin is not None else Ranking()
