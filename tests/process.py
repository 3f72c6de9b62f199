"""A real server process and the plainest possible client: what black-box tests use.

Servers listen on loopback at a free port; a process is only ever ended by its own handle.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack

START_TIMEOUT_S = 30
ANSWER_TIMEOUT_S = 20
_LISTENING = re.compile(r"listening on rt://([^:]+):(\d+)")


class ErrorReply(Exception):
    def __init__(self, error: list[Any]) -> None:
        super().__init__(f"{error[1]}: {error[2]}")
        self.code, self.name, self.message, self.details = error


def frame(body: Any) -> bytes:
    """A value as one binary frame."""
    data = msgpack.packb(body)
    return struct.pack(">I", len(data)) + data


def cut(data: bytes) -> list[Any]:
    """Bytes as the whole frames in them."""
    found = []
    start = 4
    while start <= len(data) and (end := start + struct.unpack_from(">I", data, start - 4)[0]):
        if end > len(data):
            break
        found.append(msgpack.unpackb(data[start:end], strict_map_key=False))
        start = end + 4
    return found


def eventually(check: Callable[[], Any], timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
    """What `check` returns as soon as that is true."""
    deadline = time.monotonic() + timeout_s
    while not (value := check()):
        assert time.monotonic() < deadline, f"not in {timeout_s} s"
        time.sleep(0.02)
    return value


def cli(*arguments: str | Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """`rtserver` with arguments, run to its end."""
    command = [sys.executable, "-m", "rtserver", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


class WireClient:
    """Thirty lines of client: one request after another, pushes kept aside."""

    def __init__(self, address: tuple[str, int] | socket.socket) -> None:
        if isinstance(address, socket.socket):
            self.socket = address
        else:
            self.socket = socket.create_connection(address, timeout=ANSWER_TIMEOUT_S)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pushes: list[Any] = []
        self._data = b""
        self._last_id = 0

    def send(self, method: str, *params: Any, **options: Any) -> int:
        self._last_id += 1
        self.send_body([0, self._last_id, method, list(params), options])
        return self._last_id

    def send_body(self, body: Any) -> None:
        self.socket.sendall(frame(body))

    def read(self) -> Any:
        """The next frame; EOFError when the server has closed."""
        while len(self._data) < 4 or len(self._data) < 4 + self._length():
            data = self.socket.recv(1 << 18)
            if not data:
                raise EOFError("the server closed the connection")
            self._data += data
        end = 4 + self._length()
        body, self._data = self._data[4:end], self._data[end:]
        return msgpack.unpackb(body, strict_map_key=False)

    def _length(self) -> int:
        return int(struct.unpack_from(">I", self._data)[0])

    def read_to_end(self) -> list[Any]:
        """Every whole frame until the server closes."""
        data, self._data = self._data + read_all(self.socket), b""
        return cut(data)

    def reply(self, request_id: int) -> Any:
        while True:
            frame = self.read()
            if frame[0] == 2:
                self.pushes.append(frame[1:])
            elif frame[1] == request_id:
                if frame[2] is not None:
                    raise ErrorReply(frame[2])
                return frame[3]

    def call(self, method: str, *params: Any, **options: Any) -> Any:
        return self.reply(self.send(method, *params, **options))

    def push(self) -> Any:
        """The next push: [method, params]."""
        while not self.pushes:
            frame = self.read()
            if frame[0] == 2:
                self.pushes.append(frame[1:])
        return self.pushes.pop(0)

    def reset(self) -> None:
        """Vanishes: the server gets a RST instead of an orderly end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> WireClient:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class ServerProcess:
    """`rtserver serve` on a data directory, in development mode unless told otherwise."""

    def __init__(
        self,
        data: Path,
        *options: str | Path,
        environment: dict[str, str] | None = None,
        dev: bool = True,
    ) -> None:
        self.data = data
        self.dev = dev
        self.options = options
        self.environment = environment or {}
        self.lines: list[str] = []
        self.address = ("", 0)
        self._stderr = -1
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> ServerProcess:
        self.launch()
        self._await_address()
        return self

    def launch(self) -> None:
        """Starts the process and does not wait until it listens."""
        # A file, not a pipe: a server that logs much must not wait for a test to read it.
        self._stderr, path = tempfile.mkstemp()
        os.unlink(path)
        command = [sys.executable, "-m", "rtserver", "serve", *(["--dev"] if self.dev else [])]
        command += ["--listen", "127.0.0.1:0"]
        self._process = subprocess.Popen(
            [*command, "--data", str(self.data), *map(str, self.options)],
            stderr=self._stderr,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **self.environment},
        )

    def _await_address(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            self._read_lines()
            found = _LISTENING.search("\n".join(self.lines))
            if found:
                self.address = (found.group(1), int(found.group(2)))
                return
            if ended:
                break
            time.sleep(0.01)
        self.kill()
        raise AssertionError("the server did not start:\n" + "\n".join(self.lines))

    def says(self, pattern: str) -> re.Match[str]:
        """Waits for a line on stderr; the match."""

        def look() -> re.Match[str] | None:
            self._read_lines()
            return re.search(pattern, "\n".join(self.lines))

        found: re.Match[str] = eventually(look)
        return found

    def _read_lines(self) -> None:
        """What the server has said on stderr, from its start."""
        # pread, because the server shares the file's position.
        data = os.pread(self._stderr, os.fstat(self._stderr).st_size, 0)
        self.lines = data.decode("utf-8", "replace").splitlines()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "start the server first"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def rss_bytes(self) -> int:
        """Memory that the server uses now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024

    def descriptors(self) -> int:
        """Files and sockets that the server has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def client(self) -> WireClient:
        return WireClient(self.address)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=ANSWER_TIMEOUT_S)

    def raw(self, data: bytes) -> bytes:
        """Bytes in, the sending half closed, and all bytes that come back."""
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

    @property
    def url(self) -> str:
        """For the SDK."""
        return f"rt://{self.address[0]}:{self.address[1]}"

    def inline(self, *lines: str) -> list[str]:
        """Lines as typed into nc, and the answers until the server is done with them."""
        return self.raw("".join(f"{line}\n" for line in lines).encode()).decode().splitlines()

    def kill(self) -> None:
        """SIGKILL, and nothing else."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self._ended()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def _ended(self) -> int:
        code = self.process.wait(30)
        if self._stderr >= 0:
            self._read_lines()
            os.close(self._stderr)
            self._stderr = -1
        return code

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.kill()


def read_all(connection: socket.socket) -> bytes:
    """Bytes until the server closes, orderly or not."""
    found = []
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(1 << 18):
            found.append(data)
    return b"".join(found)
