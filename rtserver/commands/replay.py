"""Replay: records of the log go through the same handlers that wrote them.

Permissions, rates and limits were checked when a record was written and are not checked again.
A record that fails now means that this program and the log disagree: recovery stops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rtserver.commands.context import Context
from rtserver.commands.journal import (
    META_ADDRESS,
    META_CALL,
    META_DRAWS,
    META_KEY,
    META_RESULT,
    META_SERVICE,
    META_SOURCE,
    META_USER,
    scope_of,
)
from rtserver.commands.table import Command
from rtserver.compiled import twin
from rtserver.persist.recovery import one_by_one
from rtserver.state.store import Store
from rtserver.wire.codec import pack

__all__ = ["Replay", "ReplayFailed"]


class ReplayFailed(Exception):
    """A record cannot be applied; the text names it and says why."""


class Replay:
    """Feeds a store from a log or a snapshot. Also the state of a snapshot's rehearsal."""

    __slots__ = ("_ctx", "_short_ways", "_store", "_table")

    def __init__(self, table: Mapping[str, Command], store: Store) -> None:
        compiled = twin(__name__)
        self._short_ways: Any = None if compiled is None else compiled.ShortWays(store)
        self._table = table
        self._store = store
        self._ctx = Context()
        self._ctx.replaying = True

    def apply_block(self, records: memoryview, first_seq: int, now: int) -> int:
        """The packed records of a block; how many they are. Raises ReplayFailed."""
        if self._short_ways is not None:
            return self._apply_compiled(records, first_seq, now)
        return one_by_one(self.apply)(records, first_seq, now)

    def _apply_compiled(self, records: memoryview, first_seq: int, now: int) -> int:
        try:
            count: int = self._short_ways.apply_block(records, first_seq, now, self.apply)
        except ReplayFailed:
            raise
        except Exception as error:
            raise ReplayFailed(
                f"a record from {first_seq} on fails on replay: {type(error).__name__}: {error}"
            ) from error
        return count

    def apply(self, record: Any, seq: int, now: int) -> None:
        """One record with the time of its block. Raises ReplayFailed."""
        method, version, args, *rest = record
        command = self._table.get(method)
        handler = None if command is None else command.handler_of(version)
        if command is None or handler is None:
            raise ReplayFailed(
                f"record {seq} is {method!r} version {version}, which this program does not know;"
                " it was written by a newer one: start that, or a newer version"
            )
        ctx = self._ctx
        ctx.now = now
        meta: dict[str, Any] = rest[0] if rest else {}
        ctx.user = meta.get(META_USER)
        ctx.service = meta.get(META_SERVICE)
        ctx.address = meta.get(META_ADDRESS)
        ctx.seed, ctx.draws = meta.get(META_DRAWS) or (b"", 0)
        try:
            result = handler(self._store, ctx, *args)
        except Exception as error:
            raise ReplayFailed(
                f"record {seq} ({method} version {version}) fails on replay:"
                f" {type(error).__name__}: {error}"
            ) from error
        self._store.events.clear()
        if meta:
            self._remember(now, command, args, meta, result)

    def _remember(
        self, now: int, command: Command, args: list[Any], meta: dict[str, Any], result: Any
    ) -> None:
        answers = self._store.answers
        key = meta.get(META_KEY)
        if key is not None:
            packed = meta.get(META_RESULT) or pack(result)
            scope = scope_of(meta.get(META_USER), meta.get(META_SERVICE))
            owner = None if command.keeper is None else command.keeper(self._store, args)
            answers.remember(now, scope, key, meta[META_CALL], packed, owner)
        source = meta.get(META_SOURCE)
        if source is not None:
            answers.advance_source(source)

    def load_chunk(self, chunk: Any) -> None:
        """One chunk of a snapshot."""
        try:
            self._store.load(chunk)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ReplayFailed(
                f"a snapshot section cannot be loaded: {type(error).__name__}: {error}"
            ) from error

    def dump(self) -> Iterator[Any]:
        return self._store.dump()

    def totals(self) -> dict[str, Any]:
        return self._store.totals()
