"""The commands as methods that return futures: await them, or gather many.

Made by client/generate.py from the server's tables; change those, not this.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, Unpack

from rtclient import table
from rtclient.command import Command
from rtclient.options import ReadOptions, WriteOptions
from rtclient.results import (
    Audit,
    Authenticated,
    BoardInfo,
    Cancelled,
    Confirmed,
    CounterPage,
    Created,
    Deleted,
    Entries,
    History,
    Hold,
    Jumped,
    Kicked,
    Ledger,
    Left,
    NamePage,
    NamespaceRules,
    Orders,
    Place,
    Pong,
    PresencePage,
    Published,
    PublishedMany,
    Purchase,
    Rank,
    Refunded,
    Removed,
    SaleCreated,
    SalePhase,
    SaleStatus,
    Seats,
    ServerTime,
    SnapshotDone,
    Stock,
    Submission,
    Submissions,
    Unbanned,
    UserPresence,
    UserPresences,
    Values,
    ValuesOrErrors,
    WholePlace,
    Within,
)

__all__ = ["Board", "Caller", "Channel", "Counter", "Nouns", "Presence", "Sale", "Server"]

T = TypeVar("T")


class Caller(Protocol):
    """Makes a call: asyncio's way, with a future of the result."""

    def __call__(
        self, command: Command[T], params: tuple[Any, ...], options: Mapping[str, Any], /
    ) -> Future[T]: ...


class Server:
    """The commands `server.*`."""

    __slots__ = ("_call",)

    def __init__(self, call: Caller) -> None:
        self._call = call

    def auth(self, token: str, **options: Unpack[ReadOptions]) -> Future[Authenticated]:
        """Shows a fresh token of the same user before the last one expires."""
        return self._call(table.SERVER_AUTH, (token,), options)

    def kick(
        self,
        user: str,
        channel: str | None = None,
        block_ms: int = 0,
        **options: Unpack[ReadOptions],
    ) -> Future[Kicked]:
        """Closes a user's connections, or ends what she hears of a channel, and keeps her out."""
        return self._call(table.SERVER_KICK, (user, channel, block_ms), options)

    def ping(self, **options: Unpack[ReadOptions]) -> Future[Pong]:
        """Answers at once with the server's time."""
        return self._call(table.SERVER_PING, (), options)

    def info(self, **options: Unpack[ReadOptions]) -> Future[Any]:
        """What this server is: versions, compiled modules, limits, where it keeps data."""
        return self._call(table.SERVER_INFO, (), options)

    def stats(self, **options: Unpack[ReadOptions]) -> Future[Any]:
        """What it holds and has done: entities, connections, log, turns, errors by name."""
        return self._call(table.SERVER_STATS, (), options)

    def time(self, **options: Unpack[ReadOptions]) -> Future[ServerTime]:
        """The server's time and how far the system's wall clock is ahead of it."""
        return self._call(table.SERVER_TIME, (), options)

    def accept_time(self, **options: Unpack[ReadOptions]) -> Future[Jumped]:
        """Takes over a wall clock that is ahead, and ends the alarm about the difference."""
        return self._call(table.SERVER_ACCEPT_TIME, (), options)

    def advance(self, ms: int, **options: Unpack[ReadOptions]) -> Future[Jumped]:
        """Moves the time forward (only with serve --manual-clock); what is due fires next."""
        return self._call(table.SERVER_ADVANCE, (ms,), options)

    def snapshot(self, **options: Unpack[ReadOptions]) -> Future[SnapshotDone]:
        """Makes a snapshot by a separate process and answers when it is verified."""
        return self._call(table.SERVER_SNAPSHOT, (), options)


