# The C side of the compiled ranking: see _ranking.pyx. Other compiled modules cimport this.

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from rtserver.structs._blocks cimport Leaf
from rtserver.structs._names cimport Cell, NameTable
from rtserver.structs._skiplist cimport Skiplist

@cython.final
cdef class Ranking:
    cdef NameTable _names
    cdef Skiplist _order
    cdef public int64_t seq
    # What a board says of itself; the ranking only keeps it.
    cdef public bint descending
    cdef public bint floats
    cdef public bint guarded
    cdef public int mode
    cdef public int64_t members_max

    cdef uint64_t hash_of(self, const char *name, Py_ssize_t size) noexcept nogil
    cdef void prefetch(self, uint64_t hashed) noexcept nogil
    cdef void prefetch_cell(self, uint64_t hashed) noexcept nogil
    cdef uint32_t ref_of(self, const char *name, Py_ssize_t size, uint64_t hashed) noexcept nogil
    cdef Cell *at(self, uint32_t ref) noexcept nogil
    cdef int64_t count(self) noexcept nogil
    cdef int64_t rank_at(self, uint32_t ref) noexcept nogil
    cdef int64_t first_place(self, int64_t key) noexcept nogil
    cdef int64_t end_place(self, int64_t key) noexcept nogil
    cdef int64_t dense_before(self, int64_t key) noexcept nogil
    cdef int64_t move_at(self, uint32_t ref, int64_t key, int64_t *previous) except -1
    cdef int64_t place_at(
        self, const char *name, Py_ssize_t size, uint64_t hashed, int64_t key
    ) except -1
    cdef int64_t remove_at(self, uint32_t ref) noexcept nogil

    cdef int64_t _place_as(
        self, const char *name, Py_ssize_t size, uint64_t hashed, int64_t key, int64_t seq
    ) except -1
    cdef void _prefetch_cells(self, Leaf *leaf, uint32_t place, int64_t wanted) noexcept nogil
    cdef uint32_t _find(self, str name) except? 0
    cdef uint32_t _require(self, str name) except 0
