"""Small stores that hold everything a store can hold, made on a disk in memory."""

from __future__ import annotations

from typing import Any

from rtserver.persist.compaction import compact
from tests.persist.disk import Disk, SimulatedFiles
from tests.persist.states import STORE, Recorder, Writer


class Made:
    """A disk after its process was killed (or stopped in order), and what it held."""

    def __init__(self, *, stopped: bool, snapshots: int = 2, marked: bool = True) -> None:
        self.disk = Disk()
        files = SimulatedFiles(self.disk)
        self.writer = writer = Writer(files)
        for number in range(snapshots):
            self._segment(files, f"covered {number}")
        for number in range(3):
            writer.write({"last": number, "bytes": b"\x00\xff"}, "another")
        writer.sync()
        if stopped:
            assert writer.log.close(writer.now_ms)
        elif not marked:
            writer.write("not synced")
        self.records: list[Any] = writer.state.records

    def _segment(self, files: SimulatedFiles, text: str) -> None:
        writer = self.writer
        writer.write(text, 1, None)
        writer.sync()
        writer.write(text)
        writer.log.rotate(writer.now_ms)
        writer.work_off()
        made = compact(STORE, files, Recorder)
        assert made["created"]
        writer.log.register_snapshot(made)
        writer.work_off()

    def files(self) -> SimulatedFiles:
        return SimulatedFiles(self.disk)

    def names(self) -> list[str]:
        return self.files().list_dir(STORE)
