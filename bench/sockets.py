"""The program of sockets.c as the workloads use it; its first comment says what it does.

Each use is a process of its own, pinned to the core that makes load; `Bare` stands for a server
and is pinned where servers are.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import LoadFailed, RequestFailed, compiled
from bench.machine import pinned
from bench.peers import Address, Server
from bench.requests import Batch, write_batches
from bench.websockets import ACCEPT, Canned, Door, records, write_records

__all__ = ["Bare", "FanOut", "Opened", "Publisher", "Sockets"]

_SOURCE = Path(__file__).with_name("sockets.c")
_REFUSED = 3  # exit status
_EXTRA_S = 120  # beyond a round's own seconds


@dataclass(frozen=True, slots=True)
class Publisher:
    """What is published while the sockets listen."""

    batches: Sequence[Batch]
    window: int  # messages on their way to anybody; the size of a batch: one after another
    seconds: float
    http: bool = False  # pipelined POSTs; else frames
    pause_us: int = 0  # from the last byte of one to the next, where they go one after another


@dataclass(frozen=True, slots=True)
class FanOut:
    """What a round brought. Times are from a publish to the last byte read, one after another."""

    publishes: int
    deliveries: int
    seconds: float
    p50_us: float
    p99_us: float
    max_us: float
    busy_share: float  # of the generator
    peer_ran_s: float
    peer_waited_s: float
    opening_s: float

    @property
    def rate(self) -> float:
        """Deliveries a second."""
        return self.deliveries / self.seconds


@dataclass(frozen=True, slots=True)
class Opened:
    """How long it took until all sockets were ready, and single ones of them."""

    seconds: float
    p50_us: float
    p99_us: float
    max_us: float


class Sockets:
    """Opens sockets, from `core` (None: anywhere); keeps program and files in a directory.

    Raises LoadFailed where there is no C compiler.
    """

    def __init__(self, core: int | None, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        program = compiled("cc", directory, _SOURCE)
        if program is None:
            raise LoadFailed("no C compiler (cc), or not for this system")
        self.program = program
        self._core = core
        self._directory = directory
        self._files = 0

    def fan_out(
        self, address: Address, door: Door, count: int, publisher: Publisher, watched: int = 0
    ) -> FanOut:
        """One round: opens `count` sockets, publishes to them. Raises RequestFailed, LoadFailed."""
        batches = self._path("batches")
        write_batches(batches, publisher.batches)
        words = [
            *self._words("fan", address, door, count),
            *("--batches", str(batches), "--window", str(publisher.window)),
            *("--seconds", str(publisher.seconds), "--http", str(int(publisher.http))),
            *("--pause-us", str(publisher.pause_us), "--watch", str(watched)),
        ]
        return FanOut(**json.loads(self._run(words, _EXTRA_S + publisher.seconds)))

    def open(
        self,
        address: Address,
        door: Door,
        count: int,
        hellos: Iterable[bytes] | None = None,
        at_once: int | None = None,
    ) -> tuple[Opened, list[bytes]]:
        """Opens sockets and ends them: the times, and what each received until it was ready.

        hellos: one for each, instead of the door's. at_once: as many are on their way at a time.
        """
        kept = self._path("kept")
        words = [*self._words("open", address, door, count, hellos), "--keep", str(kept)]
        if at_once is not None:
            words += ["--opening", str(at_once)]
        opened = Opened(**json.loads(self._run(words, _EXTRA_S)))
        return opened, list(records(kept))

    @contextmanager
    def held(self, address: Address, door: Door, count: int) -> Iterator[Opened]:
        """Sockets that are open, and listen, until the block ends."""
        words = [*self._words("open", address, door, count), "--hold", "1"]
        process = self._start(words)
        try:
            assert process.stdout is not None, "it is a pipe"
            line = process.stdout.readline()
            if not line:
                self._finish(process, _EXTRA_S)
            yield Opened(**json.loads(line))
            process.send_signal(signal.SIGTERM)
            self._finish(process, _EXTRA_S)
        finally:
            process.kill()
            process.communicate()

    def file(self, data: bytes) -> Path:
        path = self._path("bytes")
        path.write_bytes(data)
        return path

    def _words(
        self,
        mode: str,
        address: Address,
        door: Door,
        count: int,
        hellos: Iterable[bytes] | None = None,
    ) -> list[str]:
        words = [
            *(str(self.program), mode, "--host", address[0], "--port", str(address[1])),
            *("--open", str(self.file(door.handshake)), "--expect", ACCEPT),
            *("--subscribers", str(count), "--whole", str(int(door.whole))),
            *("--replies", str(door.replies)),
        ]
        said = [door.hello] if hellos is None and door.hello else list(hellos or ())
        if said:
            path = self._path("hellos")
            write_records(path, said)
            words += ["--hellos", str(path)]
        return words

    def _path(self, kind: str) -> Path:
        self._files += 1
        return self._directory / f"{self._files}.{kind}"

    def _start(self, words: list[str]) -> subprocess.Popen[str]:
        with pinned(self._core):
            return subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )

    def _run(self, words: list[str], seconds_max: float) -> str:
        process = self._start(words)
        try:
            return self._finish(process, seconds_max)
        finally:
            process.kill()
            process.communicate()

    def _finish(self, process: subprocess.Popen[str], seconds_max: float) -> str:
        printed, said = process.communicate(timeout=seconds_max)
        if process.returncode:
            kind = RequestFailed if process.returncode == _REFUSED else LoadFailed
            raise kind(said.strip() or f"exit status {process.returncode}")
        return printed


class Bare(Server):
    """Sends canned bytes to all who opened a socket, for each request of a publisher, in a loop of
    send(): as little as any server has to do. For one run of sockets; then it ends."""

    def __init__(
        self, sockets: Sockets, request_bytes: int, canned: Canned, core: int | None
    ) -> None:
        super().__init__(Path(), core)
        files = {f"--{name}": sockets.file(data) for name, data in canned._asdict().items()}
        self._words = [
            *(str(sockets.program), "bare", "--request-bytes", str(request_bytes)),
            *(str(word) for pair in files.items() for word in pair),
        ]

    def start(self) -> None:
        self._start_telling_port(self._words)

    def ended_within(self, seconds: float) -> bool:
        """Whether it ended by itself."""
        assert self._process is not None, "it was started"
        try:
            return self._process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False
