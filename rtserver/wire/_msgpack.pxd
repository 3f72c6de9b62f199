# cython: language_level=3
# msgpack for compiled modules: a cursor over bytes of a stranger, and a buffer that grows.
#
# Readers return False, at no defined place, for what is not there or is of another type; they never
# read beyond `end`. Writers choose the shortest form, so what they write is byte for byte what the
# msgpack library writes. The specification: github.com/msgpack/msgpack/blob/master/spec.md

from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    static inline uint16_t rt_u16(const void *p) {
        const unsigned char *b = (const unsigned char *)p;
        return (uint16_t)(b[0] << 8 | b[1]);
    }
    static inline uint32_t rt_u32(const void *p) {
        const unsigned char *b = (const unsigned char *)p;
        return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
    }
    static inline uint64_t rt_u64(const void *p) {
        return (uint64_t)rt_u32(p) << 32 | rt_u32((const char *)p + 4);
    }
    """
    uint16_t rt_u16(const void *p) noexcept nogil
    uint32_t rt_u32(const void *p) noexcept nogil
    uint64_t rt_u64(const void *p) noexcept nogil


# --- reading ---

cdef struct Cursor:
    const uint8_t *at
    const uint8_t *end

cdef struct Text:
    const char *data
    Py_ssize_t size


cdef inline bint read_array(Cursor *from_, uint32_t *count) noexcept nogil:
    cdef Py_ssize_t left = from_.end - from_.at
    cdef uint8_t head
    if left < 1:
        return False
    head = from_.at[0]
    if head & 0xF0 == 0x90:
        count[0] = head & 15
        from_.at += 1
    elif head == 0xDC and left >= 3:
        count[0] = rt_u16(from_.at + 1)
        from_.at += 3
    elif head == 0xDD and left >= 5:
        count[0] = rt_u32(from_.at + 1)
        from_.at += 5
    else:
        return False
    return True


cdef inline bint read_text(Cursor *from_, Text *text) noexcept nogil:
    """Bytes of a text, which are not checked to be UTF-8."""
    cdef Py_ssize_t left = from_.end - from_.at
    cdef Py_ssize_t head
    if left < 1:
        return False
    if from_.at[0] & 0xE0 == 0xA0:
        text.size = from_.at[0] & 31
        head = 1
    elif from_.at[0] == 0xD9 and left >= 2:
        text.size = from_.at[1]
        head = 2
    elif from_.at[0] == 0xDA and left >= 3:
        text.size = rt_u16(from_.at + 1)
        head = 3
    elif from_.at[0] == 0xDB and left >= 5:
        text.size = rt_u32(from_.at + 1)
        head = 5
    else:
        return False
    if left - head < text.size:
        return False
    text.data = <const char *>from_.at + head
    from_.at += head + text.size
    return True


cdef inline bint read_int(Cursor *from_, int64_t *value) noexcept nogil:
    """An integer that fits 64 bits with a sign."""
    cdef Py_ssize_t left = from_.end - from_.at
    cdef uint8_t head
    cdef uint64_t wide
    if left < 1:
        return False
    head = from_.at[0]
    if head < 0x80:
        value[0] = head
        from_.at += 1
        return True
    if head >= 0xE0:
        value[0] = <int64_t>head - 256
        from_.at += 1
        return True
    if head == 0xCC and left >= 2:
        value[0] = from_.at[1]
        from_.at += 2
    elif head == 0xCD and left >= 3:
        value[0] = rt_u16(from_.at + 1)
        from_.at += 3
    elif head == 0xCE and left >= 5:
        value[0] = rt_u32(from_.at + 1)
        from_.at += 5
    elif head == 0xCF and left >= 9:
        wide = rt_u64(from_.at + 1)
        if wide >> 63:
            return False
        value[0] = <int64_t>wide
        from_.at += 9
    elif head == 0xD0 and left >= 2:
        value[0] = <signed char>from_.at[1]
        from_.at += 2
    elif head == 0xD1 and left >= 3:
        value[0] = <short>rt_u16(from_.at + 1)
        from_.at += 3
    elif head == 0xD2 and left >= 5:
        value[0] = <int>rt_u32(from_.at + 1)
        from_.at += 5
    elif head == 0xD3 and left >= 9:
        value[0] = <int64_t>rt_u64(from_.at + 1)
        from_.at += 9
    else:
        return False
    return True


cdef inline bint read_double(Cursor *from_, double *value) noexcept nogil:
    """A float of 64 bits."""
    cdef uint64_t bits
    if from_.end - from_.at < 9 or from_.at[0] != 0xCB:
        return False
    bits = rt_u64(from_.at + 1)
    memcpy(value, &bits, 8)
    from_.at += 9
    return True


cdef inline bint read_nil(Cursor *from_) noexcept nogil:
    if from_.at == from_.end or from_.at[0] != 0xC0:
        return False
    from_.at += 1
    return True


cdef inline bint skip_value(Cursor *from_) noexcept nogil:
    """Passes over one value, whatever it holds, without recursion."""
    cdef uint64_t values = 1
    cdef Py_ssize_t left, size
    cdef uint8_t head
    while values:
        values -= 1
        left = from_.end - from_.at
        if left < 1:
            return False
        head = from_.at[0]
        size = 1
        if head < 0x80 or head >= 0xE0 or head == 0xC0 or head == 0xC2 or head == 0xC3:
            pass
        elif head < 0x90:
            values += 2 * (head & 15)
        elif head < 0xA0:
            values += head & 15
        elif head < 0xC0:
            size = 1 + (head & 31)
        elif head == 0xC4 or head == 0xD9:
            size = 2 + <Py_ssize_t>from_.at[1] if left >= 2 else 2
        elif head == 0xC5 or head == 0xDA:
            size = 3 + <Py_ssize_t>rt_u16(from_.at + 1) if left >= 3 else 3
        elif head == 0xC6 or head == 0xDB:
            size = 5 + <Py_ssize_t>rt_u32(from_.at + 1) if left >= 5 else 5
        elif head == 0xCA or head == 0xCE or head == 0xD2:
            size = 5
        elif head == 0xCB or head == 0xCF or head == 0xD3:
            size = 9
        elif head == 0xCC or head == 0xD0:
            size = 2
        elif head == 0xCD or head == 0xD1:
            size = 3
        elif head == 0xDC or head == 0xDE:
            size = 3
            if left >= 3:
                values += rt_u16(from_.at + 1) * (2 if head == 0xDE else 1)
        elif head == 0xDD or head == 0xDF:
            size = 5
            if left >= 5:
                values += <uint64_t>rt_u32(from_.at + 1) * (2 if head == 0xDF else 1)
        else:  # extension types, which nobody here writes
            return False
        if size > left:
            return False
        from_.at += size
    return True


# --- writing ---

cdef struct Buffer:
    uint8_t *data
    Py_ssize_t size
    Py_ssize_t room


cdef inline int reserve(Buffer *to, Py_ssize_t more) except -1:
    """Room for so many bytes. Writers below need it beforehand and do not look again."""
    cdef Py_ssize_t room
    cdef void *made
    if to.room - to.size >= more:
        return 0
    room = max(2 * to.room, to.size + more, <Py_ssize_t>4096)
    made = PyMem_RawRealloc(to.data, room)
    if made == NULL:
        raise MemoryError()
    to.data = <uint8_t *>made
    to.room = room
    return 0


cdef inline void free_buffer(Buffer *gone) noexcept nogil:
    PyMem_RawFree(gone.data)
    gone.data = NULL
    gone.size = gone.room = 0


cdef inline void put_byte(Buffer *to, uint8_t byte) noexcept nogil:
    to.data[to.size] = byte
    to.size += 1


cdef inline void put_bytes(Buffer *to, const void *data, Py_ssize_t size) noexcept nogil:
    memcpy(to.data + to.size, data, size)
    to.size += size


cdef inline void put_u16(Buffer *to, uint16_t value) noexcept nogil:
    put_byte(to, <uint8_t>(value >> 8))
    put_byte(to, <uint8_t>value)


cdef inline void put_u32(Buffer *to, uint32_t value) noexcept nogil:
    put_u16(to, <uint16_t>(value >> 16))
    put_u16(to, <uint16_t>value)


cdef inline void put_u64(Buffer *to, uint64_t value) noexcept nogil:
    put_u32(to, <uint32_t>(value >> 32))
    put_u32(to, <uint32_t>value)


cdef inline void put_uint(Buffer *to, uint64_t value) noexcept nogil:
    """At most 9 bytes."""
    if value < 0x80:
        put_byte(to, <uint8_t>value)
    elif value < 0x100:
        put_byte(to, 0xCC)
        put_byte(to, <uint8_t>value)
    elif value < 0x10000:
        put_byte(to, 0xCD)
        put_u16(to, <uint16_t>value)
    elif value >> 32 == 0:
        put_byte(to, 0xCE)
        put_u32(to, <uint32_t>value)
    else:
        put_byte(to, 0xCF)
        put_u64(to, value)


cdef inline void put_int(Buffer *to, int64_t value) noexcept nogil:
    """At most 9 bytes."""
    if value >= 0:
        put_uint(to, <uint64_t>value)
    elif value >= -32:
        put_byte(to, <uint8_t>value)
    elif value >= -0x80:
        put_byte(to, 0xD0)
        put_byte(to, <uint8_t>value)
    elif value >= -0x8000:
        put_byte(to, 0xD1)
        put_u16(to, <uint16_t>value)
    elif value >= -<int64_t>0x80000000:
        put_byte(to, 0xD2)
        put_u32(to, <uint32_t>value)
    else:
        put_byte(to, 0xD3)
        put_u64(to, <uint64_t>value)


cdef inline void put_double(Buffer *to, double value) noexcept nogil:
    """9 bytes."""
    cdef uint64_t bits
    memcpy(&bits, &value, 8)
    put_byte(to, 0xCB)
    put_u64(to, bits)


cdef inline void put_text(Buffer *to, const char *data, Py_ssize_t size) noexcept nogil:
    """At most 5 bytes beside the text."""
    if size < 32:
        put_byte(to, <uint8_t>(0xA0 | size))
    elif size < 0x100:
        put_byte(to, 0xD9)
        put_byte(to, <uint8_t>size)
    elif size < 0x10000:
        put_byte(to, 0xDA)
        put_u16(to, <uint16_t>size)
    else:
        put_byte(to, 0xDB)
        put_u32(to, <uint32_t>size)
    put_bytes(to, data, size)


cdef inline void put_array(Buffer *to, uint32_t count) noexcept nogil:
    """The head of an array, at most 5 bytes."""
    if count < 16:
        put_byte(to, <uint8_t>(0x90 | count))
    elif count < 0x10000:
        put_byte(to, 0xDC)
        put_u16(to, <uint16_t>count)
    else:
        put_byte(to, 0xDD)
        put_u32(to, count)
