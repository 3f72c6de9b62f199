"""How much memory the process uses, and when that is too much (`limits.memory_max`).

Looked at about once a second, so what is used may pass the bound by what one second brings. The
refusal ends somewhat below the bound, so that it does not come and go with each request. What was
freed is given back to the system now and then while it lasts: the allocator keeps it otherwise, and
deleting would help nobody.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

from rtserver.errors import MEMORY_FULL, RtError

__all__ = ["Memory", "resident_bytes"]

_ENOUGH_PERCENT = 95  # of the bound: below, what is new is taken again
_TRIM_EVERY = 10  # looks; it may take as long as a large heap is
_STATM = "/proc/self/statm"
_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


def resident_bytes() -> int:
    """What the process has in memory now; where the system does not say, the most it ever had."""
    try:
        with open(_STATM, "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT


def give_back() -> None:
    """Freed memory to the system, where the C library can do that (malloc_trim(3) of glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Memory:
    """The bound and how it stands; without a bound nothing is ever full."""

    def __init__(
        self,
        bytes_max: int,
        read: Callable[[], int] = resident_bytes,
        trim: Callable[[], None] = give_back,
    ) -> None:
        self.resident = 0
        self.full = False
        self._max = bytes_max
        self._read = read
        self._trim = trim
        self._looks = 0  # since it is full

    def look(self) -> RtError | None:
        """Why nothing may grow from now on, or None."""
        self.resident = self._read()
        if self.full:
            self._looks += 1
            if self._looks % _TRIM_EVERY == 0:
                self._trim()
                self.resident = self._read()
        bound = self._max * _ENOUGH_PERCENT // 100 if self.full else self._max
        self.full = 0 < bound < self.resident
        if not self.full:
            self._looks = 0
            return None
        return RtError(
            MEMORY_FULL,
            f"the server uses {self.resident} bytes of memory, at most {self._max}"
            " (limits.memory_max): nothing new is taken; deletions and updates are",
        )

    def stats(self) -> dict[str, Any]:
        return {"resident": self.resident, "max": self._max, "full": self.full}
