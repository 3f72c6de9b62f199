"""Batches: calls that are collected and leave together, the plain ones of a run as one command.

    async with rt.batch() as b:
        likes = b.counter.add("likes:42")
        b.board.submit("weekly", "ann", 310)
    print(likes.result())

Promises the same results in the same order as the calls one by one; not atomic. Neighbours of one
kind that ask nothing special travel as `counter.add_many`, `board.submit_many` (of one board) or
`channel.publish_many`, which the server applies in order, each item on its own. Everything else
travels as it is. Arguments are taken as they are when a call is made. Costs: one future and the
packed arguments a call; runs are formed as calls are made, so sending only joins them.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, TypeVar

from rtclient import table, wire
from rtclient.command import Command, Promise, packed
from rtclient.commands import Nouns
from rtclient.errors import Error
from rtclient.ledger import Ledger

__all__ = ["Batch", "Collector", "Request"]

T = TypeVar("T")

Request = tuple[Command[Any], bytes, Mapping[str, Any], Promise]
"""What `Ledger.start` takes."""

_ITEMS_MAX: Final = 1_000  # of a vector command
_BYTES_MAX: Final = 256 * 1024  # of its items together, well below the limit of a frame
_NIL: Final = b"\xc0"


class _Vector:
    """A command that does what many calls of another do.

    params_max: a call with more asks for something that the vector cannot do. shared: the first
    parameter is the same for all items and stands before them. results: the items of its result.
    """

    __slots__ = ("command", "item_head_max", "results", "shared")

    def __init__(
        self,
        command: Command[Any],
        params_max: int,
        results: Callable[[Any], list[Any]],
        *,
        shared: bool = False,
    ) -> None:
        self.command = command
        self.item_head_max = wire.array_head(params_max - shared)[0]
        self.results = results
        self.shared = shared


_VECTORS: Final[dict[Command[Any], _Vector]] = {
    table.COUNTER_ADD: _Vector(table.COUNTER_ADD_MANY, 2, lambda result: result.values),
    table.BOARD_SUBMIT: _Vector(
        table.BOARD_SUBMIT_MANY, 3, lambda result: result.items, shared=True
    ),
    table.CHANNEL_PUBLISH: _Vector(table.CHANNEL_PUBLISH_MANY, 3, lambda result: result.items),
}


class _Run:
    """Neighbours that travel as one command.

    shared: the packed first parameter where the items do not hold it. items: the packed
    parameters of each call, without `shared`.
    """

    __slots__ = ("command", "futures", "items", "options", "shared", "size", "vector")

    def __init__(
        self,
        command: Command[Any],
        vector: _Vector | None,
        shared: bytes,
        options: Mapping[str, Any],
    ) -> None:
        self.command = command
        self.vector = vector
        self.shared = shared
        self.options = options
        self.items: list[bytes] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.size = 0  # of the items in bytes

    def request(self) -> Request:
        """The command that it travels as."""
        if self.vector is None or len(self.items) == 1:
            item = self.items[0]
            if self.shared:
                item = bytes((item[0] + 1,)) + self.shared + item[1:]
            return self.command, item, self.options, self.futures[0]
        items = wire.packed_array(self.items)
        params = wire.packed_array([self.shared, items] if self.shared else [items])
        return self.vector.command, params, {}, _Spread(self.vector, self.futures)


class _Spread:
    """The promise of a vector command: each item's outcome goes to the future of its call."""

    __slots__ = ("_futures", "_vector")

    def __init__(self, vector: _Vector, futures: list[asyncio.Future[Any]]) -> None:
        self._vector = vector
        self._futures = futures

    def done(self) -> bool:
        return all(future.done() for future in self._futures)

    def set_result(self, result: Any, /) -> None:
        for future, item in zip(self._futures, self._vector.results(result), strict=True):
            if future.done():
                continue
            if isinstance(item, Error):
                future.set_exception(item)
            else:
                future.set_result(item)

    def set_exception(self, exception: BaseException, /) -> None:
        _fail(self._futures, exception)


def _fail(futures: list[asyncio.Future[Any]], error: BaseException) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(copy.copy(error))


class Collector:
    """Calls in order, until they are sent."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._new_future = ledger.new_future
        self._pack_params = (
            wire.Packer().pack_params
        )  # the ledger's belongs to the thread of its loop
        self._runs: list[_Run] = []
        self._open: _Run | None = None  # the last of them, while calls may join it
        self._is_open = True

    def collect(
        self, command: Command[T], params: tuple[Any, ...], options: Mapping[str, Any], /
    ) -> asyncio.Future[T]:
        """Adds a call. Raises TypeError or ValueError where an argument cannot be sent."""
        if not self._is_open:
            raise RuntimeError("this batch is over")
        shared = b""
        vector = _VECTORS.get(command)
        if vector is not None and vector.shared:
            shared = packed(self._pack_params, command, params[:1])[1:] or _NIL
            params = params[1:]
        item = packed(self._pack_params, command, params)
        run = self._open
        if vector is None or options or item[0] > vector.item_head_max:
            self._open = None
            run = self._add_run(command, vector, shared, options)
        elif (
            run is None
            or run.vector is not vector
            or run.shared != shared
            or run.size + len(item) > _BYTES_MAX
            or len(run.items) == _ITEMS_MAX
        ):
            run = self._open = self._add_run(command, vector, shared, options)
        future: asyncio.Future[T] = self._new_future()
        run.items.append(item)
        run.size += len(item)
        run.futures.append(future)
        return future

    def _add_run(
        self,
        command: Command[Any],
        vector: _Vector | None,
        shared: bytes,
        options: Mapping[str, Any],
    ) -> _Run:
        run = _Run(command, vector, shared, options)
        self._runs.append(run)
        return run

    def drop(self) -> None:
        """Nothing is sent."""
        self._is_open = False
        for run in self._runs:
            for future in run.futures:
                future.cancel()

    def finish(self) -> list[Request]:
        """What is to be sent, in order; nothing can be added any more."""
        self._is_open = False
        return [run.request() for run in self._runs]

    async def send(self) -> None:
        """Sends everything in one write, and returns when each call has its outcome."""
        for request in self.finish():
            try:
                self._ledger.start(*request)
            except Exception as error:
                if not request[-1].done():
                    request[-1].set_exception(error)
        # From the end, for outcomes come in order: most waits are over before they begin.
        for run in reversed(self._runs):
            for future in reversed(run.futures):
                if not future.done():
                    await asyncio.wait((future,))


class Batch(Nouns):
    """The nouns of a batch; what their methods return is done when the block has ended."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector.collect)
        self._collector = collector

    async def __aenter__(self) -> Batch:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Sends; an error in the block drops the batch instead. Refusals are raised where the
        result of the refused call is asked for."""
        if kind is None:
            await self._collector.send()
        else:
            self._collector.drop()
