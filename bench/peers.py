"""The servers that are measured, as processes on loopback: rtserver, redis, and canned replies.

Each is a context manager, pinned to the core that serves, on a free port, and is ended through
its own handle. Data lies in the directory given, which is the caller's to delete.
"""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.load import Generator
from bench.machine import pinned
from bench.requests import command
from rtserver.config import LogConfig

__all__ = ["Address", "Canned", "Redis", "Rtserver", "Server", "Usage", "free_port"]

Address = tuple[str, int]

_HOST = "127.0.0.1"
_START_S = 300  # a large log takes its time
_ANSWER_S = 30
_POLL_S = 0.002
_LOADING_POLL_S = 0.02  # asking costs redis time while it loads
_LISTENING = re.compile(r"listening on rt://([^:]+):(\d+)")
_RECOVERED = re.compile(r"recovered .*?([\d,]+) records of ([\d,]+) bytes in ([\d.]+) s")
_LOADED = re.compile(r"DB loaded from append only file: ([\d.]+) seconds")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process's main thread had of its core, in seconds: now, or between two moments."""

    ran_s: float
    waited_s: float  # it could have run, but others had the core

    def since(self, before: Usage) -> Usage:
        return Usage(self.ran_s - before.ran_s, self.waited_s - before.waited_s)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a start read, and in which time by the server's own account."""

    records: int
    bytes: int
    seconds: float


class Server:
    """A process that serves; may be started again after `stop`."""

    def __init__(self, directory: Path, core: int | None) -> None:
        self.address: Address = ("", 0)
        self._directory = directory
        self._core = core
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers. Raises RuntimeError with what it said instead."""
        raise NotImplementedError

    def _start_telling_port(self, words: Sequence[str]) -> None:
        """Starts a program whose first line on stdout is the port where it listens."""
        with pinned(self._core):
            self._process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert self._process.stdout is not None, "it is a pipe"
        with self._process.stdout as said:
            port = said.readline()
        if not port:
            raise RuntimeError(f"{words[0]} {words[1]} did not start")
        self.address = (_HOST, int(port))

    @property
    def pid(self) -> int:
        """Raises RuntimeError before the first start."""
        if self._process is None:
            raise RuntimeError("start the server first")
        return self._process.pid

    def usage(self) -> Usage:
        """Since the process started."""
        ran_ns, waited_ns, _ = self._proc("schedstat").split()
        return Usage(int(ran_ns) / 1e9, int(waited_ns) / 1e9)

    def resident_bytes(self) -> int:
        """The memory that the process has."""
        return int(self._proc("statm").split()[1]) * resource.getpagesize()

    def stop(self) -> None:
        """SIGTERM, and waits; nothing when it does not run."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_ANSWER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """SIGKILL, and waits."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text("ascii")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()


class Rtserver(Server):
    """`rtserver serve --dev` on a data directory."""

    durability = (
        "ack logged: written to the file before the reply, fdatasync every"
        f" {LogConfig().sync_interval_ms} ms; in `synced` it returned before the reply"
    )
    command = (sys.executable, "-m", "rtserver", "serve", "--dev", "--listen", f"{_HOST}:0")

    def __init__(self, directory: Path, core: int | None, settings: Sequence[str] = ()) -> None:
        super().__init__(directory, core)
        self.start_s = 0.0  # from the process's start to listening
        self.recovered: Recovered | None = None
        self._settings = settings  # lines of its configuration

    def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        messages = self._directory / "stderr"
        config = self._directory / "config.toml"
        config.write_text("\n".join(self._settings), "utf-8")
        words = [*self.command, "--data", str(self._directory / "data"), "--config", str(config)]
        started = time.perf_counter()
        with messages.open("wb") as stderr, pinned(self._core):
            self._process = subprocess.Popen(words, stderr=stderr)
        while (found := _LISTENING.search(messages.read_text("utf-8"))) is None:
            if self._process.poll() is not None or time.perf_counter() - started > _START_S:
                self.stop()
                raise RuntimeError(f"rtserver did not start:\n{messages.read_text('utf-8')}")
            time.sleep(_POLL_S)
        self.start_s = time.perf_counter() - started
        self.address = (found[1], int(found[2]))
        said = _RECOVERED.search(messages.read_text("utf-8").replace(",", ""))
        self.recovered = said and Recovered(int(said[1]), int(said[2]), float(said[3]))

    def ask(self, line: str, timeout_s: float = _ANSWER_S) -> Any:
        """One line of inline text and its answer. Raises RuntimeError for an error reply."""
        with socket.create_connection(self.address, timeout=timeout_s) as connection:
            connection.sendall(line.encode() + b"\n")
            answer = connection.makefile("r", encoding="utf-8").readline()
        if not answer or answer.startswith("!"):
            raise RuntimeError(f"{line}: {answer.strip() or 'closed'}")
        return json.loads(answer)


class Redis(Server):
    """redis-server with an append-only file that is never rewritten."""

    durability = (
        "appendonly yes, appendfsync everysec (always in `synced`), never rewritten, no RDB"
    )

    def __init__(self, directory: Path, core: int | None, fsync: str = "everysec") -> None:
        super().__init__(directory, core)
        self._fsync = fsync

    @staticmethod
    def version() -> str | None:
        """The version of the one installed; None when there is none."""
        program = shutil.which("redis-server")
        if program is None:
            return None
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        found = re.search(r"v=(\S+)", done.stdout)
        return found[1] if found else done.stdout.strip()

    @property
    def loaded_s(self) -> float:
        """The time that the last start took to load its file, as it logged it."""
        said = _LOADED.findall((self._directory / "log").read_text("utf-8"))
        if not said:
            raise RuntimeError("redis-server did not say how long it loaded")
        return float(said[-1])

    def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self.address = (_HOST, free_port())
        options = {
            "bind": _HOST,
            "port": str(self.address[1]),
            "dir": str(self._directory),
            "logfile": str(self._directory / "log"),
            "save": "",
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "auto-aof-rewrite-percentage": "0",
            "aof-use-rdb-preamble": "no",
            "maxclients": "15000",
        }
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        with pinned(self._core):
            self._process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
        deadline = time.perf_counter() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() > deadline:
                self.stop()
                raise RuntimeError(f"redis-server did not start; see {options['logfile']}")
            time.sleep(_LOADING_POLL_S)

    def ask(self, *words: str) -> str:
        """One command and its answer: an integer, a status or bytes, as text. Raises RuntimeError
        for an error."""
        with socket.create_connection(self.address, timeout=_ANSWER_S) as connection:
            connection.sendall(command(*words))
            answers = connection.makefile("rb")
            line = answers.readline().decode().rstrip()
            if not line or line.startswith("-"):
                raise RuntimeError(f"{words[0]}: {line or 'closed'}")
            return answers.read(int(line[1:])).decode() if line.startswith("$") else line[1:]

    def _answers(self) -> bool:
        try:
            return self.ask("PING") == "PONG"
        except (ConnectionError, RuntimeError):  # nobody there, or it loads still
            return False


class Canned(Server):
    """Answers every `request_bytes` it receives with one canned reply: the load generator alone.

    Only where the generator is compiled, because this is the same program.
    """

    def __init__(
        self, generator: Generator, request_bytes: int, reply: bytes, core: int | None
    ) -> None:
        super().__init__(Path(), core)
        self._words = (
            *(str(generator.program), "canned", "--request-bytes", str(request_bytes)),
            *("--reply", str(generator.file(reply))),
        )

    def start(self) -> None:
        self._start_telling_port(self._words)


def free_port() -> int:
    """That nobody listens on just now."""
    with socket.create_server((_HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
