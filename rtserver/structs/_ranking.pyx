# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of structs/ranking.py: see there what a ranking is.

Members live in a table of names, whose cells hold key and seq; their order in a skiplist of C
arrays. Neither holds a Python object. Commands that are compiled themselves use the C functions:
`prefetch` for many names first, then `ref_of` and `move_at` for each.
"""

cimport cython
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t, uint64_t

from rtserver.structs._blocks cimport LEAF_ROOM, Leaf
from rtserver.structs._names cimport Cell, NameTable
from rtserver.structs._skiplist cimport Skiplist

from rtserver.structs import expect

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef int64_t KEY_MAX = 0x7FFFFFFFFFFFFFFF
cdef int64_t KEY_MIN = -KEY_MAX - 1
cdef Py_ssize_t NAME_BYTES_MAX = 255


@cython.final
cdef class Ranking:
    """Names in order of (key, seq)."""

    def __cinit__(self, uint32_t block_max=LEAF_ROOM):
        self._names = NameTable()
        self._order = Skiplist(block_max)
        self.members_max = -1

    # --- for compiled commands ---

    cdef uint64_t hash_of(self, const char *name, Py_ssize_t size) noexcept nogil:
        return self._names.hash_of(name, size)

    cdef void prefetch(self, uint64_t hashed) noexcept nogil:
        """Asks for the memory that `ref_of` reads first."""
        self._names.prefetch(hashed)

    cdef void prefetch_cell(self, uint64_t hashed) noexcept nogil:
        """Asks for what it reads then: for all names of a batch, after `prefetch` for all."""
        self._names.prefetch_cell(hashed)

    cdef uint32_t ref_of(self, const char *name, Py_ssize_t size, uint64_t hashed) noexcept nogil:
        """A member, until it is removed; 0 where there is none."""
        return self._names.find(name, size, hashed)

    cdef Cell *at(self, uint32_t ref) noexcept nogil:
        """A member's cell: first is its key, second its seq. Good until the next `place_at`."""
        return self._names.at(ref)

    cdef int64_t count(self) noexcept nogil:
        return self._order.size

    cdef int64_t rank_at(self, uint32_t ref) noexcept nogil:
        """The 0-based rank of a member."""
        cdef Cell *cell = self._names.at(ref)
        return self._order.rank(cell.first, cell.second)

    cdef int64_t first_place(self, int64_t key) noexcept nogil:
        """Members with a smaller key."""
        return self._order.rank(key, KEY_MIN)

    cdef int64_t end_place(self, int64_t key) noexcept nogil:
        """Members with a smaller key or this one."""
        if key == KEY_MAX:
            return self._order.size
        return self._order.rank(key + 1, KEY_MIN)

    cdef int64_t dense_before(self, int64_t key) noexcept nogil:
        """Distinct smaller keys."""
        return self._order.starts_before(key)

    cdef int64_t move_at(self, uint32_t ref, int64_t key, int64_t *previous) except -1:
        """Gives a member a key at the next seq: its new rank, and the one it had."""
        cdef Cell *cell = self._names.at(ref)
        cdef int64_t seq = self.seq + 1
        cdef int64_t rank = self._order.move(
            cell.first, cell.second, key, seq, ref, previous
        )
        cell.first = key
        cell.second = self.seq = seq
        return rank

    cdef int64_t place_at(
        self, const char *name, Py_ssize_t size, uint64_t hashed, int64_t key
    ) except -1:
        """The rank of a new member, of at most 255 bytes, that takes the next seq."""
        cdef int64_t rank = self._place_as(name, size, hashed, key, self.seq + 1)
        self.seq += 1
        return rank

    cdef int64_t remove_at(self, uint32_t ref) noexcept nogil:
        """Removes a member; the rank it had."""
        cdef Cell *cell = self._names.at(ref)
        cdef int64_t rank = self._order.remove(cell.first, cell.second)
        self._names.remove(cell.name, cell.size, self._names.hash_of(cell.name, cell.size))
        return rank

    cdef int64_t _place_as(
        self, const char *name, Py_ssize_t size, uint64_t hashed, int64_t key, int64_t seq
    ) except -1:
        cdef uint32_t ref = self._names.add(name, size, hashed)
        cdef Cell *cell = self._names.at(ref)
        cdef int64_t rank
        try:
            rank = self._order.insert(key, seq, ref)
        except MemoryError:
            self._names.remove(name, size, hashed)
            raise
        cell.first = key
        cell.second = seq
        return rank

    # --- the same in Python ---

    def __len__(self):
        return self._order.size

    def __contains__(self, str name):
        return self._find(name) != 0

    def place(self, str name, int64_t key):
        cdef Py_ssize_t size
        cdef const char *text = PyUnicode_AsUTF8AndSize(name, &size)
        cdef uint64_t hashed = self._names.hash_of(text, size)
        _check_new(name, size, self._names.find(text, size, hashed))
        return self.place_at(text, size, hashed, key)

    def move(self, str name, int64_t key):
        cdef int64_t previous
        cdef int64_t rank = self.move_at(self._require(name), key, &previous)
        return previous, rank

    def remove(self, str name):
        cdef uint32_t ref = self._find(name)
        return self.remove_at(ref) if ref else None

    def find(self, str name):
        cdef uint32_t ref = self._find(name)
        cdef Cell *cell
        if not ref:
            return None
        cell = self._names.at(ref)
        return cell.first, cell.second

    def rank(self, str name):
        cdef uint32_t ref = self._find(name)
        return self.rank_at(ref) if ref else None

    def rank_of_key(self, int64_t key):
        return self.first_place(key)

    def rank_past_key(self, int64_t key):
        return self.end_place(key)

    def distinct_before(self, int64_t key):
        return self.dense_before(key)

    def slice(self, start, count):
        cdef list found = []
        cdef int64_t wanted = min(count, self._order.size - start)
        cdef uint32_t place = 0
        cdef Leaf *leaf
        cdef Cell *cell
        if start < 0 or wanted <= 0:
            return found
        leaf = self._order.locate(start, &place)
        self._prefetch_cells(leaf, place, wanted)
        while wanted:
            if place == leaf.count:
                leaf = leaf.after
                place = 0
                self._prefetch_cells(leaf, place, wanted)
            cell = self._names.at(leaf.refs[place])
            found.append(
                (
                    PyUnicode_DecodeUTF8(cell.name, cell.size, NULL),
                    leaf.keys[place],
                    leaf.seqs[place],
                )
            )
            place += 1
            wanted -= 1
        return found

    def mark(self, str name, bint marked):
        self._names.at(self._require(name)).mark = marked

    def marked(self, str name):
        cdef uint32_t ref = self._find(name)
        return ref != 0 and self._names.at(ref).mark != 0

    def load(self, names, keys, seqs):
        cdef Py_ssize_t size
        cdef const char *text
        cdef int64_t key, seq
        cdef str name
        self._check_run(names, keys, seqs)
        for name, key, seq in zip(names, keys, seqs):
            text = PyUnicode_AsUTF8AndSize(name, &size)
            self._place_as(text, size, self._names.hash_of(text, size), key, seq)

    def _check_run(self, names, keys, seqs):
        """Raises ValueError unless the run can be appended as a whole."""
        cdef Leaf *leaf = self._order.last()
        cdef int64_t key, seq
        cdef int64_t last_key = KEY_MIN, last_seq = 0
        cdef Py_ssize_t size
        cdef str name
        if leaf != NULL:
            last_key = leaf.keys[leaf.count - 1]
            last_seq = leaf.seqs[leaf.count - 1]
        for key, seq in zip(keys, seqs, strict=True):
            if key < last_key or (key == last_key and seq <= last_seq) or not 0 < seq < KEY_MAX:
                raise ValueError(f"{(key, seq)} does not ascend from {(last_key, last_seq)}")
            last_key = key
            last_seq = seq
        if len(set(names)) != len(keys):
            raise ValueError(f"{len(set(names))} distinct names of {len(keys)} keys")
        for name in names:
            PyUnicode_AsUTF8AndSize(name, &size)
            _check_new(name, size, self._find(name))

    def release(self, entries_max):
        cdef bint done = self._order.release(entries_max)
        return self._names.release(entries_max) and done

    def check(self):
        cdef Leaf *leaf = NULL
        cdef Cell *cell
        cdef uint32_t i
        cdef uint32_t ignored = 0
        self._names.check()
        self._order.check()
        expect(self._names.size == <uint64_t>self._order.size, "not every member is ranked once")
        if self._order.size:
            leaf = self._order.locate(0, &ignored)
        while leaf != NULL:
            for i in range(leaf.count):
                cell = self._names.at(leaf.refs[i])
                expect(
                    cell.first == leaf.keys[i] and cell.second == leaf.seqs[i],
                    "a member has another key or seq than its entry",
                )
            leaf = leaf.after

    cdef void _prefetch_cells(self, Leaf *leaf, uint32_t place, int64_t wanted) noexcept nogil:
        """Asks for up to `wanted` members of a leaf together."""
        cdef uint32_t i
        for i in range(place, <uint32_t>min(<int64_t>leaf.count, place + wanted)):
            self._names.prefetch_at(leaf.refs[i])

    cdef uint32_t _find(self, str name) except? 0:
        cdef Py_ssize_t size
        cdef const char *text = PyUnicode_AsUTF8AndSize(name, &size)
        return self._names.find(text, size, self._names.hash_of(text, size))

    cdef uint32_t _require(self, str name) except 0:
        cdef uint32_t ref = self._find(name)
        if not ref:
            raise KeyError(name)
        return ref


cdef _check_new(str name, Py_ssize_t size, uint32_t ref):
    if ref:
        raise ValueError(f"{name!r} is ranked already")
    if size > NAME_BYTES_MAX:
        raise ValueError(f"a name of {size} bytes, at most {NAME_BYTES_MAX}")
