"""Reading all that is left of a log: from its first record or a snapshot on, and damage to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from rtserver.persist.archive import ARCHIVE, all_segments
from rtserver.persist.blocks import segment_index
from rtserver.persist.compaction import compact
from rtserver.persist.directory import QUARANTINE
from rtserver.persist.errors import LogDamaged
from rtserver.persist.history import History, SnapshotFile, read_history
from rtserver.persist.repair import repair
from rtserver.persist.snapshot import is_snapshot_name
from tests.persist.disk import Disk, SimulatedFiles
from tests.persist.states import SMALL, STORE, Recorder, Writer


class Reader:
    """The records of a history, and the snapshots met on the way."""

    def __init__(self, files: SimulatedFiles) -> None:
        self.state = Recorder()
        self.met: list[int] = []
        self.files = files
        self.history: History = read_history(
            STORE,
            files,
            load_chunk=self.state.load_chunk,
            apply_block=self.state.apply_block,
            at_snapshot=self.meet,
        )

    def meet(self, snapshot: SnapshotFile, store_id: bytes) -> None:
        """A snapshot holds exactly what was read so far."""
        found: list[Any] = []
        snapshot.load(self.files, store_id, found.extend)
        assert found == self.state.records
        assert snapshot.meta.seq == len(found)
        self.met.append(snapshot.meta.segment)


def rounds(writer: Writer, number: int) -> None:
    """So many segments, each with a snapshot."""
    for at in range(number):
        writer.write("record", at)
        writer.log.rotate(writer.now_ms)
        writer.work_off()
        writer.log.register_snapshot(compact(STORE, writer.files, Recorder))
        writer.work_off()


def store(number: int = 5, *, archive_bytes: int = SMALL.archive_bytes) -> tuple[Disk, Writer]:
    """A log that ends in the middle of a segment."""

    disk = Disk()
    writer = Writer(SimulatedFiles(disk), replace(SMALL, archive_bytes=archive_bytes))
    rounds(writer, number)
    writer.write("the", "last")
    writer.sync()
    return disk, writer


def test_all_records_from_the_first_on() -> None:
    disk, writer = store()
    reader = Reader(SimulatedFiles(disk))
    assert reader.state.records == writer.state.records
    history = reader.history
    assert (history.basis, history.seq) == (None, len(writer.state.records))
    assert reader.met == [5, 6]


def test_an_empty_store() -> None:
    reader = Reader(SimulatedFiles(Disk()))
    assert (reader.state.records, reader.history.seq) == ([], 0)


def test_without_the_archive_it_begins_with_the_older_snapshot() -> None:
    disk, writer = store(archive_bytes=0)
    reader = Reader(SimulatedFiles(disk))
    assert reader.state.records == writer.state.records
    assert reader.history.basis_seq == 12
    assert reader.met == [6]


def test_it_begins_with_an_archived_snapshot() -> None:
    disk = Disk()

    writer = Writer(SimulatedFiles(disk), replace(SMALL, archive_bytes=0))
    rounds(writer, 4)
    writer.keep_since = writer.now_ms + 1
    rounds(writer, 6)
    names = writer.files.list_dir(STORE / ARCHIVE)
    (base,) = [name for name in names if is_snapshot_name(name)]
    reader = Reader(SimulatedFiles(disk))
    assert reader.state.records == writer.state.records
    assert reader.history.basis == base


def test_a_segment_that_is_archived_between_two_looks_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever of the two directories is listed first."""
    disk, _ = store()
    files = SimulatedFiles(disk)
    monkeypatch.setattr(files, "is_locked", lambda _: True)
    (first, *_) = [name for name in files.list_dir(STORE) if segment_index(name) is not None]
    listed: list[Path] = []

    def list_dir(path: Path) -> list[str]:
        names = SimulatedFiles.list_dir(files, path)
        listed.append(path)
        if len(listed) == 1:
            files.rename(STORE / first, STORE / ARCHIVE / first)
        return names

    monkeypatch.setattr(files, "list_dir", list_dir)
    found = all_segments(STORE, files)
    assert found[segment_index(first) or 0] == STORE / ARCHIVE / first
    assert list(found) == list(range(1, len(found) + 1))


def test_beside_a_server_all_that_is_complete_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, writer = store()
    files = SimulatedFiles(disk)
    monkeypatch.setattr(files, "is_locked", lambda _: True)
    reader = Reader(files)
    assert reader.state.records == writer.state.records
    writer.write("more")
    assert Reader(files).state.records == writer.state.records
    path = STORE / f"log-{writer.log.stats()['segment']:08d}.seg"
    end = writer.log._active.offset
    disk.names[path].data[end : end + 4] = b"RTBK"  # a block that is being written
    assert Reader(files).state.records == writer.state.records


