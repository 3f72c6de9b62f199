# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of tally.py: values and notes side by side in the cells of a NameTable."""

cimport cython
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t, uint64_t

from rtserver.structs._names cimport Cell, NameTable
from rtserver.wire._msgpack cimport Buffer, put_array, put_bytes, put_int, put_text, reserve

from rtserver.structs import expect

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef extern from *:
    """
    #define rt_add_overflows(a, b, sum) __builtin_add_overflow((a), (b), (sum))
    """
    bint rt_add_overflows(int64_t a, int64_t b, int64_t *sum) noexcept nogil

DEF ITEM_HEAD_BYTES = 16  # of a note as it is packed, beside the name


@cython.final
cdef class Tally:
    def __cinit__(self):
        self.names = NameTable()
        self.departed = {}

    def __dealloc__(self):
        PyMem_RawFree(self.noted_refs)

    def __len__(self):
        return self.names.size

    def __contains__(self, str name):
        return self.ref_of(name) != 0

    cdef uint32_t ref_of(self, str name):
        cdef Py_ssize_t size
        cdef const char *text = PyUnicode_AsUTF8AndSize(name, &size)
        return self.names.find(text, size, self.names.hash_of(text, size))

    def get(self, str name):
        cdef uint32_t ref = self.ref_of(name)
        return self.names.at(ref).first if ref else None

    def items(self):
        for name, value, _ in self.names.items():
            yield name, value

    @property
    def total(self):
        high: object = self.total_high
        return high * (1 << 64) + self.total_low

    # --- changing ---

    cdef void count(self, int64_t delta) noexcept nogil:
        """Adds to the total."""
        cdef uint64_t low = self.total_low + <uint64_t>delta
        self.total_high += (1 if low < self.total_low else 0) - (1 if delta < 0 else 0)
        self.total_low = low

    cdef bint change(self, Cell *cell, int64_t delta) noexcept nogil:
        """Adds to a value; False, with nothing changed, beyond 64 bits."""
        cdef int64_t value
        if rt_add_overflows(cell.first, delta, &value):
            return False
        cell.first = value
        self.count(delta)
        return True

    def add(self, str name, delta):
        cdef uint32_t ref = self.ref_of(name)
        cdef Cell *cell
        if not ref:
            return None
        cell = self.names.at(ref)
        value = cell.first + delta  # Python's integers: a delta may have more than 64 bits
        if not -(1 << 63) <= value < 1 << 63:
            raise OverflowError(value)
        self._set(cell, value)
        return value

    cdef _set(self, Cell *cell, int64_t value):
        self.count(value)
        if cell.first == -<int64_t>0x7FFFFFFFFFFFFFFF - 1:  # its negative has more than 64 bits
            self.count(0x7FFFFFFFFFFFFFFF)
            self.count(1)
        else:
            self.count(-cell.first)
        cell.first = value

    def put(self, str name, int64_t value):
        cdef Py_ssize_t size
        cdef const char *text = PyUnicode_AsUTF8AndSize(name, &size)
        cdef uint64_t hashed = self.names.hash_of(text, size)
        cdef uint32_t ref = self.names.find(text, size, hashed)
        if not ref:
            if size > 255:
                raise ValueError(f"a name has {size} bytes, at most 255 fit")
            ref = self.names.add(text, size, hashed)
        self._set(self.names.at(ref), value)

    def pop(self, str name):
        cdef Py_ssize_t size
        cdef const char *text = PyUnicode_AsUTF8AndSize(name, &size)
        cdef uint64_t hashed = self.names.hash_of(text, size)
        cdef uint32_t ref = self.names.find(text, size, hashed)
        cdef Cell *cell
        cdef uint32_t place
        if not ref:
            raise KeyError(name)
        cell = self.names.at(ref)
        if cell.mark & NOTED:
            for place in range(self.notes):
                if self.noted_refs[place] == ref:
                    self.noted_refs[place] = 0
                    self.departed[place] = (name, cell.second)
        value = cell.first
        self._set(cell, 0)
        self.names.remove(text, size, hashed)
        return value

    def mark(self, str name):
        cdef uint32_t ref = self.ref_of(name)
        if ref:
            self.names.at(ref).mark |= LONG_WAY

    # --- notes ---

    cdef int note_ref(self, uint32_t ref, Cell *cell, int64_t delta) except -1:
        """Adds to the note of a cell. 1: it is a new one, 0: it was there, 2: with nothing
        changed, the sum would have more than 64 bits."""
        cdef int64_t total
        cdef void *made
        if cell.mark & NOTED:
            if rt_add_overflows(cell.second, delta, &total):
                return 2
            cell.second = total
            return 0
        if self.notes == self.notes_room:
            made = PyMem_RawRealloc(self.noted_refs, (2 * self.notes_room + 256) * 4)
            if made == NULL:
                raise MemoryError()
            self.noted_refs = <uint32_t *>made
            self.notes_room = 2 * self.notes_room + 256
        self.noted_refs[self.notes] = ref
        self.notes += 1
        cell.mark |= NOTED
        cell.second = delta
        return 1

    def note(self, str name, int64_t delta):
        cdef uint32_t ref = self.ref_of(name)
        if not ref:
            raise KeyError(name)
        return self.note_ref(ref, self.names.at(ref), delta) != 2

    def noted(self, str name):
        cdef uint32_t ref = self.ref_of(name)
        if ref and self.names.at(ref).mark & NOTED:
            return True
        return any(name == gone for gone, _ in self.departed.values())

    def take_notes(self):
        cdef uint32_t place
        cdef Cell *cell
        taken = []
        for place in range(self.notes):
            if not self.noted_refs[place]:
                taken.append(self.departed[place])
                continue
            cell = self.names.at(self.noted_refs[place])
            taken.append((PyUnicode_DecodeUTF8(cell.name, cell.size, NULL), cell.second))
            cell.mark &= ~NOTED
        self.notes = 0
        self.departed.clear()
        return taken

    cdef int pack_notes(self, Buffer *to) except -1:
        """take_notes as one packed array of [name, sum]."""
        cdef uint32_t place
        cdef Cell *cell
        cdef bytes name
        reserve(to, 5)
        put_array(to, self.notes)
        for place in range(self.notes):
            if not self.noted_refs[place]:
                text, total = self.departed[place]
                name = text.encode()
                reserve(to, len(name) + ITEM_HEAD_BYTES)
                put_array(to, 2)
                put_text(to, name, len(name))
                put_int(to, total)
                continue
            cell = self.names.at(self.noted_refs[place])
            reserve(to, cell.size + ITEM_HEAD_BYTES)
            put_array(to, 2)
            put_text(to, cell.name, cell.size)
            put_int(to, cell.second)
            cell.mark &= ~NOTED
        self.notes = 0
        self.departed.clear()
        return 0

    # --- memory ---

    def release(self, entries_max):
        if not self.names.release(entries_max):
            return False
        self.total_high = 0
        self.total_low = 0
        return True

    def check(self):
        self.names.check()
        total = sum(value for _, value in self.items())
        expect(total == self.total, f"the values sum up to {total}, the total says {self.total}")
