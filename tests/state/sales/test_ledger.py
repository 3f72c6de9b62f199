"""The ledger of a sale: pages, chunks, a dump and back, against a list."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.state.sales.ledger import CHUNK_BYTES, CHUNK_ROWS, STEPS, Ledger
from rtserver.structs import StructureBroken

RESERVED = STEPS.index("reserved")


def filled(rows: int, items: int = 1, *, width: int = 1) -> tuple[Ledger, list[list[Any]]]:
    ledger, oracle = Ledger(), []
    for number in range(rows):
        basket = {f"{name}".zfill(width): 1 for name in range(items)}
        ledger.append(RESERVED, number, "svc", f"user{number}", number, basket, None)
        oracle.append(["reserved", number, "svc", f"user{number}", number, basket, None])
    return ledger, oracle


@settings(max_examples=40, deadline=None)
@given(
    rows=st.sampled_from([0, 1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 3 * CHUNK_ROWS]),
    after=st.integers(0, 3 * CHUNK_ROWS),
    limit=st.integers(0, 2 * CHUNK_ROWS),
)
def test_a_page_is_a_slice(rows: int, after: int, limit: int) -> None:
    ledger, oracle = filled(rows)
    ledger.check()
    assert len(ledger) == rows
    after = min(after, rows)
    assert list(ledger.rows(after, limit)) == oracle[after : after + limit]


def test_rows_of_many_items_fill_a_chunk_by_their_bytes() -> None:
    ledger, oracle = filled(300, 100, width=20)
    ledger.check()
    assert list(ledger.rows(0, 300)) == oracle
    assert len(ledger._chunks) > 300 * 100 * 20 // CHUNK_BYTES
    read = []
    while rows := ledger.read_on(len(read)):
        assert len(rows) < 40
        read += rows
    assert read == oracle


@pytest.mark.parametrize(("rows", "items"), [(0, 1), (CHUNK_ROWS, 1), (2_000, 1), (200, 100)])
def test_a_dump_loads_and_goes_on(rows: int, items: int) -> None:
    ledger, oracle = filled(rows, items, width=20)
    again = Ledger()
    for chunk in ledger.dump():
        again.load(chunk)
    again.check()
    assert list(again.dump()) == list(ledger.dump())
    for one in (ledger, again):
        one.append(RESERVED, 5, None)
    assert list(again.dump()) == list(ledger.dump())
    assert list(again.rows(0, rows + 1)) == [*oracle, ["reserved", 5, None, None, None, None, None]]


def test_release_frees_a_slice_at_a_time() -> None:
    ledger, _ = filled(5 * CHUNK_ROWS + 1)
    assert [ledger.release(2 * CHUNK_ROWS) for _ in range(3)] == [False, False, True]


def test_check_finds_damage() -> None:
    ledger, _ = filled(2_000)
    ledger._starts[1] -= 1
    with pytest.raises(StructureBroken):
        ledger.check()
