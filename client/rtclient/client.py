"""The client: `connect`, the nouns, and whatever is not a command.

    async with rtclient.connect("rt://127.0.0.1:7370", user="ann") as rt:
        await rt.counter.add("likes:42")

One connection carries everything, concurrently: calls made in one iteration of the event loop
leave in one write, and answers find their callers by number. A method starts its call at once and
returns a future; awaiting it may be left out. A client belongs to the event loop in which it was
connected, and reconnects by itself until it is closed.
"""

from __future__ import annotations

import functools
import ssl as tls
from asyncio import Future
from collections.abc import Callable, Generator, Mapping
from types import TracebackType
from typing import Any, Final, Literal, overload

from rtclient import table
from rtclient.batch import Batch, Collector
from rtclient.buffer import BUFFER_DEFAULT, Overflow
from rtclient.command import Command, Effect
from rtclient.commands import Board, Caller, Channel, Counter, Nouns, Presence, Sale
from rtclient.credentials import Token
from rtclient.feeds import Feeds
from rtclient.items import Gap, Item
from rtclient.link import Link
from rtclient.options import WRITE_OPTIONS, Since
from rtclient.results import Message, Step, UserPresence, WholePlace
from rtclient.states import BoardState, CounterState, SaleState
from rtclient.subscription import Subscription
from rtclient.url import parse_url
from rtclient.watch import (
    Watch,
    board_around,
    board_top,
    counter,
    ledger_of,
    presence,
    sale,
    sale_place,
    step_of,
)

__all__ = [
    "HEARTBEAT_S",
    "TIMEOUT_S",
    "Boards",
    "Channels",
    "Client",
    "Connecting",
    "Counters",
    "Presences",
    "Sales",
    "any_call",
    "connect",
    "link_maker",
]

TIMEOUT_S: Final = 30.0
HEARTBEAT_S: Final = 20.0

_OWNED: Final = {
    "server.hello": "give connect() what it takes",
    "channel.subscribe": "use rt.channel.subscribe(...)",
    "channel.unsubscribe": "leave the block of rt.channel.subscribe(...)",
}


def connect(
    url: str | None = None,
    *,
    user: str | None = None,
    token: Token | None = None,
    role: str | None = None,
    name: str | None = None,
    timeout: float | None = TIMEOUT_S,
    retry_writes: bool = True,
    reconnect: bool = True,
    heartbeat: float | None = HEARTBEAT_S,
    ssl: tls.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
) -> Connecting:
    """A client of the server at `url`; await it, or enter it with `async with`.

    url: rt://[user[:token]@]host[:port], rts:// (TLS), ws:// or wss:// (WebSocket, at /ws unless
    it names another path), rt+unix:///path; without one, the environment's RT_URL, else
    rt://127.0.0.1:7370. user, role: who calls, and as what. token: what proves it, or a function
    (async or not) that gets one, asked for each connection and before the token expires. name: of
    this program, for the server's lists. timeout: seconds that a call may take in all, unless it
    says otherwise; None: for ever. retry_writes: writes that were not answered when a connection
    was lost are sent again, under a key, and so applied once; a plain counter.add has no key and
    raises OutcomeUnknown then. reconnect: for ever, after 0.1 to 20 s with full jitter. heartbeat:
    seconds (at least 1) between pings, about; a server that is silent for two of them is given up
    and connected to anew. ssl: how to check certificates, by default as
    `ssl.create_default_context()` does. headers: more of them for the WebSocket's handshake.

    The first connection raises ConnectionLost at once where there is no server.
    """
    hello = {"user": user, "role": role, "client": name}
    return Connecting(
        link_maker(
            url,
            hello,
            heartbeat,
            token=token,
            timeout_s=timeout,
            retry_writes=retry_writes,
            reconnect=reconnect,
            tls=ssl,
            headers=headers,
        )
    )


def link_maker(
    url: str | None, hello: dict[str, Any], heartbeat: float | None, **options: Any
) -> Callable[[], Link]:
    """Makes the link in the event loop it is for. Raises ValueError."""
    if heartbeat is not None:
        if not 1 <= heartbeat <= 3_600:
            raise ValueError(f"heartbeat is {heartbeat}, expected 1 to 3,600 seconds, or None")
        hello = {**hello, "heartbeat_ms": round(heartbeat * 1000)}
    return functools.partial(Link, parse_url(url), hello, **options)


class Connecting:
    """What `connect` returns: `rt = await it`, or `async with it as rt`."""

    def __init__(self, make_link: Callable[[], Link]) -> None:
        self._make_link = make_link
        self._client: Client | None = None

    async def _connect(self) -> Client:
        link = self._make_link()
        await link.open()
        return Client(link)

    def __await__(self) -> Generator[Any, None, Client]:
        return self._connect().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self._connect()
        return self._client

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            await self._client.close()


class Channels(Channel):
    """The commands `channel.*`, and subscriptions."""

    __slots__ = ("_feeds",)

    def __init__(self, call: Caller, feeds: Feeds) -> None:
        super().__init__(call)
        self._feeds = feeds

    @overload
    def subscribe(
        self,
        channel: str,
        since: Since | None = None,
        *,
        buffer: int = BUFFER_DEFAULT,
        overflow: Overflow = "history",
        presence: Literal[False] = False,
    ) -> Subscription[Message | Gap]: ...

    @overload
    def subscribe(
        self,
        channel: str,
        since: Since | None = None,
        *,
        buffer: int = BUFFER_DEFAULT,
        overflow: Overflow = "history",
        presence: bool,
    ) -> Subscription[Item]: ...

    def subscribe(
        self,
        channel: str,
        since: Since | None = None,
        *,
        buffer: int = BUFFER_DEFAULT,
        overflow: Overflow = "history",
        presence: bool = False,
    ) -> Subscription[Any]:
        """A reader of the channel: `async with` it, then iterate.

        since: a position (as `.position` of a message iterator gave it) or {"last": n}; without
        it, what is published from now on (on a `latest` channel: the present values first).
        buffer: items that may wait here for their reader. overflow: what happens when it is full:
        "history" reads on from the channel's history, nothing is lost; with "gap" the oldest give
        way to a `Gap`; "conflate" keeps the newest of each key; "error" ends with `Overloaded`.
        presence: also `Join` and `Leave` items, and `.count`.
        """
        return Subscription(self._feeds, channel, since, buffer, overflow, presence=presence)


