"""Every call that changes the disk fails once, in every way: nothing acknowledged is lost.

One scripted life of a log (writes, syncs, full segments, snapshots, archive, close) is run again
and again, each time with one fault at the n-th call. Then the process is gone: by kill, or with
the machine, its unsynced sectors kept, lost or mixed. What recovery gives must be a beginning of
what was written, with all that was acknowledged, and must go on working.
"""

from __future__ import annotations

import errno
import random

import pytest

from rtserver.persist import syncer
from rtserver.persist.compaction import compact
from rtserver.persist.errors import LogFailed
from rtserver.persist.recovery import LogDamaged
from tests.persist.disk import Crash, Disk, SimulatedFiles
from tests.persist.states import STORE, Recorder, Writer, read

FAULTS: list[int | str] = [errno.ENOSPC, errno.EIO, "short", "crash", "torn"]


class Life:
    """What a process wrote and acknowledged, also when it ended in the middle."""

    def __init__(self, files: SimulatedFiles) -> None:
        self.files = files
        self.writer: Writer | None = None
        self.closed = False

    def run(self) -> None:
        try:
            self.writer = Writer(self.files)
            self._script(self.writer)
        except (Crash, LogFailed):
            pass
        except OSError:
            assert self.writer is None, "a full disk ends no process that runs"

    def _script(self, writer: Writer) -> None:
        for number in range(3):
            self._write(writer, ["first", number])
        writer.sync()
        for number in range(9):
            self._write(writer, ["fills a segment", number, bytes(9_000)])
        writer.sync()
        self._snapshot(writer)
        self._write(writer, ["between"])
        self._snapshot(writer)
        for number in range(3):
            self._write(writer, ["not synced", number])
        self._snapshot(writer)
        self._write(writer, ["era"])
        writer.log.clear_era_pending()
        writer.sync()
        writer.work_off()
        self._write(writer, ["last"])
        self.closed = writer.log.close(writer.now_ms)

    def _write(self, writer: Writer, record: object) -> None:
        """As the turn does: refused while there is no room, held while a block is stalled."""
        for _ in range(20):
            if writer.log.stalled:
                assert writer.log.written_seq < len(writer.state.records)
                if writer.log.retry():
                    break
            elif writer.write(record):
                break
            else:
                writer.log.work()
        writer.logged = writer.log.written_seq

    def _snapshot(self, writer: Writer) -> None:
        writer.log.rotate(writer.now_ms)
        writer.logged = writer.log.written_seq
        for _ in range(6):
            writer.log.work()
        try:
            made = compact(STORE, self.files, Recorder)
        except OSError:
            return  # the compactor's process failed; the server goes on
        if made.pop("created"):
            writer.log.register_snapshot(made)
        for _ in range(6):
            writer.log.work()
        writer.log.poll()

    # --- afterwards ---

    @property
    def written(self) -> list[object]:
        return self.writer.state.records if self.writer else []

    @property
    def logged(self) -> int:
        return self.writer.logged if self.writer else 0

    @property
    def synced(self) -> int:
        return self.writer.synced if self.writer else 0


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncer, "_RETRY_US", 0)


def calls_of_a_life() -> list[str]:
    life = Life(SimulatedFiles(Disk()))
    life.run()
    assert life.closed
    return life.files.calls


CALLS = calls_of_a_life()


def after(disk: Disk, life: Life, at_least: int) -> None:
    """Recovers, goes on, and recovers again."""
    found, recovered = read(SimulatedFiles(disk))
    assert found == life.written[: len(found)]
    assert len(found) >= at_least
    assert not recovered.bad_snapshots
    if len(found) < life.logged:
        assert recovered.new_epochs, "clients may know more than the server"
    writer = Writer(SimulatedFiles(disk))
    assert writer.found == found
    assert writer.write(["later"])
    writer.sync()
    assert writer.log.close(writer.now_ms)
    found, recovered = read(SimulatedFiles(disk))
    assert found == writer.state.records
    assert recovered.clean
    assert not recovered.reports


def test_the_script_does_all_that_can_fail() -> None:
    kinds = {call.split()[0] for call in CALLS}
    assert kinds >= {"create", "pwrite", "fdatasync", "fsync", "fsync_dir", "rename", "truncate"}
    assert kinds >= {"allocate", "remove"}
    assert sum(call == "rename log-00000001.seg" for call in CALLS) == 1, "archived"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: errno.errorcode.get(fault, fault))
def test_a_fault_at_every_call(fault: int | str) -> None:
    for number, call in enumerate(CALLS):
        if fault in ("short", "torn") and not call.startswith("pwrite"):
            continue
        disk = Disk()
        life = Life(SimulatedFiles(disk, {number: fault}))
        try:
            life.run()
            for seed, kept in enumerate((0.0, 0.3, 0.9, 1.0)):
                dark = disk.copy()
                dark.lose_power(random.Random(number * 10 + seed), kept)
                after(dark, life, life.synced)
            after(disk, life, life.logged)
        except (AssertionError, LogDamaged, OSError, ValueError) as error:
            error.add_note(f"{fault} at call {number}: {call}")
            raise


