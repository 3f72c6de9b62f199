"""The block format: round trips, every damaged bit, and scans that stay linear."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.persist import blocks
from rtserver.persist.blocks import (
    BLOCK_HEADER,
    CLEAN,
    SEGMENT_HEADER,
    BadBlock,
    Chain,
    SegmentHeader,
    encode_block,
    encode_segment_header,
    read_block,
    read_segment_header,
    salt_seed,
    segment_index,
    segment_name,
    used_length,
    valid_blocks,
    walk,
)

SEED = salt_seed(b"0123456789abcdef")
HEADER = SegmentHeader(b"s" * 16, b"0123456789abcdef", b"b" * 16, 7)

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)


def block(seq: int, crc: int, payload: bytes = b"\x01\x02", flags: int = 0) -> tuple[bytes, int]:
    return encode_block(SEED, flags, seq, len(payload), seq - 1, 10 + seq, 20, crc, payload)


def segment(*payloads: bytes, size: int = 4_096) -> bytes:
    data, crc, seq = encode_segment_header(HEADER), 0, 1
    for payload in payloads:
        encoded, crc = block(seq, crc, payload)
        data += encoded
        seq += len(payload)
    return data + bytes(size - len(data))


@given(st.integers(0, 255), u64, u32, u64, u64, u64, u32, st.binary(max_size=100), u32)
def test_a_block_comes_back(
    flags: int,
    first_seq: int,
    records: int,
    synced_seq: int,
    now_ms: int,
    boot_ms: int,
    prev_crc: int,
    payload: bytes,
    seed: int,
) -> None:
    data, crc = encode_block(
        seed, flags, first_seq, records, synced_seq, now_ms, boot_ms, prev_crc, payload
    )
    found = read_block(memoryview(b"xyz" + data + b"rest"), 3, seed)
    assert found == (
        3,
        3 + BLOCK_HEADER.size,
        3 + len(data),
        flags,
        first_seq,
        records,
        synced_seq,
        now_ms,
        boot_ms,
        prev_crc,
        crc,
    )


def test_every_damaged_bit_of_a_block_is_seen() -> None:
    data, _ = block(5, 77, b"some records")
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadBlock):
            read_block(memoryview(damaged), 0, SEED)


def test_every_damaged_bit_of_a_segment_header_is_seen() -> None:
    data = encode_segment_header(HEADER)
    assert read_segment_header(data) == HEADER
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadBlock):
            read_segment_header(bytes(damaged))


def test_a_block_of_another_segment_never_passes() -> None:
    data, _ = block(5, 77)
    with pytest.raises(BadBlock):
        read_block(memoryview(data), 0, salt_seed(b"another salt...."))


def test_every_cut_of_a_block_is_seen() -> None:
    data, _ = block(5, 77, b"some records")
    for length in range(len(data)):
        with pytest.raises(BadBlock):
            read_block(memoryview(data[:length]), 0, SEED)


def test_the_message_names_the_records_whose_checksum_is_wrong() -> None:
    data, _ = block(5, 77, b"some records")
    with pytest.raises(BadBlock, match="the block of 12 records from 5"):
        read_block(memoryview(data[:-1] + b"!"), 0, SEED)


def test_walking_a_segment() -> None:
    chain = Chain(0, 0, 0, 0)
    found = list(walk(memoryview(segment(b"abc", b"", b"de")), SEED, chain))
    assert [(one.first_seq, one.last_seq) for one in found] == [(1, 3), (4, 3), (4, 5)]
    assert (chain.seq, chain.now_ms, chain.crc) == (5, 14, found[-1].crc)
    assert not chain.clean


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (Chain(0, 9, 0, 0), "continues another block"),
        (Chain(3, 0, 0, 0), "starts with record 1, expected 4"),
        (Chain(0, 0, 99, 0), "its time is 11"),
    ],
)
def test_a_block_that_is_not_the_next(start: Chain, reason: str) -> None:
    with pytest.raises(BadBlock, match=reason) as caught:
        list(walk(memoryview(segment(b"abc")), SEED, start))
    assert not caught.value.torn_possible


def test_a_block_cannot_say_that_more_was_synced_than_written() -> None:
    data, _ = encode_block(SEED, 0, 1, 1, 1, 0, 0, 0, b"\x01")
    with pytest.raises(BadBlock, match="says 1 was synced, 0 were written"):
        list(walk(memoryview(encode_segment_header(HEADER) + data), SEED, Chain(0, 0, 0, 0)))


def test_the_clean_mark() -> None:
    data, _ = block(1, 0, b"", CLEAN)
    chain = Chain(0, 0, 0, 0)
    list(walk(memoryview(encode_segment_header(HEADER) + data), SEED, chain))
    assert chain.clean


@given(st.binary(max_size=50), st.integers(0, 300), st.integers(0, 60))
def test_where_the_zeros_begin(data: bytes, zeros: int, start: int) -> None:
    whole = data + bytes(zeros)
    start = min(start, len(whole))
    expected = max((at + 1 for at in range(start, len(whole)) if whole[at]), default=start)
    assert used_length(memoryview(whole), start) == expected


def test_where_the_zeros_begin_in_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_ZEROS", bytes(7))
    for size in range(40):
        for place in range(size):
            data = bytearray(size)
            data[place] = 1
            assert used_length(memoryview(data)) == place + 1
        assert used_length(memoryview(bytes(size)), size // 2) == size // 2


def test_what_a_damage_leaves_is_found() -> None:
    data = bytearray(segment(b"abc", b"RTBK inside", b"de"))
    whole = [one.first_seq for one in valid_blocks(memoryview(bytes(data)), 0, SEED)]
    assert whole == [1, 4, 15]
    data[SEGMENT_HEADER.size + BLOCK_HEADER.size] ^= 1
    left = [one.first_seq for one in valid_blocks(memoryview(bytes(data)), 0, SEED)]
    assert left == [4, 15]


def test_data_shaped_like_blocks_costs_no_more_than_other_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Someone may store headers that claim a megabyte each: only true ones are read on."""
    import zlib

    forged = BLOCK_HEADER.pack(b"RTBK", 1, 0, 0, 2**20, 1, 1, 1, 1, 1, 1, 1, 1)
    data = memoryview(segment(forged * 1_000, size=2**21))
    read = 0

    crc32 = zlib.crc32

    def counted(piece: bytes, start: int = 0) -> int:
        nonlocal read
        read += len(piece)
        return crc32(piece, start)

    monkeypatch.setattr(zlib, "crc32", counted)
    list(valid_blocks(data, SEGMENT_HEADER.size + 1, SEED))
    assert read < 100 * len(forged) * 1_000


@pytest.mark.parametrize("index", [1, 99_999_999, 100_000_000])
def test_names(index: int) -> None:
    assert segment_index(segment_name(index)) == index


@pytest.mark.parametrize("name", ["log-1.seg", "log-00000001.seg.tmp", "log-000000001.seg", "x"])
def test_other_names(name: str) -> None:
    assert segment_index(name) is None
