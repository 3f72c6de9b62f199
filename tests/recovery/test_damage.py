"""Damage at rest, every byte of it: refused, or reported and without effect; never silent."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rtserver.persist.blocks import BLOCK_HEADER, SEGMENT_HEADER
from rtserver.persist.compaction import compact
from rtserver.persist.inspect import check
from rtserver.persist.manifest import decode, encode
from rtserver.persist.recovery import LogDamaged, Recovered
from tests.persist.disk import Crash, Disk, SimulatedFiles
from tests.persist.states import SMALL, STORE, Recorder, Writer, read
from tests.recovery.stores import Made


def outcome(disk: Disk) -> tuple[list[Any], Recovered] | None:
    """What recovery finds; None when it refuses, and says where and what to run."""
    try:
        return read(SimulatedFiles(disk))
    except LogDamaged as error:
        damage = error
    assert f"{damage.file} is damaged at offset {damage.offset}: " in str(damage)
    assert "rtserver" in str(damage)
    return None


def flipped(data: bytes, step: int = 1) -> Iterator[tuple[int, bytes]]:
    """Each byte changed, by one bit, by another, and altogether."""
    for place in range(0, len(data), step):
        for pattern in (1 << place % 8, 0x80 >> place % 7, 0xFF):
            yield place, data[:place] + bytes([data[place] ^ pattern]) + data[place + 1 :]


def last_segment(made: Made) -> str:
    """The one that holds the last block."""
    index = made.writer.log.stats()["segment"]
    return f"log-{index:08d}.seg"


@pytest.mark.parametrize("name", ["MANIFEST", "segments", "snapshots"])
def test_no_byte_of_a_store_that_was_stopped(name: str) -> None:
    made = Made(stopped=True)
    prefix = {"MANIFEST": "MANIFEST", "segments": "log-", "snapshots": "snapshot-"}[name]
    names = [one for one in made.names() if one.startswith(prefix)]
    assert names
    for one in names:
        whole = made.disk.bytes_of(STORE / one)
        for place, damaged in flipped(whole):
            made.disk.put(STORE / one, damaged)
            found = outcome(made.disk)
            if found is not None:
                records, recovered = found
                assert records == made.records, f"{one} at {place}"
                assert recovered.reports, f"{one} at {place} is accepted in silence"
        made.disk.put(STORE / one, whole)
    assert check(STORE, made.files())["ok"]


@pytest.mark.parametrize("other_boot", [False, True])
def test_no_byte_of_the_last_segment_after_a_crash(other_boot: bool) -> None:
    """What a marker says was synced cannot be taken for a torn tail; the marker itself may."""
    made = Made(stopped=False)
    made.disk.boot += other_boot
    path = STORE / last_segment(made)
    whole = made.disk.bytes_of(path)
    end = end_of_blocks(whole)
    marker = end - BLOCK_HEADER.size
    for place, damaged in flipped(whole[:end]):
        made.disk.put(path, damaged + whole[end:])
        found = outcome(made.disk)
        if place < marker:
            assert found is None, f"at {place} of {marker}"
        else:
            assert found is not None
            records, recovered = found
            assert records == made.records
            assert recovered.reports


def test_nothing_may_stand_in_the_free_space_of_a_segment() -> None:
    made = Made(stopped=False)
    path = STORE / last_segment(made)
    whole = made.disk.bytes_of(path)
    end = end_of_blocks(whole)
    for place in [*range(end, end + 100), *range(end + 100, len(whole), 999), len(whole) - 1]:
        made.disk.put(path, whole[:place] + b"\x01" + whole[place + 1 :])
        found = outcome(made.disk)
        assert found is not None
        records, recovered = found
        assert records == made.records
        (torn,) = recovered.torn
        assert (torn.offset, torn.size) == (end, place + 1 - end)


@pytest.mark.parametrize("other_boot", [False, True])
def test_a_tail_torn_at_every_byte(other_boot: bool) -> None:
    """A kill leaves the beginning of its last write, a power failure any part of it."""
    made = Made(stopped=False, marked=False)
    made.disk.boot += other_boot
    path = STORE / last_segment(made)
    whole = made.disk.bytes_of(path)
    end = end_of_blocks(whole)
    start = end - BLOCK_HEADER.size - len("not synced") - 1
    for place in range(start, end):
        made.disk.put(path, whole[:place] + bytes(len(whole) - place))
        found = outcome(made.disk)
        assert found is not None
        records, recovered = found
        assert records == made.records[:-1]
        if place == start:
            assert not recovered.torn
            continue
        (torn,) = recovered.torn
        assert torn.offset == start
        assert recovered.reports
        assert recovered.new_epochs == other_boot
        again = made.disk.copy()
        writer = Writer(SimulatedFiles(again))
        kept = again.bytes_of(STORE / "quarantine" / f"{path.name}.{start}.torn")
        assert kept == whole[start : start + torn.size]
        writer.write("later")
        assert read(SimulatedFiles(again))[0] == [*made.records[:-1], "later"]


def test_unsynced_blocks_behind_a_hole_are_cut_only_after_a_power_failure() -> None:
    made = Made(stopped=False, marked=False)
    made.writer.write("behind the hole")
    path = STORE / last_segment(made)
    whole = made.disk.bytes_of(path)
    hole = whole.index(b"not synced")
    made.disk.put(path, whole[:hole] + b"\x00" + whole[hole + 1 :])
    assert outcome(made.disk) is None, "a kill leaves no hole"
    made.disk.boot += 1
    found = outcome(made.disk)
    assert found is not None
    assert found[0] == made.records[:-2]
    assert found[1].new_epochs


@pytest.mark.parametrize("stopped", [True, False])
def test_a_file_cut_short_anywhere(stopped: bool) -> None:
    """The tail of a file that went missing is not a torn tail: its space was taken before."""
    made = Made(stopped=stopped)
    for name in made.names():
        if name.startswith("snapshot"):
            continue
        whole = made.disk.bytes_of(STORE / name)
        step = 1 if len(whole) < 3_000 else 501
        for length in range(0, len(whole), step):
            made.disk.put(STORE / name, whole[:length])
            assert outcome(made.disk) is None, f"{name} cut to {length}"
        made.disk.put(STORE / name, whole + b"\x00")
        assert outcome(made.disk) is None
        made.disk.put(STORE / name, whole)


@pytest.mark.parametrize("stopped", [True, False])
def test_a_file_that_is_gone(stopped: bool) -> None:
    made = Made(stopped=stopped)
    for name in made.names():
        disk = made.disk.copy()
        disk.put(STORE / name, None)
        found = outcome(disk)
        if name.startswith("snapshot"):
            assert found is not None
            assert found[0] == made.records
            assert name in found[1].reports[0]
            assert not check(STORE, SimulatedFiles(disk))["ok"]
        else:
            assert found is None, name


def test_files_that_changed_places() -> None:
    made = Made(stopped=True)
    names = [name for name in made.names() if name != "MANIFEST"]
    for one in names:
        for other in names:
            if one == other:
                continue
            disk = made.disk.copy()
            disk.put(STORE / one, made.disk.bytes_of(STORE / other))
            found = outcome(disk)
            if found is not None:
                assert found[0] == made.records
                assert not check(STORE, SimulatedFiles(disk))["ok"], f"{other} as {one}"


def test_a_segment_of_another_store() -> None:
    made, other = Made(stopped=True), Made(stopped=True)
    for name in made.names():
        disk = made.disk.copy()
        disk.put(STORE / name, other.disk.bytes_of(STORE / name))
        found = outcome(disk)
        assert found is None or (
            found[0] == made.records and not check(STORE, SimulatedFiles(disk))["ok"]
        )


def test_an_older_manifest_does_not_hide_newer_segments() -> None:
    made = Made(stopped=False)
    old = made.disk.bytes_of(STORE / "MANIFEST")
    for number in range(20):
        made.writer.write(["fills segments", number, bytes(9_000)])
        made.writer.work_off()
    made.disk.put(STORE / "MANIFEST", old)
    assert outcome(made.disk) is None


def blocks_of(data: bytes) -> list[bytes]:
    """The blocks of a segment, as bytes."""
    found, offset = [], SEGMENT_HEADER.size
    while data[offset : offset + 4] == b"RTBK":
        length = BLOCK_HEADER.unpack_from(data, offset)[4] + BLOCK_HEADER.size
        found.append(data[offset : offset + length])
        offset += length
    return found


def end_of_blocks(data: bytes) -> int:
    return SEGMENT_HEADER.size + sum(map(len, blocks_of(data)))


def test_blocks_that_are_missing_doubled_or_moved() -> None:
    """Each with valid checksums: the chain sees it, in both boots."""
    chance = random.Random(5)
    made = Made(stopped=False)
    path = STORE / last_segment(made)
    whole = made.disk.bytes_of(path)
    blocks = blocks_of(whole)
    assert len(blocks) == 5
    arrangements = [blocks[:i] + blocks[i + 1 :] for i in range(len(blocks) - 1)]
    arrangements += [blocks[: i + 1] + blocks[i:] for i in range(len(blocks))]
    for _ in range(50):
        shuffled = blocks[:]
        chance.shuffle(shuffled)
        if shuffled != blocks:
            arrangements.append(shuffled)
    for arranged in arrangements:
        body = whole[: SEGMENT_HEADER.size] + b"".join(arranged)
        made.disk.put(path, body + bytes(len(whole) - len(body)))
        for boot in (1, 2):
            made.disk.boot = boot
            assert outcome(made.disk) is None


def test_a_damaged_block_is_named_by_its_place() -> None:
    for stopped in (True, False):
        made = Made(stopped=stopped)
        path = STORE / last_segment(made)
        whole = made.disk.bytes_of(path)
        start = SEGMENT_HEADER.size
        place = whole.index(b"another")
        for block in blocks_of(whole):
            if start + len(block) > place:
                break
            start += len(block)
        made.disk.put(path, whole[:place] + b"A" + whole[place + 1 :])
        with pytest.raises(LogDamaged, match="checksum of its records") as caught:
            read(made.files())
        assert (caught.value.file, caught.value.offset) == (path.name, start)


@pytest.mark.parametrize("blocks_left", [0, 1, 2])
def test_blocks_that_became_zeros_in_a_sealed_segment(blocks_left: int) -> None:
    """The same length, and nothing that fails a checksum: only the seal tells."""
    made = Made(stopped=True)
    path = STORE / last_segment(made)
    whole = made.disk.bytes_of(path)
    kept = whole[: SEGMENT_HEADER.size] + b"".join(blocks_of(whole)[:blocks_left])
    made.disk.put(path, kept + bytes(len(whole) - len(kept)))
    assert outcome(made.disk) is None


def test_a_sealed_segment_that_was_not_yet_cut() -> None:
    """Sealing ends with giving back the space; zeros may stand there, nothing else."""
    made = Made(stopped=True)
    for name in [one for one in made.names() if one.startswith("log")]:
        whole = made.disk.bytes_of(STORE / name)
        free = SMALL.segment_bytes - len(whole)
        made.disk.put(STORE / name, whole + bytes(free - 1) + b"\x01")
        assert outcome(made.disk) is None
        made.disk.put(STORE / name, whole + bytes(free))
        assert read(made.files())[0] == made.records
    Writer(made.files())
    assert len(made.disk.bytes_of(STORE / name)) == len(whole)


def test_the_only_segment_of_another_store() -> None:
    """Its chain begins like ours: the header tells."""
    made, other = (Made(stopped=False, snapshots=0) for _ in range(2))
    name = last_segment(made)
    made.disk.put(STORE / name, other.disk.bytes_of(STORE / name))
    with pytest.raises(LogDamaged, match="its store is"):
        read(made.files())


def test_an_old_manifest_whose_segments_are_all_whole() -> None:
    made = Made(stopped=True)
    old = made.disk.bytes_of(STORE / "MANIFEST")
    Writer(made.files()).write("later")
    made.disk.put(STORE / "MANIFEST", old)
    with pytest.raises(LogDamaged, match="does not list it"):
        read(made.files())


def changed(made: Made, **changes: Any) -> None:
    """Another manifest, with its digest: what only a defect of this program could write."""
    manifest = decode(made.disk.bytes_of(STORE / "MANIFEST"))
    made.disk.put(STORE / "MANIFEST", encode(replace(manifest, **changes)))


def test_a_manifest_that_makes_no_sense() -> None:
    made = Made(stopped=True)
    for _ in range(2):
        assert Writer(made.files()).log.close(made.writer.now_ms)
    segments = decode(made.disk.bytes_of(STORE / "MANIFEST")).segments
    changed(made, segments=(segments[0], segments[2]))
    with pytest.raises(LogDamaged, match="out of order"):
        read(made.files())
    opened = replace(segments[0], sealed=None)
    changed(made, segments=(opened, *segments[1:]))
    with pytest.raises(LogDamaged, match="never sealed"):
        read(made.files())


def test_snapshots_that_are_damaged_with_no_segment_after_them() -> None:
    made = Made(stopped=True)
    for name in made.names():
        if name.startswith("log"):
            made.disk.put(STORE / name, None)
    changed(made, segments=())
    assert outcome(made.disk) is not None
    for name in made.names():
        if name.startswith("snapshot"):
            made.disk.put(STORE / name, b"nothing")
    with pytest.raises(LogDamaged, match="no whole snapshot leads to"):
        read(made.files())


def test_what_is_cut_is_kept_although_the_first_attempt_was_cut_short_itself() -> None:
    made = Made(stopped=False, marked=False)
    path = STORE / last_segment(made)
    whole = made.disk.bytes_of(path)
    start = end_of_blocks(whole) - len(blocks_of(whole)[-1])
    torn = whole[start : end_of_blocks(whole) - 3]
    made.disk.put(path, whole[:start] + torn + bytes(len(whole) - start - len(torn)))
    calm = SimulatedFiles(made.disk.copy())
    Writer(calm)
    for step in range(len(calm.calls)):
        for fault in ("crash", "torn"):
            disk = made.disk.copy()
            with contextlib.suppress(Crash):
                Writer(SimulatedFiles(disk, {step: fault}))
            Writer(SimulatedFiles(disk))
            kept = disk.bytes_of(STORE / "quarantine" / f"{path.name}.{start}.torn")
            assert kept == torn, f"{fault} at {calm.calls[step]}"


def test_the_newest_snapshot_is_damaged_and_the_older_one_serves() -> None:
    made = Made(stopped=False)
    names = [name for name in made.names() if name.startswith("snapshot")]
    whole = made.disk.bytes_of(STORE / names[-1])
    made.disk.put(STORE / names[-1], whole[:40] + b"!" + whole[41:])
    found = outcome(made.disk)
    assert found is not None
    assert found[0] == made.records
    assert found[1].snapshot == names[0]
    assert names[-1] in found[1].reports[0]
    files = made.files()
    writer = Writer(files)
    assert names[-1] not in made.names(), "in quarantine"
    writer.write("later")
    writer.log.rotate(writer.now_ms)
    writer.work_off()
    newest = compact(STORE, files, Recorder)
    writer.log.register_snapshot(newest)
    writer.work_off()
    made.disk.put(STORE / newest["name"], b"nothing")
    found = outcome(made.disk)
    assert found is not None, "the damaged one does not count as one of the two that are kept"
    assert found[0] == writer.state.records
    assert found[1].snapshot == names[0]


def test_both_snapshots_are_damaged() -> None:
    made = Made(stopped=False, snapshots=3)
    for name in made.names():
        if name.startswith("snapshot"):
            made.disk.put(STORE / name, b"nothing")
    assert outcome(made.disk) is None, "the log before them is in the archive"


def test_the_only_snapshot_is_damaged_and_the_whole_log_serves() -> None:
    made = Made(stopped=False, snapshots=1)
    (name,) = [name for name in made.names() if name.startswith("snapshot")]
    made.disk.put(STORE / name, b"nothing")
    found = outcome(made.disk)
    assert found is not None
    assert found[0] == made.records
    assert found[1].snapshot is None
