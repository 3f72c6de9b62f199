"""The hall against an oracle that reads every row and tries every place, and by hand."""

from __future__ import annotations

import gc
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtserver.limits import BEST_SEATS_MAX, ROW_SPAN_MAX
from rtserver.state.sales.hall import Hall, _Row
from rtserver.structs import StructureBroken

Place = tuple[str | None, str, int]


def sku_of(place: Place) -> str:
    zone, row, number = place
    return f"{zone}/{row}/{number}"


class Oracle:
    """Says it as the rule does, row by row and place by place."""

    def __init__(self) -> None:
        self.rows: dict[str | None, dict[str, dict[int, bool]]] = {}  # free, by number

    def add(self, place: Place) -> None:
        zone, row, number = place
        self.rows.setdefault(zone, {}).setdefault(row, {})[number] = False

    def set(self, place: Place, free: bool) -> None:
        zone, row, number = place
        self.rows[zone][row][number] = free

    def best(self, zone: str | None, count: int) -> list[str] | None:
        zones = list(self.rows) if zone is None else [zone] if zone in self.rows else []
        for orphans_allowed in (False, True):
            for name in zones:
                for row, seats in self.rows[name].items():
                    first = self.best_in_row(seats, count, orphans_allowed)
                    if first is not None:
                        return [sku_of((name, row, first + at)) for at in range(count)]
        return None

    @staticmethod
    def best_in_row(seats: dict[int, bool], count: int, orphans_allowed: bool) -> int | None:
        found = []
        for first in sorted(seats):
            wanted = range(first, first + count)
            if not all(seats.get(number) for number in wanted):
                continue
            left = right = 0
            while seats.get(first - 1 - left):
                left += 1
            while seats.get(first + count + right):
                right += 1
            if orphans_allowed or 1 not in (left, right):
                found.append((left + count + right, first))
        return min(found)[1] if found else None


zones = st.sampled_from([None, "a", "b"])
places = st.tuples(zones, st.sampled_from(["r1", "r2"]), st.integers(3, 9) | st.integers(0, 50))


class HallMachine(RuleBasedStateMachine):
    """Every search answers as the oracle does, while seats come, go and are added."""

    def __init__(self) -> None:
        super().__init__()
        self.hall = Hall()
        self.oracle = Oracle()
        self.free: dict[Place, bool] = {}

    @rule(added=st.lists(places, min_size=1, max_size=60, unique=True), free=st.booleans())
    def add(self, added: list[Place], free: bool) -> None:
        for place in added:
            if place in self.free:
                continue
            self.hall.add(sku_of(place), *place)
            self.oracle.add(place)
            self.free[place] = False
            self.set(place, free)

    @rule(zone=zones, row=st.sampled_from(["r1", "r2"]), low=st.integers(0, 50), free=st.booleans())
    def change_a_run(self, zone: str | None, row: str, low: int, free: bool) -> None:
        for place in [(zone, row, number) for number in range(low, 51)]:
            if place in self.free:
                self.set(place, free)

    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        if self.free:
            place = data.draw(st.sampled_from(list(self.free)))
            self.set(place, not self.free[place])

    @rule(zone=zones | st.just("unknown"), count=st.integers(1, 6) | st.integers(1, BEST_SEATS_MAX))
    def buy(self, zone: str | None, count: int) -> None:
        best = self.hall.best(zone, count)
        assert best == self.oracle.best(zone, count)
        by_sku = {sku_of(place): place for place in self.free}
        for sku in best or []:
            self.set(by_sku[sku], False)

    def set(self, place: Place, free: bool) -> None:
        if self.free[place] != free:
            (self.hall.free if free else self.hall.take)(sku_of(place))
            self.oracle.set(place, free)
            self.free[place] = free

    @invariant()
    def sound(self) -> None:
        self.hall.check()
        assert len(self.hall) == len(self.free)
        for place, free in self.free.items():
            assert self.hall.is_free(sku_of(place)) == free


TestHall = HallMachine.TestCase
TestHall.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def hall_of(*rows: str, zone: str | None = None) -> Hall:
    """Rows named by their place, x is a free seat, o a taken one, a dot no seat."""
    hall = Hall()
    for name, row in enumerate(rows):
        for number, seat in enumerate(row):
            if seat != ".":
                hall.add(f"{name}:{number}", zone, str(name), number)
                if seat == "x":
                    hall.free(f"{name}:{number}")
    return hall


@pytest.mark.parametrize(
    ("rows", "count", "expected"),
    [
        (["xxxx"], 2, ["0:0", "0:1"]),  # the rest is a pair
        (["xxx"], 2, ["0:0", "0:1"]),  # a rest of one only where nothing else is left
        (["xxx", "xx"], 2, ["1:0", "1:1"]),  # so a row further back is better
        (["xxx", "xxxx"], 2, ["1:0", "1:1"]),
        (["xxxx", "xx"], 2, ["0:0", "0:1"]),  # but the front comes first
        (["xxxxxoxx"], 2, ["0:6", "0:7"]),  # inside a row the tightest
        (["xxoxx"], 2, ["0:0", "0:1"]),  # of those the leftmost
        (["xx.xxx"], 3, ["0:3", "0:4", "0:5"]),  # numbers that differ by 2 are no neighbours
        (["oxo"], 1, ["0:1"]),  # it was alone before
        (["xx"], 1, ["0:0"]),
        (["xx", "xxx"], 1, ["1:0"]),  # the rest of xx would be one alone, that of xxx is a pair
        (["xox"], 2, None),
        (["xxx"], 4, None),
        ([], 1, None),
    ],
)
def test_the_best_seats(rows: list[str], count: int, expected: list[str] | None) -> None:
    assert hall_of(*rows).best(None, count) == expected


