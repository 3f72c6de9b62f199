# The types of C for the compiled form of ledger.py, which is built from that same source.

cimport cython

@cython.final
cdef class Ledger:
    cdef bytearray _last
    cdef list _chunks
    cdef list _starts
    cdef Py_ssize_t _rows
    cdef Py_ssize_t _full_at

    @cython.locals(chunk=bytearray)
    cpdef append_packed(self, bytes row)
    cpdef _begin_chunk(self)
