"""Frames come out the same however the stream was cut; packed parts add up to whole values."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtclient import wire

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def framed(value):
    body = msgpack.packb(value)
    return wire.header(len(body)) + body


@given(st.lists(values, max_size=8), st.lists(st.integers(1, 40), max_size=60))
def test_frames_come_out_whole_whatever_the_pieces(sent, sizes):
    stream = b"".join(map(framed, sent))
    frames = wire.Frames()
    came = []
    sizes_of = []
    for size in [*sizes, len(stream) or 1]:
        piece, stream = stream[:size], stream[size:]
        if piece:
            some, bytes_each = frames.cut(piece)
            came += some
            sizes_of += bytes_each
    assert came == sent
    assert sizes_of == [len(framed(value)) - wire.HEADER_BYTES for value in sent]


def test_a_length_beyond_the_ceiling_is_refused():
    with pytest.raises(ValueError, match="16777217 bytes"):
        wire.Frames().cut((16 * 1024 * 1024 + 1).to_bytes(4, "big"))


@given(st.lists(values, max_size=40))
def test_a_packed_array_is_the_array_of_its_items(items):
    pack = wire.Packer().pack
    assert wire.packed_array([pack(item) for item in items]) == msgpack.packb(items)


def test_a_packed_array_of_a_vector_command():
    pack = wire.Packer().pack
    items = list(range(1_000))
    assert wire.packed_array([pack(item) for item in items]) == msgpack.packb(items)