class Counters(Counter):
    """The commands `counter.*`, and watches."""

    __slots__ = ("_feeds",)

    def __init__(self, call: Caller, feeds: Feeds) -> None:
        super().__init__(call)
        self._feeds = feeds

    def watch(self, name: str) -> Watch[CounterState]:
        """The counter's value now and whenever it changes: `async with` it, then iterate."""
        return Watch(self._feeds, counter(name))


class Boards(Board):
    """The commands `board.*`, and watches."""

    __slots__ = ("_feeds",)

    def __init__(self, call: Caller, feeds: Feeds) -> None:
        super().__init__(call)
        self._feeds = feeds

    def watch_top(self, name: str, n: int = 10) -> Watch[BoardState]:
        """The best n (1 to 1,000) now and whenever they change."""
        return Watch(self._feeds, board_top(name, n))

    def watch_around(self, name: str, member: str, radius: int = 5) -> Watch[BoardState]:
        """A member and `radius` places on each side, now and whenever they change."""
        return Watch(self._feeds, board_around(name, member, radius))


class Presences(Presence):
    """The commands `presence.*`, and watches."""

    __slots__ = ("_feeds",)

    def __init__(self, call: Caller, feeds: Feeds) -> None:
        super().__init__(call)
        self._feeds = feeds

    def watch(self, user: str) -> Watch[UserPresence]:
        """Whether a user is here, and how, now and whenever it changes."""
        return Watch(self._feeds, presence(user))


class Sales(Sale):
    """The commands `sale.*`, and watches."""

    __slots__ = ("_link",)

    def __init__(self, call: Caller, link: Link) -> None:
        super().__init__(call)
        self._link = link

    def watch(self, name: str) -> Watch[SaleState]:
        """What is left of a sale and how many wait, now and whenever it changes: `async with` it,
        then iterate."""
        return Watch(self._link.feeds, sale(name))

    def watch_place(self, name: str, user: str | None = None) -> Watch[WholePlace]:
        """Where a user (this client's own by default) is in the queue, her holds and her orders,
        now and whenever they change."""
        return Watch(self._link.feeds, sale_place(name, user, self._link.user))

    def follow_ledger(
        self,
        name: str,
        since: Since | None = None,
        *,
        buffer: int = BUFFER_DEFAULT,
        overflow: Overflow = "history",
    ) -> Subscription[Step | Gap]:
        """Every step of a sale (for its staff) from now on, or from a position on: `async with` it,
        then iterate. since, buffer, overflow: as of `rt.channel.subscribe`. Earlier steps are in
        `rt.sale.ledger`, up to the `seq` that `.position.offset` says when this has begun."""
        return Subscription(
            self._link.feeds, ledger_of(name), since, buffer, overflow, view=step_of
        )


class Client(Nouns):
    """A connected client: `rt.<noun>.<verb>(...)` for every command."""

    channel: Channels
    counter: Counters
    board: Boards
    presence: Presences
    sale: Sales

    def __init__(self, link: Link) -> None:
        call, feeds = link.ledger.call, link.feeds
        super().__init__(call)
        self.channel = Channels(call, feeds)
        self.counter = Counters(call, feeds)
        self.board = Boards(call, feeds)
        self.presence = Presences(call, feeds)
        self.sale = Sales(call, link)
        self._link = link

    @property
    def connected(self) -> bool:
        """Whether there is a connection now; without one, calls wait for the next."""
        return self._link.connected

    @property
    def session(self) -> str | None:
        """The id of the session that connections go on with; good for HTTP, too."""
        return self._link.session

    @property
    def user(self) -> str | None:
        """Who this client is to the server."""
        return self._link.user

    def call(self, method: str, *args: Any, **named: Any) -> Future[Any]:
        """Any method by name, also one that this SDK does not know; the result is plain, as it
        came. Options are among the named: rt.call("board.top", "weekly", limit=3, timeout=1)."""
        return self._link.ledger.call(*any_call(method, args, named))

    def batch(self) -> Batch:
        """Collects calls in an `async with` block and sends them together at its end."""
        return Batch(Collector(self._link.ledger))

    async def close(self) -> None:
        """Lets answers that are still to come arrive for a moment, then closes. What is not
        answered fails with Closed or OutcomeUnknown; subscriptions end. Idempotent."""
        await self._link.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def any_call(
    method: str, args: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Command[Any], tuple[Any, ...], dict[str, Any]]:
    """A call by name as the ledger takes it; parameters become positional."""
    if method in _OWNED:
        raise ValueError(f"{method} is the client's own; {_OWNED[method]}")
    options = {name: named.pop(name) for name in WRITE_OPTIONS & named.keys()}
    known = table.TABLE.get(method)
    if known is None:
        if named:
            raise TypeError(f"{method} is not known here; give its parameters by position")
        return Command(method, Effect.WRITE), args, options
    values = args + tuple(named.pop(name, None) for name in known.params[len(args) :])
    if named:
        raise TypeError(f"{method} has no parameter left that is named {', '.join(named)}")
    return Command(method, known.effect, None, known.params, known.plain), values, options
