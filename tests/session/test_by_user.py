"""Things found by their user, beside a plain list of pairs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rtserver.session.by_user import ByUser

USERS = st.none() | st.sampled_from(["ann", "bob", "eve"])


@given(steps=st.lists(st.tuples(st.booleans(), USERS, st.integers(0, 3))))
def test_it_knows_what_a_list_of_pairs_knows(steps):
    things: ByUser[int] = ByUser()
    pairs: list[tuple[str, int]] = []
    for adds, user, thing in steps:
        (things.add if adds else things.discard)(user, thing)
        if user is not None and adds and (user, thing) not in pairs:
            pairs.append((user, thing))
        elif not adds and (user, thing) in pairs:
            pairs.remove((user, thing))
        for name in ("ann", "bob", "eve", "zoe"):
            assert things.of(name) == [one for who, one in pairs if who == name]
    assert len(things) == len({user for user, _ in pairs})
