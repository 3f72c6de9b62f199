"""The records of the turn that runs: what the log will hold of it.

Plain increments are summed up per counter and leave as one record, placed before any other
record that touches one of them; so a hot counter costs one entry a turn, not a million. A record
is [method, version, args] or [method, version, args, meta]; the keys of meta are constants below.
"""

from __future__ import annotations

from typing import Any, Final

from rtserver.commands.table import Command
from rtserver.limits import INT64_MAX, INT64_MIN
from rtserver.wire.codec import pack

__all__ = [
    "META_ADDRESS",
    "META_CALL",
    "META_DRAWS",
    "META_KEY",
    "META_RESULT",
    "META_SOURCE",
    "META_USER",
    "SUM_METHOD",
    "Journal",
]

META_USER: Final = "u"  # who acted
META_ADDRESS: Final = "a"  # from where
META_KEY: Final = "k"  # idempotency key
META_CALL: Final = "c"  # fingerprint of the call under that key
META_RESULT: Final = "r"  # its packed result, where replaying the arguments would not give it
META_SOURCE: Final = "s"  # [name, partition, offset]
META_DRAWS: Final = "d"  # ids drawn in the turn before this command

SUM_METHOD: Final = "counter.sum"
_SUM_VERSION = 1
_SUM_OVERHEAD = 24  # bytes of a delta, headers, and a share of the record


class Journal:
    """Collects records in order; `drain` hands them over as packed bytes."""

    __slots__ = ("_records", "_sums", "bytes", "limit")

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._sums: dict[str, int] = {}
        self.bytes = 0  # at least what drain will return
        self.limit = 0  # room in the log for this turn

    def __bool__(self) -> bool:
        return bool(self._records) or bool(self._sums)

    def add_sum(self, name: str, delta: int) -> None:
        """A plain increment, already applied."""
        sums = self._sums
        before = sums.get(name)
        if before is None:
            sums[name] = delta
            self.bytes += 4 * len(name) + _SUM_OVERHEAD
            return
        total = before + delta
        if not INT64_MIN <= total <= INT64_MAX:
            self._flush_sums()
            self.add_sum(name, delta)
        else:
            sums[name] = total

    def add(self, command: Command, args: list[Any], meta: dict[str, Any] | None) -> None:
        """Any other write, already applied."""
        if self._sums:
            self._flush_touched(command, args)
        if meta:
            record = pack((command.name, command.version, args, meta))
        else:
            record = pack((command.name, command.version, args))
        self._records.append(record)
        self.bytes += len(record)

    def drain(self) -> list[bytes]:
        """All records of the turn; the journal is empty afterwards."""
        if self._sums:
            self._flush_sums()
        records = self._records
        self._records = []
        self.bytes = 0
        return records

    def _flush_touched(self, command: Command, args: list[Any]) -> None:
        """Sums come before a record that reads or changes one of their counters. A command
        without a key may touch any."""
        place = command.key_place
        if place is None or (command.noun == "counter" and args[place] in self._sums):
            self._flush_sums()

    def _flush_sums(self) -> None:
        items = list(self._sums.items())
        self._sums.clear()
        self._records.append(pack((SUM_METHOD, _SUM_VERSION, (items,))))
