"""Which path is answered by what, and the answers that need no turn: health, metrics, pages.

A route gives a whole response, an exchange that the stream runs, or the stream of another protocol.
Every route is guarded the same way before it is looked up (transport.policy).
"""

from __future__ import annotations

from collections.abc import Callable

from rtserver.transport.calls import BatchCall, Call
from rtserver.transport.engine import Engine
from rtserver.transport.eventstream import EventStream
from rtserver.transport.exchange import Exchange, Socket
from rtserver.transport.longpoll import LongPoll
from rtserver.transport.policy import PREFLIGHT, check, sharing
from rtserver.wire.problem import Problem
from rtserver.wire.request import Request
from rtserver.wire.response import JSON, Responder

__all__ = ["WEBSOCKET_PATH", "route"]

WEBSOCKET_PATH = "/ws"
_CALL = "/v1/call/"
_METRICS = "/metrics"
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_READ = ("GET", "HEAD")

_MAKERS: dict[str, tuple[str, Callable[[Socket, Request, Responder], Exchange]]] = {
    "/v1/batch": ("POST", BatchCall),
    "/v1/stream": ("GET", EventStream),
    "/v1/poll": ("GET", LongPoll),
}


def route(
    socket: Socket, request: Request, responder: Responder, *, admin: bool
) -> bytes | Exchange:
    """The response, or what makes it. `admin`: the listener is one for administrators. Raises
    Problem and RtError."""
    engine = socket.engine
    check(request, engine.web, dev=engine.dev)
    responder.add(sharing(request, engine.web))
    if request.method == "OPTIONS":
        return responder.empty(PREFLIGHT)
    if request.path.startswith("/v1/"):
        return _exchange(socket, request, responder)
    return _plain(engine, request, responder, admin=admin)


def _exchange(socket: Socket, request: Request, responder: Responder) -> Exchange:
    engine = socket.engine
    path = request.path
    is_call = path.startswith(_CALL)
    if not is_call and path not in _MAKERS:
        raise _unknown(path)
    _check_method(request, "POST" if is_call else _MAKERS[path][0])
    if request.method == "POST":
        _check_type(request)
    bound = engine.limits.connections_max
    if engine.connections > bound:
        raise Problem(503, f"{bound} connections are open, the most")
    if is_call:
        return Call(socket, request, responder, path[len(_CALL) :])
    return _MAKERS[path][1](socket, request, responder)


def _plain(engine: Engine, request: Request, responder: Responder, *, admin: bool) -> bytes:
    path = request.path
    if path == _METRICS and (admin or not engine.admin_only):
        _check_method(request, *_READ)
        return responder.response(200, _METRICS_TYPE, engine.metrics_text())
    health = engine.health(path)
    if health is not None:
        _check_method(request, *_READ)
        is_good, content = health
        return responder.json(200 if is_good else 503, content)
    page = engine.pages.get("/index.html" if path == "/" else path)
    if page is None:
        raise _unknown(path)
    _check_method(request, *_READ)
    return responder.response(200, *page)


def _check_method(request: Request, *methods: str) -> None:
    if request.method not in methods:
        allowed = ", ".join(methods)
        raise Problem(
            405, f"the method is {request.method}, {request.path} takes {allowed}",
            {"Allow": allowed},
        )  # fmt: skip


def _check_type(request: Request) -> None:
    """A form of a foreign page cannot send this media type, so it cannot call."""
    kind = request.header("content-type")
    if kind is None and not request.body:
        return
    if kind is None or kind.partition(";")[0].strip().lower() != JSON:
        raise Problem(415, f"Content-Type is {kind!r}, expected {JSON}")
    if "content-encoding" in request.headers:
        raise Problem(415, "Content-Encoding is not understood; send the body as it is")


def _unknown(path: str) -> Problem:
    return Problem(404, f"{path} is not a path of this server")