def test_zones_rank_as_they_were_declared_too() -> None:
    hall = Hall()
    for zone, row in (("back", "9"), ("front", "1"), ("back", "8")):
        hall.add(f"{zone}{row}", zone, row, 1)
        hall.free(f"{zone}{row}")
    assert hall.best(None, 1) == ["back9"]
    assert hall.best("front", 1) == ["front1"]
    hall.take("back9")
    assert hall.best(None, 1) == ["back8"]
    assert hall.best("middle", 1) is None


def test_a_seat_moves_only_to_where_it_is_not() -> None:
    hall = hall_of("xo")
    with pytest.raises(AssertionError):
        hall.free("0:0")
    with pytest.raises(AssertionError):
        hall.take("0:1")
    with pytest.raises(AssertionError):
        hall.take("unknown")


def clash(hall: Hall, *places: Place) -> str | None:
    found = hall.clash((sku_of(place), *place) for place in places)
    return None if found is None else f"{found.sku}: {found.reason}"


def test_what_clashes_is_said_before_it_is_added() -> None:
    hall = hall_of("x")
    far = ROW_SPAN_MAX
    assert clash(hall, (None, "0", 1), (None, "1", 0), ("z", "0", 0)) is None
    assert clash(hall, (None, "0", 1), (None, "0", 0)) == (
        "None/0/0: seat 0 of row '0' is the item '0:0'"
    )
    assert clash(hall, ("z", "0", 7), ("z", "0", 7)) == (
        "z/0/7: seat 7 of row '0' is the item 'z/0/7'"
    )
    assert clash(hall, (None, "0", far - 1), ("z", "0", far), ("z", "0", 1)) is None
    assert clash(hall, (None, "0", far)) == (
        f"None/0/{far}: seats of row '0' would have the numbers 0 to {far},"
        f" at most {far} numbers are possible"
    )
    assert clash(hall, ("z", "0", far), ("z", "0", 0)) is not None


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_hall_is_sold_to_the_last_seat(seed: int) -> None:
    """Whatever is asked for, in a hall of ragged rows, the oracle would have given the same."""
    chance = random.Random(seed)
    hall, oracle = Hall(), Oracle()
    left = 0
    for row in range(12):
        for number in range(chance.randint(1, 40)):
            place = (chance.choice("ab") if row > 9 else "a", str(row), number)
            hall.add(sku_of(place), *place)
            hall.free(sku_of(place))
            oracle.add(place)
            oracle.set(place, True)
            left += 1
    while left:
        count = chance.choice([1, 2, 2, 3, 4, 5, 10])
        best = hall.best(None, count)
        assert best == oracle.best(None, count)
        while best is None:
            count -= 1
            best = hall.best(None, count)
        for sku in best:
            hall.take(sku)
            zone, row_name, number = sku.split("/")
            oracle.set((zone, row_name, int(number)), False)
        left -= count
    hall.check()


def test_a_search_looks_at_one_row_however_many_there_are() -> None:
    """Not a benchmark: a scan of the hall would take thousands of times as long."""
    hall = Hall()
    for row in range(2_000):
        for seat in range(40):
            hall.add(f"{row}-{seat}", "z", str(row), seat)
            if row == 1_999:
                hall.free(f"{row}-{seat}")
    started = time.perf_counter()
    for _ in range(1_000):
        assert hall.best(None, 4) == ["1999-0", "1999-1", "1999-2", "1999-3"]
    assert time.perf_counter() - started < 0.5


def rows_in_memory() -> int:
    return sum(type(one) is _Row for one in gc.get_objects())


def test_release_frees_a_slice_at_a_time() -> None:
    gc.collect()  # halls of tests before
    gc.disable()
    try:
        before = rows_in_memory()
        hall = Hall()
        for row in range(300):
            for seat in range(10):
                hall.add(f"{row}-{seat}", str(row % 7), str(row), seat)
                hall.free(f"{row}-{seat}")
        assert rows_in_memory() == before + 300
        calls = 1
        while not hall.release(100):
            calls += 1
        assert 50 <= calls <= 80
        assert len(hall) == 0
        assert rows_in_memory() == before
    finally:
        gc.enable()


def damage_length(hall: Hall) -> None:
    hall._zones[0].rows[0].counts[2] += 1


def damage_free(hall: Hall) -> None:
    hall._zones[0].rows[0].free ^= 1


def damage_set(hall: Hall) -> None:
    hall._zones[0].lengths.add(7, 0)


def damage_zones(hall: Hall) -> None:
    hall._lengths.add(7, 0)


def damage_seats(hall: Hall) -> None:
    hall._seats.pop("0:0")


@pytest.mark.parametrize(
    "damage", [damage_length, damage_free, damage_set, damage_zones, damage_seats]
)
def test_check_finds_damage(damage: object) -> None:
    hall = hall_of("xxox")
    hall.check()
    damage(hall)  # type: ignore[operator]
    with pytest.raises(StructureBroken):
        hall.check()
