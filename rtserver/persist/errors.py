"""What can go wrong between the server and its directory, one class an outcome.

`LogDamaged` and `StoreTooNew` refuse to start, `DirectoryLocked` means that another process is
at work, `LogFailed` stops a process that runs: what is on disk decides afterwards.
"""

from __future__ import annotations

import errno

__all__ = ["DISK_FULL_ERRNOS", "DirectoryLocked", "LogDamaged", "LogFailed", "StoreTooNew"]

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})

REPAIR_ADVICE = (
    "copy the directory before anything else; `rtserver log check DIR` shows all that is wrong,"
    " `rtserver log dump DIR` the records, and `rtserver log repair DIR` what a repair would lose"
)


class LogDamaged(Exception):
    """The directory holds what no crash leaves behind; starting would lose records in silence."""

    def __init__(self, file: str, offset: int, reason: str, advice: str = REPAIR_ADVICE) -> None:
        super().__init__(f"{file} is damaged at offset {offset}: {reason}; {advice}")
        self.file = file
        self.offset = offset
        self.reason = reason
        self.advice = advice


class StoreTooNew(LogDamaged):
    """A newer program wrote this directory; the bytes are fine."""

    def __init__(self, file: str, found: int, known: int) -> None:
        super().__init__(
            file,
            0,
            f"it has format {found}, this program knows formats up to {known}",
            "start the newer version of rtserver that wrote it",
        )


class LogFailed(Exception):
    """A write or a sync failed for another reason than space: the process must stop."""


class DirectoryLocked(Exception):
    """Another process works on the directory; the text says which."""
