# The C side of the compiled map: see _sharded_map.pyx. Other compiled modules cimport this.

cimport cython
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from rtserver.structs._names cimport Bucket, NameTable

@cython.final
cdef class ShardedMap:
    cdef NameTable names
    cdef uint64_t _emptied  # buckets whose values are given back already

    cdef PyObject *find(self, const char *name, Py_ssize_t size, uint64_t hashed) noexcept nogil
    cdef add(self, const char *name, Py_ssize_t size, uint64_t hashed, value)
    cpdef object get(self, str name, default=*)
    cpdef insert(self, str name, value)
    cpdef object pop(self, str name)
    cpdef bint release(self, int64_t entries_max)
    cdef uint64_t _empty(self, Bucket *bucket)
    cdef uint64_t _buckets(self) noexcept nogil
