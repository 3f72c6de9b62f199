"""Watches: the state of something now, and again whenever it changed.

Promises: what is yielded is always a whole state, and the newest there is; a slow reader skips
those in between. After a reconnect or a restart of the server a whole state comes again, whether
it was seen before or not. The server looks at most once in 20 ms (by default).
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

from rtclient.feeds import Feeds
from rtclient.results import (
    Message,
    Step,
    UserPresence,
    WholePlace,
    to_step,
    to_user_presence,
    to_whole_place,
)
from rtclient.states import (
    BoardState,
    CounterState,
    SaleState,
    to_board_state,
    to_counter_state,
    to_sale_state,
    watch_name,
)
from rtclient.subscription import Subscription

__all__ = [
    "Watch",
    "Watched",
    "board_around",
    "board_top",
    "counter",
    "ledger_of",
    "presence",
    "sale",
    "sale_place",
    "step_of",
]

S = TypeVar("S")


class Watched(NamedTuple, Generic[S]):
    """A thing to watch: its channel, and how its states are read."""

    channel: str
    decode: Callable[[Any], S]

    def view(self, message: Message) -> S:
        """The state in a message."""
        return self.decode(message.data)


def counter(name: str) -> Watched[CounterState]:
    return Watched(watch_name("counter", name), to_counter_state)


def board_top(name: str, n: int) -> Watched[BoardState]:
    return Watched(watch_name("board", name, "top", str(n)), to_board_state)


def board_around(name: str, member: str, radius: int) -> Watched[BoardState]:
    return Watched(watch_name("board", name, "around", member, str(radius)), to_board_state)


def presence(user: str) -> Watched[UserPresence]:
    return Watched(watch_name("presence", user), to_user_presence)


def sale(name: str) -> Watched[SaleState]:
    return Watched(watch_name("sale", name), to_sale_state)


def sale_place(name: str, user: str | None, own: str | None) -> Watched[WholePlace]:
    """own: the user that the client is."""
    who = user if user is not None else own
    if who is None:
        raise ValueError("watch_place needs a user, for this client is nobody in particular")
    return Watched(watch_name("sale", name, "user", who), to_whole_place)


def ledger_of(name: str) -> str:
    """The channel of a sale's ledger."""
    return watch_name("sale", name, "ledger")


def step_of(message: Message) -> Step:
    """One step of a ledger."""
    return to_step(message.data)


class Watch(Generic[S]):
    """Enter it with `async with`, then iterate. Entering raises NotFound where there is nothing to
    watch; an error that ends it later is raised by the iteration."""

    def __init__(self, feeds: Feeds, thing: Watched[S]) -> None:
        self._reader: Subscription[S] = Subscription(
            feeds, thing.channel, None, 1, "conflate", view=thing.view
        )

    @property
    def channel(self) -> str:
        """What it subscribes to."""
        return self._reader.channel

    async def __aenter__(self) -> Watch[S]:
        await self._reader.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._reader.__aexit__(kind, error, trace)

    def __aiter__(self) -> Watch[S]:
        return self

    async def __anext__(self) -> S:
        return await anext(self._reader)