def test_beside_a_server_files_move_to_the_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, writer = store()
    files = SimulatedFiles(disk)
    monkeypatch.setattr(files, "is_locked", lambda _: True)
    reader = Recorder()

    def apply_block(*block: Any) -> int:
        if not reader.records:
            rounds(writer, 2)
        return reader.apply_block(*block)

    read_history(
        STORE,
        files,
        load_chunk=reader.load_chunk,
        apply_block=apply_block,
        at_snapshot=lambda *_: None,
    )
    assert reader.records == writer.state.records[: len(reader.records)]
    assert len(reader.records) >= 17


def segment(index: int) -> str:
    return f"log-{index:08d}.seg"


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (2, "log-00000002.seg"),  # one in the middle of the archive
        (3, "log-00000003.seg"),  # its last one
    ],
)
def test_a_segment_that_is_missing(index: int, name: str) -> None:
    disk, _ = store()
    SimulatedFiles(disk).remove(STORE / ARCHIVE / segment(index))
    with pytest.raises(LogDamaged, match=f"{name}.*missing"):
        Reader(SimulatedFiles(disk))


def test_a_segment_that_an_archived_snapshot_needs() -> None:
    disk = Disk()
    writer = Writer(SimulatedFiles(disk))
    rounds(writer, 4)
    writer.keep_since = writer.now_ms + 1
    rounds(writer, 4)
    files = SimulatedFiles(disk)
    for name in files.list_dir(STORE / ARCHIVE)[:5]:
        files.remove(STORE / ARCHIVE / name)
    with pytest.raises(LogDamaged, match=r"missing, and snapshot-.* needs it"):
        Reader(SimulatedFiles(disk))


def test_every_damaged_byte_of_the_archive_is_seen() -> None:
    disk, writer = store(4)
    writer.keep_since = 1
    rounds(writer, 2)
    files = SimulatedFiles(disk)
    for name in files.list_dir(STORE / ARCHIVE):
        data = disk.names[STORE / ARCHIVE / name].data
        for offset in range(0, len(data), 7):
            data[offset] ^= 0x20
            with pytest.raises(LogDamaged):
                Reader(SimulatedFiles(disk))
            data[offset] ^= 0x20
    assert Reader(SimulatedFiles(disk)).state.records == writer.state.records


def test_a_segment_that_is_cut_off_between_two_blocks() -> None:
    disk, _ = store()
    data = disk.names[STORE / ARCHIVE / segment(2)].data
    del data[data.rfind(b"RTBK") :]
    with pytest.raises(LogDamaged, match="continues another block"):
        Reader(SimulatedFiles(disk))


def test_a_snapshot_of_another_record() -> None:
    disk, _ = store()
    files = SimulatedFiles(disk)
    old, new = [name for name in files.list_dir(STORE) if is_snapshot_name(name)]
    disk.names[STORE / old].data[:] = disk.names[STORE / new].data
    with pytest.raises(LogDamaged):
        Reader(SimulatedFiles(disk))


def test_a_snapshot_of_other_records_is_damage() -> None:
    """One that a repair has cut off comes back."""
    files = SimulatedFiles(Disk())
    writer = Writer(files, replace(SMALL, archive_bytes=0))
    writer.keep_since = 1
    rounds(writer, 8)
    writer.log.close(writer.now_ms)
    (name,) = [one for one in files.list_dir(STORE / ARCHIVE) if is_snapshot_name(one)]
    loss = repair(STORE, files, truncate_at_seq=12)["loss"]
    assert repair(STORE, files, truncate_at_seq=12, accept_loss=loss)["repaired"]
    assert Reader(files).state.records
    files.rename(STORE / QUARANTINE / name, STORE / ARCHIVE / name)
    with pytest.raises(LogDamaged, match="it is of record 12, before"):
        Reader(files)


@pytest.mark.parametrize("cut", range(3, 27, 3))
def test_after_a_repair_the_archive_holds_nothing_of_what_was_cut(cut: int) -> None:
    disk, config = Disk(), replace(SMALL, archive_bytes=0)
    files = SimulatedFiles(disk)
    writer = Writer(files, config)
    writer.keep_since = 1
    rounds(writer, 8)
    writer.write("the", "last")
    writer.sync()
    writer.log.close(writer.now_ms)
    plan = repair(STORE, files, truncate_at_seq=cut)
    assert repair(STORE, files, truncate_at_seq=cut, accept_loss=plan["loss"])["repaired"]
    assert len(Reader(files).state.records) == plan["kept_seq"] < cut
    writer = Writer(files, config)
    writer.keep_since = 1
    for number in (1, 5):
        rounds(writer, number)
        writer.sync()
        assert Reader(files).state.records == writer.state.records
