"""The compiled wire does byte for byte what the plain one does, errors included."""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtclient import compiled
from rtclient import wire as chosen

VECTORS = json.loads(
    (Path(__file__).parents[1] / "conformance" / "vectors.json").read_text("utf-8")
)


def load_plain():
    """The plain form, whatever was chosen."""
    spec = importlib.util.spec_from_file_location("plain_wire", chosen.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plain = load_plain()
twin = pytest.importorskip("rtclient._wire", reason="the twin is not built here")

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.integers(-40_000, 140_000)
    | st.sampled_from([2**n + d for n in (7, 8, 15, 16, 31, 32, 63, 64) for d in (-1, 0, 1)])
    | st.sampled_from([-(2**n) + d for n in (5, 7, 15, 31, 63) for d in (-1, 0, 1)])
    | st.floats()
    | st.text(st.characters(), max_size=300)
    | st.integers(0, 70_000).map(lambda size: "x" * size)
    | st.binary(max_size=20)
    | st.just(object())
    | st.just("\ud800")
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.tuples(inner)
    ),
    max_leaves=8,
)


def outcome(work, *args):
    try:
        return work(*args)
    except Exception as error:
        return type(error), str(error)


def test_the_twin_is_used_unless_it_is_switched_off(monkeypatch):
    assert (chosen.Frames is twin.Frames) is not compiled.pure()
    assert plain.Frames is not twin.Frames
    for name in chosen.__all__:
        assert hasattr(twin, name), name
    monkeypatch.setenv("RTSERVER_PURE", "1")
    assert compiled.active_modules() == []
    monkeypatch.setenv("RTSERVER_PURE", "0")
    assert compiled.active_modules() == list(compiled.MODULES)


@given(values)
def test_values_are_packed_alike(value):
    assert outcome(twin.Packer().pack, value) == outcome(plain.Packer().pack, value)


@given(st.lists(values, max_size=20).map(tuple))
@example((None,) * 20)
@example(("x" * 1_000, 1.5, None))
@example(tuple("x" * size for size in (300, 300, 300, 100)))
@example(("x" * 1_013, 2**40))
def test_parameters_are_packed_alike(params):
    ours, theirs = twin.Packer(), plain.Packer()
    assert outcome(ours.pack_params, params) == outcome(theirs.pack_params, params)
    assert ours.pack_params(("after",)) == theirs.pack_params(("after",))


class Text(str):
    """What is not exactly a text is the library's affair."""

    __slots__ = ()


def test_subclasses_are_packed_alike():
    for value in (Text("x"), type("Number", (int,), {})(5), type("Pair", (tuple,), {})((1, 2))):
        assert outcome(twin.Packer().pack_params, (value, 1)) == outcome(
            plain.Packer().pack_params, (value, 1)
        )


@given(st.integers(0, 65_535))
def test_array_heads_are_alike(count):
    assert twin.array_head(count) == plain.array_head(count)


def in_pieces(frames, stream, sizes):
    came = []
    for size in [*sizes, len(stream)]:
        piece, stream = stream[:size], stream[size:]
        if piece:
            result = outcome(frames.cut, piece)
            came.append((result, frames.between))
            if isinstance(result[0], type):
                break
    return repr(came)  # NaN is not itself, and 1 is not True


replies = st.tuples(st.just(1), scalars, st.none() | scalars, values).map(list)
bodies = (
    values.map(lambda value: outcome(plain.Packer().pack, value))
    | replies.map(lambda value: outcome(plain.Packer().pack, value))
    | st.binary(max_size=12)
    | st.binary(max_size=12).map(lambda rest: b"\x94\x01" + rest)
).filter(lambda body: isinstance(body, bytes))


@given(st.lists(bodies, max_size=6), st.lists(st.integers(1, 40), max_size=30), st.binary())
def test_streams_are_cut_alike(sent, sizes, rest):
    stream = b"".join(struct.pack(">I", len(body)) + body for body in sent) + rest
    assert in_pieces(twin.Frames(), stream, sizes) == in_pieces(plain.Frames(), stream, sizes)


@pytest.mark.parametrize("section", ["exact", "decoded", "refused", "answered"])
def test_the_shared_vectors_are_cut_alike(section):
    for row in VECTORS[section]:
        data = bytes.fromhex(row["hex"])
        for sizes in ([], [1], [4], [5], [len(data) - 1]):
            assert in_pieces(twin.Frames(), data, sizes) == in_pieces(plain.Frames(), data, sizes)
