# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of journal.py: one buffer that records are copied into."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t

from rtserver.structs._names cimport Cell
from rtserver.structs._tally cimport Tally
from rtserver.wire._msgpack cimport Buffer, free_buffer, put_bytes, reserve

from rtserver.commands.journal import SUM_BYTES, SUM_METHOD, SUM_VERSION, packed_record, touches
from rtserver.wire.codec import pack

cdef Py_ssize_t _sum_bytes = SUM_BYTES
cdef Py_ssize_t _IDLE_BYTES = 1 << 20  # a larger buffer is given back when a turn has ended
# [method, version, [ ... and then the packed notes.
cdef bytes _sum_head = b"\x93" + pack(SUM_METHOD) + pack(SUM_VERSION) + b"\x91"


cdef inline Py_ssize_t characters(const Cell *cell) noexcept nogil:
    """Of a name: its bytes that do not continue a character (RFC 3629 section 3)."""
    cdef Py_ssize_t count = 0
    cdef Py_ssize_t i
    for i in range(cell.size):
        count += (cell.name[i] & 0xC0) != 0x80
    return count


@cython.final
cdef class Journal:
    def __init__(self, Tally tally):
        self.tally = tally

    def __dealloc__(self):
        free_buffer(&self.records)

    def __bool__(self):
        return self.count > 0 or self.tally.notes > 0

    cdef int note(self, uint32_t ref, Cell *cell, int64_t delta) except -1:
        """`add_sum` of a counter's cell."""
        cdef int noted = self.tally.note_ref(ref, cell, delta)
        if noted == 2:
            self.flush_sums()
            noted = self.tally.note_ref(ref, cell, delta)
        if noted:
            self.bytes += 4 * characters(cell) + _sum_bytes
        return 0

    cdef int record(self, const void *data, Py_ssize_t size) except -1:
        """A packed record that touches no counter with a sum."""
        reserve(&self.records, size)
        put_bytes(&self.records, data, size)
        self.count += 1
        self.bytes += size
        return 0

    cdef int flush_sums(self) except -1:
        reserve(&self.records, len(_sum_head))
        put_bytes(&self.records, <const char *>_sum_head, len(_sum_head))
        self.tally.pack_notes(&self.records)
        self.count += 1
        return 0

    def add_sum(self, str name, int64_t delta):
        cdef uint32_t ref = self.tally.ref_of(name)
        if not ref:
            raise KeyError(name)
        self.note(ref, self.tally.names.at(ref), delta)

    def add(self, command, args, meta):
        cdef bytes record
        if self.tally.notes and touches(self.tally, command, args):
            self.flush_sums()
        record = packed_record(command, args, meta)
        self.record(<const char *>record, len(record))

    def drain(self):
        cdef Py_ssize_t count
        if self.tally.notes:
            self.flush_sums()
        records = PyBytes_FromStringAndSize(<const char *>self.records.data, self.records.size)
        count = self.count
        self.count = 0
        self.bytes = 0
        self.records.size = 0
        if self.records.room > _IDLE_BYTES:
            free_buffer(&self.records)
        return records, count
