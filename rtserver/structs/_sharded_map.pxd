# The C side of the compiled map: see _sharded_map.pyx. Other compiled modules cimport this.

cimport cython

@cython.final
cdef class ShardedMap:
    cdef public list shards
    cdef public Py_ssize_t mask
    cdef Py_ssize_t _shard_max
    cdef Py_ssize_t _next
    cdef Py_ssize_t _size
    cdef Py_ssize_t _split_above

    cpdef object get(self, str name, default=*)
    cpdef insert(self, str name, value)
    cpdef object pop(self, str name)
    cpdef bint release(self, Py_ssize_t entries_max)
    cdef dict _shard(self, str name)
    cdef _reset(self)
    cdef Py_ssize_t _distinct(self)
    cdef _split(self)
