# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A table of names in memory of its own: each name is interned once, beside two numbers.

For compiled modules, which read it by `cimport`; it has no twin in Python. A name costs its bytes
plus 18, rounded up to 8, and some 16 bytes of the index; no Python object. Cells never move in
terms of their `ref`, but an `add` may move what `at` pointed to.

The index is linear hashing (Litwin 1980) with a bucket to a cache line: the hash (SipHash-1-3,
Aumasson and Bernstein 2012, under a key of this process, so nobody can aim at a bucket) gives a
bucket of up to 7 names and their tags, so a look-up costs two cache misses, of which `prefetch`
takes the first one ahead. The table grows by one bucket at a time: no operation moves more than
one bucket's tags, or copies more than 64 KiB while it is small. Cells lie in slabs of 64 KiB;
those of removed names are used again for names of about the same length.
"""

cimport cython
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memcmp, memcpy, memset

import os

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef extern from *:
    """
    #include <stdlib.h>
    #if defined(__GNUC__)
    #define rt_prefetch(p) __builtin_prefetch(p)
    #else
    #define rt_prefetch(p) ((void)(p))
    #endif
    /* Memory on a cache line's border: the pointer that malloc gave lies before it. */
    static void *rt_lines(size_t bytes) {
        char *raw = (char *)malloc(bytes + 64 + sizeof(void *));
        char *made;
        if (raw == NULL) return NULL;
        made = (char *)(((size_t)raw + sizeof(void *) + 63) & ~(size_t)63);
        ((void **)made)[-1] = raw;
        return made;
    }
    static void rt_free_lines(void *made) { if (made != NULL) free(((void **)made)[-1]); }
    """
    void rt_prefetch(const void *place) noexcept nogil
    void *rt_lines(size_t bytes) noexcept nogil
    void rt_free_lines(void *made) noexcept nogil

DEF BUCKET_CELLS = 7
DEF CHUNK_BUCKETS = 1024
DEF SLAB_BYTES = 65536
DEF FIRST_SLAB_BYTES = 256
DEF CELL_HEAD = 18
DEF SLAB_WORTH = 1500  # entries that freeing a slab or a chunk of buckets counts as

cdef inline uint64_t _rotl(uint64_t x, int b) noexcept nogil:
    return (x << b) | (x >> (64 - b))


cdef inline void _sip_round(
    uint64_t *v0, uint64_t *v1, uint64_t *v2, uint64_t *v3
) noexcept nogil:
    v0[0] += v1[0]
    v1[0] = _rotl(v1[0], 13) ^ v0[0]
    v0[0] = _rotl(v0[0], 32)
    v2[0] += v3[0]
    v3[0] = _rotl(v3[0], 16) ^ v2[0]
    v0[0] += v3[0]
    v3[0] = _rotl(v3[0], 21) ^ v0[0]
    v2[0] += v1[0]
    v1[0] = _rotl(v1[0], 17) ^ v2[0]
    v2[0] = _rotl(v2[0], 32)


@cython.final
cdef class NameTable:
    """Names (UTF-8, at most 255 bytes) to two int64 and a mark."""

    def __cinit__(self):
        cdef bytes key = _KEY
        memcpy(&self._key0, <const char *>key, 8)
        memcpy(&self._key1, <const char *>key + 8, 8)
        self._reset()

    cdef _reset(self):
        self._chunks = NULL
        self._spare_chunks = NULL
        self._chunk_count = self._chunk_room = 0
        self._spare_count = self._spare_room = 0
        self._spare_free = 0
        self._spare_top = 1
        self._mask = self._next = 0
        self._slabs = NULL
        self._slab_count = 0
        self._first_slab_bytes = 0
        self._slab_used = 0
        memset(self._free, 0, sizeof(self._free))
        self.size = 0

    def __dealloc__(self):
        while not self.release(1 << 30):
            pass

    def __len__(self):
        return self.size

    # --- look-up ---

    cdef uint64_t hash_of(self, const char *name, Py_ssize_t size) noexcept nogil:
        cdef uint64_t v0 = self._key0 ^ <uint64_t>0x736F6D6570736575
        cdef uint64_t v1 = self._key1 ^ <uint64_t>0x646F72616E646F6D
        cdef uint64_t v2 = self._key0 ^ <uint64_t>0x6C7967656E657261
        cdef uint64_t v3 = self._key1 ^ <uint64_t>0x7465646279746573
        cdef uint64_t word
        cdef Py_ssize_t left = size
        cdef bint last = False
        cdef int round
        while True:
            if left >= 8:
                memcpy(&word, name, 8)
                name += 8
                left -= 8
            else:
                last = True
                word = 0
                memcpy(&word, name, left)
                word |= <uint64_t>size << 56
            v3 ^= word
            _sip_round(&v0, &v1, &v2, &v3)
            v0 ^= word
            if last:
                break
        v2 ^= 0xFF
        for round in range(3):
            _sip_round(&v0, &v1, &v2, &v3)
        return v0 ^ v1 ^ v2 ^ v3

    cdef Bucket *_bucket(self, uint64_t index) noexcept nogil:
        return &self._chunks[index // CHUNK_BUCKETS][index % CHUNK_BUCKETS]

    cdef Bucket *_spare(self, uint32_t number) noexcept nogil:
        return &self._spare_chunks[number // CHUNK_BUCKETS][number % CHUNK_BUCKETS]

    cdef uint64_t _index(self, uint32_t tag) noexcept nogil:
        cdef uint64_t index = tag & self._mask
        return index if index >= self._next else tag & (2 * self._mask + 1)

    cdef void prefetch(self, uint64_t hashed) noexcept nogil:
        """Asks for the bucket's cache line, ahead of `find`."""
        if self._chunks != NULL:
            rt_prefetch(self._bucket(self._index(<uint32_t>hashed)))

    cdef void prefetch_cell(self, uint64_t hashed) noexcept nogil:
        """Asks for the cell that `find` reads, a while after `prefetch`."""
        cdef Bucket *bucket
        cdef uint32_t i
        if self._chunks != NULL:
            bucket = self._bucket(self._index(<uint32_t>hashed))
            for i in range(bucket.count):
                if bucket.tags[i] == <uint32_t>hashed:
                    rt_prefetch(self.at(bucket.refs[i]))

    cdef void prefetch_at(self, uint32_t ref) noexcept nogil:
        """Asks for a cell, ahead of `at`."""
        rt_prefetch(self.at(ref))

    cdef Cell *at(self, uint32_t ref) noexcept nogil:
        return <Cell *>(self._slabs[ref >> 13] + ((ref & 8191) << 3))

    cdef uint32_t find(self, const char *name, Py_ssize_t size, uint64_t hashed) noexcept nogil:
        """The ref of a name; 0 where it is absent."""
        cdef uint32_t tag = <uint32_t>hashed
        cdef Bucket *bucket
        cdef Cell *cell
        cdef uint32_t i
        if self._chunks == NULL:
            return 0
        bucket = self._bucket(self._index(tag))
        while True:
            for i in range(bucket.count):
                if bucket.tags[i] == tag:
                    cell = self.at(bucket.refs[i])
                    if cell.size == size and memcmp(cell.name, name, size) == 0:
                        return bucket.refs[i]
            if not bucket.overflow:
                return 0
            bucket = self._spare(bucket.overflow)

    # --- change ---

    cdef uint32_t add(self, const char *name, Py_ssize_t size, uint64_t hashed) except 0:
        """A cell for a name that is absent, with zeros in it. Raises MemoryError."""
        cdef uint32_t ref
        cdef Cell *cell
        if self._chunks == NULL:
            self._grow_to(&self._chunks, &self._chunk_count, &self._chunk_room, 1)
        ref = self._new_cell(size)
        cell = self.at(ref)
        cell.first = cell.second = 0
        cell.mark = 0
        cell.size = <uint8_t>size
        memcpy(cell.name, name, size)
        try:
            self._put(self._bucket(self._index(<uint32_t>hashed)), <uint32_t>hashed, ref)
        except MemoryError:
            self._free_cell(ref)
            raise
        self.size += 1
        if 2 * self.size > 9 * (self._mask + 1 + self._next):
            try:
                self._split()
            except MemoryError:
                pass  # the table is fuller than it should be; the next add tries again
        return ref

    cdef bint remove(self, const char *name, Py_ssize_t size, uint64_t hashed) noexcept nogil:
        """Takes a name out; False where it is absent."""
        cdef uint32_t tag = <uint32_t>hashed
        cdef uint32_t ref = self.find(name, size, hashed)
        cdef Bucket *bucket
        cdef Bucket *last
        cdef Bucket *before = NULL
        cdef Bucket *place = NULL
        cdef uint32_t i, at = 0, number
        if not ref:
            return False
        bucket = last = self._bucket(self._index(tag))
        while True:
            for i in range(last.count):
                if last.refs[i] == ref:
                    place, at = last, i
            if not last.overflow:
                break
            before, last = last, self._spare(last.overflow)
        last.count -= 1
        place.tags[at] = last.tags[last.count]
        place.refs[at] = last.refs[last.count]
        if not last.count and before != NULL:
            number = before.overflow
            before.overflow = 0
            last.overflow = self._spare_free
            self._spare_free = number
        self._free_cell(ref)
        self.size -= 1
        return True

    cdef _put(self, Bucket *bucket, uint32_t tag, uint32_t ref):
        cdef uint32_t spare = 0  # the number of `bucket` where it is an overflow bucket
        cdef uint32_t number
        while bucket.count == BUCKET_CELLS:
            if not bucket.overflow:
                number = self._new_spare()
                if spare:
                    bucket = self._spare(spare)  # the spare buckets may have moved
                bucket.overflow = number
            spare = bucket.overflow
            bucket = self._spare(spare)
        bucket.tags[bucket.count] = tag
        bucket.refs[bucket.count] = ref
        bucket.count += 1

    cdef _split(self):
        """Divides the next bucket by one more bit of the tags."""
        cdef uint64_t count = self._mask + 1 + self._next
        cdef uint64_t bit = self._mask + 1
        cdef Bucket old
        cdef uint32_t i, number, following
        self._grow_to(&self._chunks, &self._chunk_count, &self._chunk_room, count + 1)
        old = self._bucket(self._next)[0]
        memset(self._bucket(self._next), 0, sizeof(Bucket))
        number = 0
        while True:
            following = old.overflow
            # Given back before the names are put, so that no put needs new memory.
            if number:
                self._spare(number).overflow = self._spare_free
                self._spare_free = number
            for i in range(old.count):
                self._put(
                    self._bucket(count if old.tags[i] & bit else self._next),
                    old.tags[i],
                    old.refs[i],
                )
            if not following:
                break
            number = following
            old = self._spare(number)[0]
        self._next += 1
        if self._next > self._mask:
            self._mask = 2 * self._mask + 1
            self._next = 0

    cdef uint32_t _new_spare(self) except 0:
        cdef uint32_t number = self._spare_free
        cdef Bucket *bucket
        if number:
            bucket = self._spare(number)
            self._spare_free = bucket.overflow
        else:
            number = self._spare_top
            self._grow_to(
                &self._spare_chunks, &self._spare_count, &self._spare_room, number + 1
            )
            self._spare_top += 1
            bucket = self._spare(number)
        memset(bucket, 0, sizeof(Bucket))
        return number

    cdef _grow_to(self, Bucket ***chunks, uint32_t *count, uint32_t *room, uint64_t buckets):
        """Makes `buckets` buckets addressable. `room` counts buckets of a lone first chunk, which
        grows by doubling; later chunks are whole."""
        cdef uint64_t wanted = (buckets + CHUNK_BUCKETS - 1) // CHUNK_BUCKETS
        cdef uint64_t size
        cdef Bucket *made
        cdef Bucket **directory
        if wanted == 1 and buckets <= room[0]:
            return
        if wanted == 1 or room[0] < CHUNK_BUCKETS:
            size = 1
            while size < buckets and size < CHUNK_BUCKETS:
                size *= 2
            made = <Bucket *>rt_lines(size * sizeof(Bucket))
            if made == NULL:
                raise MemoryError()
            memset(made, 0, size * sizeof(Bucket))
            if count[0]:
                memcpy(made, chunks[0][0], room[0] * sizeof(Bucket))
                rt_free_lines(chunks[0][0])
            else:
                directory = <Bucket **>PyMem_RawMalloc(sizeof(Bucket *))
                if directory == NULL:
                    rt_free_lines(made)
                    raise MemoryError()
                chunks[0] = directory
                count[0] = 1
            chunks[0][0] = made
            room[0] = <uint32_t>size
        while count[0] < wanted:
            if not count[0] & (count[0] - 1):
                directory = <Bucket **>PyMem_RawRealloc(
                    chunks[0], 2 * count[0] * sizeof(Bucket *)
                )
                if directory == NULL:
                    raise MemoryError()
                chunks[0] = directory
            made = <Bucket *>rt_lines(CHUNK_BUCKETS * sizeof(Bucket))
            if made == NULL:
                raise MemoryError()
            memset(made, 0, CHUNK_BUCKETS * sizeof(Bucket))
            chunks[0][count[0]] = made
            count[0] += 1

    cdef uint32_t _new_cell(self, Py_ssize_t size) except 0:
        cdef uint32_t units = <uint32_t>((CELL_HEAD + size + 7) >> 3)
        cdef uint32_t ref = self._free[units]
        cdef uint32_t capacity
        if ref:
            self._free[units] = (<uint32_t *>self.at(ref))[0]
            return ref
        capacity = self._first_slab_bytes if self._slab_count == 1 else SLAB_BYTES
        if not self._slab_count or self._slab_used + 8 * units > capacity:
            self._new_slab(8 * units)
        ref = ((self._slab_count - 1) << 13) | (self._slab_used >> 3)
        self._slab_used += 8 * units
        return ref

    cdef _new_slab(self, uint32_t bytes_needed):
        """More room for cells: the first slab grows by doubling, others come whole."""
        cdef uint64_t size
        cdef char *made
        cdef char **directory
        if self._slab_count <= 1 and self._first_slab_bytes < SLAB_BYTES:
            size = max(FIRST_SLAB_BYTES, self._first_slab_bytes)
            while size < self._slab_used + bytes_needed + 8:
                size *= 2
            made = <char *>PyMem_RawRealloc(
                self._slabs[0] if self._slab_count else NULL, min(size, SLAB_BYTES)
            )
            if made == NULL:
                raise MemoryError()
            if not self._slab_count:
                directory = <char **>PyMem_RawMalloc(sizeof(char *))
                if directory == NULL:
                    PyMem_RawFree(made)
                    raise MemoryError()
                self._slabs = directory
                self._slab_count = 1
                self._slab_used = 8  # ref 0 means none
            self._slabs[0] = made
            self._first_slab_bytes = <uint32_t>min(size, SLAB_BYTES)
            if self._slab_used + bytes_needed <= self._first_slab_bytes:
                return
        if self._slab_count == 1 << 19:
            raise MemoryError()
        if not self._slab_count & (self._slab_count - 1):
            directory = <char **>PyMem_RawRealloc(
                self._slabs, 2 * self._slab_count * sizeof(char *)
            )
            if directory == NULL:
                raise MemoryError()
            self._slabs = directory
        made = <char *>PyMem_RawMalloc(SLAB_BYTES)
        if made == NULL:
            raise MemoryError()
        self._slabs[self._slab_count] = made
        self._slab_count += 1
        self._slab_used = 0

    cdef void _free_cell(self, uint32_t ref) noexcept nogil:
        cdef uint32_t units = (CELL_HEAD + self.at(ref).size + 7) >> 3
        (<uint32_t *>self.at(ref))[0] = self._free[units]
        self._free[units] = ref

    cdef bint release(self, uint64_t entries_max):
        """Frees a slice of all memory; True when all is free and the table is empty and new.
        From the first call until then nothing else may be called."""
        cdef uint64_t slices = entries_max // SLAB_WORTH + 1
        while slices:
            slices -= 1
            if self._slab_count:
                self._slab_count -= 1
                PyMem_RawFree(self._slabs[self._slab_count])
            elif self._chunk_count:
                self._chunk_count -= 1
                rt_free_lines(self._chunks[self._chunk_count])
            elif self._spare_count:
                self._spare_count -= 1
                rt_free_lines(self._spare_chunks[self._spare_count])
            else:
                PyMem_RawFree(self._slabs)
                PyMem_RawFree(self._chunks)
                PyMem_RawFree(self._spare_chunks)
                self._reset()
                return True
        return False

    cdef uint64_t memory(self) noexcept nogil:
        """Bytes that the table takes, the object itself not counted."""
        cdef uint64_t first_slab = self._first_slab_bytes if self._slab_count else 0
        cdef uint64_t chunk_bytes = CHUNK_BUCKETS * sizeof(Bucket)
        cdef uint64_t total = first_slab + 16 * (self._slab_count + self._chunk_count)
        if self._slab_count > 1:
            total += (self._slab_count - 1) * <uint64_t>SLAB_BYTES
        if self._chunk_count:
            total += self._chunk_room * sizeof(Bucket) + (self._chunk_count - 1) * chunk_bytes
        if self._spare_count:
            total += self._spare_room * sizeof(Bucket) + (self._spare_count - 1) * chunk_bytes
        return total

    # --- for tests ---

    def insert(self, str name, int64_t first, int64_t second):
        """Adds a name or gives it other numbers."""
        cdef Py_ssize_t size
        cdef const char *text = PyUnicode_AsUTF8AndSize(name, &size)
        cdef uint64_t hashed = self.hash_of(text, size)
        cdef uint32_t ref = self.find(text, size, hashed) or self.add(text, size, hashed)
        self.at(ref).first = first
        self.at(ref).second = second

    def get(self, str name):
        """(first, second), or None."""
        cdef Py_ssize_t size
        cdef const char *text = PyUnicode_AsUTF8AndSize(name, &size)
        cdef uint32_t ref = self.find(text, size, self.hash_of(text, size))
        return (self.at(ref).first, self.at(ref).second) if ref else None

    def discard(self, str name):
        """True when it was there."""
        cdef Py_ssize_t size
        cdef const char *text = PyUnicode_AsUTF8AndSize(name, &size)
        return self.remove(text, size, self.hash_of(text, size))

    def free(self, entries_max):
        return self.release(entries_max)

    def bytes_taken(self):
        return self.memory()

    def items(self):
        """(name, first, second) of each, in no order that means anything. No change meanwhile."""
        cdef uint64_t index
        for index in range(0 if self._chunks == NULL else self._mask + 1 + self._next):
            yield from self._rows(index)

    cdef list _rows(self, uint64_t index):
        """Those of one bucket."""
        cdef Bucket *bucket = self._bucket(index)
        cdef Cell *cell
        cdef uint32_t i
        rows = []
        while True:
            for i in range(bucket.count):
                cell = self.at(bucket.refs[i])
                name = PyUnicode_DecodeUTF8(cell.name, cell.size, NULL)
                rows.append((name, cell.first, cell.second))
            if not bucket.overflow:
                return rows
            bucket = self._spare(bucket.overflow)

    def check(self):
        """Raises ValueError unless each name is found where it is, and all counts hold. O(n)."""
        cdef uint64_t index, total = 0
        cdef Bucket *bucket
        cdef Cell *cell
        cdef uint32_t i
        cdef uint64_t hashed
        if self._chunks == NULL:
            if self.size:
                raise ValueError(f"{self.size} names without a bucket")
            return
        for index in range(self._mask + 1 + self._next):
            bucket = self._bucket(index)
            while True:
                for i in range(bucket.count):
                    cell = self.at(bucket.refs[i])
                    hashed = self.hash_of(cell.name, cell.size)
                    if <uint32_t>hashed != bucket.tags[i] or self._index(bucket.tags[i]) != index:
                        raise ValueError(f"a name is in the wrong bucket {index}")
                    if self.find(cell.name, cell.size, hashed) != bucket.refs[i]:
                        raise ValueError(f"a name of bucket {index} is not found")
                total += bucket.count
                if not bucket.overflow:
                    break
                if bucket.count != BUCKET_CELLS:
                    raise ValueError(f"bucket {index} overflows although it is not full")
                bucket = self._spare(bucket.overflow)
                if not bucket.count:
                    raise ValueError(f"bucket {index} has an empty overflow")
        if total != self.size:
            raise ValueError(f"{total} names are in buckets, the size says {self.size}")


_KEY = os.urandom(16)
