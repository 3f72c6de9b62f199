# The C side of the short ways: see _express.pyx.

cimport cython
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from rtserver.commands._journal cimport Journal
from rtserver.commands._sale_ways cimport SaleWays
from rtserver.state._boards cimport Outcome, PlainBoards, Score
from rtserver.structs._names cimport NameTable
from rtserver.structs._tally cimport Tally
from rtserver.wire._msgpack cimport Buffer, Cursor, Text

cdef struct Item:
    Text name
    uint64_t hashed
    Score number

# A short way: the cost of the command that it ran and whose result it wrote; 0, with nothing
# changed, where the long way has to be taken.
ctypedef int (*ShortWay)(Express, Cursor *, Buffer *) except -1

cdef struct Row:
    const char *name
    Py_ssize_t size
    ShortWay run
    bint is_write
    bint synced  # its reply waits for the sync unless asked otherwise
    int place  # which parameter it looks up, and where; 0: none

# A look-up to come.
cdef struct Hint:
    PyObject *table  # borrowed; NULL: none
    uint64_t hashed

@cython.final
cdef class Express:
    cdef object dispatcher
    cdef object store
    cdef object counters
    cdef list texts  # keeps alive what rows point to
    cdef Row rows[16]
    cdef int row_count
    cdef int last_row
    cdef int rank
    cdef Journal journal
    cdef Tally tally
    cdef NameTable names
    cdef PlainBoards boards
    cdef SaleWays sales
    cdef int64_t refusals  # of the run that goes on, all of them because something is sold out
    cdef Buffer out  # replies of the run that goes on; one reader of frames runs at a time
    cdef Buffer synced  # and those that wait for the sync
    cdef Buffer scratch
    cdef Item *items
    cdef bytes meta  # what a record of the present caller carries beside its arguments, or None
    cdef int64_t now
    cdef bint takes_writes

    cdef bint enter(self, connection) except -1
    cdef void foresee(self, Cursor body, Hint *hint) noexcept
    cdef NameTable _names_within(self, int place, const Text *name)
    cdef int frame(self, Cursor body) except -1
    cdef _add_row(self, command, ShortWay run, int place)
    cdef int _find_row(self, const Text *method) noexcept nogil
    cdef int _read_items(self, Cursor *params) except -1
    cdef int _board_submit(self, Cursor *params, Buffer *out) except -1
    cdef int _board_submit_many(self, Cursor *params, Buffer *out) except -1
    cdef bint _submit_item(self, Item *item, Buffer *out) except -1
    cdef int _board_rank(self, Cursor *params, Buffer *out) except -1
    cdef int _counter_set(self, Cursor *params, Buffer *out) except -1
    cdef int _counter_get(self, Cursor *params, Buffer *out) except -1
    cdef int _counter_add(self, Cursor *params, Buffer *out) except -1
    cdef int _counter_add_many(self, Cursor *params, Buffer *out) except -1
    cdef int _sale_reserve(self, Cursor *params, Buffer *out) except -1
    cdef int _sale_confirm(self, Cursor *params, Buffer *out) except -1
    cdef int _sale_join(self, Cursor *params, Buffer *out) except -1
    cdef int _reply(self, Row *row, int64_t request_id, Cursor *params, Buffer *out) except -1
    cdef int _refuse(self, int64_t request_id) except -1
    cdef int _add_item(self, Item *item, Buffer *out) except -1
    cdef int _write(self, Buffer *record) except -1
