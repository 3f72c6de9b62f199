"""The writer of the log: one block a turn into preallocated segments, one fsync for all who wait.

Owned by the event loop's thread, which never waits for the disk: `append` is one pwrite into the
page cache, syncs and everything else slow happen in the sync thread (syncer.py), whose news
`poll` takes. A record is safe from a kill when `append` returned (unless `stalled`), from a
power failure when `synced_seq` has reached it.

`reserve` keeps the promise that no accepted turn finds the disk full: space is taken before a
segment is used, and the next segment is ready before it is needed. After a failure (`failure`)
nothing is written any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rtserver.config import LogConfig
from rtserver.persist.blocks import (
    BLOCK_HEADER,
    CLEAN,
    MARKER,
    SEGMENT_HEADER,
    encode_block,
)
from rtserver.persist.directory import Segment, StoreDirectory
from rtserver.persist.errors import DISK_FULL_ERRNOS, LogFailed
from rtserver.persist.files import Files
from rtserver.persist.manifest import SnapshotEntry
from rtserver.persist.recovery import Recovered
from rtserver.persist.syncer import Syncer
from rtserver.persist.takeover import take_over

__all__ = ["Log"]

_CLOSING_BYTES = 64 * 1024  # kept free in a segment for the closing record and the last markers
_CLOSING_SHARE = 8  # but at most one part in so many of the segment
_MARKERS_MAX = 4  # blocks without records that may follow the last one


class Log:
    """See the module; `open` makes one."""

    def __init__(
        self,
        directory: StoreDirectory,
        recovered: Recovered,
        config: LogConfig,
        closing_record: Callable[[], bytes],
        notify: Callable[[], None],
        keep_since: Callable[[], int | None],
    ) -> None:
        self.bytes_appended = 0
        self.blocks = 0
        self._directory = directory
        self._files = directory.files
        self._config = config
        self._closing_record = closing_record
        self._keep_since = keep_since
        self._closing_bytes = min(_CLOSING_BYTES, config.segment_bytes // _CLOSING_SHARE)
        self._failure: Exception | None = None
        self._seq = self._written_seq = self._synced_seq = self._marked_seq = recovered.seq
        self._crc = recovered.last_crc
        self._now_ms = recovered.now_ms
        self._boot_ms = recovered.boot_ms
        self._stalled: tuple[bytes, int] | None = None  # a block that did not fit, and its crc
        self._era_seq: int | None = None  # new epochs are logged up to here
        self._next: Segment | None = None
        self._active = directory.create_segment(config.segment_bytes)
        self._begin(self._active)
        self._segments: tuple[Segment, ...] = (self._active,)  # that a sync must cover, in order
        self._syncer = Syncer(self._sync, self._is_dirty, notify, config.sync_interval_ms)
        self._syncer.post(self._prepare)

    @classmethod
    def open(
        cls,
        path: Path,
        files: Files,
        recovered: Recovered,
        *,
        config: LogConfig,
        closing_record: Callable[[], bytes],
        notify: Callable[[], None],
        keep_since: Callable[[], int | None] = lambda: None,
        threaded: bool = True,
    ) -> Log:
        """Settles what recovery found, and goes on in a new segment. Raises OSError, LogFailed.

        `closing_record` gives the one packed record that ends a segment; `notify` is called from
        the sync thread when `poll` has something to take; `keep_since` says, whenever a snapshot
        was made, since which time the archive must have everything (None: it may be pruned).
        `threaded=False`: call `work` by hand.
        """
        directory = take_over(path, files, recovered)
        log = cls(directory, recovered, config, closing_record, notify, keep_since)
        if threaded:
            log._syncer.start()
        return log

    # --- what is where ---

    @property
    def written_seq(self) -> int:
        """The last record that survives the end of the process."""
        return self._written_seq

    @property
    def synced_seq(self) -> int:
        """The last record that survives a power failure."""
        return self._synced_seq

    @property
    def stalled(self) -> bool:
        """The last block did not fit the disk: nothing but `retry` may follow."""
        return self._stalled is not None

    @property
    def failure(self) -> Exception | None:
        """Why the process must stop."""
        return self._failure or self._syncer.failure

    @property
    def full(self) -> bool:
        """The disk has no room for the next segment; it is tried again every second."""
        return self._syncer.full

    @property
    def settled(self) -> bool:
        """Closed segments are sealed, the next one is ready: nothing waits for the thread."""
        return not self._syncer.busy

    @property
    def room(self) -> int:
        """Bytes of records that fit the active segment as one block."""
        return 0 if self._active.closed else max(0, self._free())

    def _free(self) -> int:
        active = self._active
        return active.size - active.offset - self._closing_bytes - BLOCK_HEADER.size

    @property
    def bytes_since_snapshot(self) -> int:
        """What a recovery would have to replay."""
        manifest = self._directory.manifest
        start = manifest.snapshots[-1].segment if manifest.snapshots else 1
        sealed = sum(
            one.sealed.length
            for one in manifest.segments
            if one.index >= start and one.sealed is not None
        )
        return sealed + sum(one.offset for one in self._segments if not one.sealed)

    def stats(self) -> dict[str, Any]:
        syncer = self._syncer
        return {
            "written_seq": self._written_seq,
            "synced_seq": self._synced_seq,
            "segment": self._active.index,
            "blocks": self.blocks,
            "bytes_appended": self.bytes_appended,
            "bytes_since_snapshot": self.bytes_since_snapshot,
            "syncs": syncer.sync_count,
            "sync_last_us": syncer.sync_last_us,
            "sync_max_us": syncer.sync_max_us,
            "archive_bytes": self._directory.archive.bytes,
            "archive_held_bytes": self._directory.archive.held_bytes,
            "stalled": self.stalled,
            "full": self.full,
        }

    # --- a turn ---

    def reserve(self, bytes_bound: int) -> bool:
        """Makes sure that a block with so many bytes of records fits, by closing the active
        segment if need be. False: the next segment is not ready (`full` tells why), or a block
        is stalled. Raises LogFailed."""
        self._check()
        if self.stalled:
            return False
        if not self._active.closed and bytes_bound <= self.room:
            return True
        overhead = SEGMENT_HEADER.size + self._closing_bytes + BLOCK_HEADER.size
        if bytes_bound > self._config.segment_bytes - overhead:
            raise ValueError(f"{bytes_bound} bytes never fit a segment with {overhead} in use")
        return self._switch()

    def append(self, records: list[bytes], now_ms: int) -> int:
        """One block with the packed records of a turn; the sequence number of the last.

        When the disk turns out to be full the block is kept and `stalled` is set: nothing of
        it may be acknowledged until `retry` returned True. Raises LogFailed.
        """
        return self.append_packed(b"".join(records), len(records), now_ms)

    def append_packed(self, payload: bytes, count: int, now_ms: int) -> int:
        """`append` of `count` records that are joined already."""
        self._check()
        if self.stalled:
            raise ValueError("a block is stalled: retry must succeed before the next append")
        if not count:
            return self._seq
        if len(payload) > self._free() + BLOCK_HEADER.size:  # a marker may have come between
            raise ValueError(f"{len(payload)} bytes of records, there is room for {self.room}")
        if now_ms < self._now_ms:
            raise ValueError(f"time went back from {self._now_ms} to {now_ms} ms")
        self._now_ms = now_ms
        self._append(payload, count)
        return self._seq

    def retry(self) -> bool:
        """Writes a stalled block again, to the same place. Raises LogFailed."""
        self._check()
        if self._stalled is not None:
            self._write(*self._stalled)
        return not self.stalled

    def rotate(self, now_ms: int) -> bool:
        """Closes the active segment now, so that a snapshot can cover it; True when everything
        written is in closed segments. Raises LogFailed."""
        self._check()
        if self.stalled:
            return False
        if self._active.last_seq < self._active.first_seq:
            return True
        self._now_ms = max(self._now_ms, now_ms)
        return self._switch()

    def request_sync(self) -> None:
        """Wakes the sync thread for everything written up to now."""
        self._syncer.request()

    def poll(self) -> None:
        """Takes the news of the sync thread: marks what was synced once nothing newer is
        written, so that damage to it will be seen. Raises LogFailed."""
        if self.failure is not None:
            return
        synced = self._synced_seq
        if self._era_seq is not None and synced >= self._era_seq:
            self._era_seq = None
            self._syncer.post(self._clear_era)
        if synced == self._seq and synced > self._marked_seq:
            self._mark(MARKER)
            self._marked_seq = synced

    def work(self) -> None:
        """What the sync thread does in one round; for a log without one."""
        self._syncer.work()

    # --- beside the turns ---

    def clear_era_pending(self) -> None:
        """The new epochs are logged: forget that they were due, once that record is synced."""
        self._era_seq = self._seq
        self._syncer.request()

    def register_snapshot(self, info: dict[str, Any]) -> None:
        """Lists a snapshot that `compact` created and forgets those it found damaged; files that
        are no longer needed go. Raises ValueError."""
        damaged: list[str] = info["damaged"]
        entry = SnapshotEntry(**{name: info[name] for name in SnapshotEntry.__slots__})
        stat = self._files.stat(self._directory.path / entry.name)
        good = [one.seq for one in self._directory.manifest.snapshots if one.name not in damaged]
        newest = max(good, default=0)
        if stat is None or stat.size != entry.size or not newest < entry.seq <= self._seq:
            raise ValueError(f"{entry.name} is no newer snapshot of this log: {info}")
        since_ms = self._keep_since()
        self._syncer.post(lambda: self._register(entry, damaged, since_ms))

    def close(self, now_ms: int, *, clean: bool = True) -> bool:
        """Ends the log. True when all is synced and marked as an orderly end; without that
        (not `clean`, a failure, a full disk) the next start recovers as after a kill."""
        self._syncer.stop()
        try:
            return clean and self.failure is None and self._finish(now_ms)
        except (OSError, LogFailed) as error:
            if not isinstance(error, OSError) or error.errno not in DISK_FULL_ERRNOS:
                self._failure = error
            return False
        finally:
            for segment in (*self._segments, self._next):
                if segment is not None and not segment.sealed:
                    self._files.close(segment.fd)

    # --- blocks ---

    def _check(self) -> None:
        failure = self.failure
        if failure is not None:
            raise LogFailed(f"the log failed before: {failure}") from failure

    def _append(self, payload: bytes, count: int) -> None:
        self._boot_ms = self._files.boot_ms()
        block, crc = self._encode(0, payload, count)
        self._seq += count
        self._write(block, crc)

    def _encode(self, flags: int, payload: bytes, count: int) -> tuple[bytes, int]:
        return encode_block(
            self._active.seed,
            flags,
            self._seq + 1,
            count,
            self._synced_seq,
            self._now_ms,
            self._boot_ms,
            self._crc,
            payload,
        )

    def _write(self, block: bytes, crc: int) -> None:
        """The block at its place, or `stalled`."""
        if not self._put(block):
            self._stalled = (block, crc)
            return
        self._stalled = None
        self._advance(len(block), crc)
        idle = not self._is_dirty()
        self._written_seq = self._active.last_seq = self._seq
        if idle:
            self._syncer.wake()

    def _mark(self, flags: int) -> bool:
        """A block without records; False, and no harm done, when it does not fit the disk."""
        block, crc = self._encode(flags, b"", 0)
        done = self._put(block)
        if done:
            self._advance(len(block), crc)
        return done

    def _put(self, block: bytes) -> bool:
        """One write at the end of the log; what of it came through counts only if all did."""
        active = self._active
        try:
            return self._files.pwrite(active.fd, block, active.offset) == len(block)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                return False
            self._failure = LogFailed(f"{active.name} cannot be written: {error}")
            raise self._failure from error

    def _advance(self, size: int, crc: int) -> None:
        self._active.offset += size
        self._active.crc = self._crc = crc
        self.bytes_appended += size
        self.blocks += 1

    # --- segments ---

    def _begin(self, segment: Segment) -> None:
        segment.first_seq = self._seq + 1
        segment.last_seq = self._seq
        segment.crc = self._crc

    def _switch(self) -> bool:
        """Closes the active segment and goes on in the next, if that is ready."""
        if self._next is None:
            return False
        if not self._active.closed:
            record = self._closing_record()
            limit = self._closing_bytes - _MARKERS_MAX * BLOCK_HEADER.size
            if len(record) > limit:
                raise ValueError(f"the closing record has {len(record)} bytes, at most {limit}")
            self._active.closed = True
            self._append(record, 1)
            if self.stalled:
                return False
        closed, self._active, self._next = self._active, self._next, None
        self._begin(self._active)
        self._segments = (*(one for one in self._segments if not one.sealed), self._active)
        self._syncer.post(lambda: self._directory.seal(closed))
        self._syncer.post(self._prepare)
        return True

    def _finish(self, now_ms: int) -> bool:
        """What `close` does once it is alone."""
        if not self.retry():
            return False
        self._sync()
        self.poll()
        while self._syncer.busy:
            if not self._syncer.run_job():
                return False
        self._now_ms = max(self._now_ms, now_ms)
        self._boot_ms = self._files.boot_ms()  # the time of both clocks at the end
        if not self._mark(CLEAN):
            return False
        self._directory.seal(self._active, clean=True)
        if self._next is not None:
            self._directory.remove(self._next.name)
        return True

    # --- in the sync thread ---

    def _is_dirty(self) -> bool:
        return self._synced_seq != self._written_seq

    def _sync(self) -> None:
        target = self._written_seq  # before the segments: all up to here is in one of them
        for segment in self._segments:
            if not segment.sealed:
                self._files.fdatasync(segment.fd)
        self._synced_seq = target

    def _prepare(self) -> None:
        self._next = self._directory.create_segment(self._config.segment_bytes)

    def _register(self, entry: SnapshotEntry, damaged: list[str], since_ms: int | None) -> None:
        config = self._config
        self._directory.register_snapshot(entry, damaged)
        self._directory.prune_archive(config.archive_bytes, config.archive_days, since_ms)

    def _clear_era(self) -> None:
        manifest = self._directory.manifest
        self._directory.save(replace(manifest, era_pending=False))
