# The C side of a tally: see tally.py for what it does.

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from rtserver.structs._names cimport Cell, NameTable
from rtserver.wire._msgpack cimport Buffer

cdef enum:
    LONG_WAY = 1  # marks of a cell
    NOTED = 2

@cython.final
cdef class Tally:
    cdef NameTable names  # first: the value, second: the sum noted
    cdef uint32_t *noted_refs  # in the order of their first note; 0: see `departed`
    cdef readonly uint32_t notes
    cdef uint32_t notes_room
    cdef dict departed  # place among the notes -> (name, sum) of what was taken out since
    cdef uint64_t total_low  # of the sum of all values, 128 bits
    cdef int64_t total_high

    cdef bint change(self, Cell *cell, int64_t delta) noexcept nogil
    cdef void count(self, int64_t delta) noexcept nogil
    cdef int note_ref(self, uint32_t ref, Cell *cell, int64_t delta) except -1
    cdef int pack_notes(self, Buffer *to) except -1
    cdef uint32_t ref_of(self, str name)
    cdef _set(self, Cell *cell, int64_t value)