class Counter:
    """The commands `counter.*`."""

    __slots__ = ("_call",)

    def __init__(self, call: Caller) -> None:
        self._call = call

    def add(
        self, name: str, delta: int = 1, ttl_ms: int | None = None, **options: Unpack[WriteOptions]
    ) -> Future[int]:
        """Adds delta and returns the new value; ttl_ms runs from the counter's creation."""
        return self._call(table.COUNTER_ADD, (name, delta, ttl_ms), options)

    def add_many(
        self, items: Sequence[Any], **options: Unpack[WriteOptions]
    ) -> Future[ValuesOrErrors]:
        """Adds to many counters in order; a failed item is {error} in its place.

        items: [[name, delta], ...]
        """
        return self._call(table.COUNTER_ADD_MANY, (items,), options)

    def add_within(
        self,
        name: str,
        delta: int,
        min: int | None = None,
        max: int | None = None,
        on_limit: Literal["reject", "clamp"] = "reject",
        **options: Unpack[WriteOptions],
    ) -> Future[Within]:
        """Adds delta only as far as the value stays within min and max."""
        return self._call(table.COUNTER_ADD_WITHIN, (name, delta, min, max, on_limit), options)

    def get(self, name: str, **options: Unpack[ReadOptions]) -> Future[int]:
        """The value; 0 for a counter that does not exist."""
        return self._call(table.COUNTER_GET, (name,), options)

    def get_many(self, names: Sequence[str], **options: Unpack[ReadOptions]) -> Future[Values]:
        """The values of many counters, in the order asked."""
        return self._call(table.COUNTER_GET_MANY, (names,), options)

    def set(self, name: str, value: int, **options: Unpack[WriteOptions]) -> Future[int]:
        """Gives the counter a value; a running time to live goes on."""
        return self._call(table.COUNTER_SET, (name, value), options)

    def list(
        self,
        prefix: str = "",
        after: str | None = None,
        limit: int = 100,
        **options: Unpack[ReadOptions],
    ) -> Future[CounterPage]:
        """Counters whose name begins with prefix, by name; next is the after of the next page."""
        return self._call(table.COUNTER_LIST, (prefix, after, limit), options)

    def delete(self, name: str, **options: Unpack[WriteOptions]) -> Future[Deleted]:
        """Deletes a counter; deleted is false where there was none."""
        return self._call(table.COUNTER_DELETE, (name,), options)


class Board:
    """The commands `board.*`."""

    __slots__ = ("_call",)

    def __init__(self, call: Caller) -> None:
        self._call = call

    def create(
        self,
        name: str,
        order: Literal["desc", "asc"] = "desc",
        mode: Literal["best", "last", "sum"] = "best",
        score: Literal["int", "float"] = "int",
        **options: Unpack[WriteOptions],
    ) -> Future[Created]:
        """Creates a board; created is false when the same one exists."""
        return self._call(table.BOARD_CREATE, (name, order, mode, score), options)

    def submit(
        self,
        name: str,
        member: str,
        score: int | float,
        mode: Literal["best", "last", "sum"] | None = None,
        meta: Any = None,
        ttl_ms: int | None = None,
        **options: Unpack[WriteOptions],
    ) -> Future[Submission]:
        """Submits a score, in the board's mode unless given; the board springs up."""
        return self._call(table.BOARD_SUBMIT, (name, member, score, mode, meta, ttl_ms), options)

    def submit_many(
        self, name: str, items: Sequence[Any], **options: Unpack[WriteOptions]
    ) -> Future[Submissions]:
        """Submits many scores in order; a failed item is {error} in its place.

        items: [[member, score], ...]
        """
        return self._call(table.BOARD_SUBMIT_MANY, (name, items), options)

    def rank(
        self,
        name: str,
        member: str,
        window: Literal["all"] = "all",
        period: Literal["current"] = "current",
        kind: Literal["ordinal", "competition", "dense"] = "ordinal",
        **options: Unpack[ReadOptions],
    ) -> Future[Rank]:
        """A member's rank; rank and score are nil for an unknown member."""
        return self._call(table.BOARD_RANK, (name, member, window, period, kind), options)

    def top(
        self,
        name: str,
        limit: int = 100,
        offset: int = 0,
        window: Literal["all"] = "all",
        period: Literal["current"] = "current",
        kind: Literal["ordinal", "competition", "dense"] = "ordinal",
        **options: Unpack[ReadOptions],
    ) -> Future[Entries]:
        """The best members, from place offset on."""
        return self._call(table.BOARD_TOP, (name, limit, offset, window, period, kind), options)

    def around(
        self,
        name: str,
        member: str,
        radius: int = 5,
        window: Literal["all"] = "all",
        period: Literal["current"] = "current",
        kind: Literal["ordinal", "competition", "dense"] = "ordinal",
        **options: Unpack[ReadOptions],
    ) -> Future[Entries]:
        """A member with up to radius neighbours on each side; empty for an unknown member."""
        return self._call(table.BOARD_AROUND, (name, member, radius, window, period, kind), options)

    def by_score(
        self,
        name: str,
        low: int | float,
        high: int | float,
        limit: int = 100,
        offset: int = 0,
        window: Literal["all"] = "all",
        period: Literal["current"] = "current",
        kind: Literal["ordinal", "competition", "dense"] = "ordinal",
        **options: Unpack[ReadOptions],
    ) -> Future[Entries]:
        """Members with scores from low to high, both included, best first."""
        return self._call(
            table.BOARD_BY_SCORE, (name, low, high, limit, offset, window, period, kind), options
        )

    def members(
        self,
        name: str,
        members: Sequence[str],
        window: Literal["all"] = "all",
        period: Literal["current"] = "current",
        kind: Literal["ordinal", "competition", "dense"] = "ordinal",
        **options: Unpack[ReadOptions],
    ) -> Future[Entries]:
        """The named members that are on the board, by rank (a board of friends)."""
        return self._call(table.BOARD_MEMBERS, (name, members, window, period, kind), options)

    def count(
        self,
        name: str,
        window: Literal["all"] = "all",
        period: Literal["current"] = "current",
        **options: Unpack[ReadOptions],
    ) -> Future[int]:
        """How many members the board has."""
        return self._call(table.BOARD_COUNT, (name, window, period), options)

    def remove(
        self, name: str, members: Sequence[str], ban: bool = False, **options: Unpack[WriteOptions]
    ) -> Future[Removed]:
        """Removes members; with ban they cannot come back until unbanned."""
        return self._call(table.BOARD_REMOVE, (name, members, ban), options)

    def unban(
        self, name: str, members: Sequence[str], **options: Unpack[WriteOptions]
    ) -> Future[Unbanned]:
        """Lets banned members submit again."""
        return self._call(table.BOARD_UNBAN, (name, members), options)

    def info(self, name: str, **options: Unpack[ReadOptions]) -> Future[BoardInfo]:
        """What a board is and how many members it has."""
        return self._call(table.BOARD_INFO, (name,), options)

    def list(
        self,
        prefix: str = "",
        after: str | None = None,
        limit: int = 100,
        **options: Unpack[ReadOptions],
    ) -> Future[NamePage]:
        """Names of boards that begin with prefix; next is the after of the next page."""
        return self._call(table.BOARD_LIST, (prefix, after, limit), options)

    def delete(self, name: str, **options: Unpack[WriteOptions]) -> Future[Deleted]:
        """Deletes a board with all its members, at once for everybody."""
        return self._call(table.BOARD_DELETE, (name,), options)


