"""What the persistence tests put into a log, and how they bring it back.

The state is the list of its records, so a replay that differs in anything shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from rtserver.config import LogConfig
from rtserver.persist.files import Files
from rtserver.persist.log import Log
from rtserver.persist.recovery import Recovered, one_by_one, recover

STORE = Path("/store")
SMALL = LogConfig(segment_bytes=64 * 1024, archive_days=36_500)


class Recorder:
    """The list of (seq, record) that was applied; each with its time."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.now_ms = 0

    def apply(self, record: Any, seq: int, now_ms: int) -> None:
        assert seq == len(self.records) + 1, "records come in order, none twice"
        assert now_ms >= self.now_ms
        self.now_ms = now_ms
        self.records.append(record)

    def apply_block(self, records: memoryview, first_seq: int, now_ms: int) -> int:
        return one_by_one(self.apply)(records, first_seq, now_ms)

    def load_chunk(self, chunk: Any) -> None:
        self.records += chunk

    def dump(self) -> Iterator[Any]:
        for start in range(0, len(self.records), 50):
            yield self.records[start : start + 50]

    def totals(self) -> Any:
        return {"records": len(self.records)}


class Writer:
    """One process's log beside the list of all records that should be in it."""

    def __init__(self, files: Files, config: LogConfig = SMALL, path: Path = STORE) -> None:
        self.files = files
        self.keep_since: int | None = None
        self.state = Recorder()
        self.path = path
        self.recovered: Recovered = recover(
            path, files, apply_block=self.state.apply_block, load_chunk=self.state.load_chunk
        )
        self.found = list(self.state.records)
        self.now_ms = self.recovered.now_ms
        self.log = Log.open(
            path,
            files,
            self.recovered,
            config=config,
            closing_record=self._closing,
            notify=lambda: None,
            keep_since=lambda: self.keep_since,
            threaded=False,
        )
        self.logged = len(self.found)  # acknowledged: survives a kill
        self.log.work()  # prepares the next segment

    def _closing(self) -> bytes:
        self.state.records.append(["closing", len(self.state.records)])
        packed: bytes = msgpack.packb(self.state.records[-1])
        return packed

    @property
    def synced(self) -> int:
        """Acknowledged as synced: survives a power failure."""
        return self.log.synced_seq

    def write(self, *records: Any) -> bool:
        """A turn; False when it was refused or its block is stalled."""
        packed = [msgpack.packb(record) for record in records]
        ready = self.log.reserve(sum(map(len, packed)))
        self.logged = self.log.written_seq
        if not ready:
            return False
        self.state.records += records
        self.now_ms += 1
        self.log.append(packed, self.now_ms)
        self.logged = self.log.written_seq
        return not self.log.stalled

    def sync(self) -> None:
        self.log.request_sync()
        self.log.work()
        self.log.poll()

    def work_off(self) -> None:
        """Lets the sync thread do all it has to do."""
        while not self.log.settled and self.log.failure is None and not self.log.full:
            self.log.work()
        self.log.poll()


def read(files: Files, path: Path = STORE) -> tuple[list[Any], Recovered]:
    """A recovery that nobody goes on with."""
    state = Recorder()
    recovered = recover(path, files, apply_block=state.apply_block, load_chunk=state.load_chunk)
    assert recovered.seq == len(state.records)
    return state.records, recovered
