"""board.*: leaderboards. For now every board has the one window `all`."""

from __future__ import annotations

from typing import Any

from rtserver.commands.context import Context
from rtserver.commands.kinds import (
    BOOL,
    LIMIT,
    MEMBER,
    META,
    NAME,
    NAMES,
    NUMBER,
    PREFIX,
    TTL_MS,
    UINT,
    VECTOR,
    Shape,
    at_most,
    one_of,
)
from rtserver.commands.paging import fitting, name_bytes
from rtserver.commands.table import Effect, Param, command
from rtserver.commands.vector import Failed, Item, each
from rtserver.limits import LIST_DEFAULT
from rtserver.state.boards import Board, BoardRules, Boards, Entry, RankKind, Score, Submission
from rtserver.state.store import Store
from rtserver.wire.codec import pack

CREATED = Shape("Created", created="bool")
DELETED = Shape("Deleted", deleted="bool")
REMOVED = Shape("Removed", removed="int")
UNBANNED = Shape("Unbanned", unbanned="int")
SUBMISSION = Shape("Submission", score="number", rank="int", previous_rank="int?", changed="bool")
SUBMISSIONS = Shape("Submissions", items="[Submission]")
RANK = Shape("Rank", rank="int?", score="number?", percentile="number?", error="int")
ENTRY = Shape("Entry", rank="int", member="text", score="number", meta="data?")
ENTRIES = Shape("Entries", entries="[Entry]", count="int", next="int?")
INFO = Shape(
    "BoardInfo",
    name="text",
    order="text",
    mode="text",
    score="text",
    windows="[text]",
    count="int",
    banned="int",
    created_at="int",
)
NAME_PAGE = Shape("NamePage", items="[text]", next="text?")

_MODES = one_of("best", "last", "sum")
_name = Param("name", NAME)
_member = Param("member", MEMBER)
_SCORE = Item(member=MEMBER, score=NUMBER)
_members = Param("members", NAMES)
_window = Param("window", one_of("all"), "all")
_period = Param("period", one_of("current"), "current")
_kind = Param("kind", one_of("ordinal", "competition", "dense"), "ordinal")
_limit = Param("limit", LIMIT, LIST_DEFAULT)
_offset = Param("offset", UINT, 0)
_view = (_offset, _window, _period, _kind)


@command(
    "board.create",
    Effect.WRITE,
    params=[
        _name,
        Param("order", one_of("desc", "asc"), "desc"),
        Param("mode", _MODES, "best"),
        Param("score", one_of("int", "float"), "int"),
    ],
    returns=CREATED,
    key="name",
    right="service",
    summary="Creates a board; created is false when the same one exists.",
)
def create(
    store: Store, ctx: Context, name: str, order: Any, mode: Any, score: Any
) -> dict[str, bool]:
    return {"created": store.boards.create(ctx.now, name, BoardRules(order, mode, score))}


@command(
    "board.submit",
    Effect.WRITE,
    params=[
        _name,
        _member,
        Param("score", NUMBER),
        Param("mode", _MODES, None),
        Param("meta", META, None),
        Param("ttl_ms", TTL_MS, None),
    ],
    returns=SUBMISSION,
    key="name",
    cost=2,
    right="service",
    summary="Submits a score, in the board's mode unless given; the board springs up.",
)
def submit(
    store: Store,
    ctx: Context,
    name: str,
    member: str,
    score: Score,
    mode: str | None,
    meta: Any,
    ttl_ms: int | None,
) -> dict[str, Any]:
    with store.boards.open(ctx.now, name) as board:
        return _submission(store.boards.submit(ctx.now, board, member, score, mode, meta, ttl_ms))


def _submission(done: Submission) -> dict[str, Any]:
    score, rank, previous_rank, changed = done
    return {"score": score, "rank": rank, "previous_rank": previous_rank, "changed": changed}


@command(
    "board.submit_many",
    Effect.WRITE,
    params=[_name, Param("items", VECTOR, doc="[[member, score], ...]")],
    returns=SUBMISSIONS,
    key="name",
    items="items",
    right="service",
    summary="Submits many scores in order; a failed item is {error} in its place.",
)
def submit_many(store: Store, ctx: Context, name: str, items: list[Any]) -> dict[str, Any]:
    boards = store.boards
    with boards.open(ctx.now, name) as board:
        results = each(items, lambda item: submit_item(boards, ctx.now, board, item))
    if not ctx.replaying and any(type(result) is Failed for result in results):
        done = zip(items, results, strict=True)
        ctx.log_as(name, [item for item, result in done if type(result) is not Failed])
    return {"items": results}


def submit_item(boards: Boards, now: int, board: Board, item: Any) -> dict[str, Any]:
    """One [member, score] of a vector."""
    member, score = _SCORE.read(item)
    return _submission(boards.submit(now, board, member, score))


@command(
    "board.rank",
    Effect.READ,
    params=[_name, _member, _window, _period, _kind],
    returns=RANK,
    key="name",
    right="service",
    summary="A member's rank; rank and score are nil for an unknown member.",
)
def rank(
    store: Store, ctx: Context, name: str, member: str, _window: str, _period: str, kind: RankKind
) -> dict[str, Any]:
    board = store.boards.find(name)
    found = board.find(ctx.now, member, kind)
    if found is None:
        return {"rank": None, "score": None, "percentile": None, "error": 0}
    place, score = found
    percentile = 100 * (len(board) - place + 1) / len(board)
    return {"rank": place, "score": score, "percentile": percentile, "error": 0}


def _entries(board: Board, entries: list[Entry]) -> dict[str, Any]:
    return {"entries": [entry.as_map() for entry in entries], "count": len(board), "next": None}


