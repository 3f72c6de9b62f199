# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of binary.py: frames go the short way where they can (commands/_express)."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t

from rtserver.commands._express cimport Express, Hint
from rtserver.structs._names cimport NameTable
from rtserver.wire._msgpack cimport Buffer, Cursor, free_buffer, rt_u32

cdef extern from *:
    """
    #ifdef _WIN32
    static Py_ssize_t rt_send(int fd, const void *data, size_t size) { return -1; }
    #else
    #include <sys/socket.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    static Py_ssize_t rt_send(int fd, const void *data, size_t size) {
        return (Py_ssize_t)send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    #endif
    """
    Py_ssize_t rt_send(int fd, const void *data, size_t size) noexcept

from rtserver.commands.dispatch import Waiting
from rtserver.errors import SOLD_OUT, ProtocolError
from rtserver.transport import binary, websocket
from rtserver.transport.binary import COST_SHIFT, REPORT_COST
from rtserver.transport.engine import Progress
from rtserver.wire import frames
from rtserver.wire.codec import unpack

cdef int _cost_shift = COST_SHIFT
cdef int _report_cost = REPORT_COST
cdef str _sold_out = SOLD_OUT.name
cdef object _IDLE = Progress.IDLE
cdef object _MORE = Progress.MORE
cdef object _BLOCKED = Progress.BLOCKED
cdef Py_ssize_t _short_cost_max = REPORT_COST  # more is for `run`, which looks at the time
DEF HEADER_BYTES = 4
DEF AHEAD = 16  # frames whose memory is on its way at the same time
DEF SMALL_BYTES = 4096  # what comes in larger pieces is for `run`, which looks ahead
DEF KEPT_BYTES = 262144  # a larger buffer for replies is given back after a run