class Sale:
    """The commands `sale.*`."""

    __slots__ = ("_call",)

    def __init__(self, call: Caller) -> None:
        self._call = call

    def create(
        self,
        name: str,
        items: Mapping[str, Any],
        per_user: int = 1,
        hold_ms: int = 120000,
        opens_at: int | None = None,
        closes_at: int | None = None,
        queue: Mapping[str, Any] | None = None,
        **options: Unpack[WriteOptions],
    ) -> Future[SaleCreated]:
        """Creates a sale, open at once without opens_at; seed_sha256 fixes its queue's order."""
        return self._call(
            table.SALE_CREATE, (name, items, per_user, hold_ms, opens_at, closes_at, queue), options
        )

    def configure(
        self,
        name: str,
        per_user: int | None = None,
        hold_ms: int | None = None,
        opens_at: int | None = None,
        closes_at: int | None = None,
        queue: Mapping[str, Any] | None = None,
        **options: Unpack[WriteOptions],
    ) -> Future[SalePhase]:
        """Changes the terms of a sale, also while it runs; what is held stays as it is."""
        return self._call(
            table.SALE_CONFIGURE, (name, per_user, hold_ms, opens_at, closes_at, queue), options
        )

    def restock(
        self, name: str, items: Mapping[str, Any], **options: Unpack[WriteOptions]
    ) -> Future[Stock]:
        """Adds units, or takes free ones away where below 0; adds items that are new."""
        return self._call(table.SALE_RESTOCK, (name, items), options)

    def open(self, name: str, **options: Unpack[WriteOptions]) -> Future[SalePhase]:
        """Opens a sale before its time, or goes on after a pause."""
        return self._call(table.SALE_OPEN, (name,), options)

    def pause(self, name: str, **options: Unpack[WriteOptions]) -> Future[SalePhase]:
        """Stops admissions and reserves until sale.open; holds and the queue go on."""
        return self._call(table.SALE_PAUSE, (name,), options)

    def close(
        self, name: str, release: bool = False, **options: Unpack[WriteOptions]
    ) -> Future[SalePhase]:
        """Ends joins and reserves; holds may be confirmed still, unless they are released."""
        return self._call(table.SALE_CLOSE, (name, release), options)

    def delete(self, name: str, **options: Unpack[WriteOptions]) -> Future[Deleted]:
        """Forgets a closed sale with its orders, its ledger and the keys it remembers."""
        return self._call(table.SALE_DELETE, (name,), options)

    def list(
        self,
        prefix: str = "",
        after: str | None = None,
        limit: int = 100,
        **options: Unpack[ReadOptions],
    ) -> Future[NamePage]:
        """Names of sales that begin with prefix; next is the after of the next page."""
        return self._call(table.SALE_LIST, (prefix, after, limit), options)

    def status(
        self, name: str, after: str | None = None, limit: int = 100, **options: Unpack[ReadOptions]
    ) -> Future[SaleStatus]:
        """The balance of each item, by name; stock is always free + held + sold."""
        return self._call(table.SALE_STATUS, (name, after, limit), options)

    def join(
        self,
        name: str,
        user: str | None = None,
        challenge: str | None = None,
        **options: Unpack[WriteOptions],
    ) -> Future[Place]:
        """A place in the queue, one a user; joining again tells where it is."""
        return self._call(table.SALE_JOIN, (name, user, challenge), options)

    def leave(
        self, name: str, user: str | None = None, **options: Unpack[WriteOptions]
    ) -> Future[Left]:
        """Gives up a place in the queue, or a pass; holds stay."""
        return self._call(table.SALE_LEAVE, (name, user), options)

    def place(
        self, name: str, user: str | None = None, **options: Unpack[ReadOptions]
    ) -> Future[WholePlace]:
        """Where a user is in the queue, with her holds and her orders, newest first."""
        return self._call(table.SALE_PLACE, (name, user), options)

    def reserve(
        self,
        name: str,
        user: str | None = None,
        items: Mapping[str, int] | None = None,
        best: Mapping[str, Any] | None = None,
        pass_id: str | None = None,
        hold: str | None = None,
        **options: Unpack[WriteOptions],
    ) -> Future[Hold]:
        """Holds all of a basket, or nothing; with hold the basket replaces that one's."""
        return self._call(table.SALE_RESERVE, (name, user, items, best, pass_id, hold), options)

    def confirm(
        self,
        hold: str,
        reference: str | None = None,
        items: Mapping[str, int] | None = None,
        late: Literal["refuse", "retake"] = "refuse",
        **options: Unpack[WriteOptions],
    ) -> Future[Confirmed]:
        """Sells what is held, or a part; late=retake what expired, too, while it is free."""
        return self._call(table.SALE_CONFIRM, (hold, reference, items, late), options)

    def cancel(self, hold: str, **options: Unpack[WriteOptions]) -> Future[Cancelled]:
        """Gives back what is held."""
        return self._call(table.SALE_CANCEL, (hold,), options)

    def extend(self, hold: str, ms: int, **options: Unpack[WriteOptions]) -> Future[Hold]:
        """Lets a hold last longer; in all at most 5 times the sale's hold_ms."""
        return self._call(table.SALE_EXTEND, (hold, ms), options)

    def refund(
        self,
        order: str,
        items: Mapping[str, int] | None = None,
        reference: str | None = None,
        restock: bool = True,
        **options: Unpack[WriteOptions],
    ) -> Future[Refunded]:
        """Takes an order back, or a part of it; its units are free again, or gone."""
        return self._call(table.SALE_REFUND, (order, items, reference, restock), options)

    def get(self, hold: str, **options: Unpack[ReadOptions]) -> Future[Purchase]:
        """A hold or an order, at any age: held, sold, cancelled, expired or refunded."""
        return self._call(table.SALE_GET, (hold,), options)

    def best_available(
        self, name: str, zone: str | None = None, count: int = 1, **options: Unpack[ReadOptions]
    ) -> Future[Seats]:
        """The best adjacent seats that are free, front rows first, no single seat left alone."""
        return self._call(table.SALE_BEST_AVAILABLE, (name, zone, count), options)

    def orders(
        self,
        name: str,
        after: int = 0,
        limit: int = 100,
        state: Literal["sold", "refunded"] | None = None,
        user: str | None = None,
        **options: Unpack[ReadOptions],
    ) -> Future[Orders]:
        """Orders from the first on; next is the after of the next page."""
        return self._call(table.SALE_ORDERS, (name, after, limit, state, user), options)

    def ledger(
        self, name: str, after: int = 0, limit: int = 100, **options: Unpack[ReadOptions]
    ) -> Future[Ledger]:
        """Every step of the sale, from the first on; next is the after of the next page."""
        return self._call(table.SALE_LEDGER, (name, after, limit), options)

    def audit(self, name: str, **options: Unpack[ReadOptions]) -> Future[Audit]:
        """Adds up the ledger, and compares it with what the sale says of itself."""
        return self._call(table.SALE_AUDIT, (name,), options)


