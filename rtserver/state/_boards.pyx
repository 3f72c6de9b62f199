# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Scores and ranks of boards without a Python object, where nothing special is to be done.

A part of the compiled form, without a twin: it does what `Boards.submit` and `Board.find` do for a
member without a deadline on a board that exists, and answers False, with nothing changed, where
they would refuse or do more.
"""

cimport cython
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from rtserver.structs._names cimport Cell
from rtserver.structs._ranking cimport Ranking
from rtserver.wire._msgpack cimport (
    Buffer,
    Cursor,
    Text,
    put_double,
    put_int,
    read_double,
    read_int,
)

from rtserver.limits import NAME_BYTES_MAX

cdef extern from *:
    """
    #define rt_add_overflows(a, b, sum) __builtin_add_overflow((a), (b), (sum))
    """
    bint rt_add_overflows(int64_t a, int64_t b, int64_t *sum) noexcept nogil

cdef Py_ssize_t _name_bytes_max = NAME_BYTES_MAX

DEF BEST = 0
DEF SUM = 2


cdef bint read_score(Cursor *at, Score *score) noexcept nogil:
    """A finite number; False for anything else."""
    score.real = at.at < at.end and at.at[0] == 0xCB
    if score.real:
        return read_double(at, &score.value) and isfinite(score.value)
    return read_int(at, &score.whole)


cdef void put_score(Buffer *to, const Score *score) noexcept nogil:
    """At most 9 bytes."""
    if score.real:
        put_double(to, score.value)
    else:
        put_int(to, score.whole)


cdef inline int64_t _key_of(Ranking ranking, const Score *score) noexcept:
    """float_keys.py and `Board._key`."""
    cdef int64_t key = score.whole
    cdef double value
    if score.real:
        value = score.value + 0.0  # not -0.0
        memcpy(&key, &value, 8)
        if key < 0:
            key ^= 0x7FFFFFFFFFFFFFFF
    return ~key if ranking.descending else key


cdef inline void _score_of(Ranking ranking, int64_t key, Score *score) noexcept:
    if ranking.descending:
        key = ~key
    score.real = ranking.floats
    score.whole = key
    if score.real:
        if key < 0:
            key ^= 0x7FFFFFFFFFFFFFFF
        memcpy(&score.value, &key, 8)


cdef inline bint _is_plain(const Text *name) noexcept nogil:
    """A valid name for sure: printable ASCII but for the comma."""
    cdef Py_ssize_t i
    cdef uint8_t byte
    if not 1 <= name.size <= _name_bytes_max:
        return False
    for i in range(name.size):
        byte = <uint8_t>name.data[i]
        if byte <= 0x20 or byte >= 0x7F or byte == 0x2C:
            return False
    return True


@cython.final
cdef class PlainBoards:
    """The boards of one store; `find` chooses the one that the other methods are about."""

    def __init__(self, boards):
        self.boards = boards
        self.name = b""

    cdef bint is_fresh(self) noexcept:
        """Whether the board that was found last is still one: a deleted one is freed in slices."""
        return self.ranking is not None and self.boards.changes == self.changes

    cdef bint find(self, const Text *name) except -1:
        """False where there is no such board."""
        changes = self.boards.changes
        if (
            changes == self.changes
            and name.size == len(self.name)
            and memcmp(name.data, <const char *>self.name, name.size) == 0
        ):
            return True
        try:
            text = PyUnicode_DecodeUTF8(name.data, name.size, NULL)
        except UnicodeDecodeError:
            return False
        board = self.boards.get(text)
        if board is None:
            self.board = self.ranking = self.changes = None
            self.name = b""
            return False
        self.board = board
        self.ranking = board.ranking
        self.name = name.data[: name.size]
        self.changes = changes
        return True

    cdef bint submit(
        self, const Text *member, uint64_t hashed, const Score *score, Outcome *done
    ) except -1:
        cdef Ranking ranking = self.ranking
        cdef uint32_t ref = ranking.ref_of(member.data, member.size, hashed)
        cdef int64_t key, previous
        cdef Score given = score[0]
        if ranking.floats and not given.real:
            given.real = True
            given.value = <double>given.whole
        if given.real and not ranking.floats:
            return False
        if ref:
            return self._resubmit(ref, &given, done)
        if (
            ranking.guarded
            or self.boards.growth.refusal is not None
            or 0 <= ranking.members_max <= ranking.count()
            or not _is_plain(member)
        ):
            return False
        key = _key_of(ranking, &given)
        done.rank = ranking.place_at(member.data, member.size, hashed, key) + 1
        done.previous = 0
        done.changed = True
        _score_of(ranking, key, &done.score)
        self.boards.members += 1
        return True

    cdef bint _resubmit(self, uint32_t ref, Score *given, Outcome *done) except -1:
        cdef Ranking ranking = self.ranking
        cdef Cell *cell = ranking.at(ref)
        cdef int64_t old = cell.first
        cdef int64_t key
        if cell.mark:
            return False
        if ranking.mode == SUM:
            _score_of(ranking, old, &done.score)
            if given.real:
                given.value += done.score.value
                if not isfinite(given.value):
                    return False
            elif rt_add_overflows(done.score.whole, given.whole, &given.whole):
                return False
        key = _key_of(ranking, given)
        if ranking.mode == BEST and key > old:
            key = old
        done.changed = key != old
        if done.changed:
            done.rank = ranking.move_at(ref, key, &done.previous) + 1
            done.previous += 1
        else:
            done.rank = done.previous = ranking.rank_at(ref) + 1
        _score_of(ranking, key, &done.score)
        return True

    cdef bint rank(self, const Text *member, Outcome *found) except -1:
        """Score and rank of a member."""
        cdef Ranking ranking = self.ranking
        cdef uint64_t hashed = ranking.hash_of(member.data, member.size)
        cdef uint32_t ref = ranking.ref_of(member.data, member.size, hashed)
        if not ref or ranking.at(ref).mark:
            return False
        found.rank = ranking.rank_at(ref) + 1
        _score_of(ranking, ranking.at(ref).first, &found.score)
        return True
