# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of `wire`: the same names, the same bytes, the same errors.

Written here are scalars and arrays of scalars, and read are replies that hold a scalar; everything
else goes through the msgpack library, exactly as in the plain form.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

import struct

import msgpack

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1

FRAME_BYTES_MAX = 16 * 1024 * 1024
HEADER_BYTES = 4

cdef Py_ssize_t _FRAME_BYTES_MAX = 16 * 1024 * 1024
cdef enum:
    _ROOM = 1024  # on the stack; an array that does not fit goes through the library
    _FLOAT_BYTES = 9

header = struct.Struct(">I").pack
cdef object _unpackb = msgpack.unpackb


def unpack(bytes body not None):
    """The value of a body. Raises ValueError."""
    return _unpackb(body, raw=False, strict_map_key=False)


def array_head(Py_ssize_t count):
    """What stands before the items of an array of at most 65,535 values."""
    cdef uint8_t head[3]
    return PyBytes_FromStringAndSize(<char *>head, _put_array(head, count))


def packed_array(items):
    """An array of at most 65,535 values that are packed already."""
    return array_head(len(items)) + b"".join(items)


# --- writing ---


cdef inline Py_ssize_t _put_array(uint8_t *at, Py_ssize_t count) noexcept:
    if count < 16:
        at[0] = <uint8_t>(0x90 | count)
        return 1
    at[0] = 0xDC
    return 1 + _put(at + 1, <uint64_t>count, 2)


cdef inline Py_ssize_t _put(uint8_t *at, uint64_t value, Py_ssize_t size) noexcept:
    """Big-endian."""
    cdef Py_ssize_t place
    for place in range(size):
        at[place] = <uint8_t>(value >> (8 * (size - 1 - place)))
    return size


cdef inline Py_ssize_t _put_headed(
    uint8_t *at, uint8_t head, uint64_t value, Py_ssize_t size
) noexcept:
    at[0] = head
    return 1 + _put(at + 1, value, size)


cdef Py_ssize_t _put_int(uint8_t *at, int64_t value) noexcept:
    if value >= 0:
        if value < 0x80:
            at[0] = <uint8_t>value
            return 1
        if value < 0x100:
            return _put_headed(at, 0xCC, value, 1)
        if value < 0x10000:
            return _put_headed(at, 0xCD, value, 2)
        if value < 0x100000000:
            return _put_headed(at, 0xCE, value, 4)
        return _put_headed(at, 0xCF, value, 8)
    if value >= -32:
        at[0] = <uint8_t>(value & 0xFF)
        return 1
    if value >= -0x80:
        return _put_headed(at, 0xD0, <uint64_t>value, 1)
    if value >= -0x8000:
        return _put_headed(at, 0xD1, <uint64_t>value, 2)
    if value >= -0x80000000LL:
        return _put_headed(at, 0xD2, <uint64_t>value, 4)
    return _put_headed(at, 0xD3, <uint64_t>value, 8)


cdef Py_ssize_t _put_text(uint8_t *at, Py_ssize_t room, object text) except -1:
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t head
    cdef const char *data = PyUnicode_AsUTF8AndSize(text, &size)
    if size + 3 > room:
        return 0
    if size < 32:
        at[0] = <uint8_t>(0xA0 | size)
        head = 1
    elif size < 0x100:
        head = _put_headed(at, 0xD9, size, 1)
    else:
        head = _put_headed(at, 0xDA, size, 2)
    memcpy(at + head, data, size)
    return head + size


cdef Py_ssize_t _put_scalar(uint8_t *at, Py_ssize_t room, object value) except -1:
    """The bytes written; 0: this is for the library."""
    cdef int overflow = 0
    cdef long long number
    cdef double real
    cdef uint64_t bits
    if room < _FLOAT_BYTES:
        return 0
    kind = type(value)
    if kind is str:
        return _put_text(at, room, value)
    if kind is int:
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        return 0 if overflow else _put_int(at, number)
    if value is None:
        at[0] = 0xC0
        return 1
    if kind is bool:
        at[0] = 0xC3 if value else 0xC2
        return 1
    if kind is float:
        real = PyFloat_AS_DOUBLE(value)
        memcpy(&bits, &real, 8)
        return _put_headed(at, 0xCB, bits, 8)
    return 0


