"""The records of the turn that runs: what the log will hold of it.

Plain increments are summed up per counter and leave as one record, placed before any other
record that touches one of them; so a hot counter costs one entry a turn, not a million. A record
is [method, version, args] or [method, version, args, meta]; the keys of meta are constants below.
"""

from __future__ import annotations

from typing import Any, Final, cast

from rtserver.commands.table import Command
from rtserver.compiled import twin
from rtserver.structs.tally import Tally
from rtserver.wire.codec import pack

__all__ = [
    "META_ADDRESS",
    "META_CALL",
    "META_DRAWS",
    "META_KEY",
    "META_RESULT",
    "META_SERVICE",
    "META_SOURCE",
    "META_USER",
    "SUM_BYTES",
    "SUM_METHOD",
    "SUM_VERSION",
    "Journal",
    "new_journal",
    "packed_record",
    "scope_of",
    "touches",
]

META_USER: Final = "u"  # who acted
META_SERVICE: Final = "v"  # by which back end
META_ADDRESS: Final = "a"  # from where
META_KEY: Final = "k"  # idempotency key
META_CALL: Final = "c"  # fingerprint of the call under that key
META_RESULT: Final = "r"  # its packed result, where replaying the arguments would not give it
META_SOURCE: Final = "s"  # [name, partition, offset]
META_DRAWS: Final = "d"  # ids drawn in the turn before this command

SUM_METHOD: Final = "counter.sum"
SUM_VERSION: Final = 1
SUM_BYTES: Final = 24  # of a delta, headers, and a share of the record


class Journal:
    """Collects records in order; `drain` hands them over as packed bytes. The sums are the notes
    of the counters' tally. `add` packs its arguments at once."""

    __slots__ = ("_records", "_tally", "bytes", "limit")

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._records: list[bytes] = []
        self.bytes = 0  # at least what drain will return
        self.limit = 0  # room in the log for this turn

    def __bool__(self) -> bool:
        return bool(self._records) or self._tally.notes > 0

    def add_sum(self, name: str, delta: int) -> None:
        """A plain increment, already applied."""
        before = self._tally.notes
        if not self._tally.note(name, delta):
            self._flush_sums()
            self.add_sum(name, delta)
        elif self._tally.notes != before:
            self.bytes += 4 * len(name) + SUM_BYTES

    def add(self, command: Command, args: list[Any], meta: dict[str, Any] | None) -> None:
        """Any other write, already applied."""
        if self._tally.notes and touches(self._tally, command, args):
            self._flush_sums()
        record = packed_record(command, args, meta)
        self._records.append(record)
        self.bytes += len(record)

    def drain(self) -> tuple[bytes, int]:
        """All records of the turn and how many; the journal is empty afterwards."""
        if self._tally.notes:
            self._flush_sums()
        records, self._records = self._records, []
        self.bytes = 0
        return b"".join(records), len(records)

    def _flush_sums(self) -> None:
        self._records.append(pack((SUM_METHOD, SUM_VERSION, (self._tally.take_notes(),))))


def touches(tally: Tally, command: Command, args: list[Any]) -> bool:
    """Whether a command reads or changes a counter that has a sum, which must then come before
    it. A command without a key may touch any."""
    place = command.key_place
    return place is None or (command.noun == "counter" and tally.noted(args[place]))


def scope_of(user: str | None, service: str | None) -> str:
    """Whose idempotency keys are meant. A name has no spaces, so no user is taken for a back end;
    callers without either share one scope."""
    return user or ("" if service is None else f"service {service}")


def packed_record(command: Command, args: list[Any], meta: dict[str, Any] | None) -> bytes:
    """The record of a write."""
    if meta:
        return pack((command.name, command.version, args, meta))
    return pack((command.name, command.version, args))


def new_journal(tally: Tally) -> Journal:
    """An empty journal, in compiled form where there is one."""
    compiled = twin(__name__)
    return Journal(tally) if compiled is None else cast(Journal, compiled.Journal(tally))
