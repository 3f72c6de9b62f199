"""Dispatch: the one path that every call takes, whatever transport it came by.

A ladder of refusals (unknown, rights, parameters, room in the log, keys), then the handler, then
the journal. Everything that can be refused is refused before the first mutation. Replies leave at
the end of the turn; those that wait for a sync are handed to the turn in `waiting`. An
unexpected exception in a write means that the state can no longer be trusted: it stops the
process, which recovers from the log.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from rtserver.commands.channel import follow
from rtserver.commands.context import Context, Host
from rtserver.commands.journal import (
    META_ADDRESS,
    META_CALL,
    META_DRAWS,
    META_KEY,
    META_RESULT,
    META_SERVICE,
    META_SOURCE,
    META_USER,
    new_journal,
    scope_of,
)
from rtserver.commands.options import Options, parse_options
from rtserver.commands.rights import Rights
from rtserver.commands.table import ROLES, Ack, Command, Effect
from rtserver.config import RightsRow
from rtserver.errors import (
    DEADLINE_EXCEEDED,
    DUPLICATE,
    FORBIDDEN,
    INTERNAL,
    INVALID_PARAMS,
    UNKNOWN_METHOD,
    ProtocolError,
    RtError,
)
from rtserver.metrics import Metrics
from rtserver.session.connection import Connection
from rtserver.session.router import Router
from rtserver.state.answers import fingerprint
from rtserver.state.store import Store
from rtserver.wire.codec import pack, unpack_trusted
from rtserver.wire.frames import NOTIFICATION, REQUEST

__all__ = ["RECORD_OVERHEAD", "BrokenState", "Dispatcher", "Offloaded", "Waiting"]

_log = logging.getLogger("rtserver")

RECORD_OVERHEAD = 1_024  # of a record beside the request's own bytes: user, address, digest
_RESULT_ITEM_BYTES = 512  # of the remembered result of one item of a vector
_UNKNOWN_COST = 20  # looking for a near name
_ID_MAX = 2**64
_UNNAMED = "unnamed"  # a back end that did not say who it is, as in development mode
_SERVICE_RANK = ROLES["service"]
_ADMIN_RANK = ROLES["admin"]
_INTERNAL_RANK = ROLES["internal"]


class BrokenState(Exception):
    """A write failed in the middle: the state in memory must not be used any more."""


class Waiting(NamedTuple):
    """Replies that leave when the block of their turn is synced. None at all where a notification
    did what nobody may be shown before that."""

    connection: Connection
    replies: bytes
    number: int  # of replies
    request_id: int = 0  # of a single one that has a timeout
    timeout_ms: int | None = None


class Offloaded(NamedTuple):
    """A call that is answered when its work beside the loop is done."""

    connection: Connection
    request_id: int | None
    work: Any


class Dispatcher:
    """Runs calls against the store and writes their journal."""

    def __init__(
        self,
        table: Mapping[str, Command],
        store: Store,
        router: Router,
        metrics: Metrics,
        rights: Sequence[RightsRow] = (),
    ) -> None:
        self.ctx = Context()
        self.journal = new_journal(store.counters.tally)
        self.refusal: RtError | None = None  # why writes are refused in this turn
        self.full: RtError | None = None  # what to answer when the journal has no room left
        self.waiting: list[Waiting] = []
        self.offloaded: list[Offloaded] = []
        self._table = table
        self._store = store
        self._router = router
        self._metrics = metrics
        self._rights = Rights(table, rights, store.settings.channel_rules)

    def attach(self, host: Host) -> None:
        self.ctx.attach(self._router, host, self._rights)

    # --- entrances ---

    def frame(self, connection: Connection, body: Any, size: int) -> int:
        """One decoded frame of `size` bytes; returns its cost. Raises ProtocolError."""
        if type(body) is list:
            length = len(body)
            if (length == 4 or length == 5) and body[0] == REQUEST:
                request_id = body[1]
                method = body[2]
                if type(request_id) is int and 0 <= request_id < _ID_MAX and type(method) is str:
                    options = body[4] if length == 5 else None
                    return self.call(connection, request_id, method, body[3], options, size)
            elif length == 3 and body[0] == NOTIFICATION and type(body[1]) is str:
                return self.call(connection, None, body[1], body[2], None, size)
        raise ProtocolError(
            "a frame is [0, id, method, params], [0, id, method, params, options] or"
            " [2, method, params], with an unsigned id and a text method"
        )

    def call(
        self,
        connection: Connection,
        request_id: int | None,
        method: str,
        params: Any,
        raw_options: Any,
        size: int,
    ) -> int:
        """One call; its reply goes to the connection's outbox. Returns its cost."""
        cost = 1
        self._metrics.commands += 1
        try:
            command = self._table.get(method)
            if command is None or command.rank == _INTERNAL_RANK:
                cost = _UNKNOWN_COST
                raise self._unknown(method)
            if not command.unproven:
                self.ctx.need_proof(connection.rank, method)
            options = parse_options(raw_options) if raw_options else None
            args = command.bind(params)
            if connection.rank < _ADMIN_RANK:
                self._rights.check(command, args, connection.rank, connection.user)
            if command.items_place is not None or command.cost > 1:
                cost = command.total_cost(args)
            if self.ctx.caller is not connection:
                self.ctx.enter(connection)
            if command.is_write:
                if options is None:
                    ack: Ack = command.ack
                    result = self._write(command, args, size, ack, None)
                else:
                    result, ack = self._write_with(command, args, size, options, connection)
            else:
                ack = "logged"
                if options is not None:
                    _check_deadline(options, self.ctx.now, connection)
                    if command.effect is Effect.READ:
                        _act_for(self.ctx, options)
                result = self._read(command, args)
        except RtError as error:
            if error.kind is DUPLICATE and request_id is not None:
                # It is answered when the original is safe.
                self._metrics.count_error(error.kind.name)
                reply = connection.form.encode_error(request_id, error.as_wire())
                self._wait(connection, request_id, reply, None)
            else:
                self._refuse(connection, request_id, error)
            return cost
        if command.offloaded and isinstance(result, Coroutine):
            connection.waiting += 1
            self.offloaded.append(Offloaded(connection, request_id, result))
        elif request_id is None:
            if ack == "synced" and not self.waiting:
                self.waiting.append(Waiting(connection, b"", 0))
        elif ack == "synced":
            reply = connection.form.encode_reply(request_id, result)
            self._wait(connection, request_id, reply, options)
        else:
            connection.send(connection.form.encode_reply(request_id, result))
        return cost

    def _wait(
        self,
        connection: Connection,
        request_id: int,
        reply: bytes,
        options: Options | None,
    ) -> None:
        """Answers when everything up to this turn is synced."""
        timeout_ms = None if options is None else options.timeout_ms
        connection.waiting += 1
        self.waiting.append(Waiting(connection, reply, 1, request_id, timeout_ms))

    def follow(
        self, connection: Connection, channels: Mapping[str, Any], presence: Collection[str] = ()
    ) -> dict[str, Any]:
        """Subscribes each channel from where it says; see transport.engine."""
        self.ctx.enter(connection)
        return follow(self.ctx, channels, presence)

    def issue(self, method: str, args: list[Any], size: int = 0) -> Any:
        """An internal command, logged like any other, also within another command. `size`: bytes
        of its arguments, where they are many."""
        ctx = self.ctx
        outer = (ctx.user, ctx.service, ctx.address, ctx.role)
        ctx.user, ctx.service, ctx.address, ctx.role = None, None, None, _INTERNAL_RANK
        try:
            return self._write(self._table[method], args, size, "logged", None)
        finally:
            ctx.user, ctx.service, ctx.address, ctx.role = outer

    # --- writes ---

    def _write(
        self,
        command: Command,
        args: list[Any],
        size: int,
        ack: Ack,
        meta: dict[str, Any] | None,
    ) -> Any:
        journal = self.journal
        if self.refusal is not None:
            raise self.refusal.with_traceback(None)  # it is raised again and again
        if meta is not None and command.items_place is not None:
            size += _RESULT_ITEM_BYTES * len(args[command.items_place])
        if journal.bytes + size + RECORD_OVERHEAD > journal.limit:
            assert self.full is not None, "a turn that sets a limit says why"
            raise self.full.with_traceback(None)
        ctx = self.ctx
        ctx.effect = None
        ctx.unlogged = False
        ctx.addressed = False
        drawn = ctx.draws
        store = self._store
        try:
            result = command.handler(store, ctx, *args)
            if store.events:
                self._router.take(store.events, synced=ack == "synced")
            if ctx.unlogged and meta is None:
                return result
            coalesce = command.coalesce
            if meta is None and coalesce is not None and coalesce(journal, args, result):
                return result
            signed = ctx.user is not None or (command.signed and ctx.service is not None)
            if signed or ctx.addressed or ctx.draws != drawn or meta is not None:
                meta = self._meta(meta or {}, drawn, result)
            journal.add(command, args if ctx.effect is None else ctx.effect, meta)
        except RtError:
            raise
        except Exception as error:
            raise BrokenState(f"{command.name} failed in the middle: {error!r}") from error
        return result

    def _meta(self, meta: dict[str, Any], drawn: int, result: Any) -> dict[str, Any]:
        """What a record carries beside its arguments."""
        ctx = self.ctx
        if ctx.user is not None:
            meta[META_USER] = ctx.user
        if ctx.service is not None:
            meta[META_SERVICE] = ctx.service
        if ctx.address is not None:
            meta[META_ADDRESS] = ctx.address
        if ctx.draws != drawn:
            meta[META_DRAWS] = [ctx.seed, drawn]
        if META_KEY in meta and ctx.effect is not None:
            meta[META_RESULT] = pack(result)
        return meta

    def _write_with(
        self,
        command: Command,
        args: list[Any],
        size: int,
        options: Options,
        connection: Connection,
    ) -> tuple[Any, Ack]:
        """A write with options: acting for another, idempotent, from a source, with a deadline.

        Returns the result and what its reply waits for. A replayed one always waits for a sync:
        the original may have asked for that, and may not be synced yet.
        """
        ctx = self.ctx
        ack = options.ack or command.ack
        _check_deadline(options, ctx.now, connection)
        _act_for(ctx, options)
        answers = self._store.answers
        scope = scope_of(ctx.user, ctx.service)
        key = options.idempotency_key
        meta: dict[str, Any] = {}
        if key is not None:
            call = _fingerprint(command, args)
            remembered = answers.find(ctx.now, scope, key, call)
            if remembered is not None:
                return unpack_trusted(remembered), "synced"
            answers.check_room(scope, key, owned=command.keeper is not None)
            meta[META_KEY] = key
            meta[META_CALL] = call
        source = options.source
        if source is not None:
            answers.check_source(source)
            meta[META_SOURCE] = source
        result = self._write(command, args, size, ack, meta or None)
        if key is not None:
            keeper = command.keeper  # asked afterwards: what was just made keeps its keys too
            owner = None if keeper is None else keeper(self._store, args)
            try:
                packed = pack(result)
            except Exception as error:  # it is done, and would be done again under the same key
                raise BrokenState(f"the result of {command.name} cannot be kept") from error
            answers.remember(ctx.now, scope, key, meta[META_CALL], packed, owner)
        if source is not None:
            answers.advance_source(source)
        return result, ack

    # --- reads ---

    def _read(self, command: Command, args: list[Any]) -> Any:
        """A read or a session command: whatever it does wrong stays its own trouble."""
        try:
            return command.handler(self._store, self.ctx, *args)
        except (RtError, BrokenState):
            raise
        except Exception:
            _log.exception("%s failed", command.name)
            raise RtError(INTERNAL, f"{command.name} failed; the server's log says why") from None

    # --- refusals ---

    def _refuse(self, connection: Connection, request_id: int | None, error: RtError) -> None:
        error.__traceback__ = None  # one that is prepared lives on; these frames must not with it
        self._metrics.count_error(error.kind.name)
        if request_id is None:
            self._metrics.notification_errors += 1
        else:
            connection.reply_error(request_id, error)

    def _unknown(self, method: str) -> RtError:
        names = [name for name, row in self._table.items() if row.rank < _INTERNAL_RANK]
        if any(name.startswith(f"{method}.") for name in names):
            return RtError(
                UNKNOWN_METHOD, f"{method!r} is not a method; `help {method}` lists them"
            )
        near = difflib.get_close_matches(method[:64], names, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; `help` lists the methods"
        return RtError(UNKNOWN_METHOD, f"{method[:64]!r} is not a method{hint}")


def _fingerprint(command: Command, args: list[Any]) -> bytes:
    """Items of a vector are not checked yet, so some cannot even be packed."""
    try:
        return fingerprint(pack((command.name, args)))
    except (TypeError, ValueError, OverflowError) as error:
        raise RtError(INVALID_PARAMS, f"{command.name} cannot take such items: {error}") from None


def _act_for(ctx: Context, options: Options) -> None:
    """Takes over for whom and from where a service acts. Raises RtError forbidden."""
    if options.as_user is None and options.address is None:
        return
    if ctx.role < _SERVICE_RANK:
        raise RtError(FORBIDDEN, "as_user and address need the role service", {"role": "service"})
    ctx.caller = None  # the next call enters anew
    if options.as_user is not None:
        ctx.user = options.as_user
        ctx.service = ctx.service or _UNNAMED  # so that the record tells it from the user's own
    ctx.address = options.address or ctx.address


def _check_deadline(options: Options, now: int, connection: Connection) -> None:
    timeout_ms = options.timeout_ms
    if timeout_ms is not None and now - connection.last_heard_ms >= timeout_ms:
        raise RtError(
            DEADLINE_EXCEEDED,
            f"it waited {now - connection.last_heard_ms} ms, timeout_ms is {timeout_ms}",
        )
