# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Short ways of the frequent records on replay, from their bytes; what is unusual goes to `apply`.

A part of the compiled form, without a twin. A record that was written passed every check then, so
a short way only looks whether the state is as plain as it needs.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from rtserver.state._boards cimport Outcome, PlainBoards, Score, read_score
from rtserver.structs._names cimport Cell, NameTable
from rtserver.structs._tally cimport LONG_WAY, Tally
from rtserver.wire._msgpack cimport (
    Cursor,
    Text,
    read_array,
    read_int,
    read_nil,
    read_text,
    skip_value,
)

from rtserver.commands.journal import SUM_METHOD
from rtserver.wire.codec import unpack_trusted

DEF AHEAD = 8  # items of a sum whose memory is on its way while one is applied


cdef struct Sum:
    Text name
    uint64_t hashed
    int64_t delta


cdef inline bint _is(const Text *text, bytes word) noexcept:
    return text.size == len(word) and memcmp(text.data, <const char *>word, text.size) == 0


cdef bint _only_says_who(Cursor record) noexcept:
    """Whether what follows the arguments is no more than a user and an address."""
    cdef Text key
    if not skip_value(&record) or record.at == record.end or record.at[0] & 0xF0 != 0x80:
        return False
    record.at += 1
    while record.at < record.end:
        if not read_text(&record, &key) or key.size != 1 or not skip_value(&record):
            return False
        if key.data[0] != c"u" and key.data[0] != c"a":
            return False
    return True


@cython.final
cdef class ShortWays:
    """Applies blocks of records to one store."""

    cdef object _counters
    cdef Tally _tally
    cdef NameTable _names
    cdef PlainBoards _boards
    cdef bytes _sum_method

    def __init__(self, store):
        self._counters = store.counters
        self._tally = store.counters.tally
        self._names = self._tally.names
        self._boards = PlainBoards(store.boards)
        self._sum_method = SUM_METHOD.encode()

    def apply_block(self, const uint8_t[::1] records, int64_t first_seq, now, apply):
        """How many records there are; `apply` takes one that is not applied here."""
        cdef Cursor at
        cdef Cursor record
        cdef int64_t seq = first_seq
        at.at = &records[0]
        at.end = at.at + records.shape[0]
        while at.at < at.end:
            record = at
            if not skip_value(&at):
                break
            record.end = at.at
            if not self._apply(record, now):
                apply(
                    unpack_trusted(
                        PyBytes_FromStringAndSize(
                            <const char *>record.at, record.end - record.at
                        )
                    ),
                    seq,
                    now,
                )
            seq += 1
        return seq - first_seq

    cdef bint _apply(self, Cursor record, now) except -1:
        """False, with nothing changed, for a record that goes the long way."""
        cdef Text method
        cdef uint32_t parts
        cdef int64_t version
        if (
            not read_array(&record, &parts)
            or not 3 <= parts <= 4
            or not read_text(&record, &method)
            or not read_int(&record, &version)
            or version != 1
        ):
            return False
        if _is(&method, self._sum_method):
            return self._apply_sum(record, now)
        if parts == 4 and not _only_says_who(record):
            return False
        if _is(&method, b"counter.set"):
            return self._apply_set(record)
        if _is(&method, b"board.submit"):
            return self._apply_submit(record)
        return False

    cdef bint _apply_sum(self, Cursor record, now) except -1:
        """Item by item; what is new or special goes to the handler's own method."""
        cdef Cursor ahead
        cdef Sum item
        cdef uint32_t count, i, ref
        cdef Cell *cell
        if not read_array(&record, &count) or count != 1 or not read_array(&record, &count):
            return False
        ahead = record
        for i in range(count + AHEAD):
            if i < count:
                if not self._read_sum(&ahead, &item):
                    raise ValueError("a sum is [name, delta]")
                self._names.prefetch(item.hashed)
            if i < AHEAD:
                continue
            self._read_sum(&record, &item)
            ref = self._names.find(item.name.data, item.name.size, item.hashed)
            cell = self._names.at(ref) if ref else NULL
            if cell == NULL or cell.mark & LONG_WAY or not self._tally.change(cell, item.delta):
                name = PyUnicode_DecodeUTF8(item.name.data, item.name.size, NULL)
                self._counters.add(now, name, item.delta)
        return True

    cdef bint _read_sum(self, Cursor *record, Sum *item) noexcept nogil:
        cdef uint32_t two
        if (
            not read_array(record, &two)
            or two != 2
            or not read_text(record, &item.name)
            or not read_int(record, &item.delta)
        ):
            return False
        item.hashed = self._names.hash_of(item.name.data, item.name.size)
        return True

    cdef bint _apply_submit(self, Cursor record) except -1:
        cdef uint32_t count, i
        cdef Text name
        cdef Text member
        cdef Score score
        cdef Outcome done
        if (
            not read_array(&record, &count)
            or count != 6
            or not read_text(&record, &name)
            or not read_text(&record, &member)
            or not read_score(&record, &score)
        ):
            return False
        for i in range(3):
            if not read_nil(&record):
                return False
        return self._boards.find(&name) and self._boards.submit(
            &member, self._boards.ranking.hash_of(member.data, member.size), &score, &done
        )

    cdef bint _apply_set(self, Cursor record) except -1:
        cdef uint32_t count, ref
        cdef Text name
        cdef int64_t value
        cdef Cell *cell
        if (
            not read_array(&record, &count)
            or count != 2
            or not read_text(&record, &name)
            or not read_int(&record, &value)
        ):
            return False
        ref = self._names.find(name.data, name.size, self._names.hash_of(name.data, name.size))
        if not ref:
            return False
        cell = self._names.at(ref)
        if cell.mark & LONG_WAY or not -(1 << 62) < cell.first < 1 << 62:
            return False
        return -(1 << 62) < value < 1 << 62 and self._tally.change(cell, value - cell.first)
