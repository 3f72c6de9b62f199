"""The store's directory while a process owns it: each change of its files, in crash-safe order.

The manifest is the commit point of every change: a file is complete and synced before it is
listed, and unlisted before it is moved or removed. What a crash leaves between is recognised by
its name and tidied at the next start. Nothing here is retried after a failed sync; a full disk
raises OSError before the commit point, and the same call can be made again.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

from rtserver.persist.archive import Archive
from rtserver.persist.blocks import (
    ID_BYTES,
    SEGMENT_HEADER,
    SegmentHeader,
    encode_segment_header,
    salt_seed,
    segment_index,
    segment_name,
    used_length,
)
from rtserver.persist.files import Files
from rtserver.persist.manifest import (
    MANIFEST_NAME,
    Manifest,
    Sealed,
    SegmentEntry,
    SnapshotEntry,
    encode,
)
from rtserver.persist.segments import content_crc, first_ms
from rtserver.persist.snapshot import is_snapshot_name, snapshot_seq

__all__ = ["QUARANTINE", "Segment", "StoreDirectory"]

QUARANTINE = "quarantine"
SNAPSHOTS_KEPT = 2


class Segment:
    """A segment that is open for writing."""

    __slots__ = (
        "closed",
        "crc",
        "fd",
        "first_seq",
        "index",
        "last_seq",
        "offset",
        "sealed",
        "seed",
        "size",
    )

    def __init__(self, index: int, fd: int, salt: bytes, size: int) -> None:
        self.index = index
        self.fd = fd
        self.seed = salt_seed(salt)
        self.size = size
        self.offset = SEGMENT_HEADER.size  # where the next block goes
        self.first_seq = 0  # of the records in it, once it is the active one
        self.last_seq = 0
        self.crc = 0  # of its last block
        self.closed = False  # its closing record is given; only that may still be retried
        self.sealed = False  # complete, synced, listed as such: nobody touches it any more

    @property
    def name(self) -> str:
        return segment_name(self.index)


class StoreDirectory:
    """One owner at a time: the thread that opens or closes the log, else the sync thread."""

    def __init__(self, path: Path, files: Files, manifest: Manifest, boot_id: bytes) -> None:
        self.path = path
        self.files = files
        self.manifest = manifest
        self.archive = Archive(path, files, bytes.fromhex(manifest.store_id))
        self._boot_id = boot_id

    def save(self, manifest: Manifest) -> None:
        """Replaces the manifest, on disk and then here."""
        manifest = replace(manifest, generation=self.manifest.generation + 1)
        self.files.write_atomically(self.path / MANIFEST_NAME, encode(manifest))
        self.manifest = manifest

    # --- segments ---

    def create_segment(self, size: int) -> Segment:
        """The next segment, its space taken, listed, and all that on stable storage."""
        files = self.files
        index = self.manifest.next_index
        salt = os.urandom(ID_BYTES)
        header = SegmentHeader(bytes.fromhex(self.manifest.store_id), salt, self._boot_id, index)
        path = self.path / segment_name(index)
        self.remove(path.name)  # of an attempt that found the disk full
        fd = files.create(path)
        try:
            files.allocate(fd, size)
            files.write_all(fd, encode_segment_header(header), 0)
            files.sync_file(fd, path)
            files.sync_names(self.path)
            entry = SegmentEntry(index, salt.hex(), size)
            self.save(replace(self.manifest, segments=(*self.manifest.segments, entry)))
        except BaseException:
            files.close(fd)
            raise
        return Segment(index, fd, salt, size)

    def seal(self, segment: Segment, *, clean: bool = False) -> None:
        """Syncs a segment, says so, and gives back what is left of its space. `clean`: this is
        the end of a log that is closed in order; those after it are unlisted."""
        self.files.sync_file(segment.fd, self.path / segment.name)
        crc = content_crc(self.files, segment.fd, segment.offset)
        sealed = Sealed(
            segment.first_seq, segment.last_seq, segment.offset, segment.crc, clean, crc
        )
        entries = tuple(
            replace(entry, sealed=sealed) if entry.index == segment.index else entry
            for entry in self.manifest.segments
            if not clean or entry.index <= segment.index
        )
        self.save(replace(self.manifest, segments=entries))
        self.files.truncate(segment.fd, segment.offset)
        self.files.close(segment.fd)
        segment.sealed = True

    def settle(self, name: str, length: int) -> None:
        """A segment that is not open has only zeros from there on, and all of it is on stable
        storage: after a kill its blocks may have been in the page cache only."""
        path = self.path / name
        used = used_length(memoryview(self.files.read_file(path)), length)
        fd = self.files.open_existing(path)
        try:
            self.files.write_all(fd, bytes(used - length), length)
            self.files.sync_file(fd, path)
        finally:
            self.files.close(fd)

    def remove(self, name: str) -> None:
        """A file of the directory, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.files.remove(self.path / name)

    # --- snapshots ---

    def register_snapshot(self, entry: SnapshotEntry, damaged: list[str]) -> None:
        """Lists a snapshot, keeps the newest two good ones, archives the others and the segments
        before the older of them."""
        manifest = self.manifest
        older = (one for one in manifest.snapshots if one.name not in {entry.name, *damaged})
        kept = (*older, entry)[-SNAPSHOTS_KEPT:]
        first = kept[0].segment if len(kept) == SNAPSHOTS_KEPT else 0
        segments = tuple(one for one in manifest.segments if one.index >= first)
        self.save(replace(manifest, segments=segments, snapshots=kept))
        for name in damaged:
            self.remove(name)
        self.tidy()

    def prune_archive(self, bytes_max: int, days_max: int, since_ms: int | None) -> None:
        """See Archive.prune. What was logged since then may all be in listed segments yet."""
        if since_ms is not None and self.manifest.segments:
            path = self.path / self.manifest.segments[0].name
            begins_ms = first_ms(path, self.files)
            if begins_ms is not None and begins_ms < since_ms:
                since_ms = None
        self.archive.prune(bytes_max, days_max, since_ms)

    # --- order in the directory ---

    def tidy(self) -> None:
        """Archives segments and snapshots that were listed, removes others and halves of files;
        cuts sealed segments to their length."""
        manifest = self.manifest
        for entry in manifest.segments:
            self._cut(entry)
        listed = {one.name for one in manifest.segments} | {one.name for one in manifest.snapshots}
        moved = False
        for name in self.files.list_dir(self.path):
            if name in listed:
                continue
            if self._is_outdated(name):
                self.archive.take(self.path / name)
                moved = True
            elif name.endswith((".snap", ".tmp")):
                self.remove(name)
        if moved:
            self.files.sync_names(self.archive.path)
            self.files.sync_names(self.path)
        self.archive.measure()

    def _is_outdated(self, name: str) -> bool:
        """Whether a file lies before all that is listed of its kind."""
        index = segment_index(name)
        if index is not None:
            return index < self.manifest.first_index
        snapshots = self.manifest.snapshots
        return is_snapshot_name(name) and bool(snapshots) and snapshot_seq(name) < snapshots[0].seq

    def _cut(self, entry: SegmentEntry) -> None:
        stat = self.files.stat(self.path / entry.name)
        if entry.sealed is not None and stat is not None and stat.size > entry.sealed.length:
            fd = self.files.open_existing(self.path / entry.name)
            try:
                self.files.truncate(fd, entry.sealed.length)
            finally:
                self.files.close(fd)

    def quarantine(self, name: str, data: bytes) -> None:
        """Keeps bytes that are about to be cut off or replaced, unless an earlier attempt did."""
        path = self._quarantine() / name
        if self.files.stat(path) is None:
            self.files.write_atomically(path, data)

    def move_to_quarantine(self, name: str) -> None:
        """Takes a file out of the store, if it is there."""
        folder = self._quarantine()
        with contextlib.suppress(FileNotFoundError):
            self.files.rename(self.path / name, folder / Path(name).name)

    def _quarantine(self) -> Path:
        folder = self.path / QUARANTINE
        self.files.make_dir(folder)
        self.files.sync_names(self.path)
        return folder
