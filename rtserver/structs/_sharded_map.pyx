# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of sharded_map.py: values beside their names in the cells of a NameTable.

A look-up touches a bucket and a cell, where the dict of a shard touches four or five lines of the
cache. Each cell owns a reference to its value, in `first`. Names have at most 255 bytes.
"""

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from rtserver.structs._names cimport Bucket, Cell, NameTable

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

DEF NAME_MAX = 255


@cython.final
cdef class ShardedMap:
    def __cinit__(self):
        self.names = NameTable()

    def __dealloc__(self):
        while not self.release(1 << 30):
            pass

    def __len__(self):
        return self.names.size

    def __contains__(self, str name):
        cdef Py_ssize_t size
        cdef const char *text = PyUnicode_AsUTF8AndSize(name, &size)
        return self.names.find(text, size, self.names.hash_of(text, size)) != 0

    cdef PyObject *find(self, const char *name, Py_ssize_t size, uint64_t hashed) noexcept nogil:
        """A borrowed value, or NULL."""
        cdef uint32_t ref = self.names.find(name, size, hashed)
        return <PyObject *><size_t>self.names.at(ref).first if ref else NULL

    cdef add(self, const char *name, Py_ssize_t size, uint64_t hashed, value):
        """A name that is not there yet."""
        cdef uint32_t ref
        if size > NAME_MAX:
            raise ValueError(f"a name has {size} bytes, at most {NAME_MAX} fit")
        ref = self.names.add(name, size, hashed)
        Py_INCREF(value)
        self.names.at(ref).first = <int64_t><size_t><PyObject *>value

    cpdef object get(self, str name, default=None):
        cdef Py_ssize_t size
        cdef const char *text = PyUnicode_AsUTF8AndSize(name, &size)
        cdef PyObject *found = self.find(text, size, self.names.hash_of(text, size))
        return default if found == NULL else <object>found

    def items(self):
        for name, value, _ in self.names.items():
            yield name, <object><PyObject *><size_t><int64_t>value

    cpdef insert(self, str name, value):
        cdef Py_ssize_t size
        cdef const char *text = PyUnicode_AsUTF8AndSize(name, &size)
        cdef uint64_t hashed = self.names.hash_of(text, size)
        cdef uint32_t ref = self.names.find(text, size, hashed)
        cdef Cell *cell
        if not ref:
            self.add(text, size, hashed, value)
            return
        cell = self.names.at(ref)
        before = <object><PyObject *><size_t>cell.first
        Py_INCREF(value)
        cell.first = <int64_t><size_t><PyObject *>value
        Py_DECREF(before)

    cpdef object pop(self, str name):
        cdef Py_ssize_t size
        cdef const char *text = PyUnicode_AsUTF8AndSize(name, &size)
        cdef uint64_t hashed = self.names.hash_of(text, size)
        cdef PyObject *found = self.find(text, size, hashed)
        if found == NULL:
            raise KeyError(name)
        self.names.remove(text, size, hashed)
        value = <object>found
        Py_DECREF(value)  # the cell's
        return value

    cpdef bint release(self, int64_t entries_max):
        """First the values go, a slice of buckets a call, then their names."""
        while self._emptied < self._buckets():
            if entries_max <= 0:
                return False
            entries_max -= self._empty(self.names._bucket(self._emptied))
            self._emptied += 1
        if entries_max <= 0 or not self.names.release(entries_max):
            return False
        self._emptied = 0
        return True

    cdef uint64_t _empty(self, Bucket *bucket):
        """Gives back the values of a bucket; the entries it cost."""
        cdef uint64_t entries = 1
        cdef uint32_t i
        while True:
            for i in range(bucket.count):
                Py_DECREF(<object><PyObject *><size_t>self.names.at(bucket.refs[i]).first)
            entries += bucket.count
            if not bucket.overflow:
                return entries
            bucket = self.names._spare(bucket.overflow)

    cdef uint64_t _buckets(self) noexcept nogil:
        return 0 if self.names._chunks == NULL else self.names._mask + 1 + self.names._next

    def check(self):
        self.names.check()