@cython.final
cdef class FrameReader:
    cdef object _engine
    cdef object _connection
    cdef Express _express
    cdef object _wrap  # of replies the short way, where the form of the connection has one
    cdef bytes _buffer  # received and not run, from `_position` on
    cdef Py_ssize_t _position
    cdef object _partial  # one frame that is not complete yet
    cdef Py_ssize_t _missing  # bytes it lacks
    cdef Py_ssize_t _bytes_max
    cdef Py_ssize_t _congested_bytes
    cdef Py_ssize_t _waiting_max
    # of one run, whose replies are in the buffers of `_express`:
    cdef Py_ssize_t _ran  # commands the short way that are not counted yet
    cdef Py_ssize_t _waits  # replies in `_synced`
    cdef Py_ssize_t _pending
    cdef Py_ssize_t _waiting

    def __init__(self, engine, connection, wrap=None):
        self._engine = engine
        self._connection = connection
        self._express = engine.express
        self._wrap = wrap
        self._buffer = b""
        self._partial = bytearray()
        self._bytes_max = engine.limits.frame_bytes_max
        self._congested_bytes = engine.limits.outbox_soft_bytes
        self._waiting_max = engine.limits.replies_waiting_max

    def receive(self, bytes data):
        if self._missing > 0:
            self._partial += data
            self._missing -= len(data)
            if self._missing <= 0:
                self._buffer = bytes(self._partial)
                self._partial = bytearray()
        elif self._position < len(self._buffer):
            self._buffer = self._buffer[self._position :] + data
            self._position = 0
        else:
            self._buffer = data
            self._position = 0

    @property
    def kept(self):
        return len(self._buffer) - self._position + len(self._partial)

    def drop(self):
        self._buffer = b""
        self._position = 0

    def run(self):
        """As the plain form. What another exception than ProtocolError leaves is not sent."""
        if self._missing > 0:
            return _IDLE
        try:
            progress = self._run()
        except ProtocolError:
            self._flush()
            raise
        self._flush()
        self._let_go()
        return progress

    cdef _let_go(self):
        """What has run needs no memory any more."""
        if self._position == len(self._buffer):
            self._buffer = b""
            self._position = 0

    cdef _run(self):
        cdef bytes buffer = self._buffer
        cdef const uint8_t *data = buffer
        cdef Py_ssize_t end = len(buffer)
        cdef Py_ssize_t length
        cdef Py_ssize_t budget = self._engine.budget()
        cdef Py_ssize_t unreported = 0
        cdef Py_ssize_t cost
        cdef Py_ssize_t foreseen = 0
        cdef bint short = self._enter()
        cdef Cursor body
        cdef object progress = _IDLE
        while end - self._position >= HEADER_BYTES:
            if short and self._position >= foreseen:
                foreseen = self._look_ahead(data, end)
            length = rt_u32(data + self._position)
            if length > self._bytes_max:
                raise frames.too_large(length, self._bytes_max)
            body.at = data + self._position + HEADER_BYTES
            body.end = body.at + length
            if self._position + HEADER_BYTES + length > end:
                self._missing = self._position + HEADER_BYTES + length - end
                self._partial += buffer[self._position :]
                self._buffer = b""
                self._position = 0
                break
            if budget <= 0:
                progress = _MORE
                break
            if self._is_congested():
                progress = _BLOCKED
                break
            cost = 0
            if short:
                cost = self._short_way(body)
            if not cost:
                self._flush()
                cost = self._engine.frame(
                    self._connection,
                    unpack(PyBytes_FromStringAndSize(<const char *>body.at, length)),
                    length,
                )
                short = self._enter()
            self._position += HEADER_BYTES + length
            cost += length >> _cost_shift
            budget -= cost
            unreported += cost
            if unreported >= _report_cost:
                if self._engine.spent(unreported):
                    budget = 0
                unreported = 0
        self._engine.spent(unreported)
        return progress

    cdef bint feed(self, object stream, bytes data) except -1:
        """Runs what came within the turn that is open, as long as it goes the short way; False
        where the turn has to see to what is left."""
        cdef Py_ssize_t cost
        self.receive(data)
        turn = self._engine.turn
        if (
            turn.stopped
            or not turn.is_open
            or stream.queued
            or self._missing > 0
            or self._connection.blocked
            or len(self._buffer) > SMALL_BYTES
        ):
            return False
        try:
            cost = self._run_short(turn.budget())
            self._flush()
        except Exception as error:
            turn.stop(error)  # in the middle of a change: what is in memory cannot be trusted
            return True
        if cost:
            turn.charge(cost)
        self._let_go()
        return not self._buffer

    cdef Py_ssize_t _run_short(self, Py_ssize_t budget) except -1:
        """Whole frames that go the short way, up to the first that does not; their cost."""
        cdef const uint8_t *data = self._buffer
        cdef Py_ssize_t end = len(self._buffer)
        cdef Py_ssize_t length, cost
        cdef Py_ssize_t total = 0
        cdef Cursor body
        if not self._enter():
            return 0
        while end - self._position >= HEADER_BYTES and total < budget:
            length = rt_u32(data + self._position)
            if length > self._bytes_max or length > end - self._position - HEADER_BYTES:
                break
            if self._is_congested():
                break
            body.at = data + self._position + HEADER_BYTES
            body.end = body.at + length
            cost = self._short_way(body)
            if not cost:
                break
            self._position += HEADER_BYTES + length
            total += cost + (length >> _cost_shift)
            if total >= _short_cost_max:
                break
        return total

    cdef Py_ssize_t _look_ahead(self, const uint8_t *data, Py_ssize_t end) noexcept:
        """Asks for the memory that the next frames need, so that they wait for it together;
        where those frames end."""
        cdef Hint hints[AHEAD]
        cdef Py_ssize_t position = self._position
        cdef Py_ssize_t length
        cdef Cursor body
        cdef int count = 0
        cdef int i
        while count < AHEAD and end - position >= HEADER_BYTES:
            length = rt_u32(data + position)
            if length > end - position - HEADER_BYTES:
                break
            body.at = data + position + HEADER_BYTES
            body.end = body.at + length
            self._express.foresee(body, &hints[count])
            count += 1
            position += HEADER_BYTES + length
        for i in range(count):
            if hints[i].table != NULL:
                (<NameTable>hints[i].table).prefetch_cell(hints[i].hashed)
        return max(position, self._position + 1)

    cdef bint _enter(self) except -1:
        """Looks at what frames may change beside the short way."""
        self._pending = self._connection.pending_bytes
        self._waiting = self._connection.waiting
        return self._express.enter(self._connection)

    cdef bint _is_congested(self) noexcept nogil:
        return (
            self._pending + self._express.out.size > self._congested_bytes
            or self._waiting + self._waits >= self._waiting_max
        )

    cdef Py_ssize_t _short_way(self, Cursor body) except -1:
        cdef Py_ssize_t synced = self._express.synced.size
        cdef Py_ssize_t cost = self._express.frame(body)
        if cost:
            self._ran += 1
            if self._express.synced.size != synced:
                self._waits += 1
        return cost

    cdef _flush(self):
        """Hands over the replies of the short way, before anything else is said or done."""
        if not self._ran:
            return
        self._engine.metrics.commands += self._ran
        self._ran = 0
        if self._express.refusals:
            self._engine.metrics.count_error(_sold_out, self._express.refusals)
            self._express.refusals = 0
        if self._express.out.size:
            self._connection.send(self._wrapped(&self._express.out))
        if self._waits:
            self._engine.waiting.append(
                Waiting(self._connection, self._wrapped(&self._express.synced), self._waits)
            )
            self._connection.waiting += self._waits
            self._waits = 0

    cdef bytes _wrapped(self, Buffer *buffer):
        cdef bytes replies = take(buffer)
        return replies if self._wrap is None else self._wrap(replies)


