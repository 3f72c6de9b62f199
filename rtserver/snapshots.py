"""Snapshots of a running server: who starts the separate process, and when.

The loop only closes a segment of the log; a child process at low priority reads the previous
snapshot and the closed segments, and writes and verifies the next one. One runs at a time;
whoever asks meanwhile shares its result.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtserver.errors import INTERNAL, OVERLOADED, RtError
from rtserver.persist.log import Log
from rtserver.tick import Turn

__all__ = ["Snapshots"]

_log = logging.getLogger("rtserver")

_SEAL_TIMEOUT_S = 10.0
_POLL_S = 0.01
_PAUSE_MIN_S = 60.0
_PAUSE_MAX_S = 3_600.0
_KILLED_S = 5.0


class Snapshots:
    """Makes snapshots by a child process, which ends with this one."""

    def __init__(
        self, directory: Path, log: Log, turn: Turn, after_bytes: int, now: Callable[[], int]
    ) -> None:
        self._directory = directory
        self._log = log
        self._turn = turn
        self._after_bytes = after_bytes
        self._now = now
        self._running: asyncio.Task[dict[str, Any]] | None = None
        self._again_at = 0.0
        self._pause_s = _PAUSE_MIN_S

    def look_after(self) -> None:
        """Starts a snapshot when the log has grown enough since the last one."""
        grown = self._log.bytes_since_snapshot >= self._after_bytes
        due = asyncio.get_running_loop().time() >= self._again_at
        if grown and due and (self._running is None or self._running.done()):
            self._start().add_done_callback(self._note_outcome)

    def _note_outcome(self, task: asyncio.Task[dict[str, Any]]) -> None:
        """One that failed is tried again later and later: each try reads the whole log."""
        if task.cancelled() or task.exception() is None:
            self._pause_s = _PAUSE_MIN_S
            return
        self._again_at = asyncio.get_running_loop().time() + self._pause_s
        _log.error("no snapshot was made, again in %d s: %s", self._pause_s, task.exception())
        self._pause_s = min(2 * self._pause_s, _PAUSE_MAX_S)

    async def create(self) -> dict[str, Any]:
        """Makes a snapshot of everything up to now; {name, seq, bytes, created}."""
        if self._running is None or self._running.done():
            self._start()
        assert self._running is not None, "just started"
        return await asyncio.shield(self._running)

    def _start(self) -> asyncio.Task[dict[str, Any]]:
        self._running = asyncio.get_running_loop().create_task(self._create())
        return self._running

    async def stop(self) -> None:
        """Ends a snapshot that is being made; the files it left are tidied at the next start."""
        if self._running is not None and not self._running.done():
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _create(self) -> dict[str, Any]:
        await self._close_segments()
        starting = asyncio.create_task(asyncio.to_thread(self._start_child))
        try:
            child = await asyncio.shield(starting)
            out, err = await asyncio.shield(asyncio.to_thread(child.communicate))
        except asyncio.CancelledError:
            child = await starting
            child.kill()
            await asyncio.to_thread(_wait_for, child)
            raise
        if child.returncode != 0:
            reason = err.decode("utf-8", "replace").strip()[-2_000:]
            raise RtError(INTERNAL, f"the snapshot failed: {reason or child.returncode}")
        made: dict[str, Any] = json.loads(out)
        created = made.pop("created")
        if created:
            self._log.register_snapshot(made)
        return {
            "name": made["name"],
            "seq": made["seq"],
            "bytes": made["size"],
            "created": created,
        }

    def _start_child(self) -> subprocess.Popen[bytes]:
        """Nothing that must run between fork and exec: so the process is made without a copy of
        this one's page tables, and the loop stops for a millisecond or so. Every descriptor of this
        process closes by itself on exec."""
        return subprocess.Popen(
            [sys.executable, "-m", "rtserver", "compact", str(self._directory), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            close_fds=False,
        )

    async def _close_segments(self) -> None:
        """What was written up to now is in closed, sealed segments when this returns; a server
        that is written to all the time is closed once, not again and again."""
        deadline = asyncio.get_running_loop().time() + _SEAL_TIMEOUT_S
        closed = False
        while not (closed and self._log.settled):
            closed = closed or await self._rotate()
            if asyncio.get_running_loop().time() > deadline:
                raise RtError(OVERLOADED, "the log could not close its segment; see /readyz")
            await asyncio.sleep(_POLL_S)

    async def _rotate(self) -> bool:
        """Between two turns, when the state is what the log says."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def rotate() -> None:
            if not done.done():
                done.set_result(self._log.rotate(self._now()))

        self._turn.at_start(rotate)
        return await done


def _wait_for(child: subprocess.Popen[bytes]) -> None:
    """Until it is gone, or hangs in the kernel: a stop does not wait for that."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_KILLED_S)
