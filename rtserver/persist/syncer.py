"""The sync thread: group commit, and the slow changes of the directory, off the event loop.

One fdatasync serves every block written before it started; it runs at once when somebody waits,
else every `interval_ms` while something is unsynced. Jobs (seal a segment, prepare the next,
list a snapshot) run one at a time, in order, between syncs; one that finds the disk full is run
again every second and holds up the others. A failed sync is never retried: `failure` is set for
good. `notify` is called from the thread after each sync and job.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from rtserver.clock import monotonic_us
from rtserver.persist.errors import DISK_FULL_ERRNOS, LogFailed

__all__ = ["Syncer"]

_RETRY_US = 1_000_000

Job = Callable[[], None]


class Syncer:
    """`sync` makes everything durable up to the sequence number it returns; `dirty` tells
    whether there is anything. Without a thread (tests) `work` is called by hand."""

    def __init__(
        self,
        sync: Callable[[], None],
        dirty: Callable[[], bool],
        notify: Callable[[], None],
        interval_ms: int,
    ) -> None:
        self.failure: Exception | None = None
        self.full = False  # a job waits for space on the disk
        self.sync_count = 0
        self.sync_last_us = 0
        self.sync_max_us = 0
        self._sync = sync
        self._dirty = dirty
        self._notify = notify
        self._interval_us = interval_ms * 1_000
        self._jobs: deque[Job] = deque()
        self._wake = threading.Condition()
        self._requested = False
        self._stopping = False
        self._synced_at_us = 0
        self._retry_at_us = 0
        self._thread: threading.Thread | None = None

    # --- for the loop's thread ---

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="rtserver-sync", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when what the thread is doing is done."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def request(self) -> None:
        """Somebody waits for a sync of what is written now."""
        if not self._requested:
            with self._wake:
                self._requested = True
                self._wake.notify()

    def wake(self) -> None:
        """There is something to sync, in its time."""
        with self._wake:
            self._wake.notify()

    def post(self, job: Job) -> None:
        with self._wake:
            self._jobs.append(job)
            self._wake.notify()

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    # --- the thread ---

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._stopping and (wait_us := self._wait_us()) != 0:
                    self._wake.wait(None if wait_us is None else wait_us / 1_000_000)
                if self._stopping or self.failure is not None:
                    return
            self.work()

    def _wait_us(self) -> int | None:
        """Until there is something to do: 0 now, None not before somebody wakes the thread."""
        now_us = monotonic_us()
        if self._requested or (self._jobs and now_us >= self._retry_at_us):
            return 0
        waits = []
        if self._jobs:
            waits.append(self._retry_at_us - now_us)
        if self._dirty():
            waits.append(max(0, self._synced_at_us + self._interval_us - now_us))
        return min(waits, default=None)

    def work(self) -> None:
        """Syncs what is written, then runs one job; after a failure nothing, ever."""
        if self.failure is not None:
            return
        try:
            self._sync_once()
            if self._jobs and monotonic_us() >= self._retry_at_us:
                self.run_job()
        except Exception as error:
            self.failure = error
        self._notify()

    def _sync_once(self) -> None:
        self._requested = False  # before looking what is written: what comes later asks again
        if not self._dirty():
            return
        started_us = monotonic_us()
        try:
            self._sync()
        except OSError as error:
            raise LogFailed(f"the log cannot be synced: {error}") from error
        self._synced_at_us = monotonic_us()
        self.sync_count += 1
        self.sync_last_us = self._synced_at_us - started_us
        self.sync_max_us = max(self.sync_max_us, self.sync_last_us)

    def run_job(self) -> bool:
        """Runs the oldest job; False when it must be tried again. Raises LogFailed."""
        try:
            self._jobs[0]()
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise LogFailed(f"the log's directory cannot be kept up: {error}") from error
            self.full = True
            self._retry_at_us = monotonic_us() + _RETRY_US
            return False
        self._jobs.popleft()
        self.full = False
        self._retry_at_us = 0
        return True
