"""check, dump and repair: what they say about damage, and that a repair costs what it said."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rtserver.persist.errors import StoreTooNew
from rtserver.persist.inspect import check, dump, list_snapshots, verify_snapshots
from rtserver.persist.manifest import MANIFEST_NAME
from rtserver.persist.recovery import LogDamaged
from rtserver.persist.repair import repair
from tests.persist.disk import Crash, SimulatedFiles
from tests.persist.states import STORE, Recorder, Writer, read
from tests.recovery.stores import Made
from tests.recovery.test_damage import last_segment


def flip(made: Made, name: str, place: int) -> None:
    data = bytearray(made.disk.bytes_of(STORE / name))
    data[place] ^= 0x10
    made.disk.put(STORE / name, bytes(data))


def flip_record(made: Made, name: str, text: bytes) -> None:
    flip(made, name, made.disk.bytes_of(STORE / name).index(text))


def records_of(rows: list[dict[str, Any]]) -> list[Any]:
    return [row["record"] for row in rows if "record" in row]


def goes_on(made: Made, expected: list[Any]) -> None:
    """The repaired store recovers, asks for new epochs, and can be written to."""
    found, recovered = read(made.files())
    assert found == expected
    assert recovered.new_epochs
    assert check(STORE, made.files())["ok"]
    writer = Writer(made.files())
    writer.write("after the repair")
    assert writer.log.close(writer.now_ms)
    assert read(made.files())[0] == [*expected, "after the repair"]


# --- check ---


@pytest.mark.parametrize("stopped", [True, False])
def test_check_of_a_sound_store(stopped: bool) -> None:
    made = Made(stopped=stopped)
    before = {name: made.disk.bytes_of(STORE / name) for name in made.names()}
    report = check(STORE, made.files())
    assert report["ok"]
    assert report["problems"] == []
    assert report["seq"] == len(made.records)
    assert report["clean"] == stopped
    assert before == {name: made.disk.bytes_of(STORE / name) for name in made.names()}


def test_check_of_nothing() -> None:
    made = Made(stopped=True)
    for name in made.names():
        made.disk.put(STORE / name, None)
    made.disk.put(STORE / "archive" / "log-00000001.seg", None)
    assert check(STORE, made.files())["ok"]


def test_check_names_every_damaged_file() -> None:
    made = Made(stopped=True)
    damaged = [name for name in made.names() if name != MANIFEST_NAME]
    for name in damaged:
        flip(made, name, 100)
    report = check(STORE, made.files())
    assert not report["ok"]
    assert [problem["file"] for problem in report["problems"]] == damaged
    assert all(problem["advice"] for problem in report["problems"])


def test_check_tells_of_a_torn_tail() -> None:
    made = Made(stopped=False)
    name = last_segment(made)
    data = made.disk.bytes_of(STORE / name)
    made.disk.put(STORE / name, data[:-1] + b"\x01")
    report = check(STORE, made.files())
    assert report["ok"]
    assert report["torn"][0]["file"] == name


# --- dump ---


def test_dump_gives_every_record_from_the_archive_on() -> None:
    made = Made(stopped=False, snapshots=3)
    rows = list(dump(STORE, made.files()))
    assert [row["seq"] for row in rows] == list(range(1, len(made.records) + 1))
    assert records_of(rows) == made.records
    assert records_of(list(dump(STORE, made.files(), from_seq=6))) == made.records[5:]


def test_dump_says_where_something_is_missing() -> None:
    made = Made(stopped=False)
    flip_record(made, last_segment(made), b"another")
    rows = list(dump(STORE, made.files()))
    problems = [row["problem"] for row in rows if "problem" in row]
    assert len(problems) == 2
    assert len(records_of(rows)) == len(made.records) - 2, "the block of a turn"


# --- repair ---


def test_a_sound_store_needs_no_repair() -> None:
    made = Made(stopped=True)
    manifest = made.disk.bytes_of(STORE / MANIFEST_NAME)
    report = repair(STORE, made.files())
    assert report["repaired"]
    assert report["actions"] == []
    assert made.disk.bytes_of(STORE / MANIFEST_NAME) == manifest


def test_a_restored_backup_gets_new_epochs() -> None:
    made = Made(stopped=True)
    assert repair(STORE, made.files(), restored=True)["repaired"]
    found, recovered = read(made.files())
    assert found == made.records
    assert recovered.new_epochs
    Writer(made.files())
    assert read(made.files())[1].new_epochs, "until the server has logged them"


def test_a_repair_only_reports_unless_told_the_loss() -> None:
    made = Made(stopped=False)
    flip_record(made, last_segment(made), b"another")
    before = {name: made.disk.bytes_of(STORE / name) for name in made.names()}
    for accepted in (None, 0, 5, 7):
        report = repair(STORE, made.files(), accept_loss=accepted)
        assert not report["repaired"]
        assert report["loss"] == 6
        assert report["kept_seq"] == len(made.records) - 6
        assert records_of(report["dropped"]) == made.records[-4:]
        assert before == {name: made.disk.bytes_of(STORE / name) for name in made.names()}
    name = last_segment(made)
    report = repair(STORE, made.files(), accept_loss=6)
    assert report["repaired"]
    (copy,) = [
        one
        for one in made.files().list_dir(STORE / "quarantine")
        if one.startswith(f"{name}.before-repair")
    ]
    assert made.disk.bytes_of(STORE / "quarantine" / copy) == before[name]
    goes_on(made, made.records[:-6])


def test_a_truncation_keeps_whole_turns() -> None:
    made = Made(stopped=True)
    last = len(made.records)
    report = repair(STORE, made.files(), truncate_at_seq=last)
    assert (report["loss"], report["kept_seq"]) == (2, last - 2)
    assert repair(STORE, made.files(), truncate_at_seq=last, accept_loss=2)["repaired"]
    goes_on(made, made.records[:-2])


@pytest.mark.parametrize("seq", range(1, 19))
def test_a_truncation_anywhere(seq: int) -> None:
    made = Made(stopped=False)
    report = repair(STORE, made.files(), truncate_at_seq=seq)
    kept = report["kept_seq"]
    assert kept < seq
    assert report["loss"] == max(0, len(made.records) - kept)
    repair(STORE, made.files(), truncate_at_seq=seq, accept_loss=report["loss"])
    goes_on(made, made.records[:kept])


@pytest.mark.parametrize("damage", ["missing", "damaged"])
@pytest.mark.parametrize("stopped", [True, False])
def test_a_manifest_is_rebuilt_from_the_files(damage: str, stopped: bool) -> None:
    made = Made(stopped=stopped)
    if damage == "missing":
        made.disk.put(STORE / MANIFEST_NAME, None)
    else:
        flip(made, MANIFEST_NAME, 100)
    report = repair(STORE, made.files())
    assert report["loss"] == 0
    assert not report["repaired"]
    assert repair(STORE, made.files(), accept_loss=0)["repaired"]
    goes_on(made, made.records)


def test_a_missing_segment_in_the_middle() -> None:
    made = Made(stopped=True, snapshots=0)
    for number in range(20):
        made.writer = Writer(made.files()) if number == 0 else made.writer
        made.writer.write([number, bytes(9_000)])
        made.writer.work_off()
    records = made.writer.state.records
    assert made.writer.log.close(made.writer.now_ms)
    made.disk.put(STORE / "log-00000003.seg", None)
    report = repair(STORE, made.files())
    kept = report["kept_seq"]
    assert 0 < kept < len(records)
    assert report["loss"] == len(records) - kept
    assert records_of(report["dropped"]) == records[-len(records_of(report["dropped"])) :]
    repair(STORE, made.files(), accept_loss=report["loss"])
    goes_on(made, records[:kept])


def test_a_damaged_snapshot_costs_nothing() -> None:
    made = Made(stopped=True)
    newest = max(name for name in made.names() if name.startswith("snapshot"))
    flip(made, newest, 50)
    assert repair(STORE, made.files(), accept_loss=0)["repaired"]
    assert newest not in made.names()
    goes_on(made, made.records)


def without_a_snapshot() -> Made:
    made = Made(stopped=True, snapshots=3)
    for name in made.names():
        if name.startswith("snapshot"):
            flip(made, name, 50)
    return made


def test_archived_segments_replace_lost_snapshots() -> None:
    made = without_a_snapshot()
    assert repair(STORE, made.files())["loss"] == 0
    assert repair(STORE, made.files(), accept_loss=0)["repaired"]
    assert made.files().list_dir(STORE / "archive") == []
    goes_on(made, made.records)


def test_nothing_can_be_kept() -> None:
    made = without_a_snapshot()
    made.disk.put(STORE / "archive" / "log-00000001.seg", None)
    with pytest.raises(LogDamaged, match="restore a backup"):
        repair(STORE, made.files(), accept_loss=0)


def test_a_newer_format_is_left_alone() -> None:
    made = Made(stopped=True)
    text, _, _ = made.disk.bytes_of(STORE / MANIFEST_NAME).decode().rpartition("blake2b ")
    made.disk.put(STORE / MANIFEST_NAME, newer(text))
    for attempt in (lambda: read(made.files()), lambda: repair(STORE, made.files())):
        with pytest.raises(StoreTooNew, match="start the newer version"):
            attempt()


def newer(text: str) -> bytes:
    from hashlib import blake2b

    text = text.replace('"format": 1', '"format": 2')
    digest = blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{text}blake2b {digest}\n".encode()


def test_a_repair_that_crashes_can_be_run_again() -> None:
    first = Made(stopped=False)
    flip_record(first, last_segment(first), b"another")
    calm = SimulatedFiles(first.disk.copy())
    assert repair(STORE, calm, accept_loss=6)["repaired"]
    for step in range(len(calm.calls)):
        disk = first.disk.copy()
        with pytest.raises(Crash):
            repair(STORE, SimulatedFiles(disk, {step: "crash"}), accept_loss=6)
        report = repair(STORE, SimulatedFiles(disk))
        if not report["repaired"]:
            report = repair(STORE, SimulatedFiles(disk), accept_loss=report["loss"])
        assert report["repaired"]
        found, recovered = read(SimulatedFiles(disk))
        assert found == first.records[:-6]
        assert recovered.new_epochs


def test_what_a_repair_keeps_survives_a_power_failure() -> None:
    made = Made(stopped=False, marked=False)
    made.writer.write("to be dropped")
    seq = len(made.records)
    assert repair(STORE, made.files(), truncate_at_seq=seq, accept_loss=1)["repaired"]
    made.disk.lose_power(random.Random(1), 0.0)
    goes_on(made, made.records[:-1])


# --- snapshots ---


def test_snapshots_are_listed_and_verified() -> None:
    made = Made(stopped=False)
    rows = list(list_snapshots(STORE, made.files()))
    assert [row["seq"] for row in rows] == [5, 10]
    report = verify_snapshots(STORE, made.files(), Recorder)
    assert report["ok"]
    flip(made, rows[0]["name"], 60)
    report = verify_snapshots(STORE, made.files(), Recorder)
    assert not report["ok"]
    assert [row["problem"] is None for row in report["snapshots"]] == [False, True]


def test_a_snapshot_that_loads_into_something_else_is_reported() -> None:
    class Forgetful(Recorder):
        def load_chunk(self, chunk: Any) -> None:
            self.records += chunk[:-1]

    made = Made(stopped=False)
    assert not verify_snapshots(STORE, made.files(), Forgetful)["ok"]
