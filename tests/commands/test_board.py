"""board.*: ranks against a naive oracle, ties, kinds, errors, replay."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.limits import INT64_MAX, INT64_MIN, Limits
from tests.world import Refused, World


@pytest.fixture
def world():
    world = World()
    yield world
    world.assert_same()


def top(world, name="b", *args):
    entries = world.call("board.top", name, *args)["entries"]
    return [(entry["rank"], entry["member"], entry["score"]) for entry in entries]


def submit(world, *rows, name="b"):
    for member, score in rows:
        world.call("board.submit", name, member, score)


def test_submit_answers_both_ranks(world):
    submit(world, ("ann", 10), ("bob", 20))
    answer = world.call("board.submit", "b", "ann", 30)
    assert answer == {"score": 30, "rank": 1, "previous_rank": 2, "changed": True}
    answer = world.call("board.submit", "b", "ann", 5)
    assert answer == {"score": 30, "rank": 1, "previous_rank": 1, "changed": False}
    answer = world.call("board.submit", "b", "new", 25)
    assert answer == {"score": 25, "rank": 2, "previous_rank": None, "changed": True}


def test_ties_rank_by_who_reached_the_score_first(world):
    submit(world, ("late", 1), ("first", 7), ("second", 7), ("late", 7), ("first", 7))
    assert [member for _, member, _ in top(world)] == ["first", "second", "late"]


@pytest.mark.parametrize(
    ("kind", "ranks"),
    [
        ("ordinal", [1, 2, 3, 4, 5]),
        ("competition", [1, 2, 2, 4, 4]),
        ("dense", [1, 2, 2, 3, 3]),
    ],
)
def test_rank_kinds(world, kind, ranks):
    submit(world, ("a", 9), ("b", 8), ("c", 8), ("d", 7), ("e", 7))
    assert [rank for rank, _, _ in top(world, "b", 5, 0, "all", "current", kind)] == ranks
    found = [world.call("board.rank", "b", member, None, None, kind)["rank"] for member in "abcde"]
    assert found == ranks
    assert [rank for rank, _, _ in top(world, "b", 2, 2, None, None, kind)] == ranks[2:4]


def test_ascending_boards_rank_low_scores_first(world):
    world.call("board.create", "b", "asc", "best", "float")
    submit(world, ("slow", 9.5), ("quick", 3), ("slow", 2.25), ("quick", 4))
    assert top(world) == [(1, "slow", 2.25), (2, "quick", 3.0)]


def test_modes(world):
    world.call("board.create", "b", "desc", "sum")
    submit(world, ("ann", 3), ("ann", 4), ("bob", 5), ("ann", -1))
    assert top(world) == [(1, "ann", 6), (2, "bob", 5)]
    assert world.call("board.submit", "b", "ann", 1, "last")["score"] == 1
    assert world.call("board.submit", "b", "ann", 9, "best")["score"] == 9


def test_integers_are_exact_over_64_bits(world):
    submit(world, ("a", 2**53), ("b", 2**53 + 1), ("c", INT64_MAX), ("d", INT64_MIN))
    assert [member for _, member, _ in top(world)] == ["c", "b", "a", "d"]
    world.call("board.create", "up", "asc")
    submit(world, ("low", INT64_MIN), ("high", INT64_MAX), name="up")
    assert [member for _, member, _ in top(world, "up")] == ["low", "high"]


def test_a_sum_out_of_range_changes_nothing(world):
    world.call("board.create", "b", "desc", "sum")
    submit(world, ("ann", INT64_MAX))
    with pytest.raises(Refused, match="out_of_range"):
        world.call("board.submit", "b", "ann", 1)
    world.call("board.create", "f", "desc", "sum", "float")
    submit(world, ("ann", 1.7e308), name="f")
    with pytest.raises(Refused, match="out_of_range"):
        world.call("board.submit", "f", "ann", 1.7e308)


def test_a_refused_submit_leaves_no_board_behind(world):
    with pytest.raises(Refused, match="out_of_range"):
        world.call("board.submit", "fresh", "ann", 1.5)
    with pytest.raises(Refused, match="not_found"):
        world.call("board.info", "fresh")
    answer = world.call("board.submit_many", "fresh", [["ann", 1.5], ["bob"]])
    assert [item["error"][1] for item in answer["items"]] == ["out_of_range", "invalid_params"]
    assert world.call("board.list")["items"] == []


def test_submit_many_applies_the_good_items(world):
    answer = world.call("board.submit_many", "b", [["ann", 3], ["x y", 1], ["bob", 5], ["ann", 9]])
    assert [item.get("rank") for item in answer["items"]] == [1, None, 1, 1]
    assert answer["items"][1]["error"][1] == "invalid_params"
    assert world.records()[-1][2][1] == [["ann", 3], ["bob", 5], ["ann", 9]]


def test_create_is_idempotent_and_conflicts_on_another_meaning(world):
    assert world.call("board.create", "b", "asc") == {"created": True}
    assert world.call("board.create", "b", "asc") == {"created": False}
    with pytest.raises(Refused, match=r"conflict.*asc/best/int"):
        world.call("board.create", "b", "desc")


def test_around_is_shorter_at_the_edges(world):
    submit(world, *((f"m{score}", score) for score in range(10)))
    found = world.call("board.around", "b", "m9", 2)["entries"]
    assert [entry["member"] for entry in found] == ["m9", "m8", "m7"]
    found = world.call("board.around", "b", "m5", 1)["entries"]
    assert [(entry["rank"], entry["member"]) for entry in found] == [
        (4, "m6"),
        (5, "m5"),
        (6, "m4"),
    ]
    assert world.call("board.around", "b", "nobody", 2)["entries"] == []


def test_lists_are_paged_and_bounded_in_bytes(world):
    for number in range(300):
        world.call("board.submit", "b", f"{number:03}".ljust(250, "x"), 1, None, "m" * 1_000)
    seen, offset = [], 0
    while offset is not None:
        page = world.call("board.top", "b", 1_000, offset)
        assert len(page["entries"]) < 250
        seen += [entry["member"][:3] for entry in page["entries"]]
        offset = page["next"]
    assert seen == [f"{number:03}" for number in range(300)]
    assert world.call("board.by_score", "b", 0, 5, 10, 290)["next"] is None
    assert world.call("board.top", "b", 10)["next"] == 10
    with pytest.raises(Refused, match="at most 1024 bytes"):
        world.call("board.submit", "b", "m", 1, None, "m" * 1_100)


def test_unknown_members_and_boards(world):
    world.call("board.create", "b")
    assert world.call("board.rank", "b", "nobody")["rank"] is None
    for method, args in [
        ("rank", ["m"]),
        ("top", []),
        ("count", []),
        ("remove", [["m"]]),
        ("info", []),
        ("delete", []),
        ("by_score", [0, 1]),
    ]:
        with pytest.raises(Refused, match="not_found"):
            world.call(f"board.{method}", "missing", *args)


def test_members_ranks_friends(world):
    submit(world, *((f"m{score}", score) for score in range(10)))
    found = world.call("board.members", "b", ["m3", "absent", "m8", "m3"])["entries"]
    assert [(entry["rank"], entry["member"]) for entry in found] == [(2, "m8"), (7, "m3")]


def test_by_score_includes_both_ends(world):
    submit(world, *((f"m{score}", score) for score in range(10)))
    answer = world.call("board.by_score", "b", 3, 6)
    assert [entry["member"] for entry in answer["entries"]] == ["m6", "m5", "m4", "m3"]
    assert answer["count"] == 4
    answer = world.call("board.by_score", "b", 2.5, 4.5, 1, 1)
    assert [(entry["rank"], entry["member"]) for entry in answer["entries"]] == [(7, "m3")]
    assert world.call("board.by_score", "b", 6, 3)["entries"] == []


@pytest.mark.parametrize("order", ["desc", "asc"])
def test_by_score_takes_bounds_of_either_kind(world, order):
    world.call("board.create", "b", order)
    world.call("board.create", "f", order, "best", "float")
    submit(world, ("low", INT64_MIN), ("minus", -2), ("zero", 0), ("high", INT64_MAX))
    submit(world, ("minus", -1.5), ("zero", -0.0), ("tiny", 5e-324), ("two", 2), name="f")

    def between(name, low, high):
        found = world.call("board.by_score", name, low, high)
        assert found["count"] == len(found["entries"])
        members = [entry["member"] for entry in found["entries"]]
        return members if order == "asc" else members[::-1]

    assert between("b", -1e300, 1e300) == ["low", "minus", "zero", "high"]
    assert between("b", -2.5, 0.5) == ["minus", "zero"]
    assert between("b", INT64_MAX, 1e19) == ["high"]
    for low, high in [(1e19, 1e300), (-1e300, -1e19), (0.25, 0.75), (-1.5, -0.5), (1, -5)]:
        assert between("b", low, high) == []
    assert between("f", -1e300, INT64_MAX) == ["minus", "zero", "tiny", "two"]
    assert between("f", 0, 0) == ["zero"]
    assert between("f", -0.0, 5e-324) == ["zero", "tiny"]
    assert between("f", -2, -1) == ["minus"]
    assert str(world.call("board.rank", "f", "zero")["score"]) == "0.0"


def test_what_the_ranking_says_of_its_board(world):
    world.call("board.create", "b", "asc", "sum", "float")
    submit(world, ("ann", 1), ("bob", 2))
    ranking = world.store.boards.find("b").ranking
    assert (ranking.descending, ranking.floats, ranking.mode) == (False, True, 2)
    assert not ranking.guarded
    world.call("board.remove", "b", ["eve"], True)
    assert ranking.guarded
    world.call("board.unban", "b", ["eve"])
    assert not ranking.guarded
    world.call("board.submit", "b", "ann", 1, None, None, 1_000)
    assert ranking.marked("ann")
    assert not ranking.marked("bob")
    world.advance(1_000)
    submit(world, ("ann", 5))
    assert not ranking.marked("ann")
    world.store.boards.enforce(5, 7)
    assert ranking.members_max == 7


def test_remove_and_ban(world):
    submit(world, ("ann", 1), ("bob", 2))
    assert world.call("board.remove", "b", ["ann", "nobody"], True) == {"removed": 1}
    with pytest.raises(Refused, match="banned"):
        world.call("board.submit", "b", "ann", 5)
    assert world.call("board.info", "b")["banned"] == 2
    assert world.call("board.unban", "b", ["ann", "ann"]) == {"unbanned": 1}
    assert world.call("board.submit", "b", "ann", 5)["rank"] == 1


def test_meta_and_time_to_live(world):
    world.call("board.submit", "b", "ann", 5, None, {"team": "red"}, 1_000)
    world.call("board.submit", "b", "bob", 9, None, None, 500)
    assert world.call("board.top", "b")["entries"][1]["meta"] == {"team": "red"}
    world.call("board.submit", "b", "bob", 1, None, None, 5_000)
    world.advance(1_000)
    assert top(world) == [(1, "bob", 9)]
    assert world.call("board.submit", "b", "ann", 1)["previous_rank"] is None
    assert "meta" not in world.call("board.top", "b")["entries"][1]


def test_delete_is_immediate_and_memory_comes_back_in_slices(world):
    items = [[f"m{number}", number] for number in range(1_000)]
    for _ in range(3):
        world.call("board.submit_many", "b", items)
    world.call("board.delete", "b")
    with pytest.raises(Refused, match="not_found"):
        world.call("board.count", "b")
    submit(world, ("ann", 1))
    rounds = 0
    while not world.store.reclaim(100):
        rounds += 1
    assert 5 <= rounds <= 100
    assert top(world) == [(1, "ann", 1)]


def test_stale_deadlines_of_a_deleted_board_do_nothing(world):
    world.call("board.submit", "b", "ann", 1, None, None, 1_000)
    world.call("board.delete", "b")
    world.call("board.submit", "b", "ann", 2)
    world.advance(2_000)
    assert top(world) == [(1, "ann", 2)]


def test_bounds():
    world = World(Limits(boards_max=1, board_members_max=1))
    world.call("board.submit", "b", "ann", 1)
    with pytest.raises(Refused, match=r"limit_reached.*board_members_max"):
        world.call("board.submit", "b", "bob", 1)
    with pytest.raises(Refused, match=r"limit_reached.*boards_max"):
        world.call("board.submit", "c", "bob", 1)
    world.assert_same()


class Oracle:
    """A board as a list that is sorted anew each time."""

    def __init__(self, order: str, mode: str) -> None:
        self.sign = -1 if order == "desc" else 1
        self.mode = mode
        self.rows: dict[str, tuple[Fraction, int]] = {}
        self.clock = 0

    def submit(self, member, score):
        old = self.rows.get(member)
        new = Fraction(score)
        if old is not None:
            if self.mode == "sum":
                new = old[0] + new
            elif self.mode == "best":
                new = min(old[0], new) if self.sign > 0 else max(old[0], new)
            if new == old[0]:
                return
        self.clock += 1
        self.rows[member] = (new, self.clock)

    def ranking(self):
        return sorted(self.rows, key=lambda m: (self.sign * self.rows[m][0], self.rows[m][1]))

    def rank(self, member, kind):
        scores = [self.rows[m][0] for m in self.ranking()]
        mine = self.rows[member][0]
        if kind == "ordinal":
            return self.ranking().index(member) + 1
        if kind == "competition":
            return scores.index(mine) + 1
        return len(set(scores[: scores.index(mine)])) + 1


MEMBERS = st.sampled_from([f"m{number}" for number in range(12)])
ACTIONS = st.lists(
    st.tuples(st.just("submit"), MEMBERS, st.integers(-3, 3))
    | st.tuples(st.just("remove"), MEMBERS),
    max_size=50,
)


@settings(max_examples=120, deadline=None)
@given(
    ACTIONS,
    st.sampled_from(["desc", "asc"]),
    st.sampled_from(["best", "last", "sum"]),
    st.sampled_from(["int", "float"]),
)
def test_boards_agree_with_a_sorted_list(actions, order, mode, score_type):
    world = World()
    world.call("board.create", "b", order, mode, score_type)
    oracle = Oracle(order, mode)
    for action, member, *score in actions:
        if action == "remove":
            removed = world.call("board.remove", "b", [member])["removed"]
            assert removed == (oracle.rows.pop(member, None) is not None)
            continue
        value = score[0] if score_type == "int" else score[0] / 4
        before = oracle.rank(member, "ordinal") if member in oracle.rows else None
        oracle.submit(member, value)
        answer = world.call("board.submit", "b", member, value)
        assert answer["previous_rank"] == before
        assert answer["rank"] == oracle.rank(member, "ordinal")
    assert [member for _, member, _ in top(world)] == oracle.ranking()
    for member in oracle.rows:
        for kind in ("ordinal", "competition", "dense"):
            answer = world.call("board.rank", "b", member, None, None, kind)
            assert answer["rank"] == oracle.rank(member, kind)
    world.assert_same()
