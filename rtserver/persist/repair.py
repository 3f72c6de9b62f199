"""Repair: the longest part of a damaged store that can be trusted, and what it costs to keep it.

Reports what would be lost, record by record; acts only when told that very number. Originals of
all that changes go to quarantine/ first, archived segments come back where they are needed. A
repaired store asks for new epochs, so no client is told that it has everything. Also rebuilds a
MANIFEST from the files, and marks a restored backup.

Keeps whole blocks, a turn each, in an unbroken chain that starts at a whole snapshot or at the
first segment. What a repair leaves is a log as recovery accepts it; it can be run again.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rtserver.clock import wall_ms
from rtserver.persist.archive import ARCHIVE
from rtserver.persist.blocks import (
    SEGMENT_HEADER,
    BadBlock,
    Chain,
    SegmentHeader,
    read_segment_header,
    salt_seed,
    segment_index,
    segment_name,
    used_length,
    valid_blocks,
    walk,
)
from rtserver.persist.directory import SNAPSHOTS_KEPT, StoreDirectory
from rtserver.persist.errors import LogDamaged, StoreTooNew
from rtserver.persist.files import Files
from rtserver.persist.inspect import dump, examine
from rtserver.persist.manifest import (
    MANIFEST_NAME,
    Manifest,
    Sealed,
    SegmentEntry,
    SnapshotEntry,
    read_manifest,
)
from rtserver.persist.snapshot import (
    SnapshotMeta,
    entry_of,
    file_digest,
    is_snapshot_name,
    read_snapshot,
    snapshot_seq,
)

__all__ = ["repair"]


@dataclass(slots=True)
class _Kept:
    """What one starting point leads to."""

    snapshot: SnapshotEntry | None
    seq: int
    segments: list[SegmentEntry] = field(default_factory=list)


def repair(
    directory: Path,
    files: Files,
    *,
    truncate_at_seq: int | None = None,
    accept_loss: int | None = None,
    restored: bool = False,
) -> dict[str, Any]:
    """{repaired, problems, kept_seq, loss, dropped: [rows as `dump` gives them], actions}.

    `truncate_at_seq` drops that record and all after it (and what shares its block); `restored`
    only asks for new epochs. Raises DirectoryLocked, LogDamaged when nothing can be kept,
    StoreTooNew, OSError, LogFailed.
    """
    lock = files.lock(directory)
    try:
        return _repair(directory, files, truncate_at_seq, accept_loss, restored)
    finally:
        lock.release()


def _repair(
    directory: Path,
    files: Files,
    truncate_at_seq: int | None,
    accept_loss: int | None,
    restored: bool,
) -> dict[str, Any]:
    problems = examine(directory, files, running=False)["problems"]
    report: dict[str, Any] = {"repaired": False, "problems": problems, "loss": 0, "actions": []}
    if not problems and truncate_at_seq is None:
        report["repaired"] = True
        if restored:
            _renew(directory, files)
            report["actions"] = ["new epochs at the next start"]
        return report
    plan = _Plan(directory, files)
    plan.choose(truncate_at_seq)
    report |= {
        "kept_seq": plan.kept_seq,
        "loss": plan.loss,
        "dropped": list(dump(directory, files, from_seq=plan.kept_seq + 1)),
        "actions": plan.actions(),
    }
    if accept_loss == plan.loss:
        plan.carry_out()
        report["repaired"] = True
    return report


def _renew(directory: Path, files: Files) -> None:
    manifest = read_manifest(directory, files)
    if manifest is not None:
        store = StoreDirectory(directory, files, manifest, files.boot_id())
        store.save(replace(manifest, era_pending=True))


class _Plan:
    """What to keep of a directory, and the steps that make it a sound store again."""

    def __init__(self, directory: Path, files: Files) -> None:
        self._directory = directory
        self._files = files
        names = files.list_dir(directory)
        self._listed = _readable_manifest(directory, files)
        self._headers = dict(_headers(directory / ARCHIVE, files))
        self._archived = self._headers.keys() - dict(_headers(directory, files)).keys()
        self._headers |= dict(_headers(directory, files))
        self._base = self._listed or Manifest(_common_store_id(self._headers))
        store_id = bytes.fromhex(self._base.store_id)
        for index in [one for one, head in self._headers.items() if head.store_id != store_id]:
            del self._headers[index]
        self._snapshots = [
            entry
            for name in names
            if is_snapshot_name(name)
            and (entry := _read_entry(directory / name, files, store_id)) is not None
        ]
        self._kept: list[_Kept] = []

    @property
    def kept_seq(self) -> int:
        return self._kept[0].seq

    @property
    def loss(self) -> int:
        """How many records are known to have existed beyond what is kept."""
        known = [self.kept_seq, *(one.seq for one in self._snapshots)]
        for entry in self._base.segments:
            if entry.sealed is not None:
                known.append(entry.sealed.last_seq)
        for index, header in self._headers.items():
            data = self._data(index)
            for block in valid_blocks(data, SEGMENT_HEADER.size, salt_seed(header.salt)):
                known.append(max(block.last_seq, block.synced_seq))
        return max(known) - self.kept_seq

    def choose(self, limit: int | None) -> None:
        """The starting points that lead furthest, but not to the record `limit`."""
        starts: list[SnapshotEntry | None] = [
            one for one in self._snapshots if limit is None or one.seq < limit
        ]
        if 1 in self._headers or limit == 1:
            starts.insert(0, None)
        if not starts:
            raise LogDamaged(
                MANIFEST_NAME,
                0,
                "no snapshot is whole, and the first segment of the log is gone",
                "nothing can be repaired: restore a backup",
            )
        reached = [self._follow(start, limit) for start in starts]
        furthest = max(one.seq for one in reached)
        self._kept = [one for one in reached if one.seq == furthest]

    def _follow(self, start: SnapshotEntry | None, limit: int | None) -> _Kept:
        chain, index = Chain(0, 0, 0, 0), 1
        if start is not None:
            chain = Chain(start.seq, start.last_crc, start.now_ms, start.boot_ms)
            index = start.segment
        kept = _Kept(start, chain.seq)
        while index in self._headers:
            salt, data = self._headers[index].salt, self._data(index)
            first_seq, end, whole = chain.seq + 1, None, True
            try:
                for block in walk(data, salt_seed(salt), chain):
                    if limit is not None and block.last_seq >= limit:
                        whole = False
                        break
                    end = Sealed(first_seq, block.last_seq, block.end, block.crc, chain.clean, 0)
            except BadBlock:
                whole = False
            if end is not None:
                end = replace(end, crc=zlib.crc32(data[: end.length]))
                kept.segments.append(SegmentEntry(index, salt.hex(), len(data), end))
                kept.seq = end.last_seq
            if end is None or not whole:
                break
            index += 1
        return kept

    def _data(self, index: int) -> memoryview:
        folder = self._directory / ARCHIVE if index in self._archived else self._directory
        return memoryview(self._files.read_file(folder / segment_name(index)))

    # --- acting ---

    def _manifest(self) -> Manifest:
        snapshots = [one.snapshot for one in self._kept if one.snapshot is not None]
        return replace(
            self._base,
            era_pending=True,
            segments=tuple(self._kept[0].segments),
            snapshots=tuple(snapshots[-SNAPSHOTS_KEPT:]),
        )

    def _cuts(self) -> list[tuple[str, int]]:
        """Kept segments in which something follows what is kept of them."""
        return [
            (entry.name, entry.sealed.length)
            for entry in self._kept[0].segments
            if entry.sealed is not None
            and used_length(self._data(entry.index)) > entry.sealed.length
        ]

    def _returning(self) -> list[str]:
        """Kept segments that are in the archive."""
        return [one.name for one in self._kept[0].segments if one.index in self._archived]

    def _leavers(self) -> list[str]:
        """Segments after the kept ones, and snapshots that are not kept; of the archive's, whose
        history goes on, those that lie behind its end now."""
        manifest = self._manifest()
        kept = {one.name for one in manifest.segments}
        kept |= {one.name for one in manifest.snapshots}
        leavers = [
            name
            for name in self._files.list_dir(self._directory)
            if name not in kept
            and (is_snapshot_name(name) or (segment_index(name) or 0) >= manifest.first_index)
        ]
        for name in self._files.list_dir(self._directory / ARCHIVE):
            index = segment_index(name)
            is_behind = index is not None and name not in kept and index >= manifest.first_index
            if is_behind or (is_snapshot_name(name) and snapshot_seq(name) > self.kept_seq):
                leavers.append(f"{ARCHIVE}/{name}")
        return leavers

    def actions(self) -> list[str]:
        """What `carry_out` does, for people."""
        return [
            *(f"cut {name} at offset {length}" for name, length in self._cuts()),
            *(f"take {name} back from the archive" for name in self._returning()),
            *(f"move {name} to quarantine" for name in self._leavers()),
            f"write a new {MANIFEST_NAME} that ends with record {self.kept_seq}",
            "new epochs at the next start",
        ]

    def carry_out(self) -> None:
        """Originals to quarantine; from then on new epochs are due; cuts, the manifest, and last
        what that no longer lists."""
        files = self._files
        store = StoreDirectory(self._directory, files, self._base, files.boot_id())
        stamp = wall_ms()
        cuts, leavers = self._cuts(), self._leavers()
        for name in [MANIFEST_NAME, *(name for name, _ in cuts)]:
            if files.stat(self._directory / name) is not None:
                data = files.read_file(self._directory / name)
                store.quarantine(f"{name}.before-repair-{stamp}", data)
        if self._listed is not None:
            store.save(replace(self._listed, era_pending=True))
        for name in self._returning():
            files.rename(self._directory / ARCHIVE / name, self._directory / name)
        files.sync_names(self._directory)
        for entry in self._kept[0].segments:
            if entry.sealed is not None:
                store.settle(entry.name, entry.sealed.length)
        store.save(self._manifest())
        for name in leavers:
            store.move_to_quarantine(name)
        files.sync_names(self._directory)
        store.tidy()


# --- what there is ---


def _readable_manifest(directory: Path, files: Files) -> Manifest | None:
    try:
        return read_manifest(directory, files)
    except StoreTooNew:
        raise
    except LogDamaged:
        return None


def _headers(directory: Path, files: Files) -> Iterator[tuple[int, SegmentHeader]]:
    """The segments whose header is whole and says what the name says."""
    for name in files.list_dir(directory):
        index = segment_index(name)
        if index is None:
            continue
        fd = files.open_read(directory / name)
        try:
            header = read_segment_header(files.pread(fd, SEGMENT_HEADER.size, 0))
        except BadBlock:
            continue
        finally:
            files.close(fd)
        if header.segment == index:
            yield index, header


def _common_store_id(headers: dict[int, SegmentHeader]) -> str:
    ids = Counter(header.store_id for header in headers.values())
    if not ids:
        raise LogDamaged(
            MANIFEST_NAME,
            0,
            "it is missing or damaged, and there is no whole segment to rebuild it from",
            "restore a backup",
        )
    return ids.most_common(1)[0][0].hex()


def _read_entry(path: Path, files: Files, store_id: bytes) -> SnapshotEntry | None:
    """The manifest's row about a snapshot file, from its own bytes; None when it is damaged."""
    meta: SnapshotMeta | None = None
    try:
        for chunk, _ in read_snapshot(path, files, store_id):
            if meta is None:
                meta = chunk
    except BadBlock:
        return None
    stat = files.stat(path)
    if meta is None or stat is None:
        return None
    return entry_of(meta, stat.size, file_digest(path, files))
