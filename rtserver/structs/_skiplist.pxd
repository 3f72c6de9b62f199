# The C side of the compiled skiplist: see _skiplist.pyx. Other compiled modules cimport this.

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef enum:
    LEAF_ROOM = 64  # entries of a block
    FENCE_ROOM = 64  # children of a block of an upper level
    LEVELS_MAX = 40

cdef struct Leaf:
    Leaf *before
    Leaf *after
    uint32_t count
    uint32_t refs[LEAF_ROOM]
    int64_t keys[LEAF_ROOM]
    int64_t seqs[LEAF_ROOM]

cdef struct Fences:
    uint32_t count
    uint32_t widths[FENCE_ROOM]  # entries below each child
    int64_t keys[FENCE_ROOM]  # no entry of a child is below its fence, all before it are
    int64_t seqs[FENCE_ROOM]
    void *children[FENCE_ROOM]  # Fences, or Leaf on the lowest of these levels
    uint32_t starts[FENCE_ROOM]  # entries below each child that are the first of their key

cdef struct Path:
    Fences *blocks[LEVELS_MAX]  # by level from the bottom
    uint32_t places[LEVELS_MAX]  # of the child to go down to
    Leaf *leaf
    uint32_t index
    int64_t before  # entries before the leaf

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
    cdef void *_spares[LEVELS_MAX]  # blocks of fences that the next split may need
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