def _page(board: Board, entries: list[Entry], offset: int, total: int) -> dict[str, Any]:
    """The entries from an offset on, as far as they fit a reply; `next` is the offset after."""
    kept = fitting(entries, _entry_bytes)
    after = offset + len(kept)
    following = after if kept and after < total else None
    return {"entries": [entry.as_map() for entry in kept], "count": total, "next": following}


def _entry_bytes(entry: Entry) -> int:
    return name_bytes(entry.member) + (0 if entry.meta is None else len(pack(entry.meta)))


@command(
    "board.top",
    Effect.READ,
    params=[_name, _limit, *_view],
    returns=ENTRIES,
    key="name",
    items="limit",
    right="service",
    summary="The best members, from place offset on.",
)
def top(
    store: Store,
    _ctx: Context,
    name: str,
    limit: int,
    offset: int,
    _window: str,
    _period: str,
    kind: RankKind,
) -> dict[str, Any]:
    board = store.boards.find(name)
    entries = board.entries(offset, limit, kind)
    return _page(board, entries, offset, len(board))


@command(
    "board.around",
    Effect.READ,
    params=[_name, _member, Param("radius", at_most(500, 0), 5), _window, _period, _kind],
    returns=ENTRIES,
    key="name",
    items="radius",
    right="service",
    summary="A member with up to radius neighbours on each side; empty for an unknown member.",
)
def around(
    store: Store,
    ctx: Context,
    name: str,
    member: str,
    radius: int,
    _window: str,
    _period: str,
    kind: RankKind,
) -> dict[str, Any]:
    board = store.boards.find(name)
    return _entries(board, board.around(ctx.now, member, radius, kind))


@command(
    "board.by_score",
    Effect.READ,
    params=[_name, Param("low", NUMBER), Param("high", NUMBER), _limit, *_view],
    returns=ENTRIES,
    key="name",
    items="limit",
    right="service",
    summary="Members with scores from low to high, both included, best first.",
)
def by_score(
    store: Store,
    _ctx: Context,
    name: str,
    low: Score,
    high: Score,
    limit: int,
    offset: int,
    _window: str,
    _period: str,
    kind: RankKind,
) -> dict[str, Any]:
    board = store.boards.find(name)
    start, end = board.places_between(low, high)
    entries = board.entries(start + offset, min(limit, max(0, end - start - offset)), kind)
    return _page(board, entries, offset, end - start)


@command(
    "board.members",
    Effect.READ,
    params=[_name, _members, _window, _period, _kind],
    returns=ENTRIES,
    key="name",
    items="members",
    right="service",
    summary="The named members that are on the board, by rank (a board of friends).",
)
def members(
    store: Store,
    ctx: Context,
    name: str,
    asked: list[str],
    _window: str,
    _period: str,
    kind: RankKind,
) -> dict[str, Any]:
    board = store.boards.find(name)
    return _entries(board, board.pick(ctx.now, asked, kind))


@command(
    "board.count",
    Effect.READ,
    params=[_name, _window, _period],
    returns="int",
    key="name",
    right="service",
    summary="How many members the board has.",
)
def count(store: Store, _ctx: Context, name: str, _window: str, _period: str) -> int:
    return len(store.boards.find(name))


@command(
    "board.remove",
    Effect.WRITE,
    params=[_name, _members, Param("ban", BOOL, False)],
    returns=REMOVED,
    key="name",
    items="members",
    right="service",
    summary="Removes members; with ban they cannot come back until unbanned.",
)
def remove(store: Store, _ctx: Context, name: str, asked: list[str], ban: bool) -> dict[str, int]:
    board = store.boards.find(name)
    if ban and not all(member in board.banned for member in asked):
        store.growth.check()
    removed = store.boards.remove(board, asked)
    if ban:
        board.ban(asked)
    return {"removed": removed}


@command(
    "board.unban",
    Effect.WRITE,
    params=[_name, _members],
    returns=UNBANNED,
    key="name",
    items="members",
    right="service",
    summary="Lets banned members submit again.",
)
def unban(store: Store, _ctx: Context, name: str, asked: list[str]) -> dict[str, int]:
    return {"unbanned": store.boards.find(name).unban(asked)}


@command(
    "board.info",
    Effect.READ,
    params=[_name],
    returns=INFO,
    key="name",
    right="service",
    summary="What a board is and how many members it has.",
)
def info(store: Store, _ctx: Context, name: str) -> dict[str, Any]:
    board = store.boards.find(name)
    return {
        "name": name,
        "order": board.rules.order,
        "mode": board.rules.mode,
        "score": board.rules.score,
        "windows": ["all"],
        "count": len(board),
        "banned": len(board.banned),
        "created_at": board.created_at,
    }


@command(
    "board.list",
    Effect.READ,
    params=[Param("prefix", PREFIX, ""), Param("after", NAME, None), _limit],
    returns=NAME_PAGE,
    items="limit",
    right="service",
    summary="Names of boards that begin with prefix; next is the after of the next page.",
)
def list_boards(
    store: Store, _ctx: Context, prefix: str, after: str | None, limit: int
) -> dict[str, Any]:
    names = store.boards.page(prefix, after, limit)
    kept = fitting(names, name_bytes)
    more = len(names) == limit or len(kept) < len(names)
    return {"items": kept, "next": kept[-1] if more else None}


@command(
    "board.delete",
    Effect.WRITE,
    params=[_name],
    returns=DELETED,
    key="name",
    right="service",
    summary="Deletes a board with all its members, at once for everybody.",
)
def delete(store: Store, _ctx: Context, name: str) -> dict[str, bool]:
    store.boards.delete(name)
    return {"deleted": True}
