"""The history of a store: every record that is left of it, the archive's too, in order.

Where recovery reads what it takes to go on, this reads all that there is, from the oldest state
that records can follow: the empty one where the first segment is still there, else a snapshot. On
the way it stops at each snapshot, so that whoever replays can compare. The whole chain of blocks is
checked; what is missing in the middle or was changed is LogDamaged, as in recovery.

Works beside a running server, which may archive files meanwhile: of the segments that it writes to
everything is read that is complete. Costs one pass over all files, and one more over the last ones.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtserver.persist.archive import ARCHIVE, all_segments, read_segment
from rtserver.persist.blocks import BadBlock, Chain, read_segment_header, segment_name, walk
from rtserver.persist.errors import LogDamaged
from rtserver.persist.files import Files
from rtserver.persist.manifest import Manifest, SegmentEntry
from rtserver.persist.recovery import ApplyBlock, LoadChunk, one_by_one, recover
from rtserver.persist.segments import LoadedSegment, load_segment
from rtserver.persist.snapshot import (
    SnapshotMeta,
    is_snapshot_name,
    read_meta,
    read_snapshot,
    snapshot_seq,
    verify_file,
)

__all__ = ["History", "SnapshotFile", "read_history"]


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A snapshot wherever it lies."""

    path: Path
    meta: SnapshotMeta

    @property
    def name(self) -> str:
        return self.path.name

    def load(self, files: Files, store_id: bytes, load_chunk: LoadChunk) -> None:
        """Raises LogDamaged, and what `load_chunk` raises."""
        try:
            for chunk, _ in read_snapshot(self.path, files, store_id):
                if not isinstance(chunk, SnapshotMeta):
                    load_chunk(chunk)
        except BadBlock as bad:
            raise LogDamaged(self.name, bad.offset, bad.reason) from None


@dataclass(slots=True)
class History:
    """What was read."""

    running: bool
    basis: str | None = None  # the snapshot it began with; None: at the first record
    basis_seq: int = 0
    seq: int = 0  # of the last record
    now_ms: int = 0  # of the last block
    segments: int = 0
    reports: list[str] = field(default_factory=list)  # what someone should read


def read_history(
    directory: Path,
    files: Files,
    *,
    load_chunk: LoadChunk,
    apply_block: ApplyBlock,
    at_snapshot: Callable[[SnapshotFile, bytes], object],
) -> History:
    """Loads the basis, applies every block after it, and calls `at_snapshot` with each other
    snapshot, and the store's id, when its records are applied. Raises LogDamaged, OSError, and what
    the callbacks raise."""
    running = files.is_locked(directory)
    end = recover(
        directory,
        files,
        apply_block=one_by_one(_ignore),
        load_chunk=_ignore,
        sealed_only=running,
    )
    history = History(running, reports=end.reports)
    if not end.manifest.generation:
        return history
    run = _Run(directory, files, end.manifest, history)
    run.choose_basis(load_chunk)
    run.replay(apply_block, at_snapshot)
    if not running and history.seq != end.seq:
        raise LogDamaged("MANIFEST", 0, f"record {end.seq} is the last, {history.seq} were read")
    return history


def _ignore(*_: Any) -> None:
    pass


