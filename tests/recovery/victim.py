"""A process that writes to a log, says what it was told is safe, and waits to be killed.

    python -m tests.recovery.victim DIRECTORY

Each record is its own sequence number; each line on stdout is the number of the last one that is
logged. Snapshots are made on the way, so that a kill hits those too.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import msgpack

from rtserver.config import LogConfig
from rtserver.persist.compaction import compact
from rtserver.persist.files import Files
from rtserver.persist.log import Log
from tests.persist.states import Recorder, read

_SNAPSHOT_EVERY = 700


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    directory, files = Path(sys.argv[1]), Files()
    lock = files.lock(directory)
    _, recovered = read(files, directory)
    news = threading.Semaphore(0)
    log = Log.open(
        directory,
        files,
        recovered,
        config=LogConfig(segment_bytes=64 * 1024, sync_interval_ms=1),
        closing_record=lambda: msgpack.packb(["closing", bytes(9)]),
        notify=news.release,
    )
    _say("ready")
    now_ms = recovered.now_ms
    while log.failure is None:
        while not log.reserve(10_000):
            news.acquire()
        now_ms += 1
        number = log.written_seq + 1
        seq = log.append([msgpack.packb([number, bytes(number % 2_000)])], now_ms)
        _say(str(seq))
        log.poll()
        if seq % _SNAPSHOT_EVERY == 0 and log.rotate(now_ms):
            while not log.settled:
                news.acquire()
            made = compact(directory, files, Recorder)
            if made["created"]:
                log.register_snapshot(made)
    lock.release()


if __name__ == "__main__":
    main()
