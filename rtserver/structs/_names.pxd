# The C side of the names table: see _names.pyx. Other compiled modules cimport this.

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef struct Cell:
    int64_t first  # the two numbers belong to whoever owns the table
    int64_t second
    uint8_t size  # bytes of the name
    uint8_t mark  # belongs to the owner too; 0 when the cell is new
    char name[6]  # and what follows: `size` bytes of UTF-8, not terminated

cdef struct Bucket:
    uint32_t tags[7]  # low halves of the hashes
    uint32_t refs[7]  # of cells; 0: free, and so are those behind it
    uint32_t overflow  # the number of another bucket, 0: none
    uint32_t count  # cells in this bucket

@cython.final
cdef class NameTable:
    cdef Bucket **_chunks
    cdef Bucket **_spare_chunks
    cdef uint32_t _chunk_count
    cdef uint32_t _chunk_room
    cdef uint32_t _spare_count
    cdef uint32_t _spare_free  # a chain of overflow buckets to use again
    cdef uint32_t _spare_top  # the first one never used
    cdef uint32_t _spare_room
    cdef uint64_t _mask  # of the round: buckets before it began, less one
    cdef uint64_t _next  # the bucket to split next
    cdef char **_slabs
    cdef uint32_t _slab_count
    cdef uint32_t _first_slab_bytes
    cdef uint32_t _slab_used  # bytes of the last slab
    cdef uint32_t _free[40]  # chains of free cells by their units of 8 bytes
    cdef readonly uint64_t size
    cdef uint64_t _key0
    cdef uint64_t _key1

    cdef uint64_t hash_of(self, const char *name, Py_ssize_t size) noexcept nogil
    cdef void prefetch(self, uint64_t hashed) noexcept nogil
    cdef void prefetch_cell(self, uint64_t hashed) noexcept nogil
    cdef void prefetch_at(self, uint32_t ref) noexcept nogil
    cdef Cell *at(self, uint32_t ref) noexcept nogil
    cdef uint32_t find(self, const char *name, Py_ssize_t size, uint64_t hashed) noexcept nogil
    cdef uint32_t add(self, const char *name, Py_ssize_t size, uint64_t hashed) except 0
    cdef bint remove(self, const char *name, Py_ssize_t size, uint64_t hashed) noexcept nogil
    cdef bint release(self, uint64_t entries_max)
    cdef uint64_t memory(self) noexcept nogil

    cdef _reset(self)
    cdef list _rows(self, uint64_t index)
    cdef Bucket *_bucket(self, uint64_t index) noexcept nogil
    cdef Bucket *_spare(self, uint32_t number) noexcept nogil
    cdef uint64_t _index(self, uint32_t tag) noexcept nogil
    cdef _put(self, Bucket *bucket, uint32_t tag, uint32_t ref)
    cdef _split(self)
    cdef uint32_t _new_spare(self) except 0
    cdef _grow_to(self, Bucket ***chunks, uint32_t *count, uint32_t *room, uint64_t buckets)
    cdef uint32_t _new_cell(self, Py_ssize_t size) except 0
    cdef _new_slab(self, uint32_t bytes_needed)
    cdef void _free_cell(self, uint32_t ref) noexcept nogil