class BinaryStream(binary.BinaryStream):
    """Has no step in Python between the bytes of a short request and those of its reply."""

    __slots__ = ("_socket_fd",)

    def __init__(self, engine, transport, address):
        super().__init__(engine, transport, address)
        self._socket_fd = plain_socket(transport)

    def data_received(self, bytes data):
        cdef FrameReader reader = self._frames
        engine = self._engine
        engine.metrics.bytes_in += len(data)
        engine.turn.open()
        connection = self.connection
        connection.last_heard_ms = engine.turn.now_ms
        if not connection.is_open or not reader.feed(self, data):
            engine.feed(self)
        if connection.allowance is not None:
            engine.charge(connection, len(data))

    def write(self, bytes data):
        write_past(self._transport, self._socket_fd, data)


class WebSocketStream(websocket.WebSocketStream):
    """Writes without a step through the transport."""

    __slots__ = ("_socket_fd",)

    def __init__(self, engine, transport, address, protocol, identity=None):
        super().__init__(engine, transport, address, protocol, identity)
        self._socket_fd = plain_socket(transport)

    def write(self, bytes data):
        write_past(self._transport, self._socket_fd, data)


cdef write_past(object transport, int socket_fd, bytes data):
    """Hands the bytes to the kernel, past the transport as long as that holds none itself."""
    cdef Py_ssize_t sent
    if transport.is_closing():
        return
    if socket_fd >= 0 and transport.get_write_buffer_size() == 0:
        sent = rt_send(socket_fd, <const char *>data, len(data))
        if sent == len(data):
            return
        if sent > 0:
            data = data[sent:]
    transport.write(data)


def plain_socket(transport):
    """The descriptor of a socket that bytes may be sent to as they are; -1: there is none."""
    found = transport.get_extra_info("socket")
    if found is None or transport.get_extra_info("sslcontext") is not None:
        return -1
    return found.fileno()


cdef bytes take(Buffer *buffer):
    taken = PyBytes_FromStringAndSize(<const char *>buffer.data, buffer.size)
    buffer.size = 0
    if buffer.room > KEPT_BYTES:
        free_buffer(buffer)
    return taken
