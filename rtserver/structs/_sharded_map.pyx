# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of sharded_map.py, for maps that are asked several times a command."""

cimport cython
from cpython.dict cimport PyDict_GetItem, PyDict_Next
from cpython.object cimport PyObject_Hash
from cpython.ref cimport PyObject

from rtserver.structs import sharded_map
from rtserver.structs.sharded_map import SHARD_MAX


@cython.final
cdef class ShardedMap:
    def __init__(self, Py_ssize_t shard_max=SHARD_MAX):
        self._shard_max = shard_max
        self._reset()

    cdef _reset(self):
        self.shards = [{}]
        self.mask = 0
        self._next = 0
        self._size = 0
        self._split_above = self._shard_max

    def __len__(self):
        return self._size

    def __contains__(self, str name):
        return name in self._shard(name)

    cdef dict _shard(self, str name):
        return <dict>self.shards[PyObject_Hash(name) & self.mask]

    cpdef object get(self, str name, default=None):
        cdef PyObject *found = PyDict_GetItem(self._shard(name), name)
        return default if found == NULL else <object>found

    def items(self):
        for shard in self.shards[: self._distinct()]:
            yield from shard.items()

    cdef Py_ssize_t _distinct(self):
        return max(1, len(self.shards) // 2 + self._next)

    cpdef insert(self, str name, value):
        cdef dict shard = self._shard(name)
        cdef Py_ssize_t before = len(shard)
        shard[name] = value
        if len(shard) != before:
            self._size += 1
            if self._size > self._split_above:
                self._split()

    cpdef object pop(self, str name):
        cdef dict shard = self._shard(name)
        value = shard.pop(name)
        self._size -= 1
        if not shard:
            shard.clear()
        return value

    cpdef bint release(self, Py_ssize_t entries_max):
        cdef dict shard
        cdef Py_ssize_t count, i
        while self._size and entries_max > 0:
            shard = self.shards[len(self.shards) - 1]
            count = min(entries_max, <Py_ssize_t>len(shard))
            for i in range(count):
                shard.popitem()
            self._size -= count
            entries_max -= count
            if not shard:
                self.shards.pop()
        if self._size:
            return False
        self._reset()
        return True

    def check(self):
        sharded_map.check(
            self.shards, self.mask, self._next, self._size, self._shard_max, self._split_above
        )

    cdef _split(self):
        cdef dict low = {}
        cdef dict high = {}
        cdef PyObject *name
        cdef PyObject *value
        cdef Py_ssize_t place = 0
        cdef Py_ssize_t bit, slot
        if self._next == len(self.shards) // 2:
            self.shards *= 2
            self.mask = 2 * self.mask + 1
            self._next = 0
        bit = len(self.shards) // 2
        slot = self._next
        while PyDict_Next(self.shards[slot], &place, &name, &value):
            if PyObject_Hash(<object>name) & bit:
                high[<object>name] = <object>value
            else:
                low[<object>name] = <object>value
        self.shards[slot] = low
        self.shards[slot + bit] = high
        self._next += 1
        self._split_above = max(self._shard_max, self._distinct() * (self._shard_max // 2))
