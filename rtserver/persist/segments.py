"""Reading segments: is a listed file the one that is meant, and which files are not listed.

Everything here reads only and raises LogDamaged with the file and the offset.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import NamedTuple

from rtserver.persist.blocks import (
    BLOCK_HEADER,
    SEGMENT_HEADER,
    BadBlock,
    Block,
    SegmentHeader,
    block_time,
    read_segment_header,
    salt_seed,
    segment_index,
    used_length,
    valid_blocks,
)
from rtserver.persist.errors import LogDamaged
from rtserver.persist.files import Files
from rtserver.persist.manifest import MANIFEST_NAME, Manifest, SegmentEntry

__all__ = [
    "UNSEALED_MAX",
    "LoadedSegment",
    "check_listed",
    "check_order",
    "content_crc",
    "first_damage",
    "first_ms",
    "load_segment",
    "unlisted_segments",
]

_PIECE_BYTES = 1024 * 1024
UNSEALED_MAX = 2  # the active one, and one before it or the prepared one after it


class LoadedSegment(NamedTuple):
    """A segment in memory."""

    entry: SegmentEntry
    header: SegmentHeader
    data: memoryview

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def seed(self) -> int:
        return salt_seed(self.header.salt)

    def valid_after(self, offset: int) -> list[Block]:
        """Every valid block from an offset on, whether it continues another or not."""
        return list(valid_blocks(self.data, offset, self.seed))


def check_order(entries: tuple[SegmentEntry, ...]) -> None:
    """Indexes without a hole; only the last few unsealed."""
    for place, entry in enumerate(entries):
        if entry.index != entries[0].index + place:
            raise LogDamaged(MANIFEST_NAME, 0, f"{entry.name} is listed out of order")
        if entry.sealed is None and place < len(entries) - UNSEALED_MAX:
            raise LogDamaged(MANIFEST_NAME, 0, f"{entry.name} was never sealed")


def check_listed(
    directory: Path, files: Files, manifest: Manifest, entry: SegmentEntry
) -> tuple[SegmentHeader, int]:
    """The header and the used size of a listed segment, after comparing them with the manifest.

    A file has its full size until it is sealed; then it is cut to its length, now or later.
    """
    path = directory / entry.name
    stat = files.stat(path)
    if stat is None:
        raise LogDamaged(entry.name, 0, "the file is missing")
    length = entry.size if entry.sealed is None else entry.sealed.length
    if stat.size != length and (
        stat.size != entry.size or used_length(memoryview(files.read_file(path))) > length
    ):
        reason = f"it has {stat.size} bytes, expected {length}"
        raise LogDamaged(entry.name, min(stat.size, length), reason)
    fd = files.open_read(path)
    try:
        header = read_segment_header(files.pread(fd, SEGMENT_HEADER.size, 0))
    except BadBlock as bad:
        raise LogDamaged(entry.name, 0, bad.reason) from None
    finally:
        files.close(fd)
    for name, found, expected in (
        ("store", header.store_id.hex(), manifest.store_id),
        ("salt", header.salt.hex(), entry.salt),
        ("index", header.segment, entry.index),
    ):
        if found != expected:
            raise LogDamaged(entry.name, 0, f"its {name} is {found}, expected {expected}")
    return header, length


def load_segment(
    directory: Path, files: Files, manifest: Manifest, entry: SegmentEntry
) -> LoadedSegment:
    header, length = check_listed(directory, files, manifest, entry)
    data = memoryview(files.read_file(directory / entry.name))
    return LoadedSegment(entry, header, data[:length])


def first_ms(path: Path, files: Files) -> int | None:
    """The time of the first block in a segment's file; None where there is none to be read."""
    try:
        fd = files.open_read(path)
    except FileNotFoundError:
        return None
    try:
        head = memoryview(files.pread(fd, SEGMENT_HEADER.size + BLOCK_HEADER.size, 0))
        return block_time(head, SEGMENT_HEADER.size, salt_seed(read_segment_header(head).salt))
    except BadBlock:
        return None
    finally:
        files.close(fd)


def content_crc(files: Files, fd: int, length: int) -> int:
    """The CRC-32 of the first bytes of a file. About 1 GB/s, without holding up other threads."""
    crc, offset = 0, 0
    while piece := files.pread(fd, min(_PIECE_BYTES, length - offset), offset):
        crc = zlib.crc32(piece, crc)
        offset += len(piece)
    return crc


def first_damage(
    directory: Path, files: Files, manifest: Manifest, entry: SegmentEntry
) -> BadBlock | None:
    """Where a sealed segment is not as it was sealed; None when it is. Raises LogDamaged when it
    is missing or another one."""
    sealed = entry.sealed
    check_listed(directory, files, manifest, entry)
    fd = files.open_read(directory / entry.name)
    try:
        if sealed is None or content_crc(files, fd, sealed.length) == sealed.crc:
            return None
    finally:
        files.close(fd)
    segment = load_segment(directory, files, manifest, entry)
    end = SEGMENT_HEADER.size
    for block in segment.valid_after(end):
        if block.offset != end:
            break
        end = block.end
    return BadBlock(end, "its bytes are not those that were sealed")


def unlisted_segments(directory: Path, files: Files, manifest: Manifest) -> list[str]:
    """Files that a crash left before the manifest listed them; they hold nothing.

    Older ones than the first listed are on their way to the archive and not meant here.
    """
    listed = {entry.name for entry in manifest.segments}
    found = []
    for name in files.list_dir(directory):
        index = segment_index(name)
        if index is None or index < manifest.first_index or name in listed:
            continue
        if used_length(memoryview(files.read_file(directory / name))) > SEGMENT_HEADER.size:
            raise LogDamaged(name, 0, f"it holds blocks, but {MANIFEST_NAME} does not list it")
        found.append(name)
    return found