class _Run:
    """One reading; the public methods are its steps, in order."""

    def __init__(self, directory: Path, files: Files, manifest: Manifest, history: History) -> None:
        self._directory = directory
        self._files = files
        self._manifest = manifest
        self._history = history
        self._store_id = bytes.fromhex(manifest.store_id)
        self._listed = {entry.index: entry for entry in manifest.segments}
        self._paths = all_segments(directory, files)
        self._first = self._contiguous()
        self._snapshots = self._find_snapshots()
        self._chain = Chain(0, 0, 0, 0)

    def _contiguous(self) -> int:
        """The index from which on no segment is missing. Raises LogDamaged where older ones are
        there all the same."""
        last = self._manifest.next_index
        known = sorted(index for index in self._paths if index < last)
        first = last
        while first - 1 in self._paths:
            first -= 1
        if known and known[0] < first:
            raise LogDamaged(
                segment_name(first - 1), 0, f"it is missing, but there is {segment_name(known[0])}"
            )
        return first

    def _find_snapshots(self) -> list[SnapshotFile]:
        """Every snapshot that is listed or archived, oldest first, after a look at its bytes."""
        found = []
        for entry in self._manifest.snapshots:
            problem = verify_file(self._directory, self._files, entry)
            there = self._files.stat(self._directory / entry.name) is not None
            if problem is not None and (there or not self._history.running):
                raise LogDamaged(entry.name, 0, problem)
        names = {entry.name for entry in self._manifest.snapshots}
        archived = self._files.list_dir(self._directory / ARCHIVE)
        names |= {name for name in archived if is_snapshot_name(name)}
        for name in sorted(names, key=snapshot_seq):
            with suppress(FileNotFoundError):  # a running server needs it no longer
                found.append(self._snapshot(name))
        return found

    def _snapshot(self, name: str) -> SnapshotFile:
        path = self._directory / name
        if self._files.stat(path) is None:
            path = self._directory / ARCHIVE / name
        try:
            return SnapshotFile(path, read_meta(path, self._files, self._store_id))
        except BadBlock as bad:
            raise LogDamaged(name, bad.offset, bad.reason) from None

    def choose_basis(self, load_chunk: LoadChunk) -> None:
        """The oldest state that the segments which are there can follow."""
        for snapshot in self._snapshots:
            if snapshot.meta.segment < self._first:
                gone = segment_name(self._first - 1)
                raise LogDamaged(gone, 0, f"it is missing, and {snapshot.name} needs it")
        if self._first == 1:
            return
        if not self._snapshots:
            raise LogDamaged(
                "MANIFEST", 0, f"no whole snapshot leads to {segment_name(self._first)}"
            )
        basis = self._snapshots.pop(0)
        basis.load(self._files, self._store_id, load_chunk)
        meta = basis.meta
        self._chain = Chain(meta.seq, meta.last_crc, meta.now_ms, meta.boot_ms)
        self._first = meta.segment
        self._history.basis, self._history.basis_seq = basis.name, meta.seq

    def replay(
        self, apply_block: ApplyBlock, at_snapshot: Callable[[SnapshotFile, bytes], object]
    ) -> None:
        index = self._first
        self._meet(index, at_snapshot)
        while index in self._paths and index < self._manifest.next_index:
            ended = self._replay_segment(self._load(index), apply_block)
            index += 1
            self._history.segments += 1
            self._meet(index, at_snapshot)
            if ended:
                break
        self._history.seq, self._history.now_ms = self._chain.seq, self._chain.now_ms

    def _meet(self, index: int, at_snapshot: Callable[[SnapshotFile, bytes], object]) -> None:
        """The snapshots whose log goes on in a segment."""
        while self._snapshots and self._snapshots[0].meta.segment == index:
            snapshot = self._snapshots.pop(0)
            meta = snapshot.meta
            if (meta.seq, meta.last_crc) != (self._chain.seq, self._chain.crc):
                raise LogDamaged(
                    snapshot.name,
                    0,
                    f"it is of record {meta.seq}, before {segment_name(index)} is record"
                    f" {self._chain.seq}, or another one of that number",
                )
            at_snapshot(snapshot, self._store_id)

    def _load(self, index: int) -> LoadedSegment:
        """A segment as it is listed; else what is in its file, here or in the archive: a server
        that runs may have sealed it, cut it to its length or archived it meanwhile."""
        entry = self._listed.get(index)
        name = segment_name(index)
        there = self._files.stat(self._directory / name) is not None
        if entry is not None and there and (entry.sealed is not None or not self._history.running):
            return load_segment(self._directory, self._files, self._manifest, entry)
        try:
            data = memoryview(read_segment(self._directory, self._files, name))
            header = read_segment_header(data)
        except FileNotFoundError:
            raise LogDamaged(name, 0, "the file is missing") from None
        except BadBlock as bad:
            raise LogDamaged(name, 0, bad.reason) from None
        if header.store_id != self._store_id or header.segment != index:
            found = f"segment {header.segment} of the store {header.store_id.hex()}"
            raise LogDamaged(name, 0, f"it is {found}")
        return LoadedSegment(SegmentEntry(index, header.salt.hex(), len(data)), header, data)

    def _replay_segment(self, segment: LoadedSegment, apply_block: ApplyBlock) -> bool:
        """Applies its records; True where the log ends in it."""
        chain = self._chain
        entry = self._listed.get(segment.entry.index)
        may_end = entry is not None and entry.sealed is None
        try:
            for block in walk(segment.data, segment.seed, chain):
                if block.records:
                    records = segment.data[block.start : block.end]
                    count = apply_block(records, block.first_seq, block.now_ms)
                    if count != block.records:
                        reason = f"it holds {count} records, its header says {block.records}"
                        raise LogDamaged(segment.name, block.offset, reason)
        except BadBlock as bad:
            if not may_end:
                raise LogDamaged(segment.name, bad.offset, bad.reason) from None
            return True
        sealed = None if entry is None else entry.sealed
        if sealed is not None and (chain.seq, chain.crc) != (sealed.last_seq, sealed.last_crc):
            reason = f"it ends with record {chain.seq}, sealed was {sealed.last_seq}"
            raise LogDamaged(segment.name, 0, reason)
        return False
