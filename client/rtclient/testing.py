"""A real server for tests, on a free port, with a clock that moves when told.

    pytest_plugins = ["rtclient.testing"]

    async def test_likes(rt_server, rt_client):
        await rt_client.counter.add("likes:42", ttl_ms=60_000)
        rt_server.advance(60_000)
        assert await rt_client.counter.get("likes:42") == 0

The fixtures `rt_server` (an `RtServer`) and `rt_client` (a connected `rtclient.Client`; it needs
pytest-asyncio) are new for each test. Outside pytest, `with start_server() as server:` does the
same. Needs the package rtserver; starting takes about half a second.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from rtclient.client import Client, connect
from rtclient.url import parse_url

__all__ = ["RtServer", "rt_server", "start_server"]

_START_S: Final = 30.0
_STOP_S: Final = 15.0
_LISTENING: Final = re.compile(r"listening on (rt://\S+)")


class RtServer:
    """One server process on one data directory.

    url: where it listens, the same after a restart. ws_url: the same by WebSocket. data: its
    directory. pid: of the process.
    """

    def __init__(self, data: Path, *, manual_clock: bool = True) -> None:
        self.data = data
        self.url = ""
        self._manual_clock = manual_clock
        self._log = data.with_name(f"{data.name}.log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def ws_url(self) -> str:
        return f"ws{self.url.removeprefix('rt')}"

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> RtServer:
        """Returns when it listens."""
        listen = "127.0.0.1:0"
        if self.url:
            address = parse_url(self.url)
            listen = f"{address.host}:{address.port}"
        command = [sys.executable, "-m", "rtserver", "serve", "--dev", "--listen", listen]
        command += ["--data", str(self.data)]
        if self._manual_clock:
            command.append("--manual-clock")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self.url = self._await_url()
        return self

    def _await_url(self) -> str:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            found = _LISTENING.search(self.log)
            if found:
                return found.group(1)
            if self._running().poll() is not None:
                break
            time.sleep(0.01)
        self.kill()
        raise RuntimeError(f"the server did not start:\n{self.log}")

    @property
    def log(self) -> str:
        """What it has said since its last start."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def advance(self, ms: int) -> None:
        """Moves its clock forward; what is due has happened when this returns."""
        address = parse_url(self.url)
        with socket.create_connection((address.host, address.port), timeout=_STOP_S) as line:
            line.sendall(f"server.advance {ms}\nserver.ping\n".encode())
            answers = line.makefile("r", encoding="utf-8")
            answer = answers.readline()
            if answer.startswith("!"):
                raise RuntimeError(answer[1:].strip())
            answers.readline()  # of the turn after it, which begins with what is due

    def restart(self, *, kill: bool = True) -> None:
        """Stops it, by kill -9 unless asked to be gentle, and starts it again on the same port
        and data."""
        if kill:
            self.kill()
        else:
            self.stop()
        self.start()

    def stop(self) -> None:
        """Asks it to stop and waits until it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the server is not running; start() it")
        return self._process


@contextlib.contextmanager
def start_server(data: Path | None = None, *, manual_clock: bool = True) -> Iterator[RtServer]:
    """A server for a `with` block; without `data`, on a directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix="rtserver-") as directory:
        server = RtServer(data or Path(directory) / "data", manual_clock=manual_clock)
        try:
            yield server.start()
        finally:
            server.stop()


@pytest.fixture
def rt_server() -> Iterator[RtServer]:
    """A new server with an empty state and a clock that moves by `advance`."""
    with start_server() as server:
        yield server


if find_spec("pytest_asyncio") is not None:  # blocking tests do without
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def rt_client(rt_server: RtServer) -> AsyncIterator[Client]:
        """A client connected to `rt_server`."""
        async with connect(rt_server.url) as client:
            yield client
