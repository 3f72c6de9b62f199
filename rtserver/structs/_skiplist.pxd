# The C side of the compiled skiplist: see _skiplist.pyx. Other compiled modules cimport this.

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from rtserver.structs._blocks cimport Fences, Leaf, Path

@cython.final
cdef class Skiplist:
    cdef void *_root
    cdef uint32_t _height  # levels of fences
    cdef uint32_t _leaf_max
    cdef uint32_t _leaf_min
    cdef uint32_t _fences_max
    cdef uint32_t _fences_min
    cdef uint32_t _spare_count
    cdef Leaf *_spare_leaf
    cdef Fences *_spares  # a chain by their first child
    cdef readonly int64_t size
    cdef int64_t _starts

    cdef int64_t insert(self, int64_t key, int64_t seq, uint32_t ref) except -1
    cdef int64_t remove(self, int64_t key, int64_t seq) noexcept nogil
    cdef int64_t move(
        self,
        int64_t key,
        int64_t seq,
        int64_t new_key,
        int64_t new_seq,
        uint32_t ref,
        int64_t *previous,
    ) except -1
    cdef int64_t rank(self, int64_t key, int64_t seq) noexcept nogil
    cdef int64_t starts_before(self, int64_t key) noexcept nogil
    cdef Leaf *locate(self, int64_t index, uint32_t *place) noexcept nogil
    cdef Leaf *last(self) noexcept nogil
    cdef bint release(self, uint64_t entries_max) noexcept nogil
    cdef check(self)

    cdef _reserve(self, Path *path)
    cdef Fences *_spare_fences(self) noexcept nogil
    cdef void _descend(self, Path *path, int64_t key, int64_t seq) noexcept nogil
    cdef void _put(self, Path *path, int64_t key, int64_t seq, uint32_t ref) noexcept nogil
    cdef void _take(self, Path *path) noexcept nogil
    cdef void _shift(
        self, Path *old, uint32_t index, int64_t key, int64_t seq, uint32_t ref
    ) noexcept nogil
    cdef void _count(self, Path *path, int change, int width) noexcept nogil
    cdef void _split(self, Path *path, int64_t key, int64_t seq) noexcept nogil
    cdef void _link(
        self, Path *path, void *child, int64_t key, int64_t seq, uint32_t width, uint32_t starts,
        bint append
    ) noexcept nogil
    cdef Fences *_split_fences(
        self, Fences *block, uint32_t place, bint append
    ) noexcept nogil
    cdef void _refill(self, Path *path) noexcept nogil
    cdef bint _even_leaves(self, Fences *block, uint32_t place) noexcept nogil
    cdef bint _even_fences(self, Fences *block, uint32_t place) noexcept nogil
    cdef void _free_leaf(self, Leaf *leaf) noexcept nogil
    cdef _check_block(self, void *node, uint32_t level, object fence, list leaves, bint last)
    cdef _check_leaf(self, Leaf *leaf, object fence, list leaves, bint last)