class Channel:
    """The commands `channel.*`."""

    __slots__ = ("_call",)

    def __init__(self, call: Caller) -> None:
        self._call = call

    def publish(
        self, channel: str, data: Any, key: str | None = None, **options: Unpack[WriteOptions]
    ) -> Future[Published]:
        """Publishes data to all who subscribe, and to the history unless it is transient."""
        return self._call(table.CHANNEL_PUBLISH, (channel, data, key), options)

    def publish_many(
        self, items: Sequence[Any], **options: Unpack[WriteOptions]
    ) -> Future[PublishedMany]:
        """Publishes many messages in order; a failed item is {error} in its place.

        items: [[channel, data, key?], ...]
        """
        return self._call(table.CHANNEL_PUBLISH_MANY, (items,), options)

    def history(
        self,
        channel: str,
        after: int | None = None,
        before: int | None = None,
        limit: int = 100,
        **options: Unpack[ReadOptions],
    ) -> Future[History]:
        """Messages in ascending order: the first after an offset, or the last before one."""
        return self._call(table.CHANNEL_HISTORY, (channel, after, before, limit), options)

    def presence(
        self,
        channel: str,
        after: str | None = None,
        limit: int = 100,
        **options: Unpack[ReadOptions],
    ) -> Future[PresencePage]:
        """Users who are on a channel, by name; next is the after of the next page."""
        return self._call(table.CHANNEL_PRESENCE, (channel, after, limit), options)

    def configure(
        self,
        namespace: str,
        class_: Literal["must", "latest", "transient"] | None = None,
        history_count: int | None = None,
        history_bytes: int | None = None,
        history_ms: int | None = None,
        idle_ms: int | None = None,
        subscribe: Literal["anonymous", "user", "service", "admin"] | None = None,
        publish: Literal["anonymous", "user", "service", "admin"] | None = None,
        presence: Literal["anonymous", "user", "service", "admin"] | None = None,
        presence_events_max: int | None = None,
        reset: bool = False,
        **options: Unpack[WriteOptions],
    ) -> Future[NamespaceRules]:
        """Changes how the channels of a namespace behave; answers all that is in force.

        reset: first forget what earlier calls changed
        """
        return self._call(
            table.CHANNEL_CONFIGURE,
            (
                namespace,
                class_,
                history_count,
                history_bytes,
                history_ms,
                idle_ms,
                subscribe,
                publish,
                presence,
                presence_events_max,
                reset,
            ),
            options,
        )


class Presence:
    """The commands `presence.*`."""

    __slots__ = ("_call",)

    def __init__(self, call: Caller) -> None:
        self._call = call

    def set(
        self, status: str, note: str | None = None, **options: Unpack[ReadOptions]
    ) -> Future[UserPresence]:
        """Says how the caller is, until she is offline; "idle" speaks of this device only."""
        return self._call(table.PRESENCE_SET, (status, note), options)

    def get(self, users: Sequence[str], **options: Unpack[ReadOptions]) -> Future[UserPresences]:
        """How users are, in the order asked; who has no connection is offline."""
        return self._call(table.PRESENCE_GET, (users,), options)


class Nouns:
    """One of each noun, all calling in the same way."""

    def __init__(self, call: Caller) -> None:
        self.server = Server(call)
        self.counter = Counter(call)
        self.board = Board(call)
        self.sale = Sale(call)
        self.channel = Channel(call)
        self.presence = Presence(call)
