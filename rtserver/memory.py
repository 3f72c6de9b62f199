"""How much memory the process uses, and when that is too much (`limits.memory_max`).

Looked at about once a second, so what is used may pass the bound by what one second brings. The
refusal ends somewhat below the bound, so that it does not come and go with each request.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from typing import Any

from rtserver.errors import MEMORY_FULL, RtError

__all__ = ["Memory", "resident_bytes"]

_ENOUGH_PERCENT = 95  # of the bound: below, what is new is taken again
_STATM = "/proc/self/statm"
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


def resident_bytes() -> int:
    """What the process has in memory now; where the system does not say, the most it ever had."""
    try:
        with open(_STATM, "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT


class Memory:
    """The bound and how it stands; without a bound nothing is ever full."""

    def __init__(self, bytes_max: int, read: Callable[[], int] = resident_bytes) -> None:
        self.resident = 0
        self.full = False
        self._max = bytes_max
        self._read = read

    def look(self) -> RtError | None:
        """Why nothing may grow from now on, or None."""
        self.resident = self._read()
        bound = self._max * _ENOUGH_PERCENT // 100 if self.full else self._max
        self.full = 0 < bound < self.resident
        if not self.full:
            return None
        return RtError(
            MEMORY_FULL,
            f"the server uses {self.resident} bytes of memory, at most {self._max}"
            " (limits.memory_max): nothing new is taken; deletions and updates are",
        )

    def stats(self) -> dict[str, Any]:
        return {"resident": self.resident, "max": self._max, "full": self.full}
