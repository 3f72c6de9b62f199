"""Calls over HTTP: one (`POST /v1/call/<method>`), or many in one body (`POST /v1/batch`).

A reply is encoded when it is made and leaves when it may: what goes through the connection's outbox
is one mark a reply, so that replies which wait for a sync hold back their response and nothing
else. Calls of a batch are applied in order, each on its own.
"""

from __future__ import annotations

from typing import Any

from rtserver.commands.options import OPTION_NAMES
from rtserver.errors import (
    ERRORS,
    INVALID_OPTION,
    INVALID_PARAMS,
    OUTCOME_UNKNOWN,
    OVERLOADED,
    RtError,
    shown,
)
from rtserver.limits import VECTOR_MAX
from rtserver.transport.engine import Progress
from rtserver.transport.exchange import Exchange, Socket
from rtserver.wire.codec import pack
from rtserver.wire.jsonform import from_json, scan_json, to_json
from rtserver.wire.problem import Problem, problem_of
from rtserver.wire.request import Request
from rtserver.wire.response import JSON, Responder

__all__ = ["BatchCall", "Call"]

_MARK = b"."
_KEY = "idempotency-key"
_KEY_OPTION = "idempotency_key"
_SHAPE = "expected [method, params] or [method, params, options]"


class _CallForm:
    """The reply to a call as a whole response."""

    __slots__ = ("_responder", "response")

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self.response: bytes | None = None

    def encode_reply(self, _request_id: int, result: Any, /) -> bytes:
        self.response = self._responder.json(200, result)
        return _MARK

    def encode_error(self, _request_id: int | None, error: list[Any], /) -> bytes:
        self.response = self._responder.problem(problem_of(error))
        return _MARK

    def encode_push(self, method: str, params: Any, /) -> bytes:
        """The connection is closed before the reply left: whether it was applied decides."""
        if method != "close":
            return b""
        error = _closing(params, applied=self.response is not None)
        return self.encode_error(None, error)


def _closing(params: Any, *, applied: bool) -> list[Any]:
    """What a call hears whose connection the server closes."""
    message = params["message"]
    if applied:
        return RtError(OUTCOME_UNKNOWN, f"it was applied, then: {message}").as_wire()
    return RtError(ERRORS.get(params["name"], OVERLOADED), message, params).as_wire()


class Call(Exchange):
    """One call. Raises RtError and Problem where the request is none."""

    def __init__(self, socket: Socket, request: Request, responder: Responder, method: str) -> None:
        self._method = method
        self._params, self._options = _arguments(request)
        self._size = _size(self._params)
        self._form = _CallForm(responder)
        super().__init__(socket, request, responder, self._form, pushes=False)

    def run(self) -> Progress:
        engine = self._engine
        if not self.begun:
            if engine.budget() <= 0:
                return Progress.MORE
            self.begun = True
            params, options = self._params, self._options
            engine.spent(engine.call(self.connection, 0, self._method, params, options, self._size))
        return Progress.BLOCKED  # until the reply has left

    def write(self, _data: bytes, /) -> None:
        response = self._form.response
        if not self.done and response is not None:
            self.answer(response)


def _arguments(request: Request) -> tuple[Any, dict[str, Any]]:
    """(params, options) of a call."""
    params: Any = []
    options: dict[str, Any] = {}
    if request.body:
        params = _decoded(request)
        if type(params) is dict:
            options = {name: params.pop(name) for name in OPTION_NAMES & params.keys()}
    key = _key(request)
    if key is not None and options.setdefault(_KEY_OPTION, key) != key:
        raise RtError(INVALID_OPTION, "Idempotency-Key is not the idempotency_key of the body")
    return params, options


def _decoded(request: Request) -> Any:
    try:
        return from_json(request.body)
    except ValueError as error:
        raise Problem(400, f"the body: {error}", kind=INVALID_PARAMS) from None


def _key(request: Request) -> Any:
    """The key in the header: plain text, or quoted or an array as JSON."""
    text = request.header(_KEY)
    if text is None or text[:1] not in ('"', "["):
        return text
    try:
        value, end = scan_json(text, 0)
    except ValueError:
        end = 0
    if end != len(text):
        raise RtError(INVALID_OPTION, f"Idempotency-Key is {shown(text)}, which is not JSON")
    return value


