# cython: language_level=3, annotation_typing=False
"""The ledger of a sale: every step that was taken, in order, never changed and never dropped.

A step is a row [step, at, caller, user, hold number, {item: units}, reference]. Rows lie packed in
chunks of at most so many rows and about so many bytes, some 50 bytes a row, without a Python object
a row; a page is read by unpacking a chunk or two. What each step means for the units of the items
that it names stands in `MOVES`: adding up the ledger gives the balances (reckoning.py). One source,
two forms, as the book.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import msgpack

from rtserver.structs import expect
from rtserver.wire.codec import pack

__all__ = ["CHUNK_BYTES", "CHUNK_ROWS", "MOVES", "STEPS", "Ledger", "Row"]

Row = list[Any]  # [step, at, caller, user, hold number, {item: units}, reference]

CHUNK_ROWS: Final = 1_024
CHUNK_BYTES: Final = 64 * 1024  # at which it is full: a row may name a thousand items

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

    __slots__ = ("_chunks", "_full_at", "_last", "_rows", "_starts")

    def __init__(self) -> None:
        self._last = bytearray()  # the chunk that grows
        self._chunks = [self._last]
        self._starts = [0]  # how many rows come before each chunk
        self._rows = 0
        self._full_at = CHUNK_ROWS  # rows, with which the last chunk is full

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
        self.append_packed(pack((step, at, caller, user, number, items, reference)))

    def append_packed(self, row: bytes) -> None:
        """The same of a row that is packed already."""
        chunk = self._last
        chunk += row
        self._rows += 1
        if self._rows == self._full_at or len(chunk) >= CHUNK_BYTES:
            self._begin_chunk()

    def _begin_chunk(self) -> None:
        self._last = bytearray()
        self._chunks.append(self._last)
        self._starts.append(self._rows)
        self._full_at = self._rows + CHUNK_ROWS

    def rows(self, after: int, limit: int) -> Iterator[Row]:
        """At most `limit` rows that follow the step `after`; a chunk is read when it is needed."""
        end = min(after + limit, self._rows)
        while after < end:
            rows = self._page(after, end - after)
            after += len(rows)
            yield from rows

    def read_on(self, after: int) -> list[Row]:
        """The rows that follow the step `after` in one chunk; none at the end."""
        return self._page(after, None)

    def _page(self, after: int, limit: int | None) -> list[Row]:
        """At most so many rows of one chunk; those that are not asked for are only passed over."""
        number = bisect_right(self._starts, after) - 1
        return _unpacked(self._chunks[number], after - self._starts[number], limit)

    # --- snapshots ---

    def dump(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            yield bytes(chunk)

    def load(self, chunk: bytes) -> None:
        """The next chunk of a dump."""
        self._last += chunk
        self._rows += len(_unpacked(chunk))
        if self._rows == self._full_at or len(chunk) >= CHUNK_BYTES:
            self._begin_chunk()

    # --- memory ---

    def release(self, entries_max: int) -> bool:
        """Frees a slice; True when nothing is left."""
        del self._chunks[-max(1, entries_max // CHUNK_ROWS) :]
        return not self._chunks

    def check(self) -> None:
        """Raises StructureBroken unless every chunk but the last is full. O(n)."""
        expect(len(self._chunks) == len(self._starts), "chunks and their starts differ in number")
        rows = 0
        for number, chunk in enumerate(self._chunks):
            expect(self._starts[number] == rows, "a chunk starts elsewhere")
            size = len(_unpacked(chunk))
            rows += size
            full = size == CHUNK_ROWS or len(chunk) >= CHUNK_BYTES
            expect(full == (chunk is not self._chunks[-1]), "only the last chunk is not full")
        expect(rows == self._rows, "the ledger counts other rows than it holds")


def _unpacked(chunk: bytes | bytearray, skipped: int = 0, limit: int | None = None) -> list[Row]:
    unpacker: Any = msgpack.Unpacker(use_list=True, strict_map_key=False, max_buffer_size=0)
    unpacker.feed(memoryview(chunk))
    for _ in range(skipped):
        unpacker.skip()
    return [[STEPS[row[0]], *row[1:]] for row in islice(unpacker, limit)]
