"""Directories that earlier versions wrote, byte for byte: every version reads all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rtserver.persist.inspect import check, dump, verify_snapshots
from rtserver.persist.manifest import decode
from tests.persist.disk import Disk, SimulatedFiles
from tests.persist.states import STORE, Recorder, Writer, read

GOLDEN = sorted(path for path in (Path(__file__).parent / "golden").iterdir() if path.is_dir())


def disk_of(directory: Path) -> Disk:
    """The directory on a disk in memory; open segments get their zeros back."""
    disk = Disk()
    sizes = {
        one.name: one.size
        for one in decode((directory / "MANIFEST").read_bytes()).segments
        if one.sealed is None
    }
    for path in directory.rglob("*"):
        if path.is_file() and path.suffix != ".json":
            data = path.read_bytes()
            data += bytes(max(0, sizes.get(path.name, 0) - len(data)))
            disk.put(STORE / path.relative_to(directory), data)
    return disk


def as_json(records: list[object]) -> object:
    return json.loads(json.dumps(records, default=bytes.hex))


def test_there_is_one_of_each_format() -> None:
    assert [path.name for path in GOLDEN] == ["v1"]


@pytest.mark.parametrize("directory", GOLDEN, ids=lambda path: path.name)
def test_it_is_read_as_it_was_written(directory: Path) -> None:
    expected = json.loads((directory / "records.json").read_text("ascii"))
    disk = disk_of(directory)
    files = SimulatedFiles(disk)
    records, recovered = read(files)
    assert as_json(records) == expected
    assert not recovered.clean
    assert not recovered.reports
    assert recovered.snapshot is not None
    assert check(STORE, files)["ok"]
    assert verify_snapshots(STORE, files, Recorder)["ok"]
    assert as_json([row["record"] for row in dump(STORE, files)]) == expected
    writer = Writer(files)
    writer.write("later")
    assert writer.log.close(writer.now_ms)
    assert as_json(read(files)[0]) == [*expected, "later"]


@pytest.mark.parametrize("directory", GOLDEN, ids=lambda path: path.name)
def test_all_that_its_format_can_hold_is_in_it(directory: Path) -> None:
    manifest = decode((directory / "MANIFEST").read_bytes())
    assert len(manifest.snapshots) == 2
    assert {one.sealed is None for one in manifest.segments} == {True, False}
    assert list((directory / "archive").iterdir())
