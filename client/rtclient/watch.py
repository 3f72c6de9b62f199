"""Watches: the state of something now, and again whenever it changed.

Promises: what is yielded is always a whole state, and the newest there is; a slow reader skips
those in between. After a reconnect or a restart of the server a whole state comes again, whether
it was seen before or not. The server looks at most once in 20 ms (by default).
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar, cast

from rtclient.feeds import Feeds
from rtclient.items import Gap
from rtclient.results import Message, UserPresence, to_user_presence
from rtclient.states import (
    BoardState,
    CounterState,
    to_board_state,
    to_counter_state,
    watch_name,
)
from rtclient.subscription import Subscription

__all__ = ["Watch", "Watched", "board_around", "board_top", "counter", "presence", "state_of"]

S = TypeVar("S")


class Watched(NamedTuple, Generic[S]):
    """A thing to watch: its channel, and how its states are read."""

    channel: str
    decode: Callable[[Any], S]


def counter(name: str) -> Watched[CounterState]:
    return Watched(watch_name("counter", name), to_counter_state)


def board_top(name: str, n: int) -> Watched[BoardState]:
    return Watched(watch_name("board", name, "top", str(n)), to_board_state)


def board_around(name: str, member: str, radius: int) -> Watched[BoardState]:
    return Watched(watch_name("board", name, "around", member, str(radius)), to_board_state)


def presence(user: str) -> Watched[UserPresence]:
    return Watched(watch_name("presence", user), to_user_presence)


def state_of(thing: Watched[S], item: Message | Gap) -> S:
    """The state in what a subscription hands out: of a watched thing that is always a message."""
    return thing.decode(cast(Message, item).data)


class Watch(Generic[S]):
    """Enter it with `async with`, then iterate. Entering raises NotFound where there is nothing to
    watch; an error that ends it later is raised by the iteration."""

    def __init__(self, feeds: Feeds, thing: Watched[S]) -> None:
        self._thing = thing
        self._reader: Subscription[Message | Gap] = Subscription(
            feeds, thing.channel, None, 1, "conflate"
        )

    @property
    def channel(self) -> str:
        """What it subscribes to."""
        return self._thing.channel

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
        return state_of(self._thing, await anext(self._reader))
