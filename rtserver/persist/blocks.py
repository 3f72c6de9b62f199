"""The log's format: segment files of checksummed blocks. Bytes in, bytes out, no I/O.

A segment is a header (store, salt, boot), blocks, and zeros up to its preallocated size. A block
is a header of 60 bytes and the records of one turn, concatenated msgpack values. Checksums are
CRC-32 (zlib's), started from the segment's random salt, so bytes of another segment, or data
that a user shaped like a block, never pass. The header has its own, over the payload's: the
chain `prev_crc` leads through every header of the log, over segment borders, so a block that is
missing, doubled or moved is seen. `synced_seq` says what was already on stable storage when the
block was written; it tells a torn tail from damage (Alagappan et al., FAST 2018).

Costs two checksum calls a block. CRC-32 finds every damage of up to 32 adjacent bits.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

__all__ = [
    "BLOCK_HEADER",
    "CLEAN",
    "MARKER",
    "SEGMENT_HEADER",
    "BadBlock",
    "Block",
    "Chain",
    "SegmentHeader",
    "block_time",
    "encode_block",
    "encode_segment_header",
    "read_block",
    "read_segment_header",
    "salt_seed",
    "segment_index",
    "segment_name",
    "used_length",
    "valid_blocks",
    "walk",
]

FORMAT = 1  # of segments and blocks
MARKER = 1  # holds no records: says what was synced
CLEAN = 2  # a marker, the last block of a log that was closed in order

BLOCK_MAGIC = b"RTBK"
SEGMENT_MAGIC = b"RTSG"
ID_BYTES = 16

# magic, format, flags, reserved, payload bytes, first seq, records, synced seq, now ms, boot ms,
# crc of the header before, crc of the payload, crc of these 56 bytes
BLOCK_HEADER = struct.Struct(">4sBBHIQIQQQIII")
_BLOCK_BODY = struct.Struct(">4sBBHIQIQQQII")
# magic, format, three zeros, store id, salt, boot id, index, crc of these 64 bytes
SEGMENT_HEADER = struct.Struct(">4sB3x16s16s16sQI")
_SEGMENT_BODY = struct.Struct(">4sB3x16s16s16sQ")
_CRC = struct.Struct(">I")

_ZEROS = bytes(64 * 1024)
_SEGMENT_NAME = re.compile(r"log-(\d{8,})\.seg")


class BadBlock(Exception):
    """What stands at an offset is no block of this log. `torn_possible` is False for a valid
    block in a place where no crash can put it."""

    def __init__(self, offset: int, reason: str, *, torn_possible: bool = True) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason
        self.torn_possible = torn_possible


class Block(NamedTuple):
    """A valid block: where its payload lies in the segment, and its header."""

    offset: int
    start: int  # of the payload
    end: int
    flags: int
    first_seq: int
    records: int
    synced_seq: int
    now_ms: int
    boot_ms: int
    prev_crc: int
    crc: int

    @property
    def last_seq(self) -> int:
        return self.first_seq + self.records - 1


class SegmentHeader(NamedTuple):
    store_id: bytes
    salt: bytes
    boot_id: bytes
    segment: int  # its index


def segment_name(index: int) -> str:
    return f"log-{index:08d}.seg"


def segment_index(name: str) -> int | None:
    """The index in a segment's file name; None for another file."""
    match = _SEGMENT_NAME.fullmatch(name)
    return int(match[1]) if match is not None and segment_name(int(match[1])) == name else None


def salt_seed(salt: bytes) -> int:
    """Where the checksums of a segment start."""
    return zlib.crc32(salt)


# --- headers ---


def encode_segment_header(header: SegmentHeader) -> bytes:
    body = _SEGMENT_BODY.pack(SEGMENT_MAGIC, FORMAT, *header)
    return body + _CRC.pack(zlib.crc32(body))


def read_segment_header(data: bytes | memoryview) -> SegmentHeader:
    """Raises BadBlock."""
    if len(data) < SEGMENT_HEADER.size:
        raise BadBlock(0, f"{len(data)} bytes, expected a segment header")
    magic, version, store_id, salt, boot_id, index, crc = SEGMENT_HEADER.unpack_from(data)
    if zlib.crc32(data[: _SEGMENT_BODY.size]) != crc or magic != SEGMENT_MAGIC:
        raise BadBlock(0, "expected a segment header, its checksum does not match")
    if version != FORMAT:
        raise BadBlock(0, f"segment format {version}, this program knows {FORMAT}")
    return SegmentHeader(store_id, salt, boot_id, index)


def encode_block(
    seed: int,
    flags: int,
    first_seq: int,
    count: int,
    synced_seq: int,
    now_ms: int,
    boot_ms: int,
    prev_crc: int,
    payload: bytes,
) -> tuple[bytes, int]:
    """The block's bytes and the checksum that the next block carries as `prev_crc`."""
    body = _BLOCK_BODY.pack(
        BLOCK_MAGIC,
        FORMAT,
        flags,
        0,
        len(payload),
        first_seq,
        count,
        synced_seq,
        now_ms,
        boot_ms,
        prev_crc,
        zlib.crc32(payload, seed),
    )
    crc = zlib.crc32(body, seed)
    return body + _CRC.pack(crc) + payload, crc


