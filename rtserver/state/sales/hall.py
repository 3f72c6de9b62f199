"""The hall of a sale: which numbered seats are free, and the best ones side by side.

Seats of one row whose numbers differ by 1 are neighbours. Rows rank in the order in which their
first seat was declared, and so do zones: the front comes first. `best` takes the first row with
a run of free seats that is exactly as long as wanted, or longer by 2 at least, because a rest of
1 is a seat that nobody buys; there it takes the tightest run, leftmost, from its left end. Only
where no row has such a run does it leave a single seat: then every run that is long enough is
longer by exactly 1, and the first row with one is taken.

So all that a search needs to know is which rows have a free run of which length. It is kept for
lengths up to what a search can ask for (longer ones count as one length), per zone, and the same
for zones. A seat that is taken or freed changes the lengths of at most three runs: at most 2 us
in plain Python; a search costs 5 to 10, whatever the size of the hall.

The state of a seat (free, held, sold) is the book's; the hall is derived from it, never dumped,
and a seat whose stock was withdrawn is one that is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rtserver.limits import BEST_SEATS_MAX, ROW_SPAN_MAX
from rtserver.structs import expect
from rtserver.structs.bit_runs import run_around, runs, starts_of_runs
from rtserver.structs.rank_sets import RankSets
from rtserver.structs.sharded_map import ShardedMap

__all__ = ["Clash", "Hall"]

_LONG = BEST_SEATS_MAX + 2  # the length that stands for all longer ones, too
_LENGTHS = _LONG + 1
# Of a number of seats: the lengths of runs that it leaves no single seat of, and the one other.
_TIDY: list[tuple[int, ...]] = [
    (count, *range(count + 2, _LENGTHS)) for count in range(BEST_SEATS_MAX + 1)
]
_UNTIDY: list[tuple[int, ...]] = [(count + 1,) for count in range(BEST_SEATS_MAX + 1)]


class Clash(NamedTuple):
    """A seat that cannot be added, and why, for whoever declared it."""

    sku: str
    reason: str


class _Zone:
    """Rows in the order of their declaration, and which of them has a run of which length."""

    __slots__ = ("lengths", "names", "rank", "rows")

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.rows: list[_Row] = []
        self.names: ShardedMap[_Row] = ShardedMap()
        self.lengths = RankSets(_LENGTHS)


class _Row:
    """Seats from number `base` on: bit i of `free` is seat base + i."""

    __slots__ = ("base", "counts", "free", "lengths", "name", "rank", "skus", "top", "zone_rank")

    def __init__(self, zone: _Zone, name: str, number: int) -> None:
        self.zone_rank = zone.rank  # not the zone itself, which knows its rows
        self.lengths = zone.lengths
        self.name = name
        self.rank = len(zone.rows)
        self.base = number
        self.top = number
        self.free = 0
        self.counts = [0] * _LENGTHS  # of free runs of each length
        self.skus: dict[int, str] = {}  # by number

    def tightest(self, count: int) -> int:
        """The number of the first of `count` seats that `best` describes; there are such."""
        free, counts = self.free, self.counts
        lengths = _TIDY[count] + _UNTIDY[count]
        length = next(length for length in lengths if counts[length])
        if length < _LONG:
            starts = starts_of_runs(free, length) & ~(free >> length)
            return self.base + (starts & -starts).bit_length() - 1
        place, _ = min(runs(free, _LONG), key=lambda run: run[1])
        return self.base + place


class Hall:
    """The numbered seats of one sale."""

    __slots__ = ("_lengths", "_names", "_seats", "_zones")

    def __init__(self) -> None:
        self._zones: list[_Zone] = []
        self._names: ShardedMap[_Zone] = ShardedMap()
        self._lengths = RankSets(_LENGTHS)  # of zones
        self._seats: ShardedMap[tuple[_Row, int]] = ShardedMap()  # by item

    def __len__(self) -> int:
        return len(self._seats)

    def __contains__(self, sku: str) -> bool:
        return sku in self._seats

    def has_zone(self, zone: str | None) -> bool:
        """Whether there are seats in a zone; None: anywhere."""
        return len(self) > 0 if zone is None else zone in self._names

    # --- seats ---

    def clash(self, seats: Iterable[tuple[str, str | None, str, int]]) -> Clash | None:
        """The first of these (item, zone, row, number), in their order, that `add` would not
        take: its place is another item's, or too far from the other seats of its row."""
        taken: dict[tuple[str | None, str, int], str] = {}
        spans: dict[tuple[str | None, str], tuple[int, int]] = {}
        for sku, zone, name, number in seats:
            row = self._row(zone, name)
            low, high = spans.get((zone, name)) or (
                (number, number) if row is None else (row.base, row.top)
            )
            low, high = min(low, number), max(high, number)
            if high - low >= ROW_SPAN_MAX:
                return Clash(
                    sku,
                    f"seats of row {name!r} would have the numbers {low} to {high}, at most"
                    f" {ROW_SPAN_MAX} numbers are possible",
                )
            other = taken.get((zone, name, number)) or (
                None if row is None else row.skus.get(number)
            )
            if other is not None:
                return Clash(sku, f"seat {number} of row {name!r} is the item {other!r}")
            spans[zone, name] = low, high
            taken[zone, name, number] = sku
        return None

    def add(self, sku: str, zone: str | None, row: str, number: int) -> None:
        """A new seat, taken until `free` says otherwise. Its row and zone spring up with it."""
        place = self._names.get(zone or "")
        if place is None:
            place = _Zone(len(self._zones))
            self._zones.append(place)
            self._names.insert(zone or "", place)
        line = place.names.get(row)
        if line is None:
            line = _Row(place, row, number)
            place.rows.append(line)
            place.names.insert(row, line)
        assert number not in line.skus, f"two items have the seat {number} of {row!r}"
        if number < line.base:
            line.free <<= line.base - number
            line.base = number
        line.top = max(line.top, number)
        assert line.top - line.base < ROW_SPAN_MAX, f"row {row!r} is too long"
        line.skus[number] = sku
        self._seats.insert(sku, (line, number))

    def take(self, sku: str) -> None:
        """A seat that was free no longer is."""
        row, number = self._place(sku)
        place = number - row.base
        free = row.free
        assert free >> place & 1, f"the seat {sku!r} is not free"
        row.free = free ^ 1 << place
        left, right = run_around(free, place)
        whole = left + right + 1
        if whole > _LONG:
            whole = _LONG
        counts = row.counts
        counts[whole] -= 1
        if left:
            if left > _LONG:
                left = _LONG
            counts[left] += 1
            if counts[left] == 1:
                self._gained(row, left)
        if right:
            if right > _LONG:
                right = _LONG
            counts[right] += 1
            if counts[right] == 1:
                self._gained(row, right)
        if not counts[whole]:
            self._lost(row, whole)

    def free(self, sku: str) -> None:
        """A seat that was not free is."""
        row, number = self._place(sku)
        place = number - row.base
        free = row.free
        assert not free >> place & 1, f"the seat {sku!r} is free already"
        row.free = free ^ 1 << place
        left, right = run_around(free, place)
        whole = left + right + 1
        if whole > _LONG:
            whole = _LONG
        counts = row.counts
        counts[whole] += 1
        if counts[whole] == 1:
            self._gained(row, whole)
        if left:
            if left > _LONG:
                left = _LONG
            counts[left] -= 1
            if not counts[left]:
                self._lost(row, left)
        if right:
            if right > _LONG:
                right = _LONG
            counts[right] -= 1
            if not counts[right]:
                self._lost(row, right)

    def is_free(self, sku: str) -> bool:
        row, number = self._place(sku)
        return bool(row.free >> (number - row.base) & 1)

    def _place(self, sku: str) -> tuple[_Row, int]:
        place = self._seats.get(sku)
        assert place is not None, f"{sku!r} is no seat"
        return place

    def _gained(self, row: _Row, length: int) -> None:
        """The row has its first run of this length."""
        if row.lengths.add(length, row.rank):
            self._lengths.add(length, row.zone_rank)

    def _lost(self, row: _Row, length: int) -> None:
        """The row has no run of this length any more."""
        if row.lengths.discard(length, row.rank):
            self._lengths.discard(length, row.zone_rank)

    # --- searching ---

    def best(self, zone: str | None, count: int) -> list[str] | None:
        """The items of the best `count` seats side by side, from left to right, in a zone or
        anywhere; None where there are no such."""
        for lengths in (_TIDY[count], _UNTIDY[count]):
            found = self._first_row(zone, lengths)
            if found is not None:
                first = found.tightest(count)
                return [found.skus[number] for number in range(first, first + count)]
        return None

    def _first_row(self, zone: str | None, lengths: tuple[int, ...]) -> _Row | None:
        """The first row with a run of one of these lengths."""
        if zone is None:
            rank = self._lengths.lowest(lengths)
            place = None if rank is None else self._zones[rank]
        else:
            place = self._names.get(zone)
        if place is None:
            return None
        rank = place.lengths.lowest(lengths)
        return None if rank is None else place.rows[rank]

    def _row(self, zone: str | None, name: str) -> _Row | None:
        place = self._names.get(zone or "")
        return None if place is None else place.names.get(name)

    # --- the end, and proofs ---

    def release(self, entries_max: int) -> bool:
        """Frees about so many entries of a hall that is no longer used; True when none is
        left."""
        if not self._seats.release(entries_max):
            return False
        left = entries_max
        while self._zones:
            zone = self._zones[-1]
            while zone.rows:
                if left <= 0:
                    return False
                row = zone.rows.pop()
                zone.names.pop(row.name)
                left -= 1 + len(row.skus)
            self._zones.pop()
            left -= 1
        return self._names.release(entries_max)

    def check(self) -> None:
        """Raises `StructureBroken` unless the lengths are those of the runs. O(n)."""
        seats = 0
        self._lengths.check()
        for rank, zone in enumerate(self._zones):
            expect(zone.rank == rank, "a zone has another's rank")
            zone.lengths.check()
            for place, row in enumerate(zone.rows):
                expect(
                    row.rank == place and row.lengths is zone.lengths, "a row has another's rank"
                )
                seats += len(row.skus)
                _check_row(row)
                for length in range(_LENGTHS):
                    there = (length, place) in zone.lengths
                    expect(there == (row.counts[length] > 0), "a row is not where it belongs")
            for length in range(_LENGTHS):
                there = (length, rank) in self._lengths
                some = zone.lengths.lowest((length,)) is not None
                expect(there == some, "a zone is not where it belongs")
        expect(seats == len(self._seats), "seats and rows differ in number")


def _check_row(row: _Row) -> None:
    counts = [0] * _LENGTHS
    for _, length in runs(row.free):
        counts[min(length, _LONG)] += 1
    expect(counts == row.counts, "the lengths of runs are not those of the row")
    expect(row.base == min(row.skus) and row.top == max(row.skus), "a row has other ends")
    for place in range(row.free.bit_length()):
        known = row.base + place in row.skus
        expect(known or not row.free >> place & 1, "a seat that is not there is free")
