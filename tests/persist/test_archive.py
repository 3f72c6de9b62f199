"""The archive: what goes by age and size, what stays because somebody needs it, and from where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from rtserver.persist.blocks import segment_index
from rtserver.persist.compaction import compact
from rtserver.persist.manifest import read_manifest
from rtserver.persist.recovery import one_by_one
from rtserver.persist.segments import first_ms
from rtserver.persist.snapshot import is_snapshot_name, read_meta
from tests.persist.disk import Disk, SimulatedFiles
from tests.persist.states import SMALL, STORE, Recorder, Writer

NOTHING_STAYS = replace(SMALL, archive_bytes=0)
ARCHIVE = STORE / "archive"


class Count:
    """A state that stays small."""

    def __init__(self) -> None:
        self.records = 0

    def apply_block(self, records: memoryview, first_seq: int, now_ms: int) -> int:
        return one_by_one(self._count)(records, first_seq, now_ms)

    def _count(self, *_: Any) -> None:
        self.records += 1

    def load_chunk(self, chunk: Any) -> None:
        self.records = chunk

    def dump(self) -> Any:
        yield self.records

    def totals(self) -> Any:
        return self.records


class Store:
    """A log whose archive keeps nothing but what is needed."""

    def __init__(self, make_state: Callable[[], Any] = Recorder) -> None:
        self.make_state = make_state
        self.disk = Disk()
        self.files = SimulatedFiles(self.disk)
        self.writer = Writer(self.files, NOTHING_STAYS)

    def restart(self) -> None:
        """After a kill."""
        since = self.writer.keep_since
        self.files = SimulatedFiles(self.disk)
        self.writer = Writer(self.files, NOTHING_STAYS)
        self.writer.keep_since = since

    def grow(self, bytes_more: int = 10) -> int:
        """One more closed segment; the time of its first record."""
        self.writer.write("x" * bytes_more)
        begun_ms = self.writer.now_ms
        self.writer.log.rotate(begun_ms)
        self.writer.work_off()
        return begun_ms

    def snapshot(self) -> None:
        made = compact(STORE, self.files, self.make_state)
        if made["created"]:
            self.writer.log.register_snapshot(made)
            self.writer.work_off()

    def archived(self) -> tuple[list[int], list[int]]:
        """The indexes of segments, and those with which snapshots begin."""
        names = self.files.list_dir(ARCHIVE)
        store_id = bytes.fromhex(self.manifest().store_id)
        snapshots = [name for name in names if is_snapshot_name(name)]
        metas = [read_meta(ARCHIVE / name, self.files, store_id) for name in snapshots]
        return [index for name in names if (index := segment_index(name))], [
            meta.segment for meta in metas
        ]

    def manifest(self) -> Any:
        manifest = read_manifest(STORE, self.files)
        assert manifest is not None
        return manifest

    def rounds(self, number: int, bytes_more: int = 10) -> list[int]:
        """The first times of so many segments, each with a snapshot."""
        times = []
        for _ in range(number):
            times.append(self.grow(bytes_more))
            self.snapshot()
        return times


def test_without_anybody_who_needs_it_nothing_stays() -> None:
    store = Store()
    store.rounds(5)
    assert store.archived() == ([], [])
    assert store.writer.log.stats()["archive_bytes"] == 0


def test_what_was_logged_since_a_time_stays_with_the_snapshot_before_it() -> None:
    store = Store()
    store.rounds(5)
    first = store.grow()
    store.writer.keep_since = first
    begins = store.manifest().segments[-2].index
    store.rounds(6)
    segments, snapshots = store.archived()
    assert snapshots[0] <= begins
    listed = [entry.index for entry in store.manifest().segments]
    assert [*segments, *listed] == list(range(snapshots[0], listed[-1] + 1))
    stats = store.writer.log.stats()
    assert stats["archive_bytes"] >= stats["archive_held_bytes"] > 0


def test_from_the_first_record_on_every_segment_stays() -> None:
    store = Store()
    store.writer.keep_since = store.grow()
    store.rounds(6)
    segments, _ = store.archived()
    assert segments == list(range(1, segments[-1] + 1))


def test_the_beginning_moves_on_and_all_goes_in_the_end() -> None:
    store = Store(Count)
    store.writer.keep_since = store.grow(5_000)
    times = store.rounds(12, 5_000)
    segments, snapshots = store.archived()
    assert segments[0] == 1
    assert len(snapshots) > 4
    store.writer.keep_since = times[8]
    store.rounds(1, 5_000)
    moved, _ = store.archived()
    assert moved[0] in (9, 10)
    store.writer.keep_since = None
    store.rounds(1)
    assert store.archived() == ([], [])


def test_snapshots_take_a_small_part_of_it() -> None:
    """The state is as large as the whole log here, so hardly any snapshot is worth its space."""
    store = Store()
    store.writer.keep_since = store.grow(3_000)
    store.rounds(30, 3_000)
    names = store.files.list_dir(ARCHIVE)
    sizes = {name: len(store.files.read_file(ARCHIVE / name)) for name in names}
    snapshots = sum(size for name, size in sizes.items() if is_snapshot_name(name))
    assert snapshots <= (sum(sizes.values()) - snapshots) / 4


def test_a_restart_keeps_it() -> None:
    store = Store()
    store.rounds(4)
    store.writer.keep_since = store.grow()
    store.rounds(4)
    before = store.archived()
    store.restart()
    assert store.archived() == before
    assert store.writer.log.stats()["archive_bytes"] > 0
    store.rounds(1)
    segments, snapshots = store.archived()
    assert (segments[0], snapshots[0]) == (before[0][0], before[1][0])


def test_a_segment_that_cannot_be_read_costs_no_other() -> None:
    store = Store()
    times = store.rounds(3)
    store.writer.keep_since = times[0]
    store.rounds(4)
    segments, _ = store.archived()
    for index in segments[1:]:
        store.disk.names[ARCHIVE / f"log-{index:08d}.seg"].data[0] ^= 1
    store.rounds(2)
    assert store.archived()[0][: len(segments)] == segments


def test_a_snapshot_that_is_damaged_is_no_beginning() -> None:
    store = Store()
    store.rounds(5)
    store.writer.keep_since = store.grow()
    store.rounds(3)
    (name,) = [name for name in store.files.list_dir(ARCHIVE) if is_snapshot_name(name)]
    store.disk.names[ARCHIVE / name].data[3] ^= 1
    store.rounds(2)
    assert name in store.files.list_dir(ARCHIVE)


class ArchiveMachine(RuleBasedStateMachine):
    """Whoever asked for a time, and asks for later ones only, can replay from before it on."""

    @initialize()
    def begin(self) -> None:
        self.store = Store()
        self.times = [self.store.grow()]

    @rule(bytes_more=st.sampled_from([10, 3_000, 20_000]))
    def grow(self, bytes_more: int) -> None:
        self.times.append(self.store.grow(bytes_more))

    @rule()
    def snapshot(self) -> None:
        self.store.snapshot()

    @rule()
    def restart(self) -> None:
        self.store.restart()

    @rule(data=st.data())
    def need(self, data: st.DataObject) -> None:
        """The oldest sale is deleted, or the first one created."""
        since = self.store.writer.keep_since
        later = [ms for ms in self.times if since is not None and ms >= since]
        new = self.store.writer.now_ms + 1
        chosen = data.draw(st.sampled_from([None, *later] if later else [new]))
        self.store.writer.keep_since = chosen
        if chosen == new:
            self.times.append(self.store.grow())

    @invariant()
    def can_be_replayed(self) -> None:
        since = self.store.writer.keep_since
        if since is None:
            return
        files = self.store.files
        segments, snapshots = self.store.archived()
        manifest = self.store.manifest()
        listed = [entry.index for entry in manifest.segments]
        bases = [1, *snapshots, *(entry.segment for entry in manifest.snapshots)]
        there = {*segments, *listed}
        begin = max(
            base
            for base in bases
            if all(index in there for index in range(base, listed[-1] + 1))
            and self._first_ms(base, files) <= since
        )
        assert begin

    def _first_ms(self, index: int, files: SimulatedFiles) -> int:
        name = f"log-{index:08d}.seg"
        paths = [STORE / name, ARCHIVE / name]
        found = [ms for path in paths if (ms := first_ms(path, files)) is not None]
        return found[0] if found else self.store.writer.now_ms


TestArchive = ArchiveMachine.TestCase
TestArchive.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
