"""The manifest: one form, every damaged byte refused, newer formats told apart."""

from __future__ import annotations

from hashlib import blake2b

import pytest

from rtserver.persist.errors import LogDamaged, StoreTooNew
from rtserver.persist.manifest import (
    Manifest,
    Sealed,
    SegmentEntry,
    SnapshotEntry,
    decode,
    encode,
)

MANIFEST = Manifest(
    "00ff" * 8,
    7,
    True,
    (
        SegmentEntry(3, "ab" * 16, 1024, Sealed(10, 20, 300, 4_000_000_000, False, 7)),
        SegmentEntry(4, "cd" * 16, 1024),
    ),
    (SnapshotEntry("snapshot-0000000000000009.snap", 9, 3, 5, 6, 7, 8, 9, "ef" * 16),),
)


def signed(text: str) -> bytes:
    digest = blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{text}blake2b {digest}\n".encode()


def body() -> str:
    return encode(MANIFEST).decode().rpartition("blake2b ")[0]


def test_it_comes_back() -> None:
    assert decode(encode(MANIFEST)) == MANIFEST
    assert decode(encode(Manifest("00" * 16))) == Manifest("00" * 16)


def test_people_can_read_it() -> None:
    text = encode(MANIFEST).decode()
    assert '"name": "log-00000003.seg"' in text
    assert '"seq": 9' in text


def test_every_damaged_bit_is_seen() -> None:
    data = encode(MANIFEST)
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(LogDamaged, match="MANIFEST"):
            decode(bytes(damaged))


def test_every_cut_and_every_addition_is_seen() -> None:
    data = encode(MANIFEST)
    for length in range(len(data)):
        with pytest.raises(LogDamaged):
            decode(data[:length])
    for more in (b"\n", b" ", b"x", data):
        with pytest.raises(LogDamaged):
            decode(data + more)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"generation": 7', '"generation":  7'),
        ('"generation": 7,\n', ""),
        ('"generation": 7', '"generation": 7, "more": 1'),
        ('"name": "log-00000003.seg"', '"name": "log-00000004.seg"'),
        ('"clean": false', '"dirty": false'),
    ],
)
def test_another_form_is_refused_even_with_a_right_digest(old: str, new: str) -> None:
    assert old in body()
    with pytest.raises(LogDamaged):
        decode(signed(body().replace(old, new)))


def test_a_newer_format_says_so() -> None:
    text = body().replace('"format": 1', '"format": 2, "what": {"nobody": "knows"}')
    with pytest.raises(StoreTooNew, match=r"format 2.*newer version"):
        decode(signed(text))


def test_a_damaged_format_number_is_no_newer_format() -> None:
    data = encode(MANIFEST).replace(b'"format": 1', b'"format": 3')
    with pytest.raises(LogDamaged) as caught:
        decode(data)
    assert type(caught.value) is LogDamaged


def test_where_the_next_segment_goes() -> None:
    assert Manifest("").next_index == 1
    assert MANIFEST.next_index == 5
    assert Manifest("", snapshots=MANIFEST.snapshots).next_index == 3
