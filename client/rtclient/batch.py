"""Batches: calls that are collected and leave together, the plain ones of a run as one command.

    async with rt.batch() as b:
        likes = b.counter.add("likes:42")
        b.board.submit("weekly", "ann", 310)
    print(likes.result())

Promises the same results in the same order as the calls one by one; not atomic. Neighbours of one
kind that ask nothing special travel as `counter.add_many`, `board.submit_many` (of one board) or
`channel.publish_many`, which the server applies in order, each item on its own. Everything else
travels as it is. Arguments are taken as they are when a call is made.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeVar

from rtclient import table, wire
from rtclient.commands import Nouns
from rtclient.errors import Error
from rtclient.ledger import Command, Ledger, without_trailing_none

__all__ = ["Batch", "Collector"]

T = TypeVar("T")

_ITEMS_MAX: Final = 1_000  # of a vector command
_BYTES_MAX: Final = 256 * 1024  # of its items together, well below the limit of a frame


class _Vector(NamedTuple):
    """A command that does what many calls of another do.

    shared: that many leading parameters are the same for all. params_max: a call with more asks
    for something that the vector cannot do. results: the items of its result.
    """

    command: Command[Any]
    shared: int
    params_max: int
    results: Callable[[Any], list[Any]]


_VECTORS: Final = {
    "counter.add": _Vector(table.COUNTER_ADD_MANY, 0, 2, lambda result: list(result.values)),
    "board.submit": _Vector(table.BOARD_SUBMIT_MANY, 1, 3, lambda result: list(result.items)),
    "channel.publish": _Vector(table.CHANNEL_PUBLISH_MANY, 0, 3, lambda result: list(result.items)),
}


class _Collected(NamedTuple):
    """One call of a batch, its parameters packed one by one."""

    command: Command[Any]
    params: list[bytes]
    options: Mapping[str, Any]
    future: asyncio.Future[Any]


def _group(call: _Collected) -> tuple[Any, ...] | None:
    """Neighbours of the same group may travel as one; None: on its own."""
    vector = _VECTORS.get(call.command.name)
    if vector is None or call.options or len(call.params) > vector.params_max:
        return None
    return call.command.name, *call.params[: vector.shared]


def _runs(calls: list[_Collected]) -> Iterator[list[_Collected]]:
    """Calls that travel together, in order."""
    for group, neighbours in itertools.groupby(calls, _group):
        run: list[_Collected] = []
        size = 0
        for call in neighbours:
            call_bytes = sum(map(len, call.params))
            full = len(run) == _ITEMS_MAX or size + call_bytes > _BYTES_MAX
            if run and (group is None or full):
                yield run
                run = []
                size = 0
            run.append(call)
            size += call_bytes
        yield run


class _Spread:
    """The promise of a vector command: each item's outcome goes to the future of its call."""

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

    def __init__(self, ledger: Ledger, loop: asyncio.AbstractEventLoop) -> None:
        self._ledger = ledger
        self._loop = loop
        self._pack = wire.packer()  # the ledger's belongs to the thread of its loop
        self._calls: list[_Collected] = []
        self._is_open = True

    def collect(
        self, command: Command[T], params: tuple[Any, ...], options: Mapping[str, Any], /
    ) -> asyncio.Future[T]:
        if not self._is_open:
            raise RuntimeError("this batch is over")
        future: asyncio.Future[T] = self._loop.create_future()
        packed = [self._pack(param) for param in without_trailing_none(params)]
        self._calls.append(_Collected(command, packed, options, future))
        return future

    def drop(self) -> None:
        """Nothing is sent."""
        self._is_open = False
        for call in self._calls:
            call.future.cancel()

    async def send(self) -> None:
        """Sends everything in one write, and returns when each call has its outcome."""
        self._is_open = False
        for run in _runs(self._calls):
            futures = [call.future for call in run]
            try:
                self._start(run, futures)
            except (Error, TypeError) as error:
                _fail(futures, error)
        if self._calls:
            await asyncio.wait([call.future for call in self._calls])

    def _start(self, run: list[_Collected], futures: list[asyncio.Future[Any]]) -> None:
        first = run[0]
        if len(run) == 1:
            params = wire.packed_array(first.params)
            self._ledger.start(first.command, params, first.options, first.future)
            return
        vector = _VECTORS[first.command.name]
        items = wire.packed_array([wire.packed_array(call.params[vector.shared :]) for call in run])
        params = wire.packed_array([*first.params[: vector.shared], items])
        self._ledger.start(vector.command, params, {}, _Spread(vector, futures))


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