def _size(params: Any) -> int:
    """About the bytes of a record with these parameters. Raises RtError where they cannot be in
    one."""
    try:
        return len(pack(params))
    except (TypeError, ValueError, OverflowError) as error:
        raise RtError(INVALID_PARAMS, f"the parameters cannot be kept: {error}") from None


# --- many ---


class _BatchForm:
    """The replies of a batch as items of one array."""

    __slots__ = ("bytes", "items")

    def __init__(self, number: int) -> None:
        self.items: list[bytes] = [b""] * number
        self.bytes = 0

    def encode_reply(self, request_id: int, result: Any, /) -> bytes:
        return self._put(request_id, b'{"result":' + to_json(result) + b"}")

    def encode_error(self, request_id: int | None, error: list[Any], /) -> bytes:
        assert request_id is not None, "each call of a batch has its place"
        return self._put(request_id, to_json({"error": error}))

    def encode_push(self, method: str, params: Any, /) -> bytes:
        """The connection is closed before the answer left: what is not answered is said."""
        if method != "close":
            return b""
        for place, item in enumerate(self.items):
            self._put(place, to_json({"error": _closing(params, applied=item != b"")}))
        return _MARK * len(self.items)

    def _put(self, place: int, item: bytes) -> bytes:
        self.bytes += len(item) - len(self.items[place])
        self.items[place] = item
        return _MARK


class BatchCall(Exchange):
    """Many calls: [[method, params, options?], ...]. Raises RtError and Problem where the request
    is none."""

    def __init__(self, socket: Socket, request: Request, responder: Responder) -> None:
        calls = _decoded(request)
        if type(calls) is not list or not 0 < len(calls) <= VECTOR_MAX:
            raise RtError(
                INVALID_PARAMS, f"the body is {shown(calls)}, expected 1 to {VECTOR_MAX} calls"
            )
        if _KEY in request.headers:
            raise RtError(INVALID_OPTION, "each call of a batch has its own idempotency_key")
        self._calls = calls
        self._next = 0
        self._left = 0  # replies that have left
        self._form = _BatchForm(len(calls))
        super().__init__(socket, request, responder, self._form, pushes=False)
        self._bytes_max = self._engine.limits.outbox_hard_bytes // 2

    def run(self) -> Progress:
        engine = self._engine
        budget = engine.budget()
        while self._next < len(self._calls):
            if not self.connection.is_open:
                return Progress.IDLE
            if budget <= 0:
                return Progress.MORE
            place = self._next
            self._next += 1
            cost = self._run_one(place, self._calls[place])
            budget -= cost
            if engine.spent(cost):
                budget = 0
        return Progress.BLOCKED  # until all replies have left

    def _run_one(self, place: int, call: Any) -> int:
        try:
            if self._form.bytes > self._bytes_max:
                raise RtError(
                    OVERLOADED,
                    f"the answers before it fill {self._form.bytes} bytes; send the rest again",
                )
            method, params, options = _parts(call)
            size = _size(params)
        except RtError as error:
            self._engine.metrics.count_error(error.kind.name)
            self.connection.reply_error(place, error)
            return 1
        return self._engine.call(self.connection, place, method, params, options, size)

    def write(self, data: bytes, /) -> None:
        self._left += len(data)
        if self._left >= len(self._calls) and not self.done:
            body = b"[" + b",".join(self._form.items) + b"]\n"
            self.answer(self._responder.response(200, JSON, body))


def _parts(call: Any) -> tuple[str, Any, Any]:
    if type(call) is not list or not 2 <= len(call) <= 3 or type(call[0]) is not str:
        raise RtError(INVALID_PARAMS, f"a call is {shown(call)}, {_SHAPE}")
    method, params, *options = call
    if type(params) is dict:
        named = {name: params.pop(name) for name in OPTION_NAMES & params.keys()}
        given = options[0] if options else None
        if given is not None and type(given) is not dict:
            raise RtError(INVALID_OPTION, f"options are {shown(given)}, expected a map")
        return method, params, {**named, **(given or {})}
    return method, params, options[0] if options else None
