"""Leaderboards: members ranked by score, ties to whoever reached the score first.

A board is a skiplist of (key, seq, slot) beside columns of member, score and seq per slot. The
key is the score in ascending order of rank (negated where high scores rank first); seq counts
the board's score changes, so equal scores rank by the time of reaching them. Each submit costs
one descent of the skiplist to take the old entry out and one to put the new one in; both ranks
come from these descents.

Deleting a board is immediate for callers; its memory is freed in slices by `reclaim`.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rtserver.errors import BANNED, CONFLICT, LIMIT_REACHED, NOT_FOUND, OUT_OF_RANGE, RtError
from rtserver.limits import INT64_MAX, INT64_MIN
from rtserver.state.timers import Timers
from rtserver.structs.ordered_names import OrderedNames
from rtserver.structs.sharded_map import ShardedMap
from rtserver.structs.skiplist import Skiplist

__all__ = ["TIMER_KIND", "Board", "BoardRules", "Boards", "Entry", "Submission"]

TIMER_KIND = "board"
_CHUNK = 1_000
_GRAVE_COST = 20  # of freeing an empty board, in entries

Score = int | float
RankKind = Literal["ordinal", "competition", "dense"]


@dataclass(frozen=True, slots=True)
class BoardRules:
    """What a board means; fixed when it is created."""

    order: Literal["desc", "asc"] = "desc"
    mode: Literal["best", "last", "sum"] = "best"
    score: Literal["int", "float"] = "int"

    def as_row(self) -> list[str]:
        return [self.order, self.mode, self.score]


class Submission(NamedTuple):
    """What a submit did; ranks are 1-based, previous_rank is None for a new member."""

    score: Score
    rank: int
    previous_rank: int | None
    changed: bool


class Entry(NamedTuple):
    """One line of a board."""

    rank: int
    member: str
    score: Score
    meta: Any


class Board:
    """One board. Members are interned into slots; a freed slot is used again."""

    __slots__ = (
        "_bans",
        "_descending",
        "_expires",
        "_expiry",
        "_floats",
        "_free",
        "_meta",
        "_names",
        "_ranking",
        "_scores",
        "_seqs",
        "_slots",
        "banned",
        "created_at",
        "members_max",
        "name",
        "rules",
        "seq",
    )

    def __init__(self, name: str, rules: BoardRules, created_at: int) -> None:
        self.name = name
        self.rules = rules
        self.created_at = created_at
        self.seq = 0  # score changes so far; never reused
        self.members_max: int | None = None
        self.banned: ShardedMap[bool] = ShardedMap()
        self._bans = False  # these two spare look-ups on boards that never had any
        self._expires = False
        self._floats = rules.score == "float"
        self._descending = rules.order == "desc"
        column = "d" if self._floats else "q"
        self._ranking: Skiplist[Any, int] = Skiplist(column, "I")
        self._slots: ShardedMap[int] = ShardedMap()
        self._names: list[str | None] = []
        self._scores: array[Any] = array(column)
        self._seqs = array("q")
        self._free: list[int] = []
        self._meta: ShardedMap[Any] = ShardedMap()
        self._expiry: ShardedMap[tuple[int, int]] = ShardedMap()  # member -> (due_ms, timer id)

    def __len__(self) -> int:
        return len(self._ranking)

    def __contains__(self, member: str) -> bool:
        return member in self._slots

    # --- writing ---

    def submit(self, member: str, score: Score, mode: str | None = None) -> Submission:
        """Applies one score. Raises RtError before anything has changed."""
        slots = self._slots
        slot = slots.shards[hash(member) & slots.mask].get(member)
        if slot is None:
            return self._enter(member, score)
        old = self._scores[slot]
        score = self._resolve(member, old, score, mode or self.rules.mode)
        old_key, old_seq = self._key(old), self._seqs[slot]
        if score == old:
            rank = self._ranking.rank(old_key, old_seq) + 1
            return Submission(old, rank, rank, False)
        self.seq += 1
        previous = self._ranking.remove(old_key, old_seq) + 1
        self._scores[slot] = score
        self._seqs[slot] = self.seq
        rank = self._ranking.insert(self._key(score), self.seq, slot) + 1
        return Submission(score, rank, previous, True)

    def check_new(self, member: str, score: Score) -> Score:
        """The score of a member that enters. Raises RtError where it may not."""
        if self._bans and member in self.banned:
            raise RtError(BANNED, f"{member!r} is banned from board {self.name!r}")
        return self._checked(member, score)

    def _enter(self, member: str, score: Score) -> Submission:
        score = self.check_new(member, score)
        if self.members_max is not None and len(self) >= self.members_max:
            raise RtError(
                LIMIT_REACHED,
                f"board {self.name!r} has {len(self)} members, at most {self.members_max}"
                " (limits.board_members_max)",
            )
        self.seq += 1
        rank = self._place(member, score, self.seq) + 1
        return Submission(score, rank, None, True)

    def _place(self, member: str, score: Score, seq: int) -> int:
        slot = self._take_slot(member, score, seq)
        return self._ranking.insert(self._key(score), seq, slot)

    def _take_slot(self, member: str, score: Score, seq: int) -> int:
        if self._free:
            slot = self._free.pop()
            self._names[slot] = member
            self._scores[slot] = score
            self._seqs[slot] = seq
        else:
            slot = len(self._names)
            self._names.append(member)
            self._scores.append(score)
            self._seqs.append(seq)
        self._slots.insert(member, slot)
        return slot

    def _checked(self, member: str, score: Score) -> Score:
        if self._floats:
            return self._checked_float(member, score)
        if type(score) is not int or not INT64_MIN <= score <= INT64_MAX:
            raise RtError(
                OUT_OF_RANGE,
                f"the score of {member!r} would be {score!r}; board {self.name!r} keeps integers"
                f" of 64 bits",
            )
        return score

    def _checked_float(self, member: str, score: Score) -> float:
        try:
            value = float(score)
        except OverflowError:
            value = float("inf")
        if not -1.7976931348623157e308 <= value <= 1.7976931348623157e308:
            raise RtError(
                OUT_OF_RANGE,
                f"the score of {member!r} would be {value}; board {self.name!r} keeps finite"
                " numbers",
            )
        return value

    def _resolve(self, member: str, old: Score, score: Score, mode: str) -> Score:
        """The score that the member has after this submit."""
        if mode == "sum":
            return self._checked(member, old + self._checked(member, score))
        score = self._checked(member, score)
        if mode == "last":
            return score
        better = score > old if self._descending else score < old
        return score if better else old

    def _key(self, score: Any) -> Any:
        """Ascending in order of rank. ~score is -score - 1: it cannot overflow 64 bits."""
        if not self._descending:
            return score
        return -score if self._floats else ~score

    def remove(self, member: str) -> bool:
        """True when the member was on the board."""
        slot = self._slots.get(member)
        if slot is None:
            return False
        self._slots.pop(member)
        self._ranking.remove(self._key(self._scores[slot]), self._seqs[slot])
        self._names[slot] = None
        self._free.append(slot)
        if member in self._meta:
            self._meta.pop(member)
        return True

    def set_meta(self, member: str, meta: Any) -> None:
        self._meta.insert(member, meta)

    def ban(self, members: Iterable[str]) -> None:
        self._bans = True
        for member in members:
            self.banned.insert(member, True)

    def unban(self, members: Iterable[str]) -> int:
        """How many of the members were banned."""
        banned = [member for member in dict.fromkeys(members) if member in self.banned]
        for member in banned:
            self.banned.pop(member)
        return len(banned)

    # --- deadlines of members ---

    def deadline(self, member: str) -> tuple[int, int] | None:
        """(due_ms, timer id) of a member with a time to live."""
        return self._expiry.get(member)

    def expired(self, now: int, member: str) -> bool:
        """True from a member's deadline on, also before its timer has fired."""
        if not self._expires:
            return False
        deadline = self._expiry.get(member)
        return deadline is not None and deadline[0] <= now

    def set_deadline(self, member: str, due: int, timer_id: int) -> None:
        self._expires = True
        self._expiry.insert(member, (due, timer_id))

    def drop_deadline(self, member: str) -> tuple[int, int] | None:
        return self._expiry.pop(member) if member in self._expiry else None

    # --- reading ---

    def find(self, now: int, member: str, kind: RankKind) -> tuple[int, Score] | None:
        """(rank, score) of a member, or None."""
        slot = self._slots.get(member)
        if slot is None or self.expired(now, member):
            return None
        score = self._scores[slot]
        return self._rank_as(kind, self._key(score), self._seqs[slot]), score

    def _rank_as(self, kind: RankKind, key: Any, seq: int) -> int:
        if kind == "ordinal":
            return self._ranking.rank(key, seq) + 1
        if kind == "competition":
            return self._ranking.rank_of_key(key) + 1
        return self._ranking.distinct_before(key) + 1

    def entries(self, start: int, count: int, kind: RankKind) -> list[Entry]:
        """Up to `count` entries from the 0-based place `start`, best first."""
        found: list[Entry] = []
        rank = 0
        last_key: Any = None
        for place, (key, seq, slot) in enumerate(self._ranking.slice(start, count), start + 1):
            if kind == "ordinal":
                rank = place
            elif key != last_key:
                rank = (
                    self._rank_as(kind, key, seq)
                    if last_key is None
                    else (place if kind == "competition" else rank + 1)
                )
                last_key = key
            found.append(self._entry(rank, slot))
        return found

    def _entry(self, rank: int, slot: int) -> Entry:
        member = self._member(slot)
        return Entry(rank, member, self._scores[slot], self._meta.get(member))

    def _member(self, slot: int) -> str:
        member = self._names[slot]
        assert member is not None, f"slot {slot} of board {self.name!r} is ranked but free"
        return member

    def around(self, now: int, member: str, radius: int, kind: RankKind) -> list[Entry]:
        """The member with up to `radius` neighbours on each side; empty when unknown."""
        found = self.find(now, member, "ordinal")
        if found is None:
            return []
        place = found[0] - 1
        start = max(0, place - radius)
        return self.entries(start, place + radius + 1 - start, kind)

    def pick(self, now: int, members: Iterable[str], kind: RankKind) -> list[Entry]:
        """Those of the members that are on the board, once each, by rank."""
        places = []
        for member in dict.fromkeys(members):
            found = self.find(now, member, "ordinal")
            if found is not None:
                places.append((found[0], member))
        return [self._pick(member, kind) for _, member in sorted(places)]

    def _pick(self, member: str, kind: RankKind) -> Entry:
        slot = self._slots.get(member)
        assert slot is not None, f"{member!r} was just found on board {self.name!r}"
        rank = self._rank_as(kind, self._key(self._scores[slot]), self._seqs[slot])
        return self._entry(rank, slot)

    def places_between(self, low: Score, high: Score) -> tuple[int, int]:
        """The 0-based places [start, end) of the scores from low to high, both included."""
        first, last = (high, low) if self._descending else (low, high)
        start = self._ranking.rank_of_key(self._bound(first))
        return start, max(start, self._ranking.rank_past_key(self._bound(last)))

    def _bound(self, score: Score) -> Any:
        """A score of a query as a key; integers compare exactly with fractions."""
        if self._floats:
            score = float(score)
        if isinstance(score, float):
            return -score if self._descending and self._floats else self._fraction_key(score)
        return self._key(max(INT64_MIN, min(INT64_MAX, score)))

    def _fraction_key(self, score: float) -> float:
        """Where a fractional bound lies among integer keys (~n = -n - 1)."""
        return -score - 1 if self._descending else score

    # --- snapshots and memory ---

    def dump(self) -> Iterator[list[Any]]:
        """Columns [members, scores, seqs, metas] in order of rank, a thousand a chunk."""
        for start in range(0, len(self), _CHUNK):
            slots = [slot for _, _, slot in self._ranking.slice(start, _CHUNK)]
            members = [self._member(slot) for slot in slots]
            yield [
                members,
                [self._scores[slot] for slot in slots],
                [self._seqs[slot] for slot in slots],
                {name: self._meta.get(name) for name in members if name in self._meta},
                {name: self._expiry.get(name) for name in members if name in self._expiry},
            ]

    def load(
        self,
        members: list[str],
        scores: list[Score],
        seqs: list[int],
        metas: dict[str, Any],
        deadlines: dict[str, tuple[int, int]],
    ) -> None:
        """The next chunk of a dump, in the dump's order."""
        slots = [self._take_slot(*row) for row in zip(members, scores, seqs, strict=True)]
        self._ranking.load_sorted([self._key(score) for score in scores], seqs, slots)
        for member, meta in metas.items():
            self._meta.insert(member, meta)
        for member, (due, timer_id) in deadlines.items():
            self.set_deadline(member, due, timer_id)

    def reclaim(self, entries_max: int) -> bool:
        """Frees a slice of a board that nobody can reach any more; True when all is free."""
        done = self._ranking.release(entries_max)
        done = self._slots.release(entries_max) and done
        for side in (self.banned, self._meta, self._expiry):
            done = side.release(entries_max) and done
        del self._names[-entries_max:]
        return done and not self._names

    def check(self) -> None:
        """Raises where skiplist, columns and member map disagree."""
        self._ranking.check()
        self._slots.check()
        if len(self._slots) != len(self._ranking):
            raise ValueError(f"{len(self._slots)} members, {len(self._ranking)} ranked")
        for member, slot in self._slots.items():
            key = self._key(self._scores[slot])
            place = self._ranking.rank(key, self._seqs[slot])
            if self._names[slot] != member or self._ranking.entry(place)[2] != slot:
                raise ValueError(f"member {member!r} is not where its slot {slot} says")