cdef class Packer:
    """From values to msgpack. Each thread and each event loop has its own."""

    cdef object _pack

    def __init__(self):
        self._pack = msgpack.Packer(use_bin_type=True).pack

    def pack(self, value):
        """A value."""
        cdef uint8_t room[_ROOM]
        cdef Py_ssize_t size = _put_scalar(room, _ROOM, value)
        return PyBytes_FromStringAndSize(<char *>room, size) if size else self._pack(value)

    def pack_params(self, tuple params not None):
        """The parameters of a call; what is left out at the end has the server's default."""
        cdef uint8_t room[_ROOM]
        cdef Py_ssize_t count = PyTuple_GET_SIZE(params)
        cdef Py_ssize_t used, size, place
        while count and <object>PyTuple_GET_ITEM(params, count - 1) is None:
            count -= 1
        used = _put_array(room, count)
        for place in range(count):
            size = _put_scalar(
                room + used, _ROOM - used, <object>PyTuple_GET_ITEM(params, place)
            )
            if not size:
                return self._pack(params[:count])
            used += size
        return PyBytes_FromStringAndSize(<char *>room, used)


# --- reading ---


cdef inline uint64_t _get(const uint8_t *at, Py_ssize_t size) noexcept:
    cdef uint64_t value = 0
    cdef Py_ssize_t place
    for place in range(size):
        value = value << 8 | at[place]
    return value


cdef object _scalar(const uint8_t *at, Py_ssize_t left, Py_ssize_t *used):
    """An integer, nil or a truth value; used is 0 where it is something else, or cut."""
    cdef uint8_t head
    used[0] = 0
    if left < 1:
        return None
    head = at[0]
    used[0] = 1
    if head < 0x80:
        return head
    if head >= 0xE0:
        return <int>head - 0x100
    if head == 0xC0:
        return None
    if head == 0xC2:
        return False
    if head == 0xC3:
        return True
    if 0xCC <= head <= 0xD3:
        used[0] = 1 + (1 << ((head - 0xCC) & 3))
        if used[0] <= left:
            if head <= 0xCF:
                return _get(at + 1, used[0] - 1)
            return _signed(at + 1, used[0] - 1)
    used[0] = 0
    return None


cdef inline int64_t _signed(const uint8_t *at, Py_ssize_t size) noexcept:
    cdef int64_t value = <int64_t>(_get(at, size) << (64 - 8 * size))
    return value >> (64 - 8 * size)


cdef list _small_reply(const uint8_t *at, Py_ssize_t size):
    """[1, id, nil, scalar], or None where the body is something else."""
    cdef Py_ssize_t used, place
    if size < 5 or at[0] != 0x94 or at[1] != 1:
        return None
    call_id = _scalar(at + 2, size - 2, &used)
    place = 2 + used
    if not used or place >= size or at[place] != 0xC0:
        return None
    place += 1
    result = _scalar(at + place, size - place, &used)
    if not used or place + used != size:
        return None
    return [1, call_id, None, result]


cdef class Frames:
    """Cuts what arrives into values."""

    cdef list _held  # pieces of a frame that is not complete
    cdef Py_ssize_t _held_bytes
    cdef Py_ssize_t _needed  # bytes until something can be cut

    def __init__(self):
        self._held = []

    @property
    def between(self):
        """Whether the stream is at the end of a frame."""
        return not self._held

    def cut(self, bytes data not None):
        """The values that are complete now, and the bytes of each. Raises ValueError."""
        cdef Py_ssize_t position = 0
        cdef Py_ssize_t needed = 4
        cdef Py_ssize_t end, length
        cdef const uint8_t *at
        cdef list values = []
        cdef list sizes = []
        if self._held:
            self._held.append(data)
            self._held_bytes += PyBytes_GET_SIZE(data)
            if self._held_bytes < self._needed:
                return values, sizes
            data = b"".join(self._held)
            self._held.clear()
        at = <const uint8_t *>PyBytes_AS_STRING(data)
        end = PyBytes_GET_SIZE(data)
        while end - position >= 4:
            length = <Py_ssize_t>_get(at + position, 4)
            if length > _FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {length} bytes was announced")
            if position + 4 + length > end:
                needed = 4 + length
                break
            value = _small_reply(at + position + 4, length)
            if value is None:
                value = unpack(
                    PyBytes_FromStringAndSize(<const char *>at + position + 4, length)
                )
            values.append(value)
            sizes.append(length)
            position += 4 + length
        if position < end:
            self._held.append(
                PyBytes_FromStringAndSize(<const char *>at + position, end - position)
            )
            self._held_bytes = end - position
            self._needed = needed
        return values, sizes
