# The blocks of the compiled skiplist, and what is done inside one or between two: see
# _skiplist.pyx. Holds no state and is no module by itself; whoever cimports it compiles it.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memmove

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define rt_fetch(p) __builtin_prefetch(p)
    #else
    #define rt_fetch(p) ((void)(p))
    #endif
    """
    void rt_fetch(const void *place) noexcept nogil

cdef enum:
    LEAF_ROOM = 64  # entries of a block
    FENCE_ROOM = 64  # children of a block of an upper level
    LEVELS_MAX = 40
    LINE_BYTES = 64

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


cdef inline uint32_t place_in(
    const int64_t *keys, const int64_t *seqs, uint32_t count, int64_t key, int64_t seq
) noexcept nogil:
    """How many of the entries are below (key, seq); no branch depends on a key before the end."""
    cdef const int64_t *base = keys
    cdef uint32_t left = count
    cdef uint32_t half, low, high
    while left > 4:
        half = left >> 1
        base += half & -<uint32_t>(base[half - 1] < key)
        left -= half
    low = <uint32_t>(base - keys)
    for half in range(left):
        low += base[half] < key
    if low == count or keys[low] != key or seqs[low] >= seq:
        return low
    high = count
    while low < high:
        half = (low + high) >> 1
        if keys[half] == key and seqs[half] < seq:
            low = half + 1
        else:
            high = half
    return low


cdef inline void fetch(const void *first, uint64_t size) noexcept nogil:
    cdef const char *line = <const char *>first
    cdef const char *end = line + size
    while line < end:
        rt_fetch(line)
        line += LINE_BYTES


cdef inline int64_t sum_of(const uint32_t *counts, uint32_t count) noexcept nogil:
    cdef uint32_t total = 0  # of all entries, which are fewer than 2 ** 32
    cdef uint32_t i
    for i in range(count):
        total += counts[i]
    return total


cdef inline bint starts_key(Leaf *leaf, uint32_t index) noexcept nogil:
    """Whether an entry is the first of its key in the whole list."""
    if index:
        return leaf.keys[index - 1] != leaf.keys[index]
    return leaf.before == NULL or leaf.before.keys[leaf.before.count - 1] != leaf.keys[0]


cdef inline uint32_t starts_from(Leaf *leaf, uint32_t index, uint32_t end) noexcept nogil:
    """How many of the entries [index, end) of a leaf are the first of their key."""
    cdef uint32_t found = 0
    cdef uint32_t i
    if index < end:
        found = starts_key(leaf, index)
        for i in range(index + 1, end):
            found += leaf.keys[i - 1] != leaf.keys[i]
    return found


cdef inline void move_entries(
    Leaf *to, uint32_t place, Leaf *leaf, uint32_t index, uint32_t count
) noexcept nogil:
    memmove(&to.keys[place], &leaf.keys[index], count * sizeof(int64_t))
    memmove(&to.seqs[place], &leaf.seqs[index], count * sizeof(int64_t))
    memmove(&to.refs[place], &leaf.refs[index], count * sizeof(uint32_t))


cdef inline void move_fences(
    Fences *to, uint32_t place, Fences *block, uint32_t index, uint32_t count
) noexcept nogil:
    memmove(&to.keys[place], &block.keys[index], count * sizeof(int64_t))
    memmove(&to.seqs[place], &block.seqs[index], count * sizeof(int64_t))
    memmove(&to.widths[place], &block.widths[index], count * sizeof(uint32_t))
    memmove(&to.starts[place], &block.starts[index], count * sizeof(uint32_t))
    memmove(&to.children[place], &block.children[index], count * sizeof(void *))


cdef inline void set_fence(
    Fences *block, uint32_t place, void *child, int64_t key, int64_t seq
) noexcept nogil:
    block.children[place] = child
    block.keys[place] = key
    block.seqs[place] = seq