def test_a_full_disk_ends_by_itself() -> None:
    """Full from the n-th call on for a while: refused writes, no failure, a clean end."""
    for number in range(0, len(CALLS), 3):
        disk = Disk()
        files = SimulatedFiles(disk, dict.fromkeys(range(number, number + 5), errno.ENOSPC))
        life = Life(files)
        life.run()
        if life.writer is None:
            after(disk, life, 0)
            continue
        assert life.writer.log.failure is None or "sync" in str(life.writer.log.failure)
        after(disk, life, life.logged)


def test_a_failed_sync_is_final() -> None:
    files = SimulatedFiles(Disk())
    writer = Writer(files)
    writer.write("a")
    files.faults[len(files.calls)] = errno.EIO
    writer.sync()
    assert isinstance(writer.log.failure, LogFailed)
    assert writer.log.synced_seq == 0
    with pytest.raises(LogFailed):
        writer.log.append([b"\x01"], 9)
    with pytest.raises(LogFailed):
        writer.log.reserve(1)
    writer.sync()
    assert writer.log.synced_seq == 0, "the second sync would succeed and save nothing"
    assert not writer.log.close(9)


def test_a_full_disk_at_a_sync_is_final_too() -> None:
    files = SimulatedFiles(Disk())
    writer = Writer(files)
    writer.write("a")
    files.faults[len(files.calls)] = errno.ENOSPC
    writer.sync()
    assert isinstance(writer.log.failure, LogFailed)


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT, "short"])
def test_a_stalled_block_waits_for_its_retry(fault: int | str) -> None:
    files = SimulatedFiles(Disk())
    writer = Writer(files)
    writer.write("a")
    for ahead in range(3):
        files.faults[len(files.calls) + ahead] = fault
    assert not writer.write("b")
    assert writer.log.stalled
    assert writer.log.written_seq == 1
    assert not writer.log.reserve(1)
    with pytest.raises(ValueError, match="stalled"):
        writer.log.append([b"\x01"], 9)
    assert not writer.log.retry()
    assert not writer.log.retry()
    assert writer.log.retry()
    assert writer.log.written_seq == 2
    assert writer.write("c")
    assert read(files)[0] == ["a", "b", "c"]


def test_epochs_are_due_until_their_record_is_safe() -> None:
    disk = Disk()
    Writer(SimulatedFiles(disk)).write("a")
    disk.lose_power(random.Random(1), 1.0)
    files = SimulatedFiles(disk)
    writer = Writer(files)
    assert writer.recovered.new_epochs
    files.faults[len(files.calls)] = errno.ENOSPC
    assert not writer.write("new epochs")
    writer.log.clear_era_pending()
    writer.sync()
    writer.work_off()
    assert read(SimulatedFiles(disk))[1].new_epochs, "the record is not even written"
    assert writer.log.retry()
    assert read(SimulatedFiles(disk))[1].new_epochs, "not yet synced"
    writer.sync()
    writer.work_off()
    assert not read(SimulatedFiles(disk))[1].new_epochs


def test_an_error_of_a_write_is_final() -> None:
    files = SimulatedFiles(Disk())
    writer = Writer(files)
    writer.write("a")
    files.faults[len(files.calls)] = errno.EIO
    with pytest.raises(LogFailed):
        writer.write("b")
    with pytest.raises(LogFailed):
        writer.write("c")
    assert read(files)[0] == ["a"]


def test_a_full_disk_shows_and_passes() -> None:
    files = SimulatedFiles(Disk())
    writer = Writer(files)
    files.full = True
    while writer.write(bytes(9_000)):
        if writer.log.stalled:
            break
    files.full = False
    assert writer.log.retry()
    while writer.write(bytes(9_000)):
        pass
    files.full = True
    writer.log.work()
    writer.log.work()
    assert writer.log.full
    assert not writer.log.reserve(9_000)
    files.full = False
    writer.work_off()
    writer.log.work()
    writer.log.work()
    assert not writer.log.full
    assert writer.write(bytes(9_000))


@pytest.mark.parametrize("kept", [None, 0.0, 0.5, 1.0])
def test_a_crash_at_every_step_of_a_start(kept: float | None) -> None:
    """The second recovery finds what the first one found, also when the power goes again."""
    for number in range(20, len(CALLS), 7):
        disk = Disk()
        fault = "torn" if CALLS[number].startswith("pwrite") else "crash"
        life = Life(SimulatedFiles(disk, {number: fault}))
        life.run()
        if kept is not None:
            disk.lose_power(random.Random(number), kept)
        expected, recovered = read(SimulatedFiles(disk))
        calm = SimulatedFiles(disk.copy())
        Writer(calm)
        for step in range(len(calm.calls)):
            again = disk.copy()
            with pytest.raises(Crash):
                Writer(SimulatedFiles(again, {step: "crash"}))
            found, second = read(SimulatedFiles(again))
            assert found == expected
            assert second.new_epochs == recovered.new_epochs
            dark = again.copy()
            dark.lose_power(random.Random(step), 0.5)
            found, _ = read(SimulatedFiles(dark))
            assert found == expected[: len(found)]
            assert len(found) >= life.synced if kept is None else found == expected
            after(again, life, len(expected))
