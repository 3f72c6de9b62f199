"""Snapshot files: the state as a sequence of msgpack values, each with its checksum.

A header, chunks of (u32 length, u32 checksum, payload), and an empty chunk as the end. Each
checksum goes on from the one before, so the last is right only if every chunk is there, in its
place. The first chunk is a map about the snapshot. The manifest knows size and digest of the
whole file, so a change of any byte is seen before a single chunk is loaded.

Costs memory of one chunk. Does not know what the chunks mean, nor which snapshots there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgpack

from rtserver.persist.blocks import BadBlock
from rtserver.persist.files import Files
from rtserver.persist.manifest import SnapshotEntry

__all__ = [
    "SnapshotMeta",
    "entry_of",
    "file_digest",
    "is_snapshot_name",
    "read_meta",
    "read_snapshot",
    "snapshot_name",
    "snapshot_seq",
    "verify_file",
    "write_snapshot",
]

FORMAT = 1

_MAGIC = b"RTSN"
_HEADER = struct.Struct(">4sB3x16sI")  # magic, format, three zeros, store id, crc of the rest
_HEADER_BODY = struct.Struct(">4sB3x16s")
_CRC = struct.Struct(">I")
_BUFFER = 1024 * 1024
_NAME = re.compile(r"snapshot-\d{16}\.snap")


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """Where the log stood, and how it goes on; `totals` is the state's own summary."""

    seq: int
    segment: int  # the log continues in
    last_crc: int  # and with a block that follows this one
    now_ms: int
    boot_ms: int
    created_ms: int  # wall clock
    totals: Any


def snapshot_name(seq: int) -> str:
    return f"snapshot-{seq:016d}.snap"


def is_snapshot_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def snapshot_seq(name: str) -> int:
    """The last record that a snapshot of this name covers."""
    return int(name.removeprefix("snapshot-").removesuffix(".snap"))


# --- writing ---


class _Writer:
    """Appends to a file through a buffer; keeps size and digest of what went through."""

    def __init__(self, files: Files, fd: int) -> None:
        self._files = files
        self._fd = fd
        self._pieces: list[bytes] = []
        self._pending = 0
        self._crc = 0
        self.size = 0
        self.digest = hashlib.blake2b(digest_size=16)

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._pending += len(data)
        if self._pending >= _BUFFER:
            self.flush()

    def chunk(self, payload: bytes) -> None:
        length = len(payload).to_bytes(4, "big")
        self._crc = zlib.crc32(payload, zlib.crc32(length, self._crc))
        self.write(length + _CRC.pack(self._crc))
        self.write(payload)

    def flush(self) -> None:
        data = b"".join(self._pieces)
        self._files.write_all(self._fd, data, self.size)
        self.digest.update(data)
        self.size += len(data)
        self._pieces.clear()
        self._pending = 0


def write_snapshot(
    directory: Path, files: Files, store_id: bytes, meta: SnapshotMeta, chunks: Iterable[Any]
) -> tuple[Path, SnapshotEntry]:
    """Writes and syncs a snapshot under a temporary name; returns that path and the entry.

    The caller verifies it and gives it its name. Raises OSError, and removes what it wrote.
    """
    name = snapshot_name(meta.seq)
    path = directory / (name + ".tmp")
    with contextlib.suppress(FileNotFoundError):
        files.remove(path)
    fd = files.create(path)
    try:
        writer = _Writer(files, fd)
        header = _HEADER_BODY.pack(_MAGIC, FORMAT, store_id)
        writer.write(header + _CRC.pack(zlib.crc32(header)))
        writer.chunk(msgpack.packb(asdict(meta)))
        for value in chunks:
            writer.chunk(msgpack.packb(value))
        writer.chunk(b"")
        writer.flush()
        files.fsync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            files.remove(path)
        raise
    finally:
        files.close(fd)
    return path, entry_of(meta, writer.size, writer.digest.hexdigest())


def entry_of(meta: SnapshotMeta, size: int, digest: str) -> SnapshotEntry:
    """The manifest's row about a snapshot."""
    return SnapshotEntry(
        name=snapshot_name(meta.seq),
        seq=meta.seq,
        segment=meta.segment,
        last_crc=meta.last_crc,
        now_ms=meta.now_ms,
        boot_ms=meta.boot_ms,
        created_ms=meta.created_ms,
        size=size,
        digest=digest,
    )


# --- reading ---


