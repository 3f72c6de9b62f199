"""A real server process and the plainest possible client: what black-box tests use.

Servers listen on loopback at a free port; a process is only ever ended by its own handle.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
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


class WireClient:
    """Thirty lines of client: one request after another, pushes kept aside."""

    def __init__(self, address: tuple[str, int]) -> None:
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
        data = msgpack.packb(body)
        self.socket.sendall(struct.pack(">I", len(data)) + data)

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

    def close(self) -> None:
        self.socket.close()


class ServerProcess:
    """`rtserver serve --dev` on a data directory."""

    def __init__(self, data: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.data = data
        self.options = options
        self.environment = environment or {}
        self.lines: list[str] = []
        self.address = ("", 0)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> ServerProcess:
        self.lines = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rtserver", "serve", "--dev", "--listen", "127.0.0.1:0"]
            + ["--data", str(self.data), *self.options],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **self.environment},
        )
        self._await_address()
        return self

    def _await_address(self) -> None:
        process = self.process
        assert process.stderr is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(process.stderr, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                if not selector.select(1):
                    continue
                line = process.stderr.readline().decode()
                if not line:
                    break
                self.lines.append(line.rstrip())
                found = _LISTENING.search(line)
                if found:
                    self.address = (found.group(1), int(found.group(2)))
                    return
        self.kill()
        raise AssertionError("the server did not start:\n" + "\n".join(self.lines))

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "start the server first"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def client(self) -> WireClient:
        return WireClient(self.address)

    def inline(self, *lines: str) -> list[str]:
        """Lines as typed into nc, and the answers until the server is done with them."""
        with socket.create_connection(self.address, timeout=ANSWER_TIMEOUT_S) as connection:
            connection.sendall("".join(f"{line}\n" for line in lines).encode())
            connection.shutdown(socket.SHUT_WR)
            return connection.makefile("r", encoding="utf-8").read().splitlines()

    def kill(self) -> None:
        """SIGKILL, and nothing else."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(30)
        self._drain()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self._drain()
        return code

    def _drain(self) -> None:
        assert self.process.stderr is not None
        with contextlib.suppress(ValueError):
            self.lines += self.process.stderr.read().decode().splitlines()
            self.process.stderr.close()

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.kill()
