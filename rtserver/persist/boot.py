"""Which boot of the machine this is, and how long it has lasted.

Two readings with the same boot id lie within one life of the kernel: what was written to files
between them is still in the page cache, and the boot clock measures the time between them.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path

__all__ = ["BOOT_ID_BYTES", "boot_id", "boot_ms"]

BOOT_ID_BYTES = 16

_PROC = Path("/proc/sys/kernel/random/boot_id")
_UNKNOWN = uuid.uuid4().bytes
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # counts time asleep as well


def boot_id() -> bytes:
    """16 bytes that change with every boot.

    Where the kernel tells none they change with every process: then each stop that was not clean
    counts as a power loss, which costs clients a resume but never hides a lost record.
    """
    try:
        return uuid.UUID(_PROC.read_text("ascii").strip()).bytes
    except (OSError, ValueError):
        return _UNKNOWN


def boot_ms() -> int:
    """Milliseconds since the boot, time asleep included where the system counts it."""
    return time.clock_gettime_ns(_CLOCK) // 1_000_000
