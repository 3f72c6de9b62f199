"""Leaderboards: members ranked by score, ties to whoever reached the score first.

A board is a ranking (structs/ranking.py) and what belongs to some of its members: data, bans,
deadlines. The ranking's key is the score as an int64 in ascending order of rank (turned over where
high scores rank first); its seq counts the board's score changes, so equal scores rank by the
time of reaching them. A submit is one move of the ranking, which tells both ranks.

Deleting a board is immediate for callers; its memory is freed in slices by `reclaim`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rtserver.errors import BANNED, CONFLICT, LIMIT_REACHED, NOT_FOUND, OUT_OF_RANGE, RtError
from rtserver.limits import INT64_MAX, INT64_MIN
from rtserver.state.growth import Growth
from rtserver.state.timers import Timers
from rtserver.structs import float_keys
from rtserver.structs.ordered_names import OrderedNames
from rtserver.structs.ranking import new_ranking
from rtserver.structs.sharded_map import ShardedMap

__all__ = ["TIMER_KIND", "Board", "BoardRules", "Boards", "Entry", "Submission"]

TIMER_KIND = "board"
_CHUNK = 1_000
_GRAVE_COST = 20  # of freeing an empty board, in entries
_MODES = ("best", "last", "sum")

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

    def as_map(self) -> dict[str, Any]:
        """The entry as clients see it: {rank, member, score}, with meta only where there is."""
        fields: dict[str, Any] = {"rank": self.rank, "member": self.member, "score": self.score}
        if self.meta is not None:
            fields["meta"] = self.meta
        return fields


class Board:
    """One board. Compiled commands change its `ranking` directly where its flags and marks say
    that nothing else is to be done."""

    __slots__ = (
        "_descending",
        "_expires",
        "_expiry",
        "_floats",
        "_meta",
        "banned",
        "created_at",
        "meta_changes",
        "name",
        "ranking",
        "rules",
    )

    def __init__(self, name: str, rules: BoardRules, created_at: int) -> None:
        self.name = name
        self.rules = rules
        self.created_at = created_at
        self.banned: ShardedMap[bool] = ShardedMap()
        self._expires = False  # spares look-ups on boards that never had a deadline
        self._floats = rules.score == "float"
        self._descending = rules.order == "desc"
        self._meta: ShardedMap[Any] = ShardedMap()
        self.meta_changes = 0  # since the start: for those who watch
        self._expiry: ShardedMap[tuple[int, int]] = ShardedMap()  # member -> (due_ms, timer id)
        self.ranking = new_ranking()
        self.ranking.descending = self._descending
        self.ranking.floats = self._floats
        self.ranking.mode = _MODES.index(rules.mode)

    def __len__(self) -> int:
        return len(self.ranking)

    def __contains__(self, member: str) -> bool:
        return member in self.ranking

    def bound(self, members_max: int | None) -> None:
        """From now on no more members than these enter; None: as many as come."""
        self.ranking.members_max = -1 if members_max is None else members_max

    # --- writing ---

    def submit(self, member: str, score: Score, mode: str | None = None) -> Submission:
        """Applies one score. Raises RtError before anything has changed."""
        found = self.ranking.find(member)
        if found is None:
            return self._enter(member, score)
        old = self._score(found[0])
        score = self._resolve(member, old, score, mode or self.rules.mode)
        if score == old:
            rank = self._rank_as("ordinal", member, found[0])
            return Submission(old, rank, rank, False)
        previous, place = self.ranking.move(member, self._key(score))
        return Submission(score, place + 1, previous + 1, True)

    def check_new(self, member: str, score: Score) -> Score:
        """The score of a member that enters. Raises RtError where it may not."""
        if self.ranking.guarded and member in self.banned:
            raise RtError(BANNED, f"{member!r} is banned from board {self.name!r}")
        return self._checked(member, score)

    def _enter(self, member: str, score: Score) -> Submission:
        score = self.check_new(member, score)
        members_max = self.ranking.members_max
        if 0 <= members_max <= len(self):
            raise RtError(
                LIMIT_REACHED,
                f"board {self.name!r} has {len(self)} members, at most {members_max}"
                " (limits.board_members_max)",
            )
        return Submission(score, self.ranking.place(member, self._key(score)) + 1, None, True)

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
        return value + 0.0  # not -0.0

    def _resolve(self, member: str, old: Score, score: Score, mode: str) -> Score:
        """The score that the member has after this submit."""
        if mode == "sum":
            return self._checked(member, old + self._checked(member, score))
        score = self._checked(member, score)
        if mode == "last":
            return score
        better = score > old if self._descending else score < old
        return score if better else old

    def _key(self, score: Score) -> int:
        """Ascending in order of rank. ~n is -n - 1: it cannot overflow 64 bits."""
        key = float_keys.key_of(score) if self._floats else int(score)
        return ~key if self._descending else key

    def _score(self, key: int) -> Score:
        if self._descending:
            key = ~key
        return float_keys.float_of(key) if self._floats else key

    def remove(self, member: str) -> bool:
        """True when the member was on the board."""
        if self.ranking.remove(member) is None:
            return False
        if member in self._meta:
            self._meta.pop(member)
        return True

    def set_meta(self, member: str, meta: Any) -> None:
        self._meta.insert(member, meta)
        self.meta_changes += 1

    def ban(self, members: Iterable[str]) -> None:
        for member in members:
            self.banned.insert(member, True)
        self.ranking.guarded = len(self.banned) > 0

    def unban(self, members: Iterable[str]) -> int:
        """How many of the members were banned."""
        banned = [member for member in dict.fromkeys(members) if member in self.banned]
        for member in banned:
            self.banned.pop(member)
        self.ranking.guarded = len(self.banned) > 0
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
        self.ranking.mark(member, True)

    def drop_deadline(self, member: str) -> tuple[int, int] | None:
        if member not in self._expiry:
            return None
        self.ranking.mark(member, False)
        return self._expiry.pop(member)

    # --- reading ---

    def find(self, now: int, member: str, kind: RankKind) -> tuple[int, Score] | None:
        """(rank, score) of a member, or None."""
        found = self.ranking.find(member)
        if found is None or self.expired(now, member):
            return None
        return self._rank_as(kind, member, found[0]), self._score(found[0])

    def _rank_as(self, kind: RankKind, member: str, key: int) -> int:
        """The rank of a member that has this key."""
        if kind == "competition":
            return self.ranking.rank_of_key(key) + 1
        if kind == "dense":
            return self.ranking.distinct_before(key) + 1
        place = self.ranking.rank(member)
        assert place is not None, f"{member!r} is not on board {self.name!r}"
        return place + 1

    def entries(self, start: int, count: int, kind: RankKind) -> list[Entry]:
        """Up to `count` entries from the 0-based place `start`, best first."""
        found: list[Entry] = []
        rank = 0
        last_key: int | None = None
        for place, (member, key, _) in enumerate(self.ranking.slice(start, count), start + 1):
            if kind == "ordinal":
                rank = place
            elif key != last_key:
                rank = (
                    self._rank_as(kind, member, key)
                    if last_key is None
                    else (place if kind == "competition" else rank + 1)
                )
                last_key = key
            found.append(Entry(rank, member, self._score(key), self._meta.get(member)))
        return found

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
        found = []
        for member in dict.fromkeys(members):
            entry = self.ranking.find(member)
            if entry is not None and not self.expired(now, member):
                found.append((*entry, member))
        return [
            Entry(
                self._rank_as(kind, member, key), member, self._score(key), self._meta.get(member)
            )
            for key, _, member in sorted(found)
        ]

    def places_between(self, low: Score, high: Score) -> tuple[int, int]:
        """The 0-based places [start, end) of the scores from low to high, both included."""
        if self._floats:
            low, high = float(low), float(high)
        else:
            low, high = math.ceil(low), math.floor(high)
            if low > INT64_MAX or high < INT64_MIN:
                return 0, 0
            low, high = max(INT64_MIN, low), min(INT64_MAX, high)
            if low > high:
                return 0, 0
        first, last = (high, low) if self._descending else (low, high)
        start = self.ranking.rank_of_key(self._key(first))
        return start, max(start, self.ranking.rank_past_key(self._key(last)))

    # --- snapshots and memory ---

    def dump(self) -> Iterator[list[Any]]:
        """Columns [members, scores, seqs, metas] in order of rank, a thousand a chunk."""
        for start in range(0, len(self), _CHUNK):
            rows = self.ranking.slice(start, _CHUNK)
            members = [member for member, _, _ in rows]
            yield [
                members,
                [self._score(key) for _, key, _ in rows],
                [seq for _, _, seq in rows],
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
        self.ranking.load(members, [self._key(score) for score in scores], seqs)
        for member, meta in metas.items():
            self._meta.insert(member, meta)
        for member, (due, timer_id) in deadlines.items():
            self.set_deadline(member, due, timer_id)

    def reclaim(self, entries_max: int) -> bool:
        """Frees a slice of a board that nobody can reach any more; True when all is free."""
        done = self.ranking.release(entries_max)
        for side in (self.banned, self._meta, self._expiry):
            done = side.release(entries_max) and done
        return done

    def check(self) -> None:
        """Raises where the ranking is broken or disagrees with deadlines and bans."""
        self.ranking.check()
        if self.ranking.guarded != (len(self.banned) > 0):
            raise ValueError(f"board {self.name!r} has {len(self.banned)} bans and is not guarded")
        for member, _ in self._expiry.items():
            if not self.ranking.marked(member):
                raise ValueError(f"{member!r} has a deadline and no mark")


class Boards:
    """All boards by name."""

    __slots__ = (
        "_boards",
        "_graves",
        "_names",
        "_timers",
        "boards_max",
        "changes",
        "growth",
        "members",
        "members_max",
    )

    def __init__(self, timers: Timers, growth: Growth) -> None:
        self._boards: ShardedMap[Board] = ShardedMap()
        self._names = OrderedNames()
        self._timers = timers
        self.growth = growth
        self._graves: deque[Board] = deque()
        self.changes = 0  # how often a board came or went
        self.members = 0  # over all boards
        self.boards_max: int | None = None
        self.members_max: int | None = None

    def __len__(self) -> int:
        return len(self._boards)

    def get(self, name: str) -> Board | None:
        return self._boards.get(name)

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
        self.growth.check()
        if self.boards_max is not None and len(self._boards) >= self.boards_max:
            raise RtError(
                LIMIT_REACHED,
                f"there are {len(self._boards)} boards, at most {self.boards_max}"
                " (limits.boards_max)",
            )
        board = Board(name, rules, now)
        board.bound(self.members_max)
        return board

    def _attach(self, board: Board) -> None:
        self.changes += 1
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
        if self.growth.refusal is not None and (
            meta is not None or ttl_ms is not None or member not in board
        ):
            self.growth.check()
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
        self.changes += 1
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
            yield ["board", name, board.rules.as_row(), board.created_at, board.ranking.seq, banned]
            for columns in board.dump():
                yield ["members", name, *columns]

    def load(self, chunk: list[Any]) -> None:
        kind, name, *rest = chunk
        if kind == "board":
            rules, created_at, seq, banned = rest
            board = self._new(created_at, name, BoardRules(*rules))
            self._attach(board)
            board.ranking.seq = seq
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
            board.bound(members_max)


def _pair(board: Board, member: str) -> str:
    """A member of a board in one text; names hold no control characters."""
    return f"{board.name}\0{member}"
