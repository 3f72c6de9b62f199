# The types of C for the compiled form of book.py, which is built from that same source as the
# module `_book`. Other compiled modules cimport this.

cimport cython
from libc.stdint cimport int64_t, uint64_t

from rtserver.structs._sharded_map cimport ShardedMap as Map

cdef class Buyer

@cython.final
cdef class Item:
    cdef public str name
    cdef public object terms
    cdef public bint quick
    cdef public int64_t per_user
    cdef public int64_t stock
    cdef public int64_t free
    cdef public int64_t held
    cdef public int64_t sold
    cdef public object refusal
    cdef public bytes refusal_packed

    cpdef sold_out(self)
    cpdef _moved(self)

@cython.final
cdef class Hold:
    cdef public int64_t number
    cdef public uint64_t tag
    cdef public str user
    cdef public tuple items
    cdef public tuple amounts
    cdef public int state
    cdef public bint moved
    cdef public int64_t reserved_at
    cdef public int64_t expires_at
    cdef public int64_t ended_at
    cdef public object reference
    cdef public object refunds
    cdef public Buyer buyer
    cdef public Hold before
    cdef public Hold after

    cpdef dict basket(self)

@cython.final
cdef class Buyer:
    cdef public str user
    cdef public int64_t taken
    cdef public list held
    cdef public list orders
    cdef public dict taken_of

@cython.final
cdef class Book:
    cdef public int64_t sale
    cdef public bint quick
    cdef public int64_t per_user
    cdef public int64_t hold_ms
    cdef public int64_t holds_max
    cdef public Map items
    cdef public list sequence
    cdef public Map buyers
    cdef public int64_t stock
    cdef public int64_t free
    cdef public int64_t held
    cdef public int64_t sold
    cdef public int64_t holds
    cdef public int64_t last_number
    cdef public int64_t orders
    cdef public list order_pages
    cdef public int64_t sold_out_refusals
    cdef public list pages
    cdef public object ended
    cdef object _names
    cdef Hold _first
    cdef Hold _last
    cdef object _others
    cdef str _prefix
    cdef bytes _secret
    cdef int64_t _tag_block
    cdef tuple _tags

    @cython.locals(block=int64_t)
    cpdef uint64_t tag_of(self, int64_t number)
    @cython.locals(hold=Hold)
    cpdef Hold find(self, int64_t number, uint64_t tag)
    @cython.locals(hold=Hold)
    cpdef Hold at(self, int64_t number)
    @cython.locals(buyer=Buyer)
    cpdef Buyer buyer(self, str user)
    @cython.locals(hold=Hold)
    cpdef Hold reserve(
        self,
        int64_t now,
        str user,
        tuple items,
        tuple amounts,
        int64_t expires_at,
        Buyer buyer,
    )
    @cython.locals(hold=Hold)
    cpdef Hold new_hold(
        self,
        int64_t number,
        str user,
        tuple items,
        tuple amounts,
        int64_t reserved_at,
        int64_t expires_at,
    )
    cpdef put(self, int64_t number, Hold hold)
    @cython.locals(item=Item, n=int64_t, place=Py_ssize_t)
    cpdef hold_units(self, Buyer buyer, Hold hold)
    cpdef give_back(self, Hold hold, int state, int64_t now)
    @cython.locals(buyer=Buyer, item=Item, n=int64_t, place=Py_ssize_t)
    cpdef _unhold(self, Hold hold)
    cpdef take(self, Buyer buyer, Item item, int64_t n)
    cpdef _untake(self, Buyer buyer, Item item, int64_t n)
    @cython.locals(buyer=Buyer)
    cpdef _let_go(self, Hold hold)
    @cython.locals(buyer=Buyer, item=Item, n=int64_t, place=Py_ssize_t)
    cpdef sell(self, Hold hold, int64_t now, object reference)
    cpdef _order(self, Buyer buyer, Hold hold, int64_t now, object reference)
    cpdef note_order(self, Buyer buyer, int64_t number)
    @cython.locals(last=Hold)
    cpdef expect_expiry(self, Hold hold)
    @cython.locals(before=Hold, after=Hold)
    cpdef _expect_no_more(self, Hold hold)
