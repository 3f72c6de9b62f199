# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The short ways of sales: a reserve of one item without a queue, its refusal when the item is sold
out, the confirm of a hold of one item, and a back end's join of a user who has to wait.

A part of the compiled form, without a twin; _express.pyx says what a short way is. Here it has a
refusal too, because nearly all requests of a sale are that one: it is the item's own, prepared once.
What a short way leaves to the long one: several items, seats, limits of an item, names beyond ASCII,
reserves where there is a queue, queues that ask something, users who are known there or may be let
in at once, and whatever would be refused in another way.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeASCII

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from rtserver.commands._journal cimport Journal
from rtserver.state.sales._book cimport Book, Buyer, Hold, Item
from rtserver.structs._names cimport Cell, NameTable
from rtserver.structs._ranking cimport Ranking
from rtserver.wire._msgpack cimport (
    Buffer,
    Cursor,
    Text,
    free_buffer,
    put_array,
    put_byte,
    put_bytes,
    put_int,
    put_text,
    read_array,
    read_int,
    read_nil,
    read_text,
    reserve,
    rt_u64,
)

from hashlib import sha256

from rtserver.commands.journal import META_ADDRESS, META_SERVICE, META_USER
from rtserver.limits import HOLDS_PER_USER_MAX
from rtserver.state.sales.book import HELD
from rtserver.state.sales.ledger import STEPS
from rtserver.wire.codec import pack

cdef int _held = HELD
cdef Py_ssize_t _holds_max = HOLDS_PER_USER_MAX
cdef int _reserved = STEPS.index("reserved")
cdef int _confirmed = STEPS.index("confirmed")
cdef int _joined = STEPS.index("joined")
cdef bytes _reserve_head = b"\x93" + pack("sale.reserve") + b"\x01\x96"
cdef bytes _confirm_head = b"\x93" + pack("sale.confirm") + b"\x01\x94"
cdef bytes _join_head = b"\x93" + pack("sale.join") + b"\x01\x93"
cdef bytes _refuse = pack("refuse")
cdef bytes _hold_key = b"\x83" + pack("hold")
cdef bytes _order_key = b"\x83" + pack("order")
cdef bytes _items_key = pack("items")
cdef bytes _expires_key = pack("expires_at")
cdef bytes _already_key = pack("already") + b"\xc2"
cdef bytes _position_key = b"\x85" + pack("state") + pack("waiting") + pack("position")
cdef bytes _eta_key = pack("eta_ms")
cdef bytes _no_pass = pack("pass_id") + b"\xc0" + pack("pass_expires_at") + b"\xc0"
cdef const char *_digits = b"0123456789abcdef"
DEF NAME_MAX = 255
DEF RESULT_BYTES = 512
DEF ID_BYTES = 64
DEF UNITS_MAX = 1_000_000


