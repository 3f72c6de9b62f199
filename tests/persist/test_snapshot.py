"""Snapshot files, and compaction: every damaged byte, every failure, what is kept and archived."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.persist.blocks import BadBlock
from rtserver.persist.compaction import compact
from rtserver.persist.manifest import read_manifest
from rtserver.persist.recovery import LogDamaged
from rtserver.persist.snapshot import (
    SnapshotMeta,
    read_snapshot,
    verify_file,
    write_snapshot,
)
from tests.persist.disk import Crash, Disk, SimulatedFiles
from tests.persist.states import SMALL, STORE, Recorder, Writer, read

ID = b"i" * 16
META = SnapshotMeta(5, 3, 77, 1_000, 2_000, 3_000, {"total": [1, "x"]})

values = st.recursive(
    st.one_of(st.none(), st.integers(-(2**63), 2**64 - 1), st.text(), st.binary(), st.floats()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.integers(0, 9), inner)),
    max_leaves=5,
)


@pytest.fixture
def files() -> SimulatedFiles:
    return SimulatedFiles(Disk())


@given(st.lists(values, max_size=5))
def test_chunks_come_back(chunks: list[Any]) -> None:
    files = SimulatedFiles(Disk())
    path, entry = write_snapshot(STORE, files, ID, META, chunks)
    files.rename(path, STORE / entry.name)
    assert verify_file(STORE, files, entry) is None
    (meta, *found) = [chunk for chunk, _ in read_snapshot(STORE / entry.name, files, ID)]
    assert meta == META
    assert repr(found) == repr(chunks), "also not-a-number"
    assert (entry.seq, entry.segment, entry.last_crc) == (5, 3, 77)
    assert files.open_count == 0


def test_no_byte_can_change_unseen(files: SimulatedFiles) -> None:
    path, entry = write_snapshot(STORE, files, ID, META, [["some"], {"state": b"\x00"}])
    whole = files.disk.bytes_of(path)
    entry = replace(entry, name=path.name)
    assert verify_file(STORE, files, entry) is None
    variants = [
        whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
        for place in range(len(whole))
        for bit in range(8)
    ]
    variants += [whole[:length] for length in range(len(whole))]
    variants += [whole + b"\x00", whole + whole]
    for damaged in variants:
        files.disk.put(path, damaged)
        assert verify_file(STORE, files, entry) is not None
        with pytest.raises(BadBlock):
            list(read_snapshot(path, files, ID))
    assert files.open_count == 0


def test_chunks_that_are_missing_or_moved(files: SimulatedFiles) -> None:
    path, _ = write_snapshot(STORE, files, ID, META, ["one", "two"])
    whole = files.disk.bytes_of(path)
    one, two = (whole.index(word) - 9 for word in (b"one", b"two"))
    end = two + (two - one)
    first, second = whole[one:two], whole[two:end]
    for body in (first, second, second + first, first * 2, b""):
        files.disk.put(path, whole[:one] + body + whole[end:])
        with pytest.raises(BadBlock, match="checksum of a chunk"):
            list(read_snapshot(path, files, ID))


def test_a_snapshot_of_another_store(files: SimulatedFiles) -> None:
    path, _ = write_snapshot(STORE, files, ID, META, [])
    with pytest.raises(BadBlock, match="belongs to the store"):
        list(read_snapshot(path, files, b"j" * 16))


def test_a_chunk_that_claims_more_than_there_is_allocates_nothing(files: SimulatedFiles) -> None:
    path, _ = write_snapshot(STORE, files, ID, META, [])
    whole = bytearray(files.disk.bytes_of(path))
    whole[28:32] = b"\xff\xff\xff\xff"
    files.disk.put(path, bytes(whole))
    with pytest.raises(BadBlock, match="the file ends"):
        list(read_snapshot(path, files, ID))


# --- compaction ---


@pytest.fixture
def writer(files: SimulatedFiles) -> Writer:
    return Writer(files)


def grow(writer: Writer, *records: object) -> None:
    """Something new in a closed and sealed segment."""
    writer.write(*records)
    writer.log.rotate(writer.now_ms)
    writer.work_off()


def make(writer: Writer) -> dict[str, Any]:
    made = compact(STORE, writer.files, Recorder)
    if made["created"]:
        writer.log.register_snapshot(made)
        writer.work_off()
    return made


def snapshots(files: SimulatedFiles) -> list[str]:
    return [name for name in files.list_dir(STORE) if name.startswith("snapshot")]


def test_an_empty_store_gives_none(writer: Writer) -> None:
    assert make(writer) == {"created": False, "name": None, "seq": 0, "size": 0}
    writer.write("in the open segment")
    assert not make(writer)["created"]


def test_nothing_new_gives_the_last_one(writer: Writer) -> None:
    grow(writer, "a")
    first = make(writer)
    assert first["created"]
    again = make(writer)
    assert not again["created"]
    assert (again["name"], again["seq"]) == (first["name"], 2)


def test_two_are_kept_and_older_segments_archived(files: SimulatedFiles, writer: Writer) -> None:
    for number in range(4):
        grow(writer, "record", number)
        make(writer)
    assert snapshots(files) == [f"snapshot-{seq:016d}.snap" for seq in (9, 12)]
    manifest = read_manifest(STORE, files)
    assert manifest is not None
    assert [one.index for one in manifest.segments] == [4, 5, 6]
    assert files.list_dir(STORE / "archive") == [f"log-{at:08d}.seg" for at in (1, 2, 3)]
    assert read(files)[0] == writer.state.records


def test_the_archive_is_pruned_by_size_and_age() -> None:
    for config, kept in (
        (replace_config(archive_bytes=300), 1),
        (replace_config(archive_bytes=0), 0),
        (replace_config(archive_days=0), 0),
        (SMALL, 3),
    ):
        files = SimulatedFiles(Disk())
        writer = Writer(files, config)
        for number in range(4):
            grow(writer, "record", number)
            make(writer)
        assert len(files.list_dir(STORE / "archive")) == kept


def replace_config(**changes: int) -> Any:
    from msgspec.structs import replace

    return replace(SMALL, **changes)


def test_a_state_that_does_not_load_back_is_no_snapshot(writer: Writer) -> None:
    class Forgetful(Recorder):
        def dump(self) -> Any:
            yield self.records[:-1]

    grow(writer, "a")
    with pytest.raises(LogDamaged, match="loaded back"):
        compact(STORE, writer.files, Forgetful)
    assert not [name for name in writer.files.list_dir(STORE) if "snap" in name]


def test_every_failure_leaves_no_file_and_the_log_as_it_was(writer: Writer) -> None:
    grow(writer, "a" * 500, "b" * 500)
    disk = writer.files.disk if isinstance(writer.files, SimulatedFiles) else Disk()
    calm = SimulatedFiles(disk.copy())
    compact(STORE, calm, Recorder)
    for step in range(len(calm.calls) - 1):
        files = SimulatedFiles(disk.copy(), {step: errno.ENOSPC})
        with pytest.raises(OSError, match="No space"):
            compact(STORE, files, Recorder)
        assert not [name for name in files.list_dir(STORE) if "snap" in name]
        files = SimulatedFiles(disk.copy(), {step: "crash"})
        with pytest.raises(Crash):
            compact(STORE, files, Recorder)
        found, _ = read(SimulatedFiles(files.disk))
        assert found == writer.state.records
        after = SimulatedFiles(files.disk)
        Writer(after)
        assert not [name for name in after.list_dir(STORE) if "snap" in name], "tidied"


def test_a_snapshot_that_was_damaged_meanwhile_is_replaced(writer: Writer) -> None:
    assert isinstance(writer.files, SimulatedFiles)
    disk = writer.files.disk
    grow(writer, "a")
    make(writer)
    grow(writer, "b")
    bad = make(writer)
    disk.put(STORE / bad["name"], b"x" * bad["size"])
    again = make(writer)
    assert (again["created"], again["name"]) == (True, bad["name"])
    grow(writer, "c")
    disk.put(STORE / bad["name"], b"x" * bad["size"])
    made = make(writer)
    assert made["damaged"] == [bad["name"]]
    assert snapshots(writer.files) == ["snapshot-0000000000000002.snap", made["name"]]
    found, recovered = read(writer.files)
    assert found == writer.state.records
    assert not recovered.reports


@pytest.mark.parametrize("change", [{"size": 1}, {"seq": 99}, {"name": "snapshot-x.snap"}])
def test_only_a_snapshot_of_this_log_is_listed(writer: Writer, change: dict[str, Any]) -> None:
    grow(writer, "a")
    made = compact(STORE, writer.files, Recorder)
    with pytest.raises(ValueError, match="no newer snapshot"):
        writer.log.register_snapshot(made | change)
    writer.log.register_snapshot(made)
    writer.work_off()
    with pytest.raises(ValueError, match="no newer snapshot"):
        writer.log.register_snapshot(made)
