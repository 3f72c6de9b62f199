"""archive/: segments that no recovery needs any more, kept for audits, and where these begin.

Segments go as they get too old or too many. Those that hold what was logged since a given time stay
whatever their age and number: the server asks so for the sales that exist, and says by `held_bytes`
what that costs. They can be replayed only from a state, so the newest snapshot before them stays
too. Of those after it one is kept each time that the segments in between are four times its size:
so the beginning can move on when the oldest sale is deleted, and snapshots take at most a quarter
of what they are for.

Owned by who owns the store's directory (directory.py). Costs, when a snapshot was made: a look at
each name, and at the first bytes of a few files.
"""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rtserver.clock import wall_ms
from rtserver.limits import INT64_MAX
from rtserver.persist.blocks import BadBlock, segment_index
from rtserver.persist.files import Files
from rtserver.persist.segments import first_ms
from rtserver.persist.snapshot import is_snapshot_name, read_meta

__all__ = ["ARCHIVE", "Archive", "all_segments", "read_segment"]

ARCHIVE = "archive"

_DAY_MS = 86_400_000
_SNAPSHOT_WORTH = 4  # bytes of segments that a snapshot must save for each of its own


def all_segments(directory: Path, files: Files) -> dict[int, Path]:
    """Where each segment of a store lies, by its index, in that order. One that a running server
    archives meanwhile is found: the place that it goes to is looked at last."""
    found: dict[int, Path] = {}
    for folder in (directory, directory / ARCHIVE):
        for name in files.list_dir(folder):
            index = segment_index(name)
            if index is not None:
                found[index] = folder / name
    return dict(sorted(found.items()))


def read_segment(directory: Path, files: Files, name: str) -> bytes:
    """The bytes of a segment, which a running server may have archived meanwhile."""
    try:
        return files.read_file(directory / name)
    except FileNotFoundError:
        return files.read_file(directory / ARCHIVE / name)


class _Archived(NamedTuple):
    """A file: a segment, or a snapshot after which the log continues in that segment."""

    segment: int
    name: str
    size: int
    modified_ms: int


class Archive:
    """The archive of the store in a directory."""

    def __init__(self, directory: Path, files: Files, store_id: bytes) -> None:
        self.path = directory / ARCHIVE
        self.bytes = 0  # of all files, when it was looked at last
        self.held_bytes = 0  # of those, kept only because of the time that was asked for
        self._files = files
        self._store_id = store_id

    def measure(self) -> None:
        """Looks how large it is."""
        stats = (self._files.stat(self.path / name) for name in self._files.list_dir(self.path))
        self.bytes = sum(stat.size for stat in stats if stat is not None)

    def take(self, path: Path) -> None:
        """Moves a file here; the caller syncs the names."""
        self._files.make_dir(self.path)
        self._files.rename(path, self.path / path.name)

    def prune(self, bytes_max: int, days_max: int, since_ms: int | None) -> None:
        """Removes the oldest segments beyond a size and an age, but none with what was logged at
        `since_ms` or later, nor what it takes to replay those."""
        segments = self._found(snapshots=False)
        keep_from = None if since_ms is None else self._needed_from(segments, since_ms)
        if keep_from is None:
            for one in self._found(snapshots=True):
                self._remove(one)
        oldest_ms = wall_ms() - days_max * _DAY_MS
        total = sum(one.size for one in segments)
        self.held_bytes = 0
        for one in segments:
            if total <= bytes_max and one.modified_ms >= oldest_ms:
                break
            total -= one.size
            if keep_from is None or one.segment < keep_from:
                self._remove(one)
            else:
                self.held_bytes += one.size
        self.measure()

    def _needed_from(self, segments: list[_Archived], since_ms: int) -> int | None:
        """The first segment that is needed; None where none is. Snapshots that no replay would
        begin from are removed."""
        if not segments:
            return None
        # Times rise from segment to segment; what was logged then can also be the end of the last
        # one that begins before.
        place = bisect_left(segments, since_ms, key=self._first_ms)
        first = segments[max(0, place - 1)].segment
        snapshots = self._found(snapshots=True)
        bases = [one for one in snapshots if one.segment <= first]
        begin = bases[-1].segment if bases else 1 if segments[0].segment == 1 else first
        for one in bases[:-1]:
            self._remove(one)
        last = begin
        for one in snapshots[len(bases) :]:
            between = sum(other.size for other in segments if last <= other.segment < one.segment)
            if between < _SNAPSHOT_WORTH * one.size:
                self._remove(one)
            else:
                last = one.segment
        return begin

    def _first_ms(self, segment: _Archived) -> int:
        """When the records of a segment begin. One that cannot be read counts as too late, so that
        nothing before it goes for that."""
        found = first_ms(self.path / segment.name, self._files)
        return INT64_MAX if found is None else found

    def _found(self, *, snapshots: bool) -> list[_Archived]:
        """The files of one kind that can be used, in the order of their segments."""
        found = []
        for name in self._files.list_dir(self.path):
            stat = self._files.stat(self.path / name)
            segment = self._snapshot_segment(name) if snapshots else segment_index(name)
            if stat is not None and segment is not None:
                found.append(_Archived(segment, name, stat.size, stat.modified_ms))
        return sorted(found)

    def _snapshot_segment(self, name: str) -> int | None:
        if is_snapshot_name(name):
            with suppress(BadBlock, FileNotFoundError):
                return read_meta(self.path / name, self._files, self._store_id).segment
        return None

    def _remove(self, one: _Archived) -> None:
        with suppress(FileNotFoundError):
            self._files.remove(self.path / one.name)