@cython.final
cdef class SaleWays:
    """Those of one server."""

    def __init__(self, store, journal):
        self.sales = store.sales
        self.growth = store.growth
        self.journal = journal

    def __dealloc__(self):
        free_buffer(&self.record)
        free_buffer(&self.row)

    cdef void enter(self, connection, int64_t now):
        """The caller of what follows."""
        self.user = connection.user
        self.service = connection.service
        self.address = connection.address
        self.now = now
        self.is_known = False
        self.refusal = None

    # --- reserve ---

    cdef int reserve(self, Cursor *params, Buffer *out) except -1:
        """[name, user, {item: units}]; 1 with a result, or with `refusal`; 0: the long way."""
        cdef Text name
        cdef Text user
        cdef Text sku
        cdef uint32_t count, i
        cdef int64_t units
        if (
            not read_array(params, &count)
            or not 3 <= count <= 6
            or not read_text(params, &name)
            or not read_text(params, &user)
            or params.at == params.end
            or params.at[0] != 0x81
        ):
            return 0
        params.at += 1
        if not read_text(params, &sku) or not read_int(params, &units):
            return 0
        for i in range(3, count):
            if not read_nil(params):
                return 0
        if (
            params.at != params.end
            or not 1 <= units <= UNITS_MAX
            or not _is_plain_name(&user)
            or not self._find(&name)
            or not self.book.quick
            or not self._find_item(&sku)
        ):
            return 0
        if self.item.free < units:
            self.refusal = self.item.refusal_packed
            if self.refusal is None:
                self.refusal = pack(self.item.sold_out().as_wire())
                if self.item.refusal is not None:
                    self.item.refusal_packed = self.refusal
            self.book.sold_out_refusals += 1
            return 1
        return self._take(&user, units, out)

    cdef int _take(self, const Text *user, int64_t units, Buffer *out) except -1:
        """Reserves what is free, unless a limit may say no."""
        cdef Book book = self.book
        cdef Item item = self.item
        cdef Hold hold
        cdef Buyer buyer
        cdef Buffer *record = &self.record
        cdef uint64_t hashed = book.buyers.names.hash_of(user.data, user.size)
        cdef PyObject *known = book.buyers.find(user.data, user.size, hashed)
        cdef int64_t taken = 0
        if (
            not item.quick
            or self.growth.refusal is not None
            or (book.holds_max >= 0 and book.last_number >= book.holds_max)
        ):
            return 0
        buyer = None
        if known != NULL:
            buyer = <Buyer>known
            taken = buyer.taken
            if len(buyer.held) >= _holds_max:
                return 0
        if book.per_user and taken + units > book.per_user:
            return 0
        if units != self.units:
            self.amounts = (units,)
            self.units = units
        if buyer is None:
            buyer = Buyer(PyUnicode_DecodeASCII(user.data, user.size, NULL))
            book.buyers.add(user.data, user.size, hashed, buyer)
        hold = book.reserve(
            self.now, buyer.user, self.items, self.amounts, self.now + book.hold_ms, buyer
        )
        self._note(_reserved, hold, NULL)
        armed = self.sale.armed
        if armed is None or hold.expires_at < <int64_t>armed[0]:
            self.sale.look_ahead(self.now)
        record.size = 0
        reserve(record, 2 * RESULT_BYTES)
        put_bytes(record, <const char *>_reserve_head, len(_reserve_head))
        put_text(record, <const char *>self.name, len(self.name))
        put_text(record, user.data, user.size)
        self._put_item(record, units)
        put_bytes(record, b"\xc0\xc0\xc0", 3)
        self._write()
        reserve(out, RESULT_BYTES + len(self.sku))
        put_bytes(out, <const char *>_hold_key, len(_hold_key))
        self._put_id(out, b"h", hold)
        put_bytes(out, <const char *>_items_key, len(_items_key))
        self._put_item(out, units)
        put_bytes(out, <const char *>_expires_key, len(_expires_key))
        put_int(out, hold.expires_at)
        return 1

    # --- confirm ---

    cdef int confirm(self, Cursor *params, Buffer *out) except -1:
        """[hold] or [hold, reference]; 1 with a result; 0: the long way."""
        cdef Text id
        cdef Text reference
        cdef uint32_t count, i
        cdef int64_t sale = 0, number = 0
        cdef uint64_t tag = 0
        cdef Hold hold
        reference.data = NULL
        if (
            not read_array(params, &count)
            or not 1 <= count <= 4
            or not read_text(params, &id)
            or (count > 1 and not read_nil(params) and not read_text(params, &reference))
        ):
            return 0
        for i in range(2, count):
            if not read_nil(params):
                return 0
        if (
            params.at != params.end
            or (reference.data != NULL and not _is_printable(&reference))
            or not _read_id(&id, &sale, &number, &tag)
            or not self._find_number(sale)
        ):
            return 0
        hold = self.book.find(number, tag)
        if (
            hold is None
            or hold.state != _held
            or self.now >= hold.expires_at
            or len(hold.items) != 1
        ):
            return 0
        return self._sell(hold, &id, &reference, out)

    cdef int _sell(self, Hold hold, const Text *id, const Text *reference, Buffer *out) except -1:
        cdef Buffer *record = &self.record
        cdef int64_t units = hold.amounts[0]
        if self.item is not <Item>hold.items[0]:
            self.item = hold.items[0]
            self.items = (self.item,)
            self.sku = self.item.name.encode()
        words = None
        if reference.data != NULL:
            words = PyUnicode_DecodeASCII(reference.data, reference.size, NULL)
        self.book.sell(hold, self.now, words)
        self._note(_confirmed, hold, reference)
        record.size = 0
        reserve(record, 2 * RESULT_BYTES)
        put_bytes(record, <const char *>_confirm_head, len(_confirm_head))
        put_text(record, id.data, id.size)
        _put_reference(record, reference)
        put_byte(record, 0xC0)
        put_bytes(record, <const char *>_refuse, len(_refuse))
        self._write()
        reserve(out, RESULT_BYTES + len(self.sku))
        put_bytes(out, <const char *>_order_key, len(_order_key))
        self._put_id(out, b"o", hold)
        put_bytes(out, <const char *>_items_key, len(_items_key))
        self._put_item(out, units)
        put_bytes(out, <const char *>_already_key, len(_already_key))
        return 1

    # --- join ---

    cdef int join(self, Cursor *params, Buffer *out) except -1:
        """[name, user] of a user who waits from now on; 1 with a result; 0: the long way."""
        cdef Text name
        cdef Text user
        cdef uint32_t count, i
        cdef int64_t position
        cdef Buffer *record = &self.record
        cdef bint started
        if (
            not read_array(params, &count)
            or not 2 <= count <= 3
            or not read_text(params, &name)
            or not read_text(params, &user)
            or (count > 2 and not read_nil(params))
            or params.at != params.end
            or not _is_plain_name(&user)
            or self.user is not None
            or not self._find(&name)
            or not self._can_join()
            or self._is_known(self.line, &user)
            or self._is_known(self.visits, &user)
        ):
            return 0
        started = self.room.started
        position = self._place(&user, started) + 1
        self._begin_row(_joined, user.data, user.size)
        put_bytes(&self.row, b"\xc0\xc0\xc0", 3)
        self._end_row()
        record.size = 0
        reserve(record, 2 * RESULT_BYTES)
        put_bytes(record, <const char *>_join_head, len(_join_head))
        put_text(record, <const char *>self.name, len(self.name))
        put_text(record, user.data, user.size)
        put_byte(record, 0xC0)
        self._write()
        put_bytes(out, <const char *>_position_key, len(_position_key))
        put_int(out, position)
        put_bytes(out, <const char *>_eta_key, len(_eta_key))
        if started:
            put_int(out, self.room.eta(self.now, position))
        else:
            put_byte(out, 0xC0)
        put_bytes(out, <const char *>_no_pass, len(_no_pass))
        return 1

    cdef bint _can_join(self) except -1:
        """Whether whoever joins now has to wait, and nothing is asked of her."""
        sale = self.sale
        room = sale.room
        if room is None or sale.closed or self.growth.refusal is not None:
            return False
        if room is not self.room or room.terms is not self.terms:
            self._look_at_room(room)
        if not self.asks_nothing:
            return False
        waiting_max = sale.waiting_max
        if waiting_max is not None and self.line.count() >= <int64_t>waiting_max:
            return False
        if not room.started:
            return True
        if self.book.free == 0:
            return self.book.held > 0  # else she is told that all is sold
        return self.visits.count() >= self.active_max or sale.paused

    cdef _look_at_room(self, room):
        self.room = room
        self.line, self.visits = room.rankings()
        self.terms = room.terms
        terms = self.terms
        self.asks_nothing = not (terms.per_address or terms.joins_per_user or terms.challenge)
        self.active_max = terms.active_max
        self.seed = self.sale.seed.encode() + b":"

    cdef bint _is_known(self, Ranking ranking, const Text *user) noexcept nogil:
        cdef uint64_t hashed = ranking.hash_of(user.data, user.size)
        return ranking.ref_of(user.data, user.size, hashed) != 0

    cdef int64_t _place(self, const Text *user, bint started) except -1:
        """Her rank; her place stays without a connection, so it is marked (room.py)."""
        cdef Ranking line = self.line
        cdef uint64_t hashed = line.hash_of(user.data, user.size)
        cdef int64_t key, rank
        cdef bytes digest
        cdef Cell *cell
        if started:
            key = line.seq
        else:
            digest = sha256(self.seed + PyBytes_FromStringAndSize(user.data, user.size)).digest()
            key = <int64_t>((rt_u64(<const char *>digest) >> 1) - <uint64_t>(<uint64_t>1 << 63))
        rank = line.place_at(user.data, user.size, hashed, key)
        cell = line.at(line.ref_of(user.data, user.size, hashed))
        cell.mark = True
        return rank

    # --- looking up ---

    cdef NameTable users(self, const Text *name, bint waiting):
        """Where the users of the sale that was looked up last are found, if this is its name: those
        who wait, or those who buy."""
        if (
            self.sale is None
            or name.size != len(self.name)
            or memcmp(name.data, <const char *>self.name, name.size)
        ):
            return None
        if not waiting:
            return self.book.buyers.names
        return None if self.room is None else self.line._names

    cdef bint _find(self, const Text *name) except -1:
        """The sale of a name; the one before is the same most times."""
        if (
            self.sale is not None
            and name.size == len(self.name)
            and memcmp(name.data, <const char *>self.name, name.size) == 0
            and (self.book.quick or not self.sale.closed)  # only closed ones can be deleted
        ):
            return True
        if not _is_plain_name(name):
            return False
        return self._keep(self.sales.get(PyUnicode_DecodeASCII(name.data, name.size, NULL)))

    cdef bint _find_number(self, int64_t number) except -1:
        """The sale of a number, if it is open and without a queue."""
        if self.sale is None or self.book.sale != number or not self.book.quick:
            if not self._keep(self.sales.of_number(number)):
                return False
        return self.book.quick

    cdef bint _keep(self, sale) except -1:
        self.sale = sale
        self.room = None
        self.item = None
        self.sku = b""
        if sale is None:
            self.book = None
            self.name = b""
            return False
        self.book = sale.book
        self.ledger = sale.ledger
        self.name = sale.name.encode()
        return True

    cdef bint _find_item(self, const Text *sku) except -1:
        if (
            self.item is not None
            and sku.size == len(self.sku)
            and memcmp(sku.data, <const char *>self.sku, sku.size) == 0
        ):
            return True
        if not _is_plain_name(sku):
            return False
        self.item = self.book.items.get(PyUnicode_DecodeASCII(sku.data, sku.size, NULL))
        if self.item is None:
            return False
        self.items = (self.item,)
        self.sku = PyBytes_FromStringAndSize(sku.data, sku.size)
        return True

    # --- writing ---

    cdef _know(self):
        """Who calls, as the ledger and the record say it."""
        user, service, address = self.user, self.service, self.address
        self.caller = pack(user or service)
        self.meta = None
        if user is not None or service is not None:
            found = {META_USER: user, META_SERVICE: service, META_ADDRESS: address}
            self.meta = pack({key: value for key, value in found.items() if value is not None})
        self.is_known = True

    cdef int _note(self, int step, Hold hold, const Text *reference) except -1:
        """The step of the ledger."""
        cdef Buffer *row = &self.row
        cdef Py_ssize_t size
        cdef const char *user = PyUnicode_AsUTF8AndSize(hold.user, &size)
        self._begin_row(step, user, size)
        put_int(row, hold.number)
        self._put_item(row, hold.amounts[0])
        if reference == NULL:
            put_byte(row, 0xC0)
        else:
            _put_reference(row, reference)
        return self._end_row()

    cdef int _begin_row(self, int step, const char *user, Py_ssize_t size) except -1:
        """A row of the ledger, up to the hold."""
        cdef Buffer *row = &self.row
        if not self.is_known:
            self._know()
        row.size = 0
        reserve(row, 3 * RESULT_BYTES)
        put_array(row, 7)
        put_byte(row, <uint8_t>step)
        put_int(row, self.now)
        put_bytes(row, <const char *>self.caller, len(self.caller))
        put_text(row, user, size)
        return 0

    cdef int _end_row(self) except -1:
        cdef Buffer *row = &self.row
        self.ledger.append_packed(PyBytes_FromStringAndSize(<const char *>row.data, row.size))
        return 0

    cdef int _write(self) except -1:
        """Logs the record, with who acted."""
        cdef Buffer *record = &self.record
        if self.meta is not None:
            record.data[0] = 0x94
            reserve(record, len(self.meta))
            put_bytes(record, <const char *>self.meta, len(self.meta))
        return self.journal.record(record.data, record.size)

    cdef void _put_item(self, Buffer *to, int64_t units) noexcept:
        """{item: units}"""
        put_byte(to, 0x81)
        put_text(to, <const char *>self.sku, len(self.sku))
        put_int(to, units)

    cdef void _put_id(self, Buffer *to, const char *kind, Hold hold) noexcept:
        """As `Book.id_of`."""
        cdef char text[ID_BYTES]
        cdef int size = 1
        cdef int shift
        text[0] = kind[0]
        size += _put_hex(text + size, <uint64_t>self.book.sale)
        text[size] = c"-"
        size += 1
        size += _put_hex(text + size, <uint64_t>hold.number)
        text[size] = c"-"
        size += 1
        for shift in range(60, -4, -4):
            text[size] = _digits[hold.tag >> shift & 15]
            size += 1
        put_text(to, text, size)


