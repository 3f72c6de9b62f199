"""Both forms of the ranking against sorted(), with small blocks and real ones."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rtserver.compiled import twin
from rtserver.structs import StructureBroken
from rtserver.structs.float_keys import float_of, key_of
from rtserver.structs.ranking import Ranking, new_ranking

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
TWIN = twin("rtserver.structs.ranking")
not_built = pytest.mark.skipif(TWIN is None, reason="the compiled ranking is not built or off")

plain_names = st.integers(0, 400).map(str)
odd_names = st.sampled_from(["x", "y" * 255, "z" * 254, "é" * 127, "名前", "\U0001f600" * 63, ""])
names = plain_names | odd_names
few_keys = st.integers(0, 5)
many_keys = st.integers(INT64_MIN, INT64_MAX) | st.sampled_from([INT64_MIN, INT64_MAX, 0, -1])


class RankingMachine(RuleBasedStateMachine):
    """Every operation on a ranking of small blocks answers as a sorted list does."""

    form: Any = Ranking

    @initialize(
        keys=st.sampled_from([few_keys, many_keys, st.just(7)]), block_max=st.integers(4, 9)
    )
    def build(self, keys: Any, block_max: int) -> None:
        self.keys = keys
        self.made = self.form(block_max)
        self.entries: list[tuple[int, int]] = []
        self.rows: dict[str, tuple[int, int]] = {}
        self.names_by_seq: dict[int, str] = {}
        self.marked: set[str] = set()
        self.seq = 0

    def take(self, name: str, entry: tuple[int, int]) -> int:
        index = bisect_left(self.entries, entry)
        self.entries.insert(index, entry)
        self.rows[name] = entry
        self.names_by_seq[entry[1]] = name
        return index

    def drop(self, name: str) -> int:
        entry = self.rows.pop(name)
        index = bisect_left(self.entries, entry)
        del self.entries[index]
        del self.names_by_seq[entry[1]]
        return index

    def put(self, name: str, key: int) -> None:
        """Moves a name where it is ranked, else places it."""
        self.seq += 1
        if name in self.rows:
            previous = self.drop(name)
            assert self.made.move(name, key) == (previous, self.take(name, (key, self.seq)))
        else:
            assert self.made.place(name, key) == self.take(name, (key, self.seq))

    @rule(name=names, data=st.data())
    def put_one(self, name: str, data: st.DataObject) -> None:
        self.put(name, data.draw(self.keys))

    @rule(data=st.data(), seed=st.integers(0, 999), count=st.integers(1, 80))
    def put_many(self, data: st.DataObject, seed: int, count: int) -> None:
        keys = data.draw(st.lists(self.keys, min_size=1, max_size=20))
        chance = random.Random(seed)
        for _ in range(count):
            self.put(str(chance.randrange(400)), chance.choice(keys))

    @rule(count=st.integers(1, 30))
    def put_behind_all(self, count: int) -> None:
        if self.entries:
            for number in range(count):
                self.put(f"late{number}", self.entries[-1][0])

    @rule(name=names)
    def refuse(self, name: str) -> None:
        if name in self.rows:
            with pytest.raises(ValueError, match="ranked already"):
                self.made.place(name, 1)
            return
        with pytest.raises(KeyError):
            self.made.move(name, 1)
        with pytest.raises(KeyError):
            self.made.mark(name, True)

    @rule(name=names)
    def remove(self, name: str) -> None:
        expected = self.drop(name) if name in self.rows else None
        self.marked.discard(name)
        assert self.made.remove(name) == expected

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), seed=st.integers(0, 999), run=st.booleans())
    def remove_some(self, data: st.DataObject, seed: int, run: bool) -> None:
        count = data.draw(st.integers(1, len(self.rows)))
        start = data.draw(st.integers(0, len(self.rows) - count))
        gone = [self.names_by_seq[seq] for _, seq in self.entries[start : start + count]]
        if not run:
            random.Random(seed).shuffle(gone)
        for name in gone:
            self.remove(name)

    @rule(name=names, marked=st.booleans())
    def mark(self, name: str, marked: bool) -> None:
        if name in self.rows:
            self.made.mark(name, marked)
            (self.marked.add if marked else self.marked.discard)(name)

    @rule(data=st.data(), count=st.integers(0, 40))
    def load(self, data: st.DataObject, count: int) -> None:
        floor = self.entries[-1] if self.entries else (INT64_MIN, 0)
        drawn = data.draw(st.lists(self.keys, max_size=count))
        entries = sorted((key, self.seq + n) for n, key in enumerate(drawn, 1))
        rows = [(f"loaded{entry[1]}", *entry) for entry in entries if entry > floor]
        self.made.load(*([row[i] for row in rows] for i in range(3)))
        for name, *entry in rows:
            self.take(name, tuple(entry))
        self.seq += len(drawn)
        self.made.seq = self.seq

    @rule(entries_max=st.integers(1, 200))
    def release(self, entries_max: int) -> None:
        before, rounds = len(self.entries), 0
        while not self.made.release(entries_max):
            assert len(self.made) <= before
            before, rounds = len(self.made), rounds + 1
            assert rounds < 1_000
        self.entries, self.rows, self.names_by_seq, self.marked = [], {}, {}, set()

    @rule(data=st.data(), name=names)
    def ask(self, data: st.DataObject, name: str) -> None:
        known = st.sampled_from([key for key, _ in self.entries[::5]] or [0])
        key = data.draw(self.keys | known)
        keys = [entry[0] for entry in self.entries]
        assert self.made.rank_of_key(key) == bisect_left(keys, key)
        assert self.made.rank_past_key(key) == bisect_right(keys, key)
        assert self.made.distinct_before(key) == len({other for other in keys if other < key})
        entry = self.rows.get(name)
        assert (name in self.made) == (entry is not None)
        assert self.made.find(name) == entry
        assert self.made.rank(name) == (None if entry is None else self.entries.index(entry))
        assert self.made.marked(name) == (name in self.marked)

    @rule(start=st.integers(-2, 300), count=st.integers(-1, 100))
    def slice(self, start: int, count: int) -> None:
        expected = self.entries[start : start + max(count, 0)] if start >= 0 else []
        assert self.made.slice(start, count) == [
            (self.names_by_seq[seq], key, seq) for key, seq in expected
        ]

    @invariant()
    def same(self) -> None:
        if hasattr(self, "made"):
            self.made.check()
            assert len(self.made) == len(self.entries)
            assert self.made.seq == self.seq
            assert [row[1:] for row in self.made.slice(0, len(self.made))] == self.entries


TestRanking = RankingMachine.TestCase
TestRanking.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


class CompiledMachine(RankingMachine):
    form = TWIN and TWIN.Ranking


CompiledMachine.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None
)
TestCompiledRanking = not_built(CompiledMachine.TestCase)


@pytest.fixture(params=["pure", pytest.param("compiled", marks=not_built)])
def form(request: pytest.FixtureRequest) -> Any:
    return Ranking if request.param == "pure" else TWIN.Ranking


@pytest.mark.parametrize("keys", [3, 1_000, 2**60])
def test_real_blocks_under_random_changes(form: Any, keys: int) -> None:
    chance = random.Random(keys)
    made = form()
    rows: dict[str, tuple[int, int]] = {}
    entries: list[tuple[int, int]] = []
    members = 6_000
    for step in range(100_000 if form is not Ranking else 20_000):
        name = f"m{chance.randrange(members)}"
        entry = rows.pop(name, None)
        previous = None
        if entry is not None:
            previous = bisect_left(entries, entry)
            del entries[previous]
        if chance.random() < (0.7 if step // 15_000 % 2 else 0.1):
            assert made.remove(name) == previous
            continue
        rows[name] = entry = (chance.randrange(keys), made.seq + 1)
        rank = bisect_left(entries, entry)
        entries.insert(rank, entry)
        if previous is None:
            assert made.place(name, entry[0]) == rank
        else:
            assert made.move(name, entry[0]) == (previous, rank)
        if not step % 5_000:
            made.check()
            assert [row[1:] for row in made.slice(0, members)] == entries
            middle = entries[len(entries) // 2][0]
            assert made.distinct_before(middle) == len({key for key, _ in entries if key < middle})
    for name in list(rows):
        made.remove(name)
    made.check()
    assert len(made) == 0
    assert made.slice(0, 10) == []


def test_members_that_come_in_order_and_go_from_the_front(form: Any) -> None:
    made = form()
    for number in range(20_000):
        assert made.place(f"m{number}", number // 3) == number
    made.check()
    for number in range(15_000):
        assert made.remove(f"m{number}") == 0
    made.check()
    for number in range(19_999, 15_000, -1):
        assert made.remove(f"m{number}") == number - 15_000
    made.check()
    assert made.slice(0, 9) == [("m15000", 5_000, 15_001)]


def test_the_ends_of_int64(form: Any) -> None:
    made = form()
    for name, key in [("low", INT64_MIN), ("high", INT64_MAX), ("mid", 0), ("low2", INT64_MIN)]:
        made.place(name, key)
    assert [row[0] for row in made.slice(0, 9)] == ["low", "low2", "mid", "high"]
    assert made.rank_of_key(INT64_MIN) == 0
    assert made.rank_past_key(INT64_MIN) == 2
    assert made.rank_of_key(INT64_MAX) == 3
    assert made.rank_past_key(INT64_MAX) == 4
    assert made.distinct_before(INT64_MAX) == 2
    for key in (INT64_MIN - 1, INT64_MAX + 1):
        with pytest.raises(OverflowError):
            made.place("wide", key)
        with pytest.raises(OverflowError):
            made.move("mid", key)
    with pytest.raises(TypeError):
        made.place("text", "7")
    assert made.seq == 4
    made.check()


def test_names_that_are_too_long_are_refused(form: Any) -> None:
    made = form()
    for name in ("x" * 256, "é" * 128, "x" * 1_000):
        with pytest.raises(ValueError, match="at most 255"):
            made.place(name, 1)
        assert made.find(name) is None
        assert made.rank(name) is None
        assert made.remove(name) is None
        with pytest.raises(ValueError, match="at most 255"):
            made.load([name], [1], [1])
    assert len(made) == 0
    made.check()


@pytest.mark.parametrize(
    ("loaded", "keys", "seqs"),
    [
        (["b", "c"], [9, 8], [5, 6]),
        (["b", "c"], [9, 9], [6, 6]),
        (["b", "c"], [9, 9], [6, 5]),
        (["b"], [1], [9]),
        (["b"], [5], [3]),
        (["b"], [9], [0]),
        (["b"], [9], [INT64_MAX]),
        (["b", "b"], [8, 9], [5, 6]),
        (["b", "a"], [8, 9], [5, 6]),
        (["b"], [8, 9], [5, 6]),
        (["b", "c"], [8, 9], [5]),
    ],
)
def test_a_run_that_does_not_fit_is_refused_whole(
    form: Any, loaded: list[str], keys: list[int], seqs: list[int]
) -> None:
    made = form()
    made.load(["a"], [5], [4])
    with pytest.raises(ValueError, match=r"ascend|distinct|already|zip"):
        made.load(loaded, keys, seqs)
    assert made.slice(0, 9) == [("a", 5, 4)]
    made.check()


def test_a_released_ranking_is_new(form: Any) -> None:
    made = form()
    for round in range(3):
        for number in range(5_000):
            made.place(f"{round}:{number}", number % 70)
        rounds = 0
        while not made.release(500):
            rounds += 1
        assert 5 <= rounds <= 100
        assert len(made) == 0
        assert made.find(f"{round}:7") is None
        made.check()


def test_what_a_board_says_of_itself_is_kept(form: Any) -> None:
    made = form()
    assert (made.descending, made.floats, made.guarded) == (False, False, False)
    assert (made.mode, made.members_max, made.seq) == (0, -1, 0)
    made.descending = made.floats = made.guarded = True
    made.mode, made.members_max, made.seq = 2, 10**12, 2**40
    assert (made.descending, made.floats, made.guarded) == (True, True, True)
    assert (made.mode, made.members_max) == (2, 10**12)
    made.place("a", 1)
    assert made.find("a") == (1, 2**40 + 1)


def test_a_block_that_is_too_small_is_refused(form: Any) -> None:
    with pytest.raises(ValueError, match="expected 4 or more"):
        form(3)


@not_built
def test_the_compiled_form_is_taken_where_it_is_built() -> None:
    assert type(new_ranking()) is TWIN.Ranking


def test_check_finds_damage() -> None:
    made = Ranking()
    for number in range(50):
        made.place(str(number), number % 7)
    made._keys[3] += 1
    with pytest.raises(StructureBroken):
        made.check()
    made._keys[3] -= 1
    made.check()
    made._marked.insert("gone", True)
    with pytest.raises(StructureBroken):
        made.check()


@pytest.mark.parametrize("value", [0.0, 1.5, -1.5, 5e-324, -5e-324, 1.7976931348623157e308, -1e300])
def test_floats_come_back_from_their_keys(value: float) -> None:
    assert float_of(key_of(value)) == value
    assert INT64_MIN < key_of(value) < INT64_MAX


def test_keys_of_floats_are_in_their_order() -> None:
    chance = random.Random(1)
    values = [chance.uniform(-1, 1) * 10.0 ** chance.randrange(-300, 300) for _ in range(2_000)]
    values += [0.0, 5e-324, -5e-324, 1.0, -1.0]
    assert sorted(values) == sorted(values, key=key_of)
    assert str(float_of(key_of(-0.0))) == "0.0"
    assert key_of(-0.0) == key_of(0.0)
