"""The load generator as the workloads use it: a program that sends a prepared file of batches.

The program is load.c beside this file, compiled into the run's directory; its first comment says
how it sends and what it measures. Where there is no C compiler, `bench.fallback` takes its place:
slower, so that it may be what is measured, and without open loop and subscribers. Each round is a
process of its own, pinned to the core that makes load.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.machine import pinned
from bench.requests import Batch, write_batches

__all__ = [
    "Audience",
    "Generator",
    "LoadFailed",
    "Outcome",
    "Plan",
    "RequestFailed",
    "Round",
    "Supply",
    "compiled",
]

Supply = Callable[[], Iterable[Batch]]
_SOURCE = Path(__file__).with_name("load.c")
_REFUSED = 3  # exit status
_EXTRA_S = 900  # beyond a round's own seconds, or for what is sent once


class LoadFailed(Exception):
    """The generator could not do its round; the text is its own."""


class RequestFailed(LoadFailed):
    """The peer refused a request that a benchmark sends."""


@dataclass(frozen=True, slots=True)
class Audience:
    """Connections that subscribe, receive and count."""

    subscribers: int
    request: bytes  # subscribes
    push_bytes: int = 0  # of every message; 0: they are frames, which tell


@dataclass(frozen=True, slots=True)
class Plan:
    """What one round sends."""

    address: tuple[str, int]
    supply: Supply
    framing: str  # "frames" or "resp"
    connections: int
    window: int  # requests under way on a connection, at most
    seconds: float | None = None  # the supply is repeated so long; None: sent once, to its end
    rate: float | None = None  # batches a second, whatever comes back; None: as replies come
    audience: Audience | None = None
    watched: int = 0  # a process, of whose time on a core the outcome tells; 0: none
    expected: bytes = b""  # how each reply begins, a frame behind its id; empty: without an error


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one round brought. Times are of batches; in open loop from when each was due."""

    replies: int
    batches: int
    deliveries: int
    seconds: float  # from the first send to the last reply
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    late_p99_us: float  # by how much the generator itself was late, in open loop
    busy_share: float  # of the time, that the generator had something to do
    peer_ran_s: float  # the main thread of the watched process
    peer_waited_s: float  # it could have run, but others had its core

    @property
    def rate(self) -> float:
        """Replies a second."""
        return self.replies / self.seconds


class Round:
    """A round that goes on."""

    def __init__(self, process: subprocess.Popen[str], seconds_max: float) -> None:
        self._process = process
        self._seconds_max = seconds_max

    def stop(self) -> None:
        """Ends it early, in order."""
        self._process.send_signal(signal.SIGTERM)

    def result(self) -> Outcome:
        """Waits for the end. Raises RequestFailed, LoadFailed."""
        try:
            printed, said = self._process.communicate(timeout=self._seconds_max)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        if self._process.returncode:
            kind = RequestFailed if self._process.returncode == _REFUSED else LoadFailed
            raise kind(said.strip() or f"exit status {self._process.returncode}")
        return Outcome(**json.loads(printed))


class Generator:
    """Sends plans, from `core` (None: anywhere); keeps its program and files in a directory."""

    def __init__(self, core: int | None, directory: Path, compiler: str | None = "cc") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.program = compiled(compiler, directory, _SOURCE) if compiler else None
        self._core = core
        self._directory = directory
        self._files: dict[object, Path] = {}

    def run(self, plan: Plan) -> Outcome:
        """One round. Raises RequestFailed, LoadFailed."""
        return self.start(plan).result()

    def start(self, plan: Plan) -> Round:
        words = [*self._command(), "send", *self._words(plan)]
        with pinned(self._core):
            process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        return Round(process, _EXTRA_S + (plan.seconds or 0))

    def file(self, data: bytes) -> Path:
        """A file that holds `data`."""
        path = self._directory / f"{len(self._files)}.bytes"
        if (kept := self._files.setdefault(data, path)) is path:
            path.write_bytes(data)
        return kept

    def _command(self) -> list[str]:
        if self.program is None:
            return [sys.executable, "-m", "bench.fallback"]
        return [str(self.program)]

    def _words(self, plan: Plan) -> list[str]:
        options: dict[str, object] = {
            "host": plan.address[0],
            "port": plan.address[1],
            "batches": self._prepared(plan.supply),
            "framing": plan.framing,
            "connections": plan.connections,
            "window": plan.window,
            "seconds": plan.seconds or 0,
            "rate": plan.rate or 0,
            "spin": int(self._core is not None and (plan.window == 1 or plan.rate is not None)),
        }
        if plan.watched:
            options["watch"] = plan.watched
        if plan.expected:
            options["expect"] = self.file(plan.expected)
        if plan.audience is not None:
            options["subscribers"] = plan.audience.subscribers
            options["subscribe"] = self.file(plan.audience.request)
            options["push-bytes"] = plan.audience.push_bytes
        return [word for key, value in options.items() for word in (f"--{key}", str(value))]

    def _prepared(self, supply: Supply) -> Path:
        """The batches of a supply as a file, made at its first use."""
        key = (supply.func, supply.args) if isinstance(supply, partial) else supply
        path = self._directory / f"{len(self._files)}.batches"
        if (kept := self._files.setdefault(key, path)) is path:
            write_batches(path, supply())
        return kept


def compiled(compiler: str, directory: Path, source: Path) -> Path | None:
    """A source beside this file as a program; None when there is no compiler or it is not for
    this system."""
    program = directory / source.stem
    found = shutil.which(compiler)
    if found is None:
        return None
    done = subprocess.run([found, "-O2", "-o", str(program), str(source)], capture_output=True)
    return program if done.returncode == 0 else None