cdef void _put_reference(Buffer *to, const Text *reference) noexcept:
    if reference.data == NULL:
        put_byte(to, 0xC0)
    else:
        put_text(to, reference.data, reference.size)


cdef int _put_hex(char *to, uint64_t value) noexcept nogil:
    """A number without leading zeros; how many digits."""
    cdef int digits = 1
    cdef int i
    while digits < 16 and value >> (4 * digits):
        digits += 1
    for i in range(digits):
        to[i] = _digits[value >> (4 * (digits - 1 - i)) & 15]
    return digits


cdef bint _read_id(const Text *id, int64_t *sale, int64_t *number, uint64_t *tag) noexcept nogil:
    """An id as `Book.id_of` writes it for a hold, and in no other way."""
    cdef Py_ssize_t at = 1
    cdef uint64_t found = 0
    if not 21 <= id.size < ID_BYTES or id.data[0] != c"h" or id.data[id.size - 17] != c"-":
        return False
    if not _read_hex(id, &at, &found) or at >= id.size - 17:
        return False
    sale[0] = <int64_t>found
    at += 1
    if not _read_hex(id, &at, &found) or at != id.size - 17:
        return False
    number[0] = <int64_t>found
    at += 1
    tag[0] = 0
    while at < id.size:
        if _digit(id.data[at]) < 0:
            return False
        tag[0] = tag[0] << 4 | <uint64_t>_digit(id.data[at])
        at += 1
    return True


