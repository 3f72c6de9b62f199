# The C side of boards: see _boards.pyx.

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from rtserver.structs._ranking cimport Ranking
from rtserver.wire._msgpack cimport Buffer, Cursor, Text

cdef struct Score:
    bint real  # a float
    int64_t whole
    double value

cdef struct Outcome:
    Score score
    int64_t rank  # from 1
    int64_t previous  # 0: a new member
    bint changed

cdef bint read_score(Cursor *at, Score *score) noexcept nogil
cdef void put_score(Buffer *to, const Score *score) noexcept nogil

@cython.final
cdef class PlainBoards:
    cdef object boards
    cdef object board  # the last one that was found,
    cdef Ranking ranking  # its ranking,
    cdef bytes name  # its name
    cdef object changes  # and when it was looked up

    cdef bint is_fresh(self) noexcept
    cdef bint find(self, const Text *name) except -1
    cdef bint submit(
        self, const Text *member, uint64_t hashed, const Score *score, Outcome *done
    ) except -1
    cdef bint _resubmit(self, uint32_t ref, Score *given, Outcome *done) except -1
    cdef bint rank(self, const Text *member, Outcome *found) except -1