class Boards:
    """All boards by name."""

    __slots__ = ("_boards", "_graves", "_names", "_timers", "boards_max", "members", "members_max")

    def __init__(self, timers: Timers) -> None:
        self._boards: ShardedMap[Board] = ShardedMap()
        self._names = OrderedNames()
        self._timers = timers
        self._graves: deque[Board] = deque()
        self.members = 0  # over all boards
        self.boards_max: int | None = None
        self.members_max: int | None = None

    def __len__(self) -> int:
        return len(self._boards)

    def find(self, name: str) -> Board:
        board = self._boards.get(name)
        if board is None:
            raise RtError(NOT_FOUND, f"board {name!r} does not exist", {"name": name})
        return board

    def page(self, prefix: str, after: str | None, limit: int) -> list[str]:
        return self._names.page(prefix, after, limit)

    def create(self, now: int, name: str, rules: BoardRules) -> bool:
        """True when created, False when the same board exists; a different one is a conflict."""
        board = self._boards.get(name)
        if board is None:
            self._attach(self._new(now, name, rules))
            return True
        if board.rules != rules:
            raise RtError(
                CONFLICT,
                f"board {name!r} exists with {'/'.join(board.rules.as_row())} (order/mode/score),"
                f" not {'/'.join(rules.as_row())}",
                {"name": name},
            )
        return False

    def _new(self, now: int, name: str, rules: BoardRules) -> Board:
        """A board that nobody can reach yet; `_attach` makes it one of these."""
        if self.boards_max is not None and len(self._boards) >= self.boards_max:
            raise RtError(
                LIMIT_REACHED,
                f"there are {len(self._boards)} boards, at most {self.boards_max}"
                " (limits.boards_max)",
            )
        board = Board(name, rules, now)
        board.members_max = self.members_max
        return board

    def _attach(self, board: Board) -> None:
        self._boards.insert(board.name, board)
        self._names.add(board.name)

    @contextmanager
    def open(self, now: int, name: str) -> Iterator[Board]:
        """The board to submit to. One with the default rules springs up here, but stays only if
        a member entered it: a refused submit leaves nothing behind."""
        board = self._boards.get(name)
        if board is not None:
            yield board
            return
        board = self._new(now, name, BoardRules())
        yield board
        if len(board):
            self._attach(board)

    def submit(
        self,
        now: int,
        board: Board,
        member: str,
        score: Score,
        mode: str | None = None,
        meta: Any = None,
        ttl_ms: int | None = None,
    ) -> Submission:
        """One score; `meta` replaces the member's, `ttl_ms` runs from now (a later one renews)."""
        if board.expired(now, member):
            board.check_new(member, score)
            self.remove(board, [member])
        submission = board.submit(member, score, mode)
        if submission.previous_rank is None:
            self.members += 1
        if meta is not None:
            board.set_meta(member, meta)
        if ttl_ms is not None:
            self._drop_deadline(board, member)
            due = now + ttl_ms
            board.set_deadline(member, due, self._timers.add(due, TIMER_KIND, _pair(board, member)))
        return submission

    def remove(self, board: Board, members: Iterable[str]) -> int:
        """How many of the members were on the board."""
        removed = 0
        for member in members:
            self._drop_deadline(board, member)
            removed += board.remove(member)
        self.members -= removed
        return removed

    def delete(self, name: str) -> None:
        """Raises RtError not_found. The memory comes back through `reclaim`."""
        board = self.find(name)
        self._boards.pop(name)
        self._names.remove(name)
        self.members -= len(board)
        self._graves.append(board)

    def expire(self, now: int, pair: str, timer_id: int) -> None:
        """The timer of a member fired; nothing happens when it was renewed since."""
        name, _, member = pair.partition("\0")
        board = self._boards.get(name)
        if board is None:
            return
        deadline = board.deadline(member)
        if deadline is not None and deadline[1] == timer_id and deadline[0] <= now:
            self.remove(board, [member])

    def _drop_deadline(self, board: Board, member: str) -> None:
        deadline = board.drop_deadline(member)
        if deadline is not None:
            self._timers.cancel(*deadline)

    def reclaim(self, entries_max: int) -> bool:
        """Frees a slice of deleted boards; True when nothing is left to free."""
        left = entries_max
        while self._graves and left > 0:
            grave = self._graves[0]
            size = len(grave)
            if grave.reclaim(left):
                self._graves.popleft()
            left -= max(size, _GRAVE_COST)
        return not self._graves

    # --- snapshots ---

    def dump(self) -> Iterator[list[Any]]:
        """["board", name, rules, created_at, seq, banned] before its ["members", columns...]."""
        for name, board in self._boards.items():
            banned = sorted(member for member, _ in board.banned.items())
            yield ["board", name, board.rules.as_row(), board.created_at, board.seq, banned]
            for columns in board.dump():
                yield ["members", name, *columns]

    def load(self, chunk: list[Any]) -> None:
        kind, name, *rest = chunk
        if kind == "board":
            rules, created_at, seq, banned = rest
            board = self._new(created_at, name, BoardRules(*rules))
            self._attach(board)
            board.seq = seq
            board.ban(banned)
            return
        board = self.find(name)
        board.load(*rest)
        self.members += len(rest[0])

    def check(self) -> None:
        """Raises where a board or the sums over boards disagree with themselves."""
        members = 0
        for _, board in self._boards.items():
            board.check()
            members += len(board)
        if members != self.members or len(self._names) != len(self._boards):
            raise ValueError(f"the boards hold {members} members, the total says {self.members}")

    def enforce(self, boards_max: int, members_max: int) -> None:
        """From now on growth beyond these is refused (not on replay)."""
        self.boards_max = boards_max
        self.members_max = members_max
        for _, board in self._boards.items():
            board.members_max = members_max


def _pair(board: Board, member: str) -> str:
    """A member of a board in one text; names hold no control characters."""
    return f"{board.name}\0{member}"
