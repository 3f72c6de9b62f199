"""The sync thread as a thread: who waits is served, failures end it, jobs keep their order."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgpack
import pytest

from rtserver.config import LogConfig
from rtserver.persist import syncer as syncer_module
from rtserver.persist.errors import LogFailed
from rtserver.persist.files import Files
from rtserver.persist.log import Log
from rtserver.persist.syncer import Syncer
from tests.persist.states import Recorder, read

PATIENCE_S = 20.0
NEVER_MS = 60_000


class Work:
    """Something to sync: a number written and a number synced."""

    def __init__(self) -> None:
        self.written = 0
        self.synced = 0
        self.news = threading.Condition()
        self.error: OSError | None = None

    def sync(self) -> None:
        target = self.written
        if self.error is not None:
            raise self.error
        self.synced = target

    def dirty(self) -> bool:
        return self.written != self.synced

    def notify(self) -> None:
        with self.news:
            self.news.notify_all()

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.news:
            assert self.news.wait_for(condition, PATIENCE_S)


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def syncer(work: Work) -> Iterator[Syncer]:
    made = Syncer(work.sync, work.dirty, work.notify, NEVER_MS)
    made.start()
    yield made
    made.stop()


def test_who_asks_is_served_at_once(work: Work, syncer: Syncer) -> None:
    for number in range(1, 200):
        work.written = number
        syncer.request()
        work.wait(lambda: work.synced == work.written)


def test_without_a_request_the_interval_serves(work: Work) -> None:
    made = Syncer(work.sync, work.dirty, work.notify, 1)
    made.start()
    work.written = 1
    made.wake()
    work.wait(lambda: work.synced == 1)
    work.written = 2
    made.wake()
    work.wait(lambda: work.synced == 2)
    made.stop()
    assert made.sync_count == 2


def test_when_all_is_done_the_thread_sleeps(work: Work) -> None:
    made = Syncer(work.sync, work.dirty, work.notify, NEVER_MS)
    assert made._wait_us() is None
    work.written = 1
    made.request()
    made.post(work.notify)
    assert made._wait_us() == 0
    made.work()
    assert made._wait_us() is None


def test_jobs_run_in_order(work: Work, syncer: Syncer) -> None:
    done: list[int] = []
    for number in range(50):
        syncer.post(partial(done.append, number))
    work.wait(lambda: not syncer.busy)
    assert done == list(range(50))


def test_a_job_waits_for_space(work: Work, syncer: Syncer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncer_module, "_RETRY_US", 1_000)
    attempts: list[int] = []

    def job() -> None:
        attempts.append(len(attempts))
        if len(attempts) < 4:
            raise OSError(errno.ENOSPC, "full")

    syncer.post(job)
    syncer.post(lambda: attempts.append(99))
    work.wait(lambda: not syncer.busy)
    assert attempts == [0, 1, 2, 3, 99]
    assert not syncer.full
    assert syncer.failure is None


def test_while_a_job_waits_for_space_syncs_go_on(work: Work, syncer: Syncer) -> None:
    def job() -> None:
        raise OSError(errno.ENOSPC, "full")

    syncer.post(job)
    work.wait(lambda: syncer.full)
    work.written = 1
    syncer.request()
    work.wait(lambda: work.synced == 1)


@pytest.mark.parametrize("kind", ["sync", "job"])
def test_a_failure_ends_the_thread(work: Work, syncer: Syncer, kind: str) -> None:
    def job() -> None:
        raise OSError(errno.EIO, "broken")

    if kind == "job":
        syncer.post(job)
    else:
        work.error = OSError(errno.ENOSPC, "a sync has no such excuse")
        work.written = 1
        syncer.request()
    work.wait(lambda: syncer.failure is not None)
    assert isinstance(syncer.failure, LogFailed)
    work.error = None
    syncer.request()
    syncer.stop()
    assert work.synced == 0


def test_a_defect_in_a_job_ends_the_thread_too(work: Work, syncer: Syncer) -> None:
    def job() -> None:
        raise ZeroDivisionError

    syncer.post(job)
    work.wait(lambda: isinstance(syncer.failure, ZeroDivisionError))


def test_a_log_with_its_thread_on_a_real_disk(tmp_path: Path) -> None:
    """Many small segments, so that sealing and preparing run beside the writes."""
    news = threading.Semaphore(0)
    files, directory = Files(), tmp_path / "store"
    state = Recorder()

    def closing() -> bytes:
        state.records.append("closing")
        packed: bytes = msgpack.packb("closing")
        return packed

    for _ in range(2):
        found, recovered = read(files, directory)
        assert found == state.records
        log = Log.open(
            directory,
            files,
            recovered,
            config=LogConfig(segment_bytes=64 * 1024, sync_interval_ms=1),
            closing_record=closing,
            notify=news.release,
        )
        for number in range(3_000):
            record = {"number": number, "bytes": bytes(200)}
            while not log.reserve(1_000):
                assert log.failure is None
                assert news.acquire(timeout=PATIENCE_S)
            state.records.append(record)
            log.append([msgpack.packb(record)], recovered.now_ms + number)
            if number % 7 == 0:
                log.request_sync()
            log.poll()
        while log.synced_seq < log.written_seq:
            log.request_sync()
            assert news.acquire(timeout=PATIENCE_S)
        assert log.close(recovered.now_ms + 3_000)
    found, recovered = read(files, directory)
    assert found == state.records
    assert recovered.clean
