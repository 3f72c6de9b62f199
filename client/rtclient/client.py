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
from asyncio import Future
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Final

from rtclient import table
from rtclient.batch import Batch, Collector
from rtclient.command import Command, Effect
from rtclient.commands import Caller, Channel, Nouns
from rtclient.feeds import Feeds
from rtclient.link import Link
from rtclient.options import WRITE_OPTIONS, Since
from rtclient.subscription import BUFFER_DEFAULT, Subscription
from rtclient.url import parse_url

__all__ = ["TIMEOUT_S", "Channels", "Client", "Connecting", "any_call", "connect"]

TIMEOUT_S: Final = 30.0

_OWNED: Final = {
    "server.hello": "give connect() what it takes",
    "channel.subscribe": "use rt.channel.subscribe(...)",
    "channel.unsubscribe": "leave the block of rt.channel.subscribe(...)",
}


def connect(
    url: str | None = None,
    *,
    user: str | None = None,
    token: str | None = None,
    role: str | None = None,
    name: str | None = None,
    timeout: float | None = TIMEOUT_S,
    retry_writes: bool = True,
    reconnect: bool = True,
) -> Connecting:
    """A client of the server at `url`; await it, or enter it with `async with`.

    url: rt://[user[:token]@]host[:port]; without one, the environment's RT_URL, else
    rt://127.0.0.1:7370. user, token, role: who calls, and as what. name: of this program, for the
    server's lists. timeout: seconds that a call may take in all, unless it says otherwise; None:
    for ever. retry_writes: writes that were not answered when a connection was lost are sent
    again, under a key, and so applied once; a plain counter.add has no key and raises
    OutcomeUnknown then. reconnect: for ever, after 0.1 to 20 s with full jitter.

    The first connection raises ConnectionLost at once where there is no server.
    """
    hello = {"user": user, "token": token, "role": role, "client": name}
    return Connecting(
        functools.partial(
            Link,
            parse_url(url),
            hello,
            timeout_s=timeout,
            retry_writes=retry_writes,
            reconnect=reconnect,
        )
    )


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

    def subscribe(
        self, channel: str, since: Since | None = None, *, buffer: int = BUFFER_DEFAULT
    ) -> Subscription:
        """A reader of the channel: `async with` it, then iterate.

        since: a position (as `.position` of a message iterator gave it) or {"last": n}; without
        it, what is published from now on. buffer: items that may wait here for their reader.
        """
        return Subscription(self._feeds, channel, since, buffer)


class Client(Nouns):
    """A connected client: `rt.<noun>.<verb>(...)` for every command."""

    channel: Channels

    def __init__(self, link: Link) -> None:
        super().__init__(link.ledger.call)
        self.channel = Channels(link.ledger.call, link.feeds)
        self._link = link

    @property
    def connected(self) -> bool:
        """Whether there is a connection now; without one, calls wait for the next."""
        return self._link.connected

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
