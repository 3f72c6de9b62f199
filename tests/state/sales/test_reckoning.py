"""Adding up a ledger: what steps are worth, and steps that cannot follow those before them."""

from __future__ import annotations

from typing import Any

import pytest

from rtserver.state.sales.reckoning import PROBLEMS_MAX, Reckoning

# A row in words: step, user, hold, items. The time is the place of the row.
Words = tuple[str, str | None, int | None, dict[str, int] | None]

STOCK: Words = ("created", None, None, {"a": 5, "b": 5})
HELD: Words = ("reserved", "ann", 1, {"a": 2, "b": 1})


def summed(*rows: Words) -> Reckoning:
    reckoning = Reckoning()
    for at, (step, user, number, items) in enumerate(rows):
        reckoning.add([step, at, "svc", user, number, items, None])
    return reckoning


def balances(reckoning: Reckoning) -> dict[str, list[int]]:
    """{item: [stock, free, held, sold]}"""
    return {name: list(units.balance().values()) for name, units in reckoning.items.items()}


@pytest.mark.parametrize(
    ("rows", "a", "b", "waiting"),
    [
        ([], [5, 5, 0, 0], [5, 5, 0, 0], 0),
        ([HELD], [5, 3, 2, 0], [5, 4, 1, 0], 0),
        ([HELD, ("confirmed", "ann", 1, HELD[3])], [5, 3, 0, 2], [5, 4, 0, 1], 0),
        ([HELD, ("cancelled", "ann", 1, HELD[3])], [5, 5, 0, 0], [5, 5, 0, 0], 0),
        ([HELD, ("released", "ann", 1, HELD[3])], [5, 5, 0, 0], [5, 5, 0, 0], 0),
        (
            [HELD, ("freed", "ann", 1, {"a": 1}), ("confirmed", "ann", 1, {"a": 1, "b": 1})],
            [5, 4, 0, 1],
            [5, 4, 0, 1],
            0,
        ),
        (
            [HELD, ("expired", "ann", 1, HELD[3]), ("retaken", "ann", 1, {"a": 1})],
            [5, 4, 0, 1],
            [5, 5, 0, 0],
            0,
        ),
        (
            [HELD, ("replaced", "ann", 1, HELD[3]), ("reserved", "ann", 1, {"b": 4})],
            [5, 5, 0, 0],
            [5, 1, 4, 0],
            0,
        ),
        (
            [
                HELD,
                ("confirmed", "ann", 1, HELD[3]),
                ("refunded", "ann", 1, {"a": 1}),
                ("withdrawn", "ann", 1, {"a": 1, "b": 1}),
            ],
            [4, 4, 0, 0],
            [4, 4, 0, 0],
            0,
        ),
        ([("restocked", None, None, {"a": -5, "b": 1})], [0, 0, 0, 0], [6, 6, 0, 0], 0),
        ([HELD, ("extended", "ann", 1, None)], [5, 3, 2, 0], [5, 4, 1, 0], 0),
        (
            [("joined", user, None, None) for user in ("ann", "bob", "cid", "dan")]
            + [
                ("admitted", "ann", None, None),
                ("left", "ann", None, None),
                ("left", "bob", None, None),
                ("abandoned", "cid", None, None),
                ("pass_expired", "ann", None, None),
            ],
            [5, 5, 0, 0],
            [5, 5, 0, 0],
            1,
        ),
    ],
)
def test_what_steps_add_up_to(rows: list[Words], a: list[int], b: list[int], waiting: int) -> None:
    reckoning = summed(STOCK, *rows)
    assert not reckoning.problems
    assert balances(reckoning) == {"a": a, "b": b}
    assert list(reckoning.balance().values()) == [x + y for x, y in zip(a, b, strict=True)]
    assert len(reckoning.waiting) == waiting
    assert reckoning.steps == 1 + len(rows)


def account(reckoning: Reckoning, user: str = "ann") -> tuple[int, int, int]:
    found = reckoning.users.get(user)
    assert found is not None
    return found.taken, found.open, found.orders


