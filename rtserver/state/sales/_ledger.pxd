# The types of C for the compiled form of ledger.py, which is built from that same source.

cimport cython

@cython.final
cdef class Ledger:
    cdef list _chunks
    cdef Py_ssize_t _rows

    @cython.locals(chunk=bytearray)
    cpdef append_packed(self, bytes row)
