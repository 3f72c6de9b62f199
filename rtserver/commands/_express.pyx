# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Short ways of the frequent commands, from the bytes of a request to the bytes of its reply.

A part of the compiled form, without a twin: a short way does what dispatch and handler do, for
plain calls that they would not refuse, and creates no Python object for it. Whatever is unusual
(other parameters or options, a name that is not there yet, a value out of range, a counter with
a time to live) is left to them: a short way looks at everything before it changes anything, and
then answers 0. So there is one place for each refusal, and the differential tests compare
replies, records and state of the two byte for byte.
"""

cimport cython
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from rtserver.commands._journal cimport Journal
from rtserver.commands._sale_ways cimport SaleWays
from rtserver.state._boards cimport Outcome, PlainBoards, Score, put_score, read_score
from rtserver.structs._names cimport Cell, NameTable
from rtserver.structs._tally cimport LONG_WAY, NOTED, Tally
from rtserver.wire._msgpack cimport (
    Buffer,
    Cursor,
    Text,
    free_buffer,
    put_array,
    put_byte,
    put_bytes,
    put_double,
    put_int,
    put_text,
    put_uint,
    read_array,
    read_int,
    read_nil,
    read_text,
    reserve,
    skip_value,
)

from rtserver.commands.board import submit_item
from rtserver.commands.counter import add_item
from rtserver.commands.dispatch import RECORD_OVERHEAD, BrokenState
from rtserver.commands.table import ROLES
from rtserver.commands.vector import Failed, attempt
from rtserver.limits import VECTOR_MAX
from rtserver.wire.codec import pack

cdef Py_ssize_t _record_overhead = RECORD_OVERHEAD
cdef uint32_t _vector_max = VECTOR_MAX
cdef bytes _values_head = b"\x81" + pack("values")
cdef bytes _items_head = b"\x81" + pack("items")
cdef bytes _outcome_score = b"\x84" + pack("score")
cdef bytes _outcome_rank = pack("rank")
cdef bytes _outcome_previous = pack("previous_rank")
cdef bytes _outcome_changed = pack("changed")
cdef bytes _rank_rank = b"\x84" + pack("rank")
cdef bytes _rank_score = pack("score")
cdef bytes _rank_percentile = pack("percentile")
cdef bytes _rank_error = pack("error") + b"\x00"
cdef bytes _submit_head = b"\x93" + pack("board.submit") + b"\x01\x96"
cdef bytes _submit_many_head = b"\x93" + pack("board.submit_many") + b"\x01\x92"
cdef bytes _set_head = b"\x93" + pack("counter.set") + b"\x01\x92"
DEF RESULT_BYTES = 512  # of a result that is no list, at most
DEF NUMBER_BYTES = 9
DEF ADDITIONS_A_COST = 8
DEF ITEM_BYTES = 16  # of an item in a record beside its name, at most
DEF SUBMIT_COST = 2
DEF COUNTER = 1  # what the first parameter names is looked up,
DEF MEMBER = 2  # or the second: a member of a board,
DEF BUYER = 3  # a user of a sale,
DEF WAITING = 4  # or of its queue
DEF UNSAID = 1  # what a request may ask to wait for: nothing of its own,
DEF SOONER = 2  # less than the sync,
DEF SYNCED = 3  # or the sync


@cython.final
cdef class Express:
    """The short ways of one server, and the buffers that they share."""

    def __init__(self, table, store, dispatcher):
        self.store = store
        self.dispatcher = dispatcher
        self.counters = store.counters
        self.tally = store.counters.tally
        self.names = self.tally.names
        self.boards = PlainBoards(store.boards)
        self.journal = dispatcher.journal
        self.texts = []
        self.rank = ROLES["service"]
        self.items = <Item *>PyMem_RawMalloc(_vector_max * sizeof(Item))
        if self.items == NULL:
            raise MemoryError()
        self._add_row(table["counter.add"], Express._counter_add, COUNTER)
        self._add_row(table["counter.add_many"], Express._counter_add_many, 0)
        self._add_row(table["counter.set"], Express._counter_set, COUNTER)
        self._add_row(table["counter.get"], Express._counter_get, COUNTER)
        self._add_row(table["board.submit"], Express._board_submit, MEMBER)
        self._add_row(table["board.submit_many"], Express._board_submit_many, 0)
        self._add_row(table["board.rank"], Express._board_rank, MEMBER)
        self.sales = SaleWays(store, self.journal)
        self._add_row(table["sale.reserve"], Express._sale_reserve, BUYER)
        self._add_row(table["sale.confirm"], Express._sale_confirm, 0)
        self._add_row(table["sale.join"], Express._sale_join, WAITING)

    def __dealloc__(self):
        free_buffer(&self.out)
        free_buffer(&self.synced)
        free_buffer(&self.scratch)
        PyMem_RawFree(self.items)

    cdef _add_row(self, command, ShortWay run, int place):
        cdef bytes name = command.name.encode()
        cdef Row *row = &self.rows[self.row_count]
        if command.rank > self.rank or command.version != 1:
            raise ValueError(f"the short way of {command.name} is for another row")
        self.texts.append(name)
        row.name = name
        row.size = len(name)
        row.run = run
        row.is_write = command.is_write
        row.synced = command.ack == "synced"
        row.place = place
        self.row_count += 1

    # --- one frame ---

    cdef bint enter(self, connection) except -1:
        """The caller of the frames that follow; False where none of them may go a short way."""
        if connection.rank < self.rank:
            return False
        self.now = self.dispatcher.ctx.now
        self.takes_writes = self.dispatcher.refusal is None
        user = connection.user
        if user is None:
            self.meta = None
        elif connection.address is None:
            self.meta = pack({"u": user})
        else:
            self.meta = pack({"u": user, "a": connection.address})
        self.sales.enter(connection, self.now)
        return True

    cdef void foresee(self, Cursor body, Hint *hint) noexcept:
        """What a frame that comes soon will look up; its memory is asked for. Nothing depends on
        this being right."""
        cdef Text text
        cdef int64_t request_id
        cdef uint32_t count
        cdef Row *row = &self.rows[self.last_row]
        cdef NameTable names = self.names
        hint.table = NULL
        if not row.place or body.end - body.at < 6:
            return
        body.at += 2
        if (
            not read_int(&body, &request_id)
            or not read_text(&body, &text)
            or text.size != row.size
            or memcmp(text.data, row.name, text.size)
            or not read_array(&body, &count)
            or not read_text(&body, &text)
        ):
            return
        if row.place != COUNTER:
            names = self._names_within(row.place, &text)
            if names is None or not read_text(&body, &text):
                return
        hint.hashed = names.hash_of(text.data, text.size)
        hint.table = <PyObject *>names
        names.prefetch(hint.hashed)

    cdef NameTable _names_within(self, int place, const Text *name):
        """The members of the board, or the users of the sale, that was looked up last, if this is
        its name."""
        if place != MEMBER:
            return self.sales.users(name, place == WAITING)
        if (
            self.boards.is_fresh()
            and name.size == len(self.boards.name)
            and memcmp(name.data, <const char *>self.boards.name, name.size) == 0
        ):
            return self.boards.ranking._names
        return None

    cdef int frame(self, Cursor body) except -1:
        """Runs a request and puts its reply into `out`, or into `synced` where that asked to
        wait for the sync; its cost, or 0, with nothing changed, for the long way. Raises
        BrokenState."""
        cdef Cursor params
        cdef Text method
        cdef Row *row
        cdef Py_ssize_t length = body.end - body.at
        cdef int64_t request_id
        cdef int cost, ack = UNSAID
        cdef bint options, synced
        if length < 6 or (body.at[0] != 0x94 and body.at[0] != 0x95) or body.at[1] != 0:
            return 0
        options = body.at[0] == 0x95
        body.at += 2
        if not read_int(&body, &request_id) or request_id < 0 or not read_text(&body, &method):
            return 0
        cost = self._find_row(&method)
        if cost < 0:
            return 0
        row = &self.rows[cost]
        params = body
        if options:
            if not skip_value(&body):
                return 0
            params.end = body.at
            ack = _read_ack(&body)
            if not ack or body.at != body.end:
                return 0
        if row.is_write and (
            not self.takes_writes
            or self.journal.bytes + length + _record_overhead > self.journal.limit
        ):
            return 0
        synced = row.is_write and (ack == SYNCED or (ack == UNSAID and row.synced))
        return self._reply(row, request_id, &params, &self.synced if synced else &self.out)

    cdef int _reply(self, Row *row, int64_t request_id, Cursor *params, Buffer *out) except -1:
        """Runs a command; its reply goes to `out`, a refusal, which waits for nothing, to the
        replies that do not wait."""
        cdef Py_ssize_t start = out.size
        cdef int cost
        reserve(out, RESULT_BYTES)
        out.size += 4
        put_byte(out, 0x94)
        put_byte(out, 0x01)
        put_uint(out, <uint64_t>request_id)
        put_byte(out, 0xC0)
        try:
            cost = row.run(self, params, out)
        except Exception as error:
            out.size = start
            if row.is_write:  # it may have changed something already
                raise BrokenState(f"{row.name.decode()} failed in the middle: {error!r}") from error
            raise
        if not cost or self.sales.refusal is not None:
            out.size = start
            return self._refuse(request_id) if cost else 0
        _put_length(out, start)
        return cost

    cdef int _refuse(self, int64_t request_id) except -1:
        """The reply of a call that a short way of sales refused."""
        cdef Buffer *out = &self.out
        cdef Py_ssize_t start = out.size
        cdef bytes refusal = self.sales.refusal
        self.sales.refusal = None
        self.refusals += 1
        reserve(out, RESULT_BYTES + len(refusal))
        out.size += 4
        put_byte(out, 0x94)
        put_byte(out, 0x01)
        put_uint(out, <uint64_t>request_id)
        put_bytes(out, <const char *>refusal, len(refusal))
        put_byte(out, 0xC0)
        _put_length(out, start)
        return 1

    cdef int _find_row(self, const Text *method) noexcept nogil:
        """Its number, or -1. Requests of one kind often follow one another."""
        cdef int number = self.last_row
        cdef Row *row = &self.rows[number]
        if row.size == method.size and memcmp(row.name, method.data, method.size) == 0:
            return number
        for number in range(self.row_count):
            row = &self.rows[number]
            if row.size == method.size and memcmp(row.name, method.data, method.size) == 0:
                self.last_row = number
                return number
        return -1

    # --- counters ---

    cdef int _counter_get(self, Cursor *params, Buffer *out) except -1:
        cdef Text name
        cdef uint32_t count, ref
        cdef Cell *cell
        if (
            not read_array(params, &count)
            or count != 1
            or not read_text(params, &name)
            or params.at != params.end
        ):
            return 0
        ref = self.names.find(name.data, name.size, self.names.hash_of(name.data, name.size))
        if not ref:
            return 0
        cell = self.names.at(ref)
        if cell.mark & LONG_WAY:
            return 0
        put_int(out, cell.first)
        return 1

    cdef int _counter_add(self, Cursor *params, Buffer *out) except -1:
        cdef Text name
        cdef uint32_t count, ref
        cdef int64_t delta = 1
        cdef Cell *cell
        if (
            not read_array(params, &count)
            or not 1 <= count <= 3
            or not read_text(params, &name)
            or (count > 1 and not read_int(params, &delta) and not read_nil(params))
            or (count > 2 and not read_nil(params))
            or params.at != params.end
        ):
            return 0
        ref = self.names.find(name.data, name.size, self.names.hash_of(name.data, name.size))
        if not ref:
            return 0
        cell = self.names.at(ref)
        if cell.mark & LONG_WAY or not self.tally.change(cell, delta):
            return 0
        self.journal.note(ref, cell, delta)
        put_int(out, cell.first)
        return 1

    cdef int _counter_set(self, Cursor *params, Buffer *out) except -1:
        cdef Text name
        cdef uint32_t count, ref
        cdef int64_t value, change
        cdef Cell *cell
        cdef Buffer *record = &self.scratch
        if (
            not read_array(params, &count)
            or count != 2
            or not read_text(params, &name)
            or not read_int(params, &value)
            or params.at != params.end
        ):
            return 0
        ref = self.names.find(name.data, name.size, self.names.hash_of(name.data, name.size))
        if not ref:
            return 0
        cell = self.names.at(ref)
        if cell.mark & LONG_WAY or not -(1 << 62) < cell.first < 1 << 62:
            return 0
        if not -(1 << 62) < value < 1 << 62 or not self.tally.change(cell, value - cell.first):
            return 0
        if cell.mark & NOTED:
            self.journal.flush_sums()
        record.size = 0
        reserve(record, RESULT_BYTES)
        put_bytes(record, <const char *>_set_head, len(_set_head))
        put_text(record, cell.name, cell.size)
        put_int(record, value)
        self._write(record)
        put_int(out, value)
        return 1

    cdef int _counter_add_many(self, Cursor *params, Buffer *out) except -1:
        cdef uint32_t one
        cdef int count, i
        cdef int long_ways = 0
        cdef uint32_t ref
        cdef Cell *cell
        cdef Item *item
        if not read_array(params, &one) or one != 1:
            return 0
        count = self._read_items(params)
        if not count:
            return 0
        for i in range(count):
            item = &self.items[i]
            if item.number.real:
                return 0
            item.hashed = self.names.hash_of(item.name.data, item.name.size)
            self.names.prefetch(item.hashed)
        reserve(out, RESULT_BYTES + count * NUMBER_BYTES)
        put_bytes(out, <const char *>_values_head, len(_values_head))
        put_array(out, count)
        for i in range(count):
            item = &self.items[i]
            ref = self.names.find(item.name.data, item.name.size, item.hashed)
            if ref:
                cell = self.names.at(ref)
                if not cell.mark & LONG_WAY and self.tally.change(cell, item.number.whole):
                    self.journal.note(ref, cell, item.number.whole)
                    put_int(out, cell.first)
                    continue
            self._add_item(item, out)
            long_ways += 1
            reserve(out, RESULT_BYTES + (count - i) * NUMBER_BYTES)
        return 1 + long_ways + count // ADDITIONS_A_COST

    cdef int _read_items(self, Cursor *params) except -1:
        """[[name, number], ...] at the end of the parameters into `items`; 0 where there is
        anything else."""
        cdef uint32_t count, two, i
        cdef Item *item
        if not read_array(params, &count) or not 1 <= count <= _vector_max:
            return 0
        for i in range(count):
            item = &self.items[i]
            if (
                not read_array(params, &two)
                or two != 2
                or not read_text(params, &item.name)
                or not read_score(params, &item.number)
                or not _is_text(&item.name)
            ):
                return 0
        return <int>count if params.at == params.end else 0

    cdef int _add_item(self, Item *item, Buffer *out) except -1:
        """One addition the long way: a new counter, one with a time to live, or a refusal."""
        name = PyUnicode_DecodeUTF8(item.name.data, item.name.size, NULL)
        done = attempt(self.add_item, [name, item.number.whole])
        if type(done) is int:
            self.journal.add_sum(name, item.number.whole)
        packed = pack(done)
        reserve(out, len(packed))
        put_bytes(out, <const char *>packed, len(packed))
        return 0

    def add_item(self, item):
        return add_item(self.counters, self.now, item)

    # --- boards ---

    cdef int _board_submit(self, Cursor *params, Buffer *out) except -1:
        cdef Text name
        cdef Text member
        cdef Score score
        cdef Outcome done
        cdef uint32_t count, i
        cdef Buffer *record = &self.scratch
        if (
            not read_array(params, &count)
            or not 3 <= count <= 6
            or not read_text(params, &name)
            or not read_text(params, &member)
            or not read_score(params, &score)
        ):
            return 0
        for i in range(3, count):
            if not read_nil(params):
                return 0
        if params.at != params.end or not self.boards.find(&name):
            return 0
        if not self.boards.submit(
            &member, self.boards.ranking.hash_of(member.data, member.size), &score, &done
        ):
            return 0
        record.size = 0
        reserve(record, 2 * RESULT_BYTES)
        put_bytes(record, <const char *>_submit_head, len(_submit_head))
        put_text(record, name.data, name.size)
        put_text(record, member.data, member.size)
        put_score(record, &score)
        put_bytes(record, b"\xc0\xc0\xc0", 3)
        self._write(record)
        _put_outcome(out, &done)
        return SUBMIT_COST

    cdef int _board_submit_many(self, Cursor *params, Buffer *out) except -1:
        cdef Text name
        cdef uint32_t two
        cdef int count, i
        cdef uint32_t done = 0
        cdef Py_ssize_t size = 0
        cdef Item *item
        cdef Buffer *record = &self.scratch
        if (
            not read_array(params, &two)
            or two != 2
            or not read_text(params, &name)
            or not self.boards.find(&name)
        ):
            return 0
        count = self._read_items(params)
        if not count:
            return 0
        for i in range(count):
            item = &self.items[i]
            item.hashed = self.boards.ranking.hash_of(item.name.data, item.name.size)
            self.boards.ranking.prefetch(item.hashed)
        reserve(out, RESULT_BYTES)
        put_bytes(out, <const char *>_items_head, len(_items_head))
        put_array(out, count)
        for i in range(count):
            item = &self.items[i]
            reserve(out, RESULT_BYTES)
            if self._submit_item(item, out):
                done += 1
                size += item.name.size + ITEM_BYTES
            else:
                item.name.data = NULL  # failed: not in the record
        record.size = 0
        reserve(record, RESULT_BYTES + name.size + size)
        put_bytes(record, <const char *>_submit_many_head, len(_submit_many_head))
        put_text(record, name.data, name.size)
        put_array(record, done)
        for i in range(count):
            item = &self.items[i]
            if item.name.data != NULL:
                put_array(record, 2)
                put_text(record, item.name.data, item.name.size)
                put_score(record, &item.number)
        self._write(record)
        return 1 + count

    cdef bint _submit_item(self, Item *item, Buffer *out) except -1:
        """One score of a vector and its place in the result; False where it was refused."""
        cdef Outcome done
        cdef bytes packed
        cdef object score  # or it would be inferred to be a C double, and no integer any more
        if self.boards.submit(&item.name, item.hashed, &item.number, &done):
            _put_outcome(out, &done)
            return True
        name = PyUnicode_DecodeUTF8(item.name.data, item.name.size, NULL)
        if item.number.real:
            score = item.number.value
        else:
            score = item.number.whole
        result = attempt(self.submit_item, [name, score])
        packed = pack(result)
        reserve(out, len(packed))
        put_bytes(out, <const char *>packed, len(packed))
        return type(result) is not Failed

    def submit_item(self, item):
        return submit_item(self.store.boards, self.now, self.boards.board, item)

    cdef int _board_rank(self, Cursor *params, Buffer *out) except -1:
        cdef Text name
        cdef Text member
        cdef Outcome found
        cdef uint32_t count, i
        cdef int64_t members
        if (
            not read_array(params, &count)
            or not 2 <= count <= 5
            or not read_text(params, &name)
            or not read_text(params, &member)
        ):
            return 0
        for i in range(2, count):
            if not read_nil(params):
                return 0
        if params.at != params.end or not self.boards.find(&name):
            return 0
        if not self.boards.rank(&member, &found):
            return 0
        members = self.boards.ranking.count()
        put_bytes(out, <const char *>_rank_rank, len(_rank_rank))
        put_int(out, found.rank)
        put_bytes(out, <const char *>_rank_score, len(_rank_score))
        put_score(out, &found.score)
        put_bytes(out, <const char *>_rank_percentile, len(_rank_percentile))
        put_double(out, <double>(100 * (members - found.rank + 1)) / <double>members)
        put_bytes(out, <const char *>_rank_error, len(_rank_error))
        return 1

    # --- sales ---

    cdef int _sale_reserve(self, Cursor *params, Buffer *out) except -1:
        return self.sales.reserve(params, out)

    cdef int _sale_confirm(self, Cursor *params, Buffer *out) except -1:
        return self.sales.confirm(params, out)

    cdef int _sale_join(self, Cursor *params, Buffer *out) except -1:
        return self.sales.join(params, out)

    # --- records ---

    cdef int _write(self, Buffer *record) except -1:
        """Logs a record of three parts, as a fourth with who acted."""
        if self.meta is not None:
            record.data[0] = 0x94
            reserve(record, len(self.meta))
            put_bytes(record, <const char *>self.meta, len(self.meta))
        return self.journal.record(record.data, record.size)


cdef inline void _put_outcome(Buffer *out, const Outcome *done) noexcept:
    """{score, rank, previous_rank, changed}, less than RESULT_BYTES."""
    put_bytes(out, <const char *>_outcome_score, len(_outcome_score))
    put_score(out, &done.score)
    put_bytes(out, <const char *>_outcome_rank, len(_outcome_rank))
    put_int(out, done.rank)
    put_bytes(out, <const char *>_outcome_previous, len(_outcome_previous))
    if done.previous:
        put_int(out, done.previous)
    else:
        put_byte(out, 0xC0)
    put_bytes(out, <const char *>_outcome_changed, len(_outcome_changed))
    put_byte(out, 0xC3 if done.changed else 0xC2)


cdef inline void _put_length(Buffer *out, Py_ssize_t start) noexcept nogil:
    """Of the frame that begins there and ends here."""
    cdef Py_ssize_t length = out.size - start - 4
    out.data[start] = <uint8_t>(length >> 24)
    out.data[start + 1] = <uint8_t>(length >> 16)
    out.data[start + 2] = <uint8_t>(length >> 8)
    out.data[start + 3] = <uint8_t>length


cdef inline int _read_ack(Cursor *options) noexcept nogil:
    """What options ask for: SYNCED, SOONER, UNSAID, or 0: anything but an acknowledgement."""
    cdef Text word
    if options.at == options.end:
        return 0
    if options.at[0] == 0xC0 or options.at[0] == 0x80:
        options.at += 1
        return UNSAID
    if options.at[0] != 0x81:
        return 0
    options.at += 1
    if not read_text(options, &word) or word.size != 3 or memcmp(word.data, b"ack", 3):
        return 0
    if not read_text(options, &word) or word.size != 6:
        return 0
    if memcmp(word.data, b"synced", 6) == 0:
        return SYNCED
    if memcmp(word.data, b"logged", 6) == 0 or memcmp(word.data, b"memory", 6) == 0:
        return SOONER
    return 0


cdef inline bint _is_text(const Text *text) except -1:
    """Whether it is valid UTF-8."""
    cdef Py_ssize_t i
    for i in range(text.size):
        if text.data[i] & 0x80:
            try:
                PyUnicode_DecodeUTF8(text.data, text.size, NULL)
            except UnicodeDecodeError:
                return False
            return True
    return True
