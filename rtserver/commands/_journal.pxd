# The C side of the journal: see journal.py for what it does.

cimport cython
from libc.stdint cimport int64_t, uint32_t

from rtserver.structs._names cimport Cell
from rtserver.structs._tally cimport Tally
from rtserver.wire._msgpack cimport Buffer

@cython.final
cdef class Journal:
    cdef Tally tally
    cdef Buffer records
    cdef Py_ssize_t count
    cdef public Py_ssize_t bytes
    cdef public Py_ssize_t limit

    cdef int note(self, uint32_t ref, Cell *cell, int64_t delta) except -1
    cdef int record(self, const void *data, Py_ssize_t size) except -1
    cdef int flush_sums(self) except -1
