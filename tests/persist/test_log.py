"""The log against a list: writes, syncs, kills, power failures and restarts in any order."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rtserver.persist.compaction import compact
from tests.persist.disk import Disk, SimulatedFiles
from tests.persist.states import STORE, Recorder, Writer, read

values = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.booleans(),
    st.none(),
    st.dictionaries(st.one_of(st.integers(0, 9), st.text(max_size=3)), st.none(), max_size=3),
    st.binary(min_size=3_000, max_size=9_000),  # so that segments fill up
)


class LogMachine(RuleBasedStateMachine):
    """What recovery gives is what was written: all after a kill, all synced after a power cut."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.new_epochs = False
        self.start()

    def start(self) -> None:
        self.files = SimulatedFiles(self.disk)
        self.writer = Writer(self.files)

    @rule(records=st.lists(values, min_size=1, max_size=5))
    def write(self, records: list[Any]) -> None:
        if not self.writer.write(*records):
            self.writer.work_off()
            assert self.writer.write(*records)

    @rule()
    def sync(self) -> None:
        self.writer.sync()
        assert self.writer.log.synced_seq == self.writer.log.written_seq

    @rule()
    def work(self) -> None:
        self.writer.log.work()

    @rule()
    def rotate(self) -> None:
        self.writer.log.rotate(self.writer.now_ms)
        self.writer.logged = self.writer.log.written_seq

    @precondition(lambda self: self.writer.logged > 0)
    @rule()
    def snapshot(self) -> None:
        self.writer.log.rotate(self.writer.now_ms)
        self.writer.work_off()
        made = compact(STORE, self.files, Recorder)
        if made.pop("created"):
            self.writer.log.register_snapshot(made)
        self.writer.work_off()

    @rule()
    def stop(self) -> None:
        assert self.writer.log.close(self.writer.now_ms)
        assert self.files.open_count == 0
        expected = self.writer.state.records
        self.start()
        assert self.writer.found == expected
        assert self.writer.recovered.clean
        assert self.writer.recovered.new_epochs == self.new_epochs
        assert not self.writer.recovered.torn

    @rule()
    def kill(self) -> None:
        expected = self.writer.state.records
        self.start()
        assert self.writer.found == expected
        assert self.writer.recovered.new_epochs == self.new_epochs
        assert not self.writer.recovered.torn

    @rule(seed=st.integers(0, 2**32), kept=st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    def lose_power(self, seed: int, kept: float) -> None:
        before, synced = self.writer.state.records, self.writer.synced
        self.disk.lose_power(random.Random(seed), kept)
        self.start()
        assert before[: len(self.writer.found)] == self.writer.found
        assert len(self.writer.found) >= synced
        self.new_epochs = True
        assert self.writer.recovered.new_epochs

    @rule()
    def log_new_epochs(self) -> None:
        self.write(["era"])
        self.new_epochs = False
        self.writer.log.clear_era_pending()
        self.writer.sync()
        self.writer.work_off()

    @invariant()
    def a_reader_sees_all_that_is_written(self) -> None:
        assert self.writer.log.written_seq == len(self.writer.state.records)
        records, recovered = read(self.files)
        assert records == self.writer.state.records
        assert not recovered.reports


LogMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, print_blob=True
)
TestLogMachine = LogMachine.TestCase


@pytest.fixture
def writer() -> Writer:
    return Writer(SimulatedFiles(Disk()))


def test_sequence_numbers_start_at_one(writer: Writer) -> None:
    assert writer.log.written_seq == 0
    writer.write("a", "b")
    assert writer.log.written_seq == 2
    assert writer.log.synced_seq == 0
    writer.sync()
    assert writer.log.synced_seq == 2


def test_nothing_to_log_writes_nothing(writer: Writer) -> None:
    blocks = writer.log.blocks
    assert writer.log.append([], 1) == 0
    assert writer.log.blocks == blocks


def test_a_quiet_log_marks_what_was_synced_once(writer: Writer) -> None:
    writer.write("a")
    blocks = writer.log.blocks
    for _ in range(3):
        writer.sync()
    assert writer.log.blocks == blocks + 1


def test_one_sync_serves_all_that_is_written(writer: Writer) -> None:
    files = writer.files
    assert isinstance(files, SimulatedFiles)
    for number in range(100):
        writer.write(number)
    before = files.syncs
    writer.sync()
    assert files.syncs == before + 1
    writer.sync()
    assert files.syncs == before + 1, "nothing new, nothing to sync"


def test_room_is_what_fits(writer: Writer) -> None:
    room = writer.log.room
    writer.log.append([bytes([0xC6]) + (room - 5).to_bytes(4, "big") + bytes(room - 5)], 1)
    assert writer.log.room == 0
    writer.state.records.append(bytes(room - 5))
    assert read(writer.files)[0] == writer.state.records


def test_more_than_fits_is_refused_before_anything_is_written(writer: Writer) -> None:
    with pytest.raises(ValueError, match="room for"):
        writer.log.append([bytes(writer.log.room + 100)], 1)
    with pytest.raises(ValueError, match="never fit"):
        writer.log.reserve(64 * 1024)
    assert writer.log.written_seq == 0


def test_time_never_goes_back_in_the_log(writer: Writer) -> None:
    writer.log.append([b"\x01"], 10)
    with pytest.raises(ValueError, match="time went back"):
        writer.log.append([b"\x01"], 9)


def test_without_a_next_segment_there_is_no_room(writer: Writer) -> None:
    while writer.write(bytes(5_000)):
        pass
    writer.log.work()
    while writer.write(bytes(5_000)):
        pass
    assert not writer.log.reserve(5_000), "the next one is not ready"
    assert not writer.log.rotate(writer.now_ms)
    writer.work_off()
    assert writer.log.reserve(5_000)


def test_rotating_an_empty_segment_does_nothing(writer: Writer) -> None:
    assert writer.log.rotate(5)
    assert writer.log.stats()["segment"] == 1


def test_closing_without_a_mark_recovers_as_after_a_kill(writer: Writer) -> None:
    writer.write("a")
    assert not writer.log.close(5, clean=False)
    records, recovered = read(writer.files)
    assert records == ["a"]
    assert not recovered.clean


def test_time_and_boot_clock_come_back(writer: Writer) -> None:
    writer.log.append([b"\x01"], 77)
    _, recovered = read(writer.files)
    assert recovered.now_ms == 77
    assert recovered.boot_ms == writer.files.boot_ms() - 1
    assert recovered.same_boot


def test_bytes_since_the_snapshot(writer: Writer) -> None:
    writer.write(bytes(9_000))
    assert writer.log.bytes_since_snapshot > 9_000
    writer.log.rotate(9)
    writer.work_off()
    made = compact(STORE, writer.files, Recorder)
    writer.log.register_snapshot(made)
    writer.work_off()
    assert writer.log.bytes_since_snapshot < 1_000
