"""Users who were sent away: for how long, from where, and how many at most."""

from __future__ import annotations

import pytest

from rtserver.errors import RtError
from rtserver.session.blocks import Blocks


def blocked(blocks, user, channel, now):
    try:
        blocks.check(user, channel, now)
    except RtError as error:
        return error.details["retry_after_ms"]
    return 0


def test_a_block_holds_until_its_time_and_for_what_it_names():
    blocks = Blocks(10)
    blocks.block("ann", None, until=100, now=0)
    blocks.block("ann", "room", until=50, now=0)
    assert [blocked(blocks, "ann", None, now) for now in (0, 99, 100)] == [100, 1, 0]
    assert blocked(blocks, "ann", "room", 49) == 1
    assert blocked(blocks, "ann", "other", 0) == 0
    assert blocked(blocks, "bob", None, 0) == 0
    assert blocked(blocks, None, None, 0) == 0


def test_a_later_word_replaces_an_earlier_one():
    blocks = Blocks(1)
    blocks.block("ann", None, until=100, now=0)
    blocks.block("ann", None, until=10, now=0)
    assert (blocked(blocks, "ann", None, 0), len(blocks)) == (10, 1)


@pytest.mark.parametrize(("now", "kept"), [(0, ["bob", "eve"]), (100, ["ann", "eve"])])
def test_at_the_bound_those_that_are_over_give_way_else_the_one_that_ends_first(now, kept):
    blocks = Blocks(2)
    blocks.block("ann", None, until=100 if now == 0 else 150, now=0)
    blocks.block("bob", None, until=200 if now == 0 else 90, now=0)
    blocks.block("eve", None, until=300, now=now)
    assert [name for name in ("ann", "bob", "eve") if blocked(blocks, name, None, now)] == kept
    assert len(blocks) == 2
