"""MANIFEST: which segments and snapshots make up the store, in a file that people can read.

JSON, then a line with the BLAKE2b digest of it. Only the exact bytes that `encode` would write
are accepted, and the file is only ever replaced as a whole. A segment is listed before the first
block is written to it, sealed after its last block was synced; so a sealed segment is complete,
and everything that a crash can tear is in the unsealed ones at the end (at most two).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rtserver.persist.blocks import segment_name
from rtserver.persist.errors import LogDamaged, StoreTooNew
from rtserver.persist.files import Files

__all__ = [
    "MANIFEST_NAME",
    "Manifest",
    "Sealed",
    "SegmentEntry",
    "SnapshotEntry",
    "decode",
    "encode",
    "read_manifest",
]

FORMAT = 1  # of the directory: raised with the format of any file in it
MANIFEST_NAME = "MANIFEST"

_DIGEST_LINE = "blake2b "


@dataclass(frozen=True, slots=True)
class Sealed:
    """The content of a closed segment. Empty: `last_seq` is `first_seq` - 1."""

    first_seq: int
    last_seq: int
    length: int
    last_crc: int
    clean: bool  # ends with the mark of an orderly stop
    crc: int  # of all its bytes


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    index: int  # 1, 2, 3... without a hole
    salt: str  # hex
    size: int  # of the file while it is not sealed
    sealed: Sealed | None = None

    @property
    def name(self) -> str:
        return segment_name(self.index)


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """A snapshot of the state after record `seq`; the log continues in segment `segment`."""

    name: str
    seq: int
    segment: int
    last_crc: int
    now_ms: int
    boot_ms: int
    created_ms: int  # wall clock
    size: int
    digest: str  # BLAKE2b of the file, hex


@dataclass(frozen=True, slots=True)
class Manifest:
    store_id: str  # hex
    generation: int = 0  # one more with each write
    era_pending: bool = False  # something may be lost: new epochs before the first client
    segments: tuple[SegmentEntry, ...] = ()
    snapshots: tuple[SnapshotEntry, ...] = ()  # oldest first

    @property
    def first_index(self) -> int:
        """The index of the oldest segment; older ones are in the archive."""
        return self.segments[0].index if self.segments else self.next_index

    @property
    def next_index(self) -> int:
        """The index of the segment after the last one."""
        if self.segments:
            return self.segments[-1].index + 1
        return self.snapshots[-1].segment if self.snapshots else 1


def encode(manifest: Manifest) -> bytes:
    fields: dict[str, Any] = {"format": FORMAT, **asdict(manifest)}
    for row in fields["segments"]:
        row["name"] = segment_name(row["index"])
    text = json.dumps(fields, indent=1, sort_keys=True) + "\n"
    return f"{text}{_DIGEST_LINE}{_digest(text)}\n".encode()


def decode(data: bytes) -> Manifest:
    """Raises LogDamaged, StoreTooNew."""
    try:
        text, _, digest = data.decode("ascii").rpartition(_DIGEST_LINE)
        if digest != _digest(text) + "\n":
            raise ValueError("its digest does not match")
        fields = json.loads(text)
        if fields["format"] > FORMAT:
            raise StoreTooNew(MANIFEST_NAME, fields["format"], FORMAT)
        manifest = Manifest(
            fields["store_id"],
            fields["generation"],
            fields["era_pending"],
            tuple(map(_segment_entry, fields["segments"])),
            tuple(SnapshotEntry(**row) for row in fields["snapshots"]),
        )
        if encode(manifest) != data:
            raise ValueError("it is not in the one accepted form")
    except (ValueError, KeyError, TypeError) as error:
        raise LogDamaged(
            MANIFEST_NAME,
            0,
            str(error),
            "`rtserver log repair DIR` can rebuild it from the segments and snapshots",
        ) from None
    return manifest


def read_manifest(directory: Path, files: Files) -> Manifest | None:
    """The manifest of a directory; None when it has none. Raises LogDamaged, StoreTooNew."""
    path = directory / MANIFEST_NAME
    return decode(files.read_file(path)) if files.stat(path) is not None else None


def _segment_entry(row: dict[str, Any]) -> SegmentEntry:
    sealed = row["sealed"]
    content = None if sealed is None else Sealed(**sealed)
    return SegmentEntry(row["index"], row["salt"], row["size"], content)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