def verify_file(directory: Path, files: Files, entry: SnapshotEntry) -> str | None:
    """What is wrong with a snapshot's bytes, compared with the manifest; None when nothing is."""
    path = directory / entry.name
    found = files.stat(path)
    if found is None:
        return "the file is missing"
    if found.size != entry.size:
        return f"it has {found.size} bytes, expected {entry.size}"
    matches = file_digest(path, files) == entry.digest
    return None if matches else "the digest of the file does not match"


def file_digest(path: Path, files: Files) -> str:
    """BLAKE2b of the file's bytes, hex."""
    digest = hashlib.blake2b(digest_size=16)
    fd = files.open_read(path)
    try:
        offset = 0
        while piece := files.pread(fd, _BUFFER, offset):
            digest.update(piece)
            offset += len(piece)
    finally:
        files.close(fd)
    return digest.hexdigest()


class _Reader:
    """Takes exact numbers of bytes from a file."""

    def __init__(self, files: Files, fd: int, size: int) -> None:
        self._files = files
        self._fd = fd
        self._size = size
        self._buffer = b""
        self._buffer_offset = 0
        self.offset = 0  # of the next byte in the file

    def take(self, size: int) -> bytes:
        """Raises BadBlock when the file ends before."""
        if size > self._size - self.offset:
            raise BadBlock(self.offset, f"the file ends, expected {size} more bytes")
        start = self.offset - self._buffer_offset
        if start + size > len(self._buffer):
            self._fill(max(size, _BUFFER))
            start = 0
        data = self._buffer[start : start + size]
        self.offset += size
        return data

    def _fill(self, size: int) -> None:
        """The buffer starts at `offset` and has `size` bytes, or all that are left."""
        end = min(self.offset + size, self._size)
        pieces: list[bytes] = []
        at = self.offset
        while at < end:
            piece = self._files.pread(self._fd, end - at, at)
            if not piece:
                raise BadBlock(at, f"the file became shorter, it had {self._size} bytes")
            pieces.append(piece)
            at += len(piece)
        self._buffer = b"".join(pieces)
        self._buffer_offset = self.offset


def read_snapshot(path: Path, files: Files, store_id: bytes) -> Iterator[tuple[Any, int]]:
    """The chunks of a snapshot, each with the offset of its end: a SnapshotMeta, then what the
    state dumped.

    Raises BadBlock at the first byte that is not as written; only a reader that reached the end
    knows that all of it is good.
    """
    fd = files.open_read(path)
    try:
        found = files.stat(path)
        size = 0 if found is None else found.size
        reader = _Reader(files, fd, size)
        _check_header(reader.take(_HEADER.size), store_id)
        chunks = _chunks(reader)
        meta, end = next(chunks, (None, 0))
        if meta is None:
            raise BadBlock(_HEADER.size, "it says nothing about itself")
        yield SnapshotMeta(**meta), end
        yield from chunks
        if reader.offset != size:
            raise BadBlock(reader.offset, "bytes follow the end of the snapshot")
    finally:
        files.close(fd)


def read_meta(path: Path, files: Files, store_id: bytes) -> SnapshotMeta:
    """What a snapshot says about itself. Raises BadBlock."""
    meta: SnapshotMeta = next(read_snapshot(path, files, store_id))[0]
    return meta


def _check_header(header: bytes, store_id: bytes) -> None:
    magic, version, found_id, crc = _HEADER.unpack(header)
    if magic != _MAGIC or zlib.crc32(header[: _HEADER_BODY.size]) != crc:
        raise BadBlock(0, "expected a snapshot header, its checksum does not match")
    if version != FORMAT:
        raise BadBlock(0, f"snapshot format {version}, this program knows {FORMAT}")
    if found_id != store_id:
        raise BadBlock(0, f"it belongs to the store {found_id.hex()}, expected {store_id.hex()}")


def _chunks(reader: _Reader) -> Iterator[tuple[Any, int]]:
    """Each chunk with the offset of its end, up to the empty one."""
    crc = 0
    while True:
        offset = reader.offset
        length = reader.take(4)
        (expected,) = _CRC.unpack(reader.take(_CRC.size))
        payload = reader.take(int.from_bytes(length, "big"))
        crc = zlib.crc32(payload, zlib.crc32(length, crc))
        if crc != expected:
            raise BadBlock(offset, "the checksum of a chunk does not match")
        if not payload:
            return
        value = msgpack.unpackb(payload, raw=False, strict_map_key=False, use_list=True)
        yield value, reader.offset
