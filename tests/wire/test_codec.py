"""msgpack from strangers: bounded, or a ProtocolError; and what user data may hold."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.errors import ProtocolError
from rtserver.limits import NESTING_MAX
from rtserver.wire.codec import check_data, pack, unpack
from tests.wire.values import data, same


def nested(levels, open_byte=b"\x91", inner=b"\xc0"):
    return open_byte * levels + inner


@given(data)
def test_what_is_packed_comes_back(value):
    check_data(value)
    assert same(unpack(pack(value)), value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_protocol_error(body):
    with contextlib.suppress(ProtocolError):
        unpack(body)


@given(data, st.data())
def test_a_cut_body_is_refused(value, source):
    body = pack([value])
    with pytest.raises(ProtocolError):
        unpack(body[: source.draw(st.integers(0, len(body) - 1))])


def test_bytes_after_the_value_are_refused():
    with pytest.raises(ProtocolError, match="one msgpack value"):
        unpack(b"\x90\xc0")


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1k"])
def test_nesting_ends_at_the_limit(opening):
    assert unpack(nested(NESTING_MAX, opening))
    with pytest.raises(ProtocolError):
        unpack(nested(NESTING_MAX + 1, opening))


@pytest.mark.parametrize("levels", [100, 1_000, 2_000, 500_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1k", b"\x81"])
def test_absurd_nesting_is_refused(levels, opening):
    with pytest.raises(ProtocolError):
        unpack(nested(levels, opening))


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of 4 Gi values
        b"\xdf\xff\xff\xff\xff",  # a map of 4 Gi pairs
        b"\xdb\xff\xff\xff\xff",  # 4 GiB of text
        b"\xc6\xff\xff\xff\xff",  # 4 GiB of bytes
        b"\xc9\xff\xff\xff\xff\x01",  # an extension of 4 GiB
        b"\x91" * 30 + b"\xdd\x7f\xff\xff\xff",
        b"\x92" + b"\xdd\x00\xff\xff\xff" * 20,
    ],
)
def test_declared_sizes_allocate_nothing(body):
    tracemalloc.start()
    with pytest.raises(ProtocolError):
        unpack(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"]
)
def test_text_is_valid_utf8(text):
    with pytest.raises(ProtocolError, match="UTF-8"):
        unpack(bytes([0xA0 | len(text)]) + text)


@pytest.mark.parametrize("key", [1, -5, 1.5, None, True, b"bytes"])
def test_maps_with_other_keys_parse_but_are_no_user_data(key):
    value = unpack(msgpack.packb([1, {key: 2}]))
    with pytest.raises(ValueError, match="expected text"):
        check_data(value)


@pytest.mark.parametrize("key", [b"\x90", b"\x80", b"\x91\x01"])
def test_unhashable_keys_are_no_crash(key):
    try:
        value = unpack(b"\x81" + key + b"\x01")
    except ProtocolError:
        return
    with pytest.raises(ValueError, match="expected text"):
        check_data(value)


def colliding_timestamps(count):
    """msgpack timestamps whose hashes as map keys are all the same (tuplehash of CPython)."""
    mask = (1 << 64) - 1
    first, second, fifth = 11400714785074694791, 14029467366897019727, 2870177450012600261
    inverse_first, inverse_second = pow(first, -1, 1 << 64), pow(second, -1, 1 << 64)
    found = []
    nanoseconds = 0
    while len(found) < count:
        nanoseconds += 1
        state = (0x1234567 - nanoseconds * second) & mask
        mixed = state * inverse_first & mask
        turned = (mixed >> 31 | mixed << 33) & mask
        seconds = (turned - fifth) * inverse_second & mask
        seconds -= (seconds >> 63) << 64
        if abs(seconds) < 2**61 - 1:
            found.append(struct.pack(">BBbIq", 0xC7, 12, -1, nanoseconds, seconds))
    return found


def test_keys_that_collide_are_never_compared(monkeypatch):
    """A frame of 1 MiB of such keys would keep the loop busy for minutes."""
    stamps = colliding_timestamps(300)
    assert len({hash(msgpack.unpackb(stamp)) for stamp in stamps}) == 1
    compared = []
    monkeypatch.setattr(msgpack.Timestamp, "__eq__", lambda *_pair: compared.append(1))
    value = unpack(b"\xde" + struct.pack(">H", len(stamps)) + b"\x01".join(stamps) + b"\x01")
    with pytest.raises(ValueError, match="map key is Timestamp, expected text"):
        check_data(value)
    assert not compared


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        ([float("-inf")], "finite"),
        (2**64, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        ({"a": {1: 2}}, "map key"),
        (msgpack.ExtType(5, b"x"), "extension"),
        ([msgpack.Timestamp(1)], "extension"),
    ],
)
def test_data_that_cannot_travel_is_named(value, reason):
    with pytest.raises(ValueError, match=reason):
        check_data(value)


def test_data_nests_to_the_limit_whatever_its_kind():
    value = None
    for level in range(NESTING_MAX):
        value = [value] if level % 2 else {"k": value}
    check_data(value)
    with pytest.raises(ValueError, match="nested"):
        check_data([value])
