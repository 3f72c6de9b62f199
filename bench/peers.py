"""The servers that are measured, as processes on loopback: rtserver, redis, and canned replies.

Each is a context manager, pinned to the core that serves, on a free port, and is ended through
its own handle. Data lies in the directory given, which is the caller's to delete.
"""

from __future__ import annotations

import json
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

from bench.machine import pinned
from bench.requests import command
from rtserver.config import LogConfig

__all__ = ["Address", "Canned", "Redis", "Rtserver", "Usage"]

Address = tuple[str, int]

_HOST = "127.0.0.1"
_START_S = 300  # a large log takes its time
_ANSWER_S = 30
_POLL_S = 0.002
_LISTENING = re.compile(r"listening on rt://([^:]+):(\d+)")
_RECOVERED = re.compile(r"recovered .*?([\d,]+) records of ([\d,]+) bytes")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process's main thread had of its core, in seconds: now, or between two moments."""

    ran_s: float
    waited_s: float  # it could have run, but others had the core

    @classmethod
    def of(cls, process: subprocess.Popen[bytes] | None) -> Usage:
        """Since the process started. Raises RuntimeError when it was not."""
        if process is None:
            raise RuntimeError("start the server first")
        ran_ns, waited_ns, _ = Path(f"/proc/{process.pid}/schedstat").read_text("ascii").split()
        return cls(int(ran_ns) / 1e9, int(waited_ns) / 1e9)

    def since(self, before: Usage) -> Usage:
        return Usage(self.ran_s - before.ran_s, self.waited_s - before.waited_s)


class Rtserver:
    """`rtserver serve --dev` on a data directory; may be started again after `stop`."""

    name = "rtserver"
    durability = (
        "ack logged: written to the file before the reply, fdatasync every"
        f" {LogConfig().sync_interval_ms} ms"
    )
    command = (sys.executable, "-m", "rtserver", "serve", "--dev", "--listen", f"{_HOST}:0")

    def __init__(self, directory: Path, core: int | None) -> None:
        self.address: Address = ("", 0)
        self.start_s = 0.0  # from the process's start to listening
        self.recovered = (0, 0)  # records, bytes
        self._directory = directory
        self._core = core
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it listens. Raises RuntimeError with what it said instead."""
        self._directory.mkdir(parents=True, exist_ok=True)
        messages = self._directory / "stderr"
        started = time.perf_counter()
        with messages.open("wb") as stderr, pinned(self._core):
            self._process = subprocess.Popen(
                [*self.command, "--data", str(self._directory / "data")],
                stderr=stderr,
            )
        while (found := _LISTENING.search(messages.read_text("utf-8"))) is None:
            if self._process.poll() is not None or time.perf_counter() - started > _START_S:
                self.stop()
                raise RuntimeError(f"rtserver did not start:\n{messages.read_text('utf-8')}")
            time.sleep(_POLL_S)
        self.start_s = time.perf_counter() - started
        self.address = (found[1], int(found[2]))
        counts = _RECOVERED.search(messages.read_text("utf-8"))
        if counts is not None:
            self.recovered = (int(counts[1].replace(",", "")), int(counts[2].replace(",", "")))

    def ask(self, line: str) -> Any:
        """One line of inline text and its answer. Raises RuntimeError for an error reply."""
        with socket.create_connection(self.address, timeout=_ANSWER_S) as connection:
            connection.sendall(line.encode() + b"\n")
            answer = connection.makefile("r", encoding="utf-8").readline()
        if not answer or answer.startswith("!"):
            raise RuntimeError(f"{line}: {answer.strip() or 'closed'}")
        return json.loads(answer)

    def usage(self) -> Usage:
        return Usage.of(self._process)

    def stop(self) -> None:
        """SIGTERM, and waits; nothing when it does not run."""
        _end(self._process)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()


class Redis:
    """redis-server with an append-only file, synced once a second and never rewritten."""

    name = "redis"
    durability = "appendonly yes, appendfsync everysec (no rewrite during the run, no RDB)"

    def __init__(self, directory: Path, core: int | None) -> None:
        self.address: Address = ("", 0)
        self._directory = directory
        self._core = core
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def version() -> str | None:
        """The version of the one installed; None when there is none."""
        program = shutil.which("redis-server")
        if program is None:
            return None
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        found = re.search(r"v=(\S+)", done.stdout)
        return found[1] if found else done.stdout.strip()

    def start(self) -> None:
        """Returns when it answers. Raises RuntimeError when it does not."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self.address = (_HOST, _free_port())
        options = {
            "bind": _HOST,
            "port": str(self.address[1]),
            "dir": str(self._directory),
            "logfile": str(self._directory / "log"),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "auto-aof-rewrite-percentage": "0",
        }
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        with pinned(self._core):
            self._process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
        deadline = time.perf_counter() + _ANSWER_S
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() > deadline:
                self.stop()
                raise RuntimeError(f"redis-server did not start; see {options['logfile']}")
            time.sleep(_POLL_S)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(self.address, timeout=_ANSWER_S) as connection:
                connection.sendall(command("PING"))
                return connection.recv(64) == b"+PONG\r\n"
        except ConnectionError:
            return False

    def usage(self) -> Usage:
        return Usage.of(self._process)

    def stop(self) -> None:
        """SIGTERM, and waits; nothing when it does not run."""
        _end(self._process)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()


class Canned:
    """Answers every `request_bytes` it receives with one canned reply: the load generator alone."""

    def __init__(self, request_bytes: int, reply: bytes, core: int | None) -> None:
        self._listener = socket.create_server((_HOST, 0), backlog=128)
        self.address: Address = self._listener.getsockname()
        self._process = get_context("spawn").Process(
            target=_answer_canned, args=(self._listener, request_bytes, reply), daemon=True
        )
        self._core = core

    def __enter__(self) -> Self:
        with pinned(self._core):
            self._process.start()
        self._listener.close()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.terminate()
        self._process.join()


def _answer_canned(listener: socket.socket, request_bytes: int, reply: bytes) -> None:
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    owed: dict[socket.socket, int] = {}  # bytes of a request that is not complete
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                made, _ = listener.accept()
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(made, selectors.EVENT_READ, made)
                owed[made] = 0
                continue
            connection: socket.socket = key.data
            data = connection.recv(1 << 18)
            if not data:
                selector.unregister(connection)
                connection.close()
                continue
            complete, owed[connection] = divmod(owed[connection] + len(data), request_bytes)
            if complete:
                connection.sendall(reply * complete)


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_ANSWER_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
