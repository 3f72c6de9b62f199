"""The program of buyers.c as the workloads use it; its first comment says what it does.

Each round is a process of its own, pinned to the core that makes load.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.contest import Shape
from bench.load import LoadFailed, Outcome, Round, compiled
from bench.machine import pinned
from bench.peers import Address

__all__ = ["HOLD", "NUMBER", "Buyers", "Visit"]

NUMBER = "#" * 8  # in a request: the digits of the user's number
HOLD = "@"  # in a confirm as a frame: what the reply to the reserve told
_SOURCE = Path(__file__).with_name("buyers.c")
_EXTRA_S = 120  # beyond a round's own seconds


@dataclass(frozen=True, slots=True)
class Visit:
    """What each buyer does: one request, and a second one that says yes to what it gave."""

    framing: str  # "frames" or "resp"
    reserve: bytes
    confirm: bytes | None = None


class Buyers:
    """Sends buyers, from `core` (None: anywhere); keeps program and files in a directory.

    Raises LoadFailed where there is no C compiler.
    """

    def __init__(self, core: int | None, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        program = compiled("cc", directory, _SOURCE)
        if program is None:
            raise LoadFailed("no C compiler (cc), or not for this system")
        self._program = program
        self._core = core
        self._directory = directory
        self._next = 0  # the number of the user who comes next

    def run(
        self, address: Address, visit: Visit, shape: Shape, seconds: float, watched: int = 0
    ) -> Outcome:
        """One round of users who never came before. `replies` of the outcome are requests,
        `batches` buyers who did all, times those of requests. Raises RequestFailed, LoadFailed."""
        options: dict[str, object] = {
            "host": address[0],
            "port": address[1],
            "framing": visit.framing,
            "connections": shape.connections,
            "window": shape.depth,
            "seconds": seconds,
            "first": self._next,
            "reserve": self._file("reserve", visit.reserve),
            "watch": watched,
        }
        if visit.confirm is not None:
            options["confirm"] = self._file("confirm", visit.confirm)
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        with pinned(self._core):
            process = subprocess.Popen(
                [self._program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        outcome = Round(process, seconds + _EXTRA_S).result()
        self._next += outcome.batches
        return outcome

    def _file(self, name: str, data: bytes) -> Path:
        path = self._directory / name
        path.write_bytes(data)
        return path