def test_what_users_have() -> None:
    reckoning = summed(STOCK, HELD, ("reserved", "ann", 2, {"a": 1}), ("reserved", "bob", 3, {}))
    assert account(reckoning) == (4, 2, 0)
    assert (reckoning.open, reckoning.orders, reckoning.buyers) == (3, 0, 2)
    reckoning = summed(STOCK, HELD, ("confirmed", "ann", 1, HELD[3]))
    assert account(reckoning) == (3, 0, 1)
    reckoning = summed(
        STOCK, HELD, ("confirmed", "ann", 1, HELD[3]), ("refunded", "ann", 1, HELD[3])
    )
    assert account(reckoning) == (0, 0, 1)
    assert (reckoning.open, reckoning.orders, reckoning.buyers) == (0, 1, 1)
    reckoning = summed(STOCK, HELD, ("expired", "ann", 1, HELD[3]))
    assert account(reckoning) == (0, 0, 0)
    assert (reckoning.open, reckoning.orders, reckoning.buyers) == (0, 0, 0)
    reckoning.add(["retaken", 9, None, "ann", 1, {"a": 1}, None])
    assert account(reckoning) == (1, 0, 1)
    assert (reckoning.open, reckoning.orders, reckoning.buyers) == (0, 1, 1)


SOLD: Words = ("confirmed", "ann", 1, HELD[3])


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([("reserved", "ann", 1, {"a": 6})], "moves 6 of 'a', so that -1 are free"),
        ([("reserved", "ann", 1, {"c": 1})], "names 'c', which is no item yet"),
        ([("restocked", None, None, {"a": -6})], "moves -6 of 'a', so that -1 are free"),
        ([("reserved", "ann", 2, {"a": 1})], "is hold 2, the one before was 0"),
        ([HELD, HELD], "is about hold 1, which is held, not replaced"),
        ([HELD, SOLD, SOLD], "is about hold 1, which is sold, not held"),  # a double order
        ([HELD, ("expired", "ann", 1, HELD[3]), SOLD], "which is expired, not held"),
        ([HELD, SOLD, ("cancelled", "ann", 1, HELD[3])], "which is sold, not held"),
        ([HELD, SOLD, ("extended", "ann", 1, None)], "which is sold, not held"),
        ([HELD, ("retaken", "ann", 1, {"a": 1})], "which is held, not expired"),
        ([HELD, ("refunded", "ann", 1, {"a": 1})], "which is held, not sold"),
        (
            [HELD, SOLD, ("refunded", "ann", 1, HELD[3]), ("refunded", "ann", 1, {"a": 1})],
            "which is refunded, not sold",
        ),
        ([HELD, ("confirmed", "ann", 1, {"a": 2})], "which is not what hold 1 has"),
        ([HELD, ("expired", "ann", 1, {"a": 1, "b": 2})], "which is not what hold 1 has"),
        ([HELD, ("confirmed", "bob", 1, HELD[3])], "about hold 1 of 'ann', not of 'bob'"),
        ([("confirmed", "ann", 7, {})], "is about hold 7, which never was"),
        ([("admitted", "ann", None, None)], "is about 'ann', who does not wait"),
        ([("abandoned", "ann", None, None)], "is about 'ann', who does not wait"),
        ([("joined", "ann", None, None)] * 2, "is about 'ann', who waits already"),
    ],
)
def test_a_step_that_cannot_be(rows: list[Words], problem: str) -> None:
    texts = summed(STOCK, *rows).problems.texts()
    assert any(f"step {len(rows) + 1} ({rows[-1][0]})" in text for text in texts), texts
    assert any(problem in text for text in texts), texts


def test_time_does_not_go_back() -> None:
    reckoning = summed(STOCK)
    reckoning.add(["opened", 7, None, None, None, None, None])
    reckoning.add(["paused", 6, None, None, None, None, None])
    assert reckoning.problems.texts() == ["step 3 (paused) is from 6, the one before from 7"]


def test_problems_are_told_up_to_a_bound() -> None:
    reckoning = summed(STOCK, *[("admitted", "ann", None, None)] * (PROBLEMS_MAX + 5))
    texts = reckoning.problems.texts()
    assert len(texts) == PROBLEMS_MAX + 1
    assert texts[-1] == "and 5 more"


def test_release_frees_a_slice_at_a_time() -> None:
    rows: list[Any] = [("reserved", f"user{n}", n, {"a": 1}) for n in range(1, 5_001)]
    reckoning = summed(("created", None, None, {"a": 10_000}), *rows)
    calls = 1
    while not reckoning.release(500):
        calls += 1
    assert calls == 10