def read_block(data: memoryview, offset: int, seed: int) -> Block:
    """The block at an offset. Raises BadBlock that says what is wrong with it."""
    start = offset + BLOCK_HEADER.size
    if start > len(data):
        raise BadBlock(offset, "the file ends within a block header")
    (
        magic,
        version,
        flags,
        _,
        length,
        first_seq,
        count,
        synced_seq,
        now_ms,
        boot_ms,
        prev_crc,
        payload_crc,
        crc,
    ) = BLOCK_HEADER.unpack_from(data, offset)
    if magic != BLOCK_MAGIC or zlib.crc32(data[offset : start - _CRC.size], seed) != crc:
        raise BadBlock(offset, "expected a block header, its checksum does not match")
    if version != FORMAT:
        raise BadBlock(offset, f"block format {version}, this program knows {FORMAT}")
    end = start + length
    what = f"the block of {count} records from {first_seq}"
    if end > len(data):
        raise BadBlock(offset, f"{what} is longer than the file")
    if zlib.crc32(data[start:end], seed) != payload_crc:
        raise BadBlock(offset, f"{what}: the checksum of its records does not match")
    return Block(
        offset,
        start,
        end,
        flags,
        first_seq,
        count,
        synced_seq,
        now_ms,
        boot_ms,
        prev_crc,
        crc,
    )


def block_time(data: memoryview, offset: int, seed: int) -> int:
    """The time of a block of which only the header need be there. Raises BadBlock."""
    end = offset + BLOCK_HEADER.size
    if end <= len(data):
        *fields, crc = BLOCK_HEADER.unpack_from(data, offset)
        if fields[0] == BLOCK_MAGIC and zlib.crc32(data[offset : end - _CRC.size], seed) == crc:
            now_ms: int = fields[8]
            return now_ms
    raise BadBlock(offset, "expected a block header")


# --- a whole segment ---


class Chain:
    """Where a log stands: what its next block must continue."""

    __slots__ = ("boot_ms", "clean", "crc", "now_ms", "seq")

    def __init__(self, seq: int, crc: int, now_ms: int, boot_ms: int) -> None:
        self.seq = seq
        self.crc = crc
        self.now_ms = now_ms
        self.boot_ms = boot_ms
        self.clean = False

    def follow(self, block: Block) -> None:
        """Takes the next block. Raises BadBlock, and is unchanged, when it is not the next."""
        if block.prev_crc != self.crc:
            problem = "it continues another block than the one before it"
        elif block.first_seq != self.seq + 1:
            problem = f"it starts with record {block.first_seq}, expected {self.seq + 1}"
        elif block.now_ms < self.now_ms:
            problem = f"its time is {block.now_ms}, the time before it was {self.now_ms}"
        elif block.synced_seq > self.seq:
            problem = f"it says {block.synced_seq} was synced, {self.seq} were written"
        else:
            self.seq += block.records
            self.crc = block.crc
            self.now_ms = block.now_ms
            self.boot_ms = block.boot_ms
            self.clean = bool(block.flags & CLEAN)
            return
        raise BadBlock(block.offset, f"a valid block, but {problem}", torn_possible=False)


def walk(data: memoryview, seed: int, chain: Chain) -> Iterator[Block]:
    """The blocks of a segment in order; `chain` follows. Ends where only zeros are left.

    Raises BadBlock at the first place that is neither the next block nor the zeros at the end.
    """
    offset = SEGMENT_HEADER.size
    while offset < len(data):
        if data[offset] == 0 and used_length(data, offset) == offset:
            return
        block = read_block(data, offset, seed)
        chain.follow(block)
        yield block
        offset = block.end


def used_length(data: memoryview, start: int = 0) -> int:
    """Where the zeros at the end of a segment begin; at least `start`. About 10 GB/s."""
    end = len(data)
    while end > start:
        piece = data[max(start, end - len(_ZEROS)) : end]
        if piece != _ZEROS[: len(piece)]:
            return end - len(piece) + len(bytes(piece).rstrip(b"\0"))
        end -= len(piece)
    return start


def valid_blocks(data: memoryview, start: int, seed: int) -> Iterator[Block]:
    """Every valid block from `start` on, wherever it stands: what a damage has left behind.

    Linear: the header's own checksum costs 56 bytes at each place that looks like a block, and
    only true ones, which nobody without the salt can make, are read further.
    """
    raw = bytes(data)
    offset = raw.find(BLOCK_MAGIC, start)
    while offset >= 0:
        try:
            block = read_block(data, offset, seed)
        except BadBlock:
            offset = raw.find(BLOCK_MAGIC, offset + 1)
        else:
            yield block
            offset = raw.find(BLOCK_MAGIC, block.end)
