# The C side of the short ways of sales: see _sale_ways.pyx.

cimport cython
from libc.stdint cimport int64_t

from rtserver.commands._journal cimport Journal
from rtserver.state.sales._book cimport Book, Hold, Item
from rtserver.state.sales._ledger cimport Ledger
from rtserver.structs._names cimport NameTable
from rtserver.structs._ranking cimport Ranking
from rtserver.wire._msgpack cimport Buffer, Cursor, Text

@cython.final
cdef class SaleWays:
    cdef object sales
    cdef object growth
    cdef object user  # of who calls, as the next two; nothing keeps a connection here
    cdef object service
    cdef object address
    cdef Journal journal
    cdef int64_t now
    cdef bint is_known  # whether the next three are of who calls
    cdef bytes caller  # packed, for the ledger
    cdef bytes meta  # packed, for the record; None where it has none
    cdef bytes addressed_meta  # the same of a command for which the address matters whoever calls
    cdef readonly bytes refusal  # packed: why the last call was refused; None where it was not
    cdef object sale  # looked up last
    cdef Book book
    cdef Ledger ledger
    cdef bytes name
    cdef Item item
    cdef bytes sku
    cdef tuple items  # (item,), shared by the holds of one after another
    cdef tuple amounts  # (units,)
    cdef int64_t units
    cdef object room  # of the sale above; None where there is none, or it was not looked at yet
    cdef object terms  # of that room
    cdef bint asks_nothing  # of one who joins, by those terms
    cdef int64_t active_max
    cdef Ranking line
    cdef Ranking visits
    cdef bytes seed
    cdef Buffer record
    cdef Buffer row

    cdef void enter(self, connection, int64_t now)
    cdef int reserve(self, Cursor *params, Buffer *out) except -1
    cdef int confirm(self, Cursor *params, Buffer *out) except -1
    cdef int join(self, Cursor *params, Buffer *out) except -1
    cdef bint _can_join(self) except -1
    cdef _look_at_room(self, room)
    cdef bint _is_known(self, Ranking ranking, const Text *user) noexcept nogil
    cdef int64_t _place(self, const Text *user, bint started) except -1
    cdef NameTable users(self, const Text *name, bint waiting)
    cdef bint _find(self, const Text *name) except -1
    cdef bint _find_number(self, int64_t number) except -1
    cdef bint _keep(self, sale) except -1
    cdef bint _find_item(self, const Text *sku) except -1
    cdef int _take(self, const Text *user, int64_t units, Buffer *out) except -1
    cdef int _sell(self, Hold hold, const Text *id, const Text *reference, Buffer *out) except -1
    cdef _know(self)
    cdef int _note(self, int step, Hold hold, const Text *reference) except -1
    cdef int _begin_row(self, int step, const char *user, Py_ssize_t size) except -1
    cdef int _end_row(self) except -1
    cdef int _write(self, bytes meta) except -1
    cdef void _put_item(self, Buffer *to, int64_t units) noexcept
    cdef void _put_id(self, Buffer *to, const char *kind, Hold hold) noexcept
