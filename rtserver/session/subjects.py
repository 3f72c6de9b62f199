"""What can be watched: counters, the head of a board, the places around a member, users; and
sales (session.sale_subjects)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rtserver.errors import INVALID_PARAMS, RtError
from rtserver.limits import LIST_MAX, NAME_BYTES_MAX
from rtserver.session.presence import Presence
from rtserver.session.sale_subjects import sale_kind
from rtserver.session.watches import Subject, SubjectKind, malformed
from rtserver.state.boards import Board, Entry
from rtserver.state.store import Store

__all__ = ["subject_kinds"]

_RADIUS = 5
_RADIUS_MAX = 100


class _Counter:
    """`$counter:<name>`: always the whole state, it is one number."""

    def __init__(self, store: Store, name: str) -> None:
        self._counters = store.counters
        self._name = name

    def marker(self, now: int) -> int:
        return self._counters.get(now, self._name)

    def state(self, now: int) -> dict[str, Any]:
        return {"full": True, "value": self._counters.get(now, self._name)}

    def difference(self, _old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        return new

    def rest_ms(self, _state: dict[str, Any]) -> int:
        return 0


class _Places:
    """Entries of a board: the best `top`, or a member and `radius` places on each side."""

    def __init__(self, store: Store, board: str, *, top: int, member: str, radius: int) -> None:
        self._boards = store.boards
        self._board = board
        self._top = top
        self._member = member
        self._radius = radius

    def marker(self, _now: int) -> tuple[Any, ...]:
        board = self._boards.get(self._board)
        if board is None:
            return (None,)
        # A change of scores counts up seq; one who leaves changes the number of members.
        return (id(board), board.created_at, board.ranking.seq, len(board), board.meta_changes)

    def state(self, now: int) -> dict[str, Any]:
        board = self._boards.get(self._board)
        if board is None:
            return {"full": True, "entries": [], "count": 0}
        entries = [entry.as_map() for entry in self._entries(board, now)]
        return {"full": True, "entries": entries, "count": len(board)}

    def _entries(self, board: Board, now: int) -> list[Entry]:
        if self._top:
            return board.entries(0, self._top, "ordinal")
        return board.around(now, self._member, self._radius, "ordinal")

    def difference(self, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        before = {entry["member"]: entry for entry in old["entries"]}
        after = {entry["member"] for entry in new["entries"]}
        enter = [entry for entry in new["entries"] if entry["member"] not in before]
        move = [
            entry
            for entry in new["entries"]
            if entry["member"] in before and entry != before[entry["member"]]
        ]
        leave = [member for member in before if member not in after]
        if len(enter) + len(move) + len(leave) >= len(new["entries"]):
            return new
        return {"enter": enter, "move": move, "leave": leave, "count": new["count"]}

    def rest_ms(self, _state: dict[str, Any]) -> int:
        return 0


class _User:
    """`$presence:<user>`: always the whole state, it is small."""

    def __init__(self, presence: Presence, user: str) -> None:
        self._presence = presence
        self._user = user

    def marker(self, _now: int) -> tuple[Any, ...]:
        return self._presence.version(self._user), self._presence.people.last_seen(self._user)

    def state(self, _now: int) -> dict[str, Any]:
        return {"full": True, **self._presence.state(self._user)}

    def difference(self, _old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        return new

    def rest_ms(self, _state: dict[str, Any]) -> int:
        return 0


def subject_kinds(
    store: Store, presence: Presence, more: Mapping[str, SubjectKind]
) -> dict[str, SubjectKind]:
    """The kinds of names after the `$`: those of the state, those of presence, and `more`."""

    def counter(parts: list[str]) -> Subject:
        if len(parts) != 1:
            raise malformed(f"$counter:<name>{_spelled('counter', parts)}")
        return _Counter(store, parts[0])

    def board(parts: list[str]) -> Subject:
        match parts:
            case [name, "top", count]:
                top = _number("n", count, LIST_MAX)
                return _Places(store, name, top=top, member="", radius=0)
            case [name, "around", member]:
                return _Places(store, name, top=0, member=member, radius=_RADIUS)
            case [name, "around", member, text]:
                radius = _number("radius", text, _RADIUS_MAX)
                return _Places(store, name, top=0, member=member, radius=radius)
        raise malformed("$board:<name>:top:<n> or $board:<name>:around:<member>[:<radius>]")

    def user(parts: list[str]) -> Subject:
        if len(parts) != 1:
            raise malformed(f"$presence:<user>{_spelled('presence', parts)}")
        return _User(presence, parts[0])

    return {
        "counter": counter,
        "board": board,
        "presence": user,
        "sale": partial(sale_kind, store),
        **more,
    }


def _spelled(kind: str, parts: list[str]) -> str:
    """How a name with colons was to be written; in a URL it is encoded once more."""
    name = ":".join(parts)[:NAME_BYTES_MAX].replace("%", "%25").replace(":", "%3A")
    in_url = name.replace("%", "%25")
    return f" such as ${kind}:{name} (in a URL ${kind}:{in_url})"


def _number(what: str, text: str, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= most:
        raise RtError(INVALID_PARAMS, f"{what} is {text[:80]!r}, expected 1 to {most}")
    return int(text[:9])
