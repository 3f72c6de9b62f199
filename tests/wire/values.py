"""Values for property tests: what user data may hold on every transport."""

from __future__ import annotations

from hypothesis import strategies as st

texts = st.text(st.characters(codec="utf-8"), max_size=20)
integers = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1])
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    integers,
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.binary(max_size=20),
)
keys = st.one_of(texts, st.sampled_from(["$b64", "$i64", "$map"]))
data = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def same(left, right):
    """Equal also in kind: 1, 1.0 and True are three values."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return left == right
