# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The order of a compiled ranking: entries (key, seq, ref) ascending by (key, seq), by rank.

For compiled modules, which reach it by `cimport`; structs/skiplist.py is the same idea in Python,
not its twin. Owns C arrays only. A deterministic skiplist (Munro, Papadakis, Sedgewick,
"Deterministic skip lists", SODA 1992) whose levels are unrolled into blocks (Shao, Reppy, Appel,
"Unrolling lists", 1994): the lowest level holds the entries, linked both ways; each element of a
level above stands for a block of the level below and knows its fence, the entries under it and
how many of these start a key. A search counts, level by level, the fences that are not above
what it looks for, and adds up the widths it passes; it touches one block a level.

A block splits when it is full, in the middle or, where entries arrive in order, at its end; one
under a third full evens out with a neighbour. No operation moves more than two blocks a level.
Seqs are above INT64_MIN and below INT64_MAX, unique within one key. An insert or a move that
finds no memory raises MemoryError before it has changed anything.
"""

cimport cython
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int64_t, uint32_t, uint64_t

from rtserver.structs._blocks cimport (
    FENCE_ROOM,
    LEAF_ROOM,
    Fences,
    Leaf,
    Path,
    fetch,
    move_entries,
    move_fences,
    place_in,
    rt_fetch,
    set_fence,
    starts_from,
    starts_key,
    sum_of,
)

from rtserver.structs import expect

cdef int64_t KEY_MIN = -0x7FFFFFFFFFFFFFFF - 1


@cython.final
cdef class Skiplist:
    """Entries in order. `block_max`, from 4 on, makes blocks smaller than they are: for tests."""

    def __cinit__(self, uint32_t block_max=LEAF_ROOM):
        if block_max < 4:
            raise ValueError(f"block_max is {block_max}, expected 4 or more")
        self._leaf_max = min(block_max, <uint32_t>LEAF_ROOM)
        self._leaf_min = max(2, self._leaf_max // 3)
        self._fences_max = min(block_max, <uint32_t>FENCE_ROOM)
        self._fences_min = max(2, self._fences_max // 4)

    def __dealloc__(self):
        while not self.release(1 << 30):
            pass
        PyMem_RawFree(self._spare_leaf)
        while self._spare_count:
            PyMem_RawFree(self._spare_fences())

    # --- search ---

    cdef void _descend(self, Path *path, int64_t key, int64_t seq) noexcept nogil:
        """The path to the leaf where (key, seq) belongs. Not for an empty list."""
        cdef void *node = self._root
        cdef uint32_t level = self._height
        cdef uint32_t place
        cdef int64_t before = 0
        cdef Fences *block
        while level:
            level -= 1
            block = <Fences *>node
            place = place_in(&block.keys[1], &block.seqs[1], block.count - 1, key, seq + 1)
            node = block.children[place]
            before += sum_of(block.widths, place)
            path.blocks[level] = block
            path.places[level] = place
        path.leaf = <Leaf *>node
        path.before = before

    cdef int64_t rank(self, int64_t key, int64_t seq) noexcept nogil:
        """Entries before (key, seq), which need not be there."""
        cdef Path path
        cdef Leaf *leaf
        if not self.size:
            return 0
        self._descend(&path, key, seq)
        leaf = path.leaf
        fetch(leaf.keys, sizeof(leaf.keys))
        rt_fetch(leaf)
        return path.before + place_in(leaf.keys, leaf.seqs, leaf.count, key, seq)

    cdef int64_t starts_before(self, int64_t key) noexcept nogil:
        """Distinct keys below `key`."""
        cdef Path path
        cdef uint32_t index, level
        cdef int64_t before = 0, mine = self._starts
        if not self.size:
            return 0
        self._descend(&path, key, KEY_MIN)
        index = place_in(path.leaf.keys, path.leaf.seqs, path.leaf.count, key, KEY_MIN)
        for level in range(self._height):
            before += sum_of(path.blocks[level].starts, path.places[level])
        if not index:
            return before
        if self._height:
            mine = path.blocks[0].starts[path.places[0]]
        # What follows `index` here starts a key: counted from there, no leaf before is needed.
        return before + mine - starts_from(path.leaf, index, path.leaf.count)

    cdef Leaf *locate(self, int64_t index, uint32_t *place) noexcept nogil:
        """The leaf of the entry with `index` entries before it, and its place there."""
        cdef void *node = self._root
        cdef uint32_t level = self._height
        cdef uint32_t i
        cdef Fences *block
        while level:
            level -= 1
            block = <Fences *>node
            i = 0
            while index >= block.widths[i]:
                index -= block.widths[i]
                i += 1
            node = block.children[i]
        place[0] = <uint32_t>index
        return <Leaf *>node

    cdef Leaf *last(self) noexcept nogil:
        """The last leaf; NULL when the list is empty."""
        cdef void *node = self._root
        cdef uint32_t level
        for level in range(self._height):
            node = (<Fences *>node).children[(<Fences *>node).count - 1]
        return <Leaf *>node

    # --- change ---

    cdef _reserve(self, Path *path):
        """The memory that a split of the path's leaf needs, before it begins. Raises
        MemoryError."""
        cdef uint32_t needed = 0
        cdef Fences *made
        if self._spare_leaf == NULL:
            self._spare_leaf = <Leaf *>PyMem_RawMalloc(sizeof(Leaf))
            if self._spare_leaf == NULL:
                raise MemoryError()
        while needed < self._height and path.blocks[needed].count >= self._fences_max:
            needed += 1
        if needed == self._height:
            needed += 1
        while self._spare_count < needed:
            made = <Fences *>PyMem_RawMalloc(sizeof(Fences))
            if made == NULL:
                raise MemoryError()
            made.children[0] = self._spares
            self._spares = made
            self._spare_count += 1

    cdef Fences *_spare_fences(self) noexcept nogil:
        """One of the blocks that `_reserve` made."""
        cdef Fences *made = self._spares
        self._spares = <Fences *>made.children[0]
        self._spare_count -= 1
        return made

    cdef int64_t insert(self, int64_t key, int64_t seq, uint32_t ref) except -1:
        """Adds an entry that is absent and returns its rank."""
        cdef Path path
        cdef Leaf *leaf
        if self._root == NULL:
            leaf = <Leaf *>PyMem_RawMalloc(sizeof(Leaf))
            if leaf == NULL:
                raise MemoryError()
            leaf.before = leaf.after = NULL
            leaf.count = 0
            self._root = leaf
        self._descend(&path, key, seq)
        if path.leaf.count >= self._leaf_max:
            self._reserve(&path)
            self._split(&path, key, seq)
            self._descend(&path, key, seq)
        leaf = path.leaf
        path.index = place_in(leaf.keys, leaf.seqs, leaf.count, key, seq)
        self._put(&path, key, seq, ref)
        return path.before + path.index

    cdef int64_t remove(self, int64_t key, int64_t seq) noexcept nogil:
        """Removes an entry that is there and returns the rank it had."""
        cdef Path path
        self._descend(&path, key, seq)
        path.index = place_in(path.leaf.keys, path.leaf.seqs, path.leaf.count, key, seq)
        self._take(&path)
        if path.leaf.count < self._leaf_min:
            self._refill(&path)
        return path.before + path.index

    cdef int64_t move(
        self,
        int64_t key,
        int64_t seq,
        int64_t new_key,
        int64_t new_seq,
        uint32_t ref,
        int64_t *previous,
    ) except -1:
        """Gives an entry another place; `previous` is the rank it had, the result that it has."""
        cdef Path old, new
        cdef bint later = new_key > key or (new_key == key and new_seq > seq)
        # Both leaves are asked for before either is used, so that their lines come together.
        self._descend(&old, key, seq)
        fetch(old.leaf, sizeof(Leaf))
        self._descend(&new, new_key, new_seq)
        if new.leaf != old.leaf:
            fetch(new.leaf, sizeof(Leaf))
        old.index = place_in(old.leaf.keys, old.leaf.seqs, old.leaf.count, key, seq)
        new.index = place_in(new.leaf.keys, new.leaf.seqs, new.leaf.count, new_key, new_seq)
        previous[0] = old.before + old.index
        if old.leaf == new.leaf:
            self._shift(&old, new.index - later, new_key, new_seq, ref)
        elif new.leaf.count < self._leaf_max and old.leaf.count > self._leaf_min:
            self._put(&new, new_key, new_seq, ref)
            self._take(&old)
        else:
            self.insert(new_key, new_seq, ref)
            self.remove(key, seq)
        return new.before + new.index - later

    cdef void _put(self, Path *path, int64_t key, int64_t seq, uint32_t ref) noexcept nogil:
        """Inserts at the path's index into a leaf that has room."""
        cdef Leaf *leaf = path.leaf
        cdef uint32_t index = path.index
        move_entries(leaf, index + 1, leaf, index, leaf.count - index)
        leaf.keys[index] = key
        leaf.seqs[index] = seq
        leaf.refs[index] = ref
        leaf.count += 1
        self._count(path, 1, 1)

    cdef void _take(self, Path *path) noexcept nogil:
        """Removes the entry at the path's index; its leaf may be underfull after that."""
        cdef Leaf *leaf = path.leaf
        cdef uint32_t index = path.index
        self._count(path, -1, -1)
        move_entries(leaf, index, leaf, index + 1, leaf.count - index - 1)
        leaf.count -= 1

    cdef void _shift(
        self, Path *old, uint32_t index, int64_t key, int64_t seq, uint32_t ref
    ) noexcept nogil:
        """Moves the entry at the path's index to `index` (counted without it) of its leaf."""
        cdef Leaf *leaf = old.leaf
        cdef uint32_t place = old.index
        self._count(old, -1, 0)
        if index < place:
            move_entries(leaf, index + 1, leaf, index, place - index)
        else:
            move_entries(leaf, place, leaf, place + 1, index - place)
        leaf.keys[index] = key
        leaf.seqs[index] = seq
        leaf.refs[index] = ref
        old.index = index
        self._count(old, 1, 0)

    cdef void _count(self, Path *path, int change, int width) noexcept nogil:
        """Counts along the path that the entry at its index has come (1) or is to go (-1), of
        which the widths learn only `width`."""
        cdef Leaf *leaf = path.leaf
        cdef Leaf *after = leaf.after
        cdef uint32_t index = path.index
        cdef uint32_t level
        cdef Path next_path
        cdef bint passes = False  # whether the start of the key moves to or from the next leaf
        cdef int starts = 0
        if starts_key(leaf, index):
            if index + 1 < leaf.count:
                starts = change if leaf.keys[index + 1] != leaf.keys[index] else 0
            else:
                starts = change
                passes = after != NULL and after.keys[0] == leaf.keys[index]
        for level in range(self._height):
            path.blocks[level].widths[path.places[level]] += width
            path.blocks[level].starts[path.places[level]] += starts
        self.size += width
        self._starts += starts
        if passes:
            self._descend(&next_path, after.keys[0], after.seqs[0])
            for level in range(self._height):
                next_path.blocks[level].starts[next_path.places[level]] -= change
            self._starts -= change

    # --- shape ---

    cdef void _split(self, Path *path, int64_t key, int64_t seq) noexcept nogil:
        """Splits the full leaf of the path, which has reserved memory, to make room for an entry;
        whoever inserts that searches again."""
        cdef Leaf *leaf = path.leaf
        cdef Leaf *made = self._spare_leaf
        cdef bint append = leaf.after == NULL and (
            leaf.keys[leaf.count - 1] < key
            or (leaf.keys[leaf.count - 1] == key and leaf.seqs[leaf.count - 1] < seq)
        )
        cdef uint32_t cut = leaf.count if append else leaf.count // 2
        cdef uint32_t starts = starts_from(leaf, cut, leaf.count)
        self._spare_leaf = NULL
        made.count = leaf.count - cut
        move_entries(made, 0, leaf, cut, made.count)
        leaf.count = cut
        made.before = leaf
        made.after = leaf.after
        if made.after != NULL:
            made.after.before = made
        leaf.after = made
        if not append:
            key = made.keys[0]
            seq = made.seqs[0]
        self._link(path, made, key, seq, made.count, starts, append)

    cdef void _link(
        self, Path *path, void *child, int64_t key, int64_t seq, uint32_t width, uint32_t starts,
        bint append
    ) noexcept nogil:
        """Links a block behind that of the path, whose counts include it so far."""
        cdef Fences *block
        cdef Fences *target
        cdef Fences *made
        cdef uint32_t level, place
        for level in range(self._height):
            block = target = path.blocks[level]
            place = path.places[level] + 1
            block.widths[place - 1] -= width
            block.starts[place - 1] -= starts
            made = NULL
            if block.count >= self._fences_max:
                made = self._split_fences(block, place, append)
                if place > block.count or append:
                    target = made
                    place -= block.count
            move_fences(target, place + 1, target, place, target.count - place)
            target.count += 1
            set_fence(target, place, child, key, seq)
            target.widths[place] = width
            target.starts[place] = starts
            if made == NULL:
                return
            child = made
            key = made.keys[0]
            seq = made.seqs[0]
            width = <uint32_t>sum_of(made.widths, made.count)
            starts = <uint32_t>sum_of(made.starts, made.count)
        made = self._spare_fences()
        made.count = 2
        set_fence(made, 0, self._root, KEY_MIN, KEY_MIN)
        set_fence(made, 1, child, key, seq)
        made.widths[0] = <uint32_t>self.size - width
        made.starts[0] = <uint32_t>self._starts - starts
        made.widths[1] = width
        made.starts[1] = starts
        self._root = made
        self._height += 1

    cdef Fences *_split_fences(
        self, Fences *block, uint32_t place, bint append
    ) noexcept nogil:
        cdef uint32_t cut = block.count if append else block.count // 2
        cdef Fences *made = self._spare_fences()
        made.count = block.count - cut
        move_fences(made, 0, block, cut, made.count)
        block.count = cut
        return made

    cdef void _refill(self, Path *path) noexcept nogil:
        """Evens the underfull leaf of the path out, and the blocks above it where they need it.

        So all but the last block of a level hold their least; that one holds something.
        """
        cdef uint32_t level, place, count
        cdef Fences *block
        if not self._height:
            if not path.leaf.count:
                self._free_leaf(path.leaf)
                self._root = NULL
            return
        for level in range(self._height):
            block = path.blocks[level]
            place = path.places[level]
            if level:
                count = path.blocks[level - 1].count
                if count >= self._fences_min:
                    break
            else:
                count = path.leaf.count
            if block.count == 1:
                if count:
                    break
                if level:
                    PyMem_RawFree(block.children[0])
                else:
                    self._free_leaf(path.leaf)
                block.count = 0
                continue
            if place + 1 == block.count:
                place -= 1
            if not (self._even_fences(block, place) if level else self._even_leaves(block, place)):
                break
        while self._height and (<Fences *>self._root).count == 1:
            block = <Fences *>self._root
            self._root = block.children[0]
            self._height -= 1
            PyMem_RawFree(block)

    cdef bint _even_leaves(self, Fences *block, uint32_t place) noexcept nogil:
        """Makes one leaf of the children at `place` and behind it, else halves of their entries;
        True when they became one."""
        cdef Leaf *left = <Leaf *>block.children[place]
        cdef Leaf *right = <Leaf *>block.children[place + 1]
        cdef uint32_t total = left.count + right.count
        cdef bint one = 4 * total <= 3 * self._leaf_max
        cdef uint32_t wanted = total if one else total // 2
        cdef uint32_t count, starts
        if wanted >= left.count:
            count = wanted - left.count
            starts = starts_from(right, 0, count)
            move_entries(left, left.count, right, 0, count)
            move_entries(right, 0, right, count, right.count - count)
        else:
            count = left.count - wanted
            starts = -starts_from(left, wanted, left.count)
            move_entries(right, count, right, 0, right.count)
            move_entries(right, 0, left, wanted, count)
        left.count = wanted
        right.count = total - wanted
        block.widths[place] = wanted
        block.widths[place + 1] = total - wanted
        block.starts[place] += starts
        block.starts[place + 1] -= starts
        if not one:
            block.keys[place + 1] = right.keys[0]
            block.seqs[place + 1] = right.seqs[0]
            return False
        self._free_leaf(right)
        move_fences(block, place + 1, block, place + 2, block.count - place - 2)
        block.count -= 1
        return True

    cdef bint _even_fences(self, Fences *block, uint32_t place) noexcept nogil:
        """The same for two children that are blocks of fences."""
        cdef Fences *left = <Fences *>block.children[place]
        cdef Fences *right = <Fences *>block.children[place + 1]
        cdef uint32_t total = left.count + right.count
        cdef bint one = 4 * total <= 3 * self._fences_max
        cdef uint32_t wanted = total if one else total // 2
        cdef uint32_t width = block.widths[place] + block.widths[place + 1]
        cdef uint32_t starts = block.starts[place] + block.starts[place + 1]
        cdef uint32_t count
        if wanted >= left.count:
            count = wanted - left.count
            move_fences(left, left.count, right, 0, count)
            move_fences(right, 0, right, count, right.count - count)
        else:
            count = left.count - wanted
            move_fences(right, count, right, 0, right.count)
            move_fences(right, 0, left, wanted, count)
        left.count = wanted
        right.count = total - wanted
        block.widths[place] = <uint32_t>sum_of(left.widths, wanted)
        block.starts[place] = <uint32_t>sum_of(left.starts, wanted)
        block.widths[place + 1] = width - block.widths[place]
        block.starts[place + 1] = starts - block.starts[place]
        if not one:
            block.keys[place + 1] = right.keys[0]
            block.seqs[place + 1] = right.seqs[0]
            return False
        PyMem_RawFree(right)
        move_fences(block, place + 1, block, place + 2, block.count - place - 2)
        block.count -= 1
        return True

    cdef void _free_leaf(self, Leaf *leaf) noexcept nogil:
        if leaf.before != NULL:
            leaf.before.after = leaf.after
        if leaf.after != NULL:
            leaf.after.before = leaf.before
        PyMem_RawFree(leaf)

    cdef bint release(self, uint64_t entries_max) noexcept nogil:
        """Frees a slice of the entries from the end; True when the list is empty and new. From
        the first call until then it may only be released further."""
        cdef uint64_t blocks = entries_max // LEAF_ROOM + 1
        cdef uint32_t level
        cdef Fences *block
        cdef Fences *above
        while self._root != NULL:
            if not blocks:
                return False
            blocks -= 1
            above = NULL
            block = <Fences *>self._root
            level = self._height
            while level > 1 and block.count:
                above = block
                block = <Fences *>above.children[above.count - 1]
                level -= 1
            if not self._height:
                PyMem_RawFree(self._root)
                self._root = NULL
            elif block.count:
                block.count -= 1
                self.size -= block.widths[block.count]
                PyMem_RawFree(block.children[block.count])
            else:
                PyMem_RawFree(block)
                if above == NULL:
                    self._root = NULL
                else:
                    above.count -= 1
        self.size = self._starts = 0
        self._height = 0
        return True

    # --- for tests ---

    cdef check(self):
        """Raises `StructureBroken` unless each order, fence, width, count and link holds. O(n)."""
        cdef Leaf *leaf
        leaves = []
        if self._root == NULL:
            expect(self.size == self._starts == self._height == 0, "an empty list counts entries")
            return
        expect(not self._height or (<Fences *>self._root).count > 1, "the top holds one block")
        counted = self._check_block(self._root, self._height, (KEY_MIN, KEY_MIN), leaves, True)
        expect(counted == (self.size, self._starts), f"{counted} counted, not {self.size}")
        leaf = <Leaf *><size_t>leaves[0]
        expect(leaf.before == NULL, "something is before the first leaf")
        for following in leaves[1:]:
            expect(<size_t>leaf.after == following, "a leaf is not before the next")
            expect(leaf.after.before == leaf, "a leaf is not behind the one before")
            leaf = leaf.after
        expect(leaf.after == NULL, "something is behind the last leaf")

    cdef _check_block(self, void *node, uint32_t level, object fence, list leaves, bint last):
        """(entries, starts) below a block that begins at `fence`, counted afresh."""
        cdef Fences *block = <Fences *>node
        cdef uint32_t i
        width = starts = 0
        if not level:
            return self._check_leaf(<Leaf *>node, fence, leaves, last)
        least = 1 if last else self._fences_min
        expect(least <= block.count <= self._fences_max, f"{block.count} fences in a block")
        expect((block.keys[0], block.seqs[0]) == fence, "a block begins at another fence")
        for i in range(block.count):
            counted = self._check_block(
                block.children[i],
                level - 1,
                (block.keys[i], block.seqs[i]),
                leaves,
                last and i + 1 == block.count,
            )
            expect(counted == (block.widths[i], block.starts[i]), f"{counted} below a child")
            width += counted[0]
            starts += counted[1]
        return width, starts

    cdef _check_leaf(self, Leaf *leaf, object fence, list leaves, bint last):
        cdef uint32_t i
        least = 1 if last else self._leaf_min
        expect(least <= leaf.count <= self._leaf_max, f"{leaf.count} entries in a leaf")
        if leaf.before != NULL:
            i = leaf.before.count - 1
            expect((leaf.before.keys[i], leaf.before.seqs[i]) < fence, "a fence is too low")
        before = fence
        for i in range(leaf.count):
            entry = (leaf.keys[i], leaf.seqs[i])
            expect(before < entry if i else before <= entry, f"{entry} is not above {before}")
            before = entry
        leaves.append(<size_t>leaf)
        return leaf.count, starts_from(leaf, 0, leaf.count)
