"""The ledger of a sale: every step that was taken, in order, never changed and never dropped.

A step is a row [step, at, caller, user, hold number, {item: units}, reference]. Rows lie packed in
chunks of so many rows, some 50 bytes each, without a Python object a row; a page is read by
unpacking a chunk or two. What each step means for the units of the items that it names stands in
`MOVES`: adding up the ledger gives the balances (state/sales/audit.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgpack

from rtserver.structs import expect
from rtserver.wire.codec import pack

__all__ = ["CHUNK_ROWS", "MOVES", "STEPS", "Ledger", "Row"]

Row = list[Any]  # [step, at, caller, user, hold number, {item: units}, reference]

CHUNK_ROWS: Final = 1_024

# Which balance of an item loses the units, and which gains them. "in" and "out" are the world.
MOVES: Final[dict[str, tuple[str, str] | None]] = {
    "created": ("in", "free"),
    "restocked": ("in", "free"),  # below 0: taken away again
    "configured": None,
    "opened": None,
    "paused": None,
    "closed": None,
    "joined": None,
    "left": None,
    "abandoned": None,
    "admitted": None,
    "pass_expired": None,
    "reserved": ("free", "held"),
    "confirmed": ("held", "sold"),
    "retaken": ("free", "sold"),
    "extended": None,
    "freed": ("held", "free"),  # what a partial confirm left over
    "replaced": ("held", "free"),  # the old basket of a hold; the new one follows as `reserved`
    "cancelled": ("held", "free"),
    "expired": ("held", "free"),
    "released": ("held", "free"),  # by the end of the sale
    "refunded": ("sold", "free"),
    "withdrawn": ("sold", "out"),  # refunded, and not for sale again
}
STEPS: Final = tuple(MOVES)  # a row holds the place of its step here: only ever append


class Ledger:
    """The steps of one sale; the first has the number 1."""

    __slots__ = ("_chunks", "_rows")

    def __init__(self) -> None:
        self._chunks: list[bytearray] = [bytearray()]
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def append(
        self,
        step: int,
        at: int,
        caller: str | None,
        user: str | None = None,
        number: int | None = None,
        items: dict[str, int] | None = None,
        reference: str | None = None,
    ) -> None:
        """`step` is a place in STEPS."""
        self._chunks[-1] += pack((step, at, caller, user, number, items, reference))
        self._rows += 1
        if self._rows % CHUNK_ROWS == 0:
            self._chunks.append(bytearray())

    def append_packed(self, row: bytes) -> None:
        """The same of a row that is packed already."""
        self._chunks[-1] += row
        self._rows += 1
        if self._rows % CHUNK_ROWS == 0:
            self._chunks.append(bytearray())

    def read(self, after: int, limit: int) -> list[Row]:
        """At most `limit` rows that follow the step `after`."""
        found: list[Row] = []
        limit = min(limit, self._rows - after)
        while len(found) < limit:
            number, skipped = divmod(after + len(found), CHUNK_ROWS)
            rows = _unpacked(self._chunks[number])
            found += rows[skipped : skipped + limit - len(found)]
        return found

    # --- snapshots ---

    def dump(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            yield bytes(chunk)

    def load(self, chunk: bytes) -> None:
        """The next chunk of a dump."""
        rows = len(_unpacked(chunk))
        self._chunks[-1] += chunk
        self._rows += rows
        if rows == CHUNK_ROWS:
            self._chunks.append(bytearray())

    # --- memory ---

    def release(self, entries_max: int) -> bool:
        """Frees a slice; True when nothing is left."""
        del self._chunks[-max(1, entries_max // CHUNK_ROWS) :]
        return not self._chunks

    def check(self) -> None:
        """Raises StructureBroken unless every chunk but the last is full. O(n)."""
        sizes = [len(_unpacked(chunk)) for chunk in self._chunks]
        expect(all(size == CHUNK_ROWS for size in sizes[:-1]), "a chunk in the middle is not full")
        expect(sum(sizes) == self._rows, "the ledger counts other rows than it holds")


def _unpacked(chunk: bytes | bytearray) -> list[Row]:
    unpacker = msgpack.Unpacker(use_list=True, strict_map_key=False, max_buffer_size=0)
    unpacker.feed(memoryview(chunk))
    return [[STEPS[row[0]], *row[1:]] for row in unpacker]
