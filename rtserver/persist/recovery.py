"""Recovery: the newest valid snapshot, then every block after it, in order, or a refusal.

Reads only: what a crash left is described in `Recovered`, and `Log.open` acts on it. So whatever
happens during recovery, the next one finds the same bytes.

A place in the log that is neither the next block nor zeros is a torn tail only in the segments
that were not sealed (their blocks may have been on the way to the disk), if no valid block
beyond it says that a record from there on was synced, and, within the same boot of the machine,
if nothing valid lies beyond it at all (a process that dies leaves only its last write undone).
Anything else raises LogDamaged. No record is ever skipped.

Costs a checksum of each file that the snapshot makes needless, a pass over the snapshot to verify
and one to load it, and one over the log after it: two checksums and one call of `apply_block` a
block.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgpack

from rtserver.persist.archive import ARCHIVE
from rtserver.persist.blocks import (
    SEGMENT_HEADER,
    BadBlock,
    Chain,
    segment_index,
    segment_name,
    used_length,
    walk,
)
from rtserver.persist.errors import LogDamaged
from rtserver.persist.files import Files
from rtserver.persist.manifest import (
    MANIFEST_NAME,
    Manifest,
    Sealed,
    SegmentEntry,
    SnapshotEntry,
    read_manifest,
)
from rtserver.persist.segments import (
    LoadedSegment,
    check_listed,
    check_order,
    first_damage,
    load_segment,
    unlisted_segments,
)
from rtserver.persist.snapshot import SnapshotMeta, is_snapshot_name, read_snapshot, verify_file

__all__ = [
    "Apply",
    "ApplyBlock",
    "LoadChunk",
    "LogDamaged",
    "Recovered",
    "SegmentEnd",
    "Torn",
    "one_by_one",
    "recover",
]

# Packed records of a block, the sequence number of the first, the block's time in ms -> how many.
ApplyBlock = Callable[[memoryview, int, int], int]
Apply = Callable[[Any, int, int], object]  # record, its sequence number, its block's time in ms
LoadChunk = Callable[[Any], object]
Progress = Callable[[int, int], None]  # bytes done, bytes in all

_PROGRESS_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Torn:
    """Bytes at the end of the log that a crash left unfinished."""

    file: str
    offset: int
    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class SegmentEnd:
    """An unsealed segment that holds blocks, and what sealing it must say."""

    index: int
    sealed: Sealed


@dataclass(slots=True)
class Recovered:
    """What recovery found: for the server to go on with and to report."""

    manifest: Manifest
    seq: int = 0  # of the last record
    now_ms: int = 0  # logged last; 0 in a new store
    boot_ms: int = 0  # of the boot clock, logged with now_ms
    last_crc: int = 0
    same_boot: bool = False  # the machine has not been started since the log was written
    clean: bool = True  # the log was closed in order
    snapshot: str | None = None
    blocks: int = 0  # read after the snapshot
    records: int = 0
    bytes: int = 0
    torn: list[Torn] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)  # what someone should read
    ends: list[SegmentEnd] = field(default_factory=list)
    bad_snapshots: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)  # unlisted segments without a block

    @property
    def power_loss(self) -> bool:
        """The machine went down under the log: what was not synced may be gone."""
        return not self.clean and not self.same_boot

    @property
    def new_epochs(self) -> bool:
        """What clients hold of the past may be more than what is left of it."""
        return self.power_loss or self.manifest.era_pending


def one_by_one(apply: Apply) -> ApplyBlock:
    """Applies the records of a block one after another."""

    def apply_block(records: memoryview, first_seq: int, now_ms: int) -> int:
        unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=len(records))
        unpacker.feed(records)
        count = 0
        for record in unpacker:
            apply(record, first_seq + count, now_ms)
            count += 1
        return count

    return apply_block


def recover(
    directory: Path,
    files: Files,
    *,
    apply_block: ApplyBlock,
    load_chunk: LoadChunk,
    progress: Progress | None = None,
    sealed_only: bool = False,
) -> Recovered:
    """Rebuilds the state by callbacks. Raises LogDamaged, OSError, and what the callbacks raise.

    `sealed_only` ends with the last sealed segment: a view that a running server leaves alone.
    """
    manifest = read_manifest(directory, files)
    if manifest is None:
        _check_new(directory, files)
        return Recovered(Manifest(uuid.uuid4().hex))
    run = _Run(directory, files, manifest, sealed_only=sealed_only)
    run.check_files()
    run.choose_snapshot(progress)
    run.check_covered()
    run.load_snapshot(load_chunk)
    run.replay(apply_block)
    return run.recovered


def _check_new(directory: Path, files: Files) -> None:
    """A directory without a manifest is a new store only if it holds nothing of an old one."""
    names = files.list_dir(directory)
    found = [name for name in names if segment_index(name) or is_snapshot_name(name)]
    found += [name for name in files.list_dir(directory / ARCHIVE) if segment_index(name)]
    if found:
        raise LogDamaged(
            MANIFEST_NAME,
            0,
            f"it is missing, but there is {found[0]}",
            "`rtserver log repair DIR` can rebuild it from the segments and snapshots",
        )


class _Run:
    """One recovery; the public methods are its steps, in order."""

    def __init__(
        self, directory: Path, files: Files, manifest: Manifest, *, sealed_only: bool
    ) -> None:
        self._directory = directory
        self._files = files
        self._manifest = manifest
        self._sealed_only = sealed_only
        self._entries = manifest.segments
        if sealed_only:
            self._entries = tuple(one for one in manifest.segments if one.sealed is not None)
        self._sizes: dict[int, int] = {}  # used bytes of each segment
        self._boot_id = files.boot_id()
        self._snapshot: SnapshotEntry | None = None
        self._chain = Chain(0, 0, 0, 0)
        self._meter = _Meter(None, 0)
        self.recovered = Recovered(manifest)

    def check_files(self) -> None:
        """Every listed segment is there and is the one that is meant; no unknown one is."""
        recovered = self.recovered
        check_order(self._entries)
        for entry in self._entries:
            header, size = check_listed(self._directory, self._files, self._manifest, entry)
            self._sizes[entry.index] = size
            recovered.clean = entry.sealed is not None and entry.sealed.clean
            recovered.same_boot = header.boot_id == self._boot_id
        if not self._sealed_only:
            recovered.leftovers = unlisted_segments(self._directory, self._files, self._manifest)

    def choose_snapshot(self, progress: Progress | None) -> None:
        """The newest one whose bytes are good; without any, the log must begin at its start."""
        recovered = self.recovered
        for entry in reversed(self._manifest.snapshots):
            problem = verify_file(self._directory, self._files, entry)
            if problem is None:
                self._snapshot = self._snapshot or entry
                continue
            recovered.bad_snapshots.append(entry.name)
            recovered.reports.append(f"the snapshot {entry.name} is damaged: {problem}")
        start = 1 if self._snapshot is None else self._snapshot.segment
        first = self._manifest.first_index
        if start < first:
            name = recovered.bad_snapshots[0] if recovered.bad_snapshots else MANIFEST_NAME
            raise LogDamaged(name, 0, f"no whole snapshot leads to {segment_name(first)}")
        self._entries = tuple(one for one in self._entries if one.index >= start)
        total = sum(self._sizes[one.index] for one in self._entries)
        total += 0 if self._snapshot is None else self._snapshot.size
        self._meter = _Meter(progress, total)

    def check_covered(self) -> None:
        """What the snapshot makes needless is read all the same: damage to it costs nothing now,
        but nobody could fall back on it, so it must not pass in silence."""
        if self._snapshot is None or self._sealed_only:
            return
        for entry in self._manifest.segments:
            if entry.index >= self._snapshot.segment:
                return
            bad = first_damage(self._directory, self._files, self._manifest, entry)
            if bad is not None:
                self.recovered.reports.append(
                    f"{entry.name} is damaged at offset {bad.offset}: {bad.reason}. Nothing is lost"
                    f" while {self._snapshot.name}, which covers it, is whole"
                )

    def load_snapshot(self, load_chunk: LoadChunk) -> None:
        entry = self._snapshot
        if entry is None:
            return
        store_id = bytes.fromhex(self._manifest.store_id)
        try:
            for chunk, end in read_snapshot(self._directory / entry.name, self._files, store_id):
                if not isinstance(chunk, SnapshotMeta):
                    load_chunk(chunk)
                self._meter.reached(end)
        except BadBlock as bad:
            raise LogDamaged(entry.name, bad.offset, bad.reason) from None
        self._meter.passed(entry.size)
        self._chain = Chain(entry.seq, entry.last_crc, entry.now_ms, entry.boot_ms)
        self.recovered.snapshot = entry.name

    def replay(self, apply_block: ApplyBlock) -> None:
        """Every block after the snapshot; then the end of the log is known."""
        for place, entry in enumerate(self._entries):
            segment = load_segment(self._directory, self._files, self._manifest, entry)
            first_seq = self._chain.seq + 1
            end, bad = self._replay_segment(segment, apply_block)
            if bad is not None:
                self._cut(segment, bad, self._entries[place + 1 :])
            self._note_end(segment, first_seq, end)
            if bad is not None:
                break
            self._meter.passed(len(segment.data))
        self._meter.finish()
        recovered, chain = self.recovered, self._chain
        recovered.seq, recovered.last_crc = chain.seq, chain.crc
        recovered.now_ms, recovered.boot_ms = chain.now_ms, chain.boot_ms

    def _replay_segment(
        self, segment: LoadedSegment, apply_block: ApplyBlock
    ) -> tuple[int, BadBlock | None]:
        """Applies its records; (where its blocks end, what stands there but zeros)."""
        recovered = self.recovered
        data = segment.data
        end = SEGMENT_HEADER.size
        try:
            for block in walk(data, segment.seed, self._chain):
                if block.records:
                    records = data[block.start : block.end]
                    count = apply_block(records, block.first_seq, block.now_ms)
                    if count != block.records:
                        reason = f"it holds {count} records, its header says {block.records}"
                        raise LogDamaged(segment.name, block.offset, reason)
                end = block.end
                recovered.blocks += 1
                recovered.records += block.records
                recovered.bytes += end - block.offset
                self._meter.reached(end)
        except BadBlock as bad:
            return end, bad
        return end, None

    def _note_end(self, segment: LoadedSegment, first_seq: int, end: int) -> None:
        chain, sealed = self._chain, segment.entry.sealed
        if sealed is not None:
            found = replace(sealed, last_seq=chain.seq, length=end, last_crc=chain.crc)
            if found != sealed:
                raise LogDamaged(segment.name, end, f"it ends as {found}, sealed was {sealed}")
        elif end > SEGMENT_HEADER.size:
            crc = zlib.crc32(segment.data[:end])
            found = Sealed(first_seq, chain.seq, end, chain.crc, chain.clean, crc)
            self.recovered.ends.append(SegmentEnd(segment.entry.index, found))

    # --- the end of a log that was not closed ---

    def _cut(self, segment: LoadedSegment, bad: BadBlock, later: tuple[SegmentEntry, ...]) -> None:
        """Takes a bad block for the torn end of the log, or raises LogDamaged."""
        if segment.entry.sealed is not None or not (
            bad.torn_possible or self._lost_predecessor(segment, bad)
        ):
            raise LogDamaged(segment.name, bad.offset, bad.reason)
        followers = [
            load_segment(self._directory, self._files, self._manifest, one) for one in later
        ]
        places = [(segment, bad.offset), *((one, SEGMENT_HEADER.size) for one in followers)]
        for one, offset in places:
            proof = self._proof_of_damage(one, offset)
            if proof is not None:
                raise LogDamaged(segment.name, bad.offset, f"{bad.reason}, and {proof}")
        for one, offset in places:
            self._note_torn(one, offset, bad.reason)

    def _lost_predecessor(self, segment: LoadedSegment, bad: BadBlock) -> bool:
        """A first block may follow one that is not there, if that segment was not sealed."""
        before = segment.entry.index - 1
        unsealed = any(one.index == before and one.sealed is None for one in self._entries)
        return unsealed and bad.offset == SEGMENT_HEADER.size

    def _proof_of_damage(self, segment: LoadedSegment, offset: int) -> str | None:
        """A valid block beyond the bad one which no crash could have left there."""
        for block in segment.valid_after(offset):
            place = f"the valid block at offset {block.offset} of {segment.name}"
            if segment.header.boot_id == self._boot_id:
                return f"{place} was written after it, with no power failure since"
            if block.synced_seq > self._chain.seq:
                return f"{place} says that record {block.synced_seq} was synced"
        return None

    def _note_torn(self, segment: LoadedSegment, offset: int, reason: str) -> None:
        size = used_length(segment.data, offset) - offset
        if not size:
            return
        self.recovered.torn.append(Torn(segment.name, offset, size, reason))
        self.recovered.reports.append(
            f"{segment.name} ends torn at offset {offset}: {size} bytes are cut and kept in"
            f" quarantine ({reason}). A crash leaves such an end; no block says that a record in"
            " it was synced, and whether whole records are lost with it cannot be known"
        )


class _Meter:
    """Tells `progress` about every megabyte."""

    __slots__ = ("_base", "_progress", "_shown", "_total")

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._base = 0  # of the files that are done
        self._shown = 0

    def reached(self, offset: int) -> None:
        """An offset in the present file."""
        if self._progress is not None and self._base + offset >= self._shown + _PROGRESS_BYTES:
            self._shown = self._base + offset
            self._progress(self._shown, self._total)

    def passed(self, size: int) -> None:
        self._base += size

    def finish(self) -> None:
        if self._progress is not None:
            self._progress(self._total, self._total)
