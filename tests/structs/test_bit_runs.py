"""Runs of bits against text: what a person sees in a row of x and dots."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from rtserver.structs.bit_runs import run_around, runs, starts_of_runs

rows = st.text(alphabet="xx.", max_size=90)


def bits_of(row: str) -> int:
    return sum(1 << place for place, one in enumerate(row) if one == "x")


@given(row=rows, least=st.integers(1, 40))
def test_runs_are_what_a_pattern_finds(row: str, least: int) -> None:
    found = [(one.start(), len(one[0])) for one in re.finditer("x+", row) if len(one[0]) >= least]
    assert list(runs(bits_of(row), least)) == found
    assert starts_of_runs(bits_of(row), least) == sum(1 << place for place, _ in found)


@given(before=rows, after=rows, middle=st.sampled_from("x."))
def test_the_neighbours_of_a_place(before: str, after: str, middle: str) -> None:
    left = len(before) - len(before.rstrip("x"))
    right = len(after) - len(after.lstrip("x"))
    assert run_around(bits_of(before + middle + after), len(before)) == (left, right)