cdef bint _read_hex(const Text *id, Py_ssize_t *at, uint64_t *value) noexcept nogil:
    """Digits up to a hyphen, without leading zeros, below 2**60."""
    cdef Py_ssize_t start = at[0]
    value[0] = 0
    while at[0] < id.size and id.data[at[0]] != c"-":
        if _digit(id.data[at[0]]) < 0 or at[0] - start >= 15:
            return False
        value[0] = value[0] << 4 | <uint64_t>_digit(id.data[at[0]])
        at[0] += 1
    return at[0] > start and id.data[start] != c"0"


cdef inline int _digit(char c) noexcept nogil:
    if c"0" <= c <= c"9":
        return c - c"0"
    if c"a" <= c <= c"f":
        return c - c"a" + 10
    return -1


cdef bint _is_plain_name(const Text *text) noexcept nogil:
    """Whether it is a name (wire/names.py) of ASCII."""
    cdef Py_ssize_t i
    if not 1 <= text.size <= NAME_MAX:
        return False
    for i in range(text.size):
        if not 0x21 <= text.data[i] < 0x7F or text.data[i] == c",":
            return False
    return True


cdef bint _is_printable(const Text *text) noexcept nogil:
    """Whether it is a reference (commands/sale_kinds.py) of ASCII."""
    cdef Py_ssize_t i
    if not 1 <= text.size <= NAME_MAX:
        return False
    for i in range(text.size):
        if not 0x20 <= text.data[i] < 0x7F:
            return False
    return True
