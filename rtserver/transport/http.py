"""HTTP: the health of the process, for probes and balancers (`/livez`, `/readyz`).

Requests are parsed by httptools. A head has a size and a time limit; what is not a health
path is 404 as problem+json (RFC 9457). In development mode a request that names a foreign
Host or Origin, or went through a proxy, is refused: that is how a web page would reach a server
on loopback (DNS rebinding).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httptools

from rtserver.transport.engine import Engine
from rtserver.transport.stream import end_transport
from rtserver.transport.websocket import HandshakeRefused, WebSocketStream, upgrade
from rtserver.wire.jsonform import to_json
from rtserver.wire.request import Request

__all__ = ["HttpStream"]

_REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    426: "Upgrade Required",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
_FORWARDING = frozenset((b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"))
_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))


class HttpStream(asyncio.Protocol):
    """One HTTP/1.1 connection; requests are answered in order."""

    def __init__(self, engine: Engine, transport: asyncio.Transport) -> None:
        self._engine = engine
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._head_bytes = 0
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._socket: WebSocketStream | None = None
        self._timeout = self._start_timeout()

    def _start_timeout(self) -> asyncio.TimerHandle:
        delay_s = self._engine.limits.http_request_ms_max / 1_000
        return asyncio.get_running_loop().call_later(delay_s, self._time_out)

    def _time_out(self) -> None:
        if self._head_bytes:
            self._fail(408, "the request took too long")
        else:
            end_transport(self._transport)  # nothing was asked since the last answer

    # --- asyncio ---

    def data_received(self, data: bytes) -> None:
        self._engine.metrics.bytes_in += len(data)
        self._head_bytes += len(data)
        if self._head_bytes > self._engine.limits.http_head_bytes_max:
            self._fail(431, f"a head of {self._head_bytes} bytes or more")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade_at:
            if self._socket is None:
                end_transport(self._transport)  # answered as any request; what follows is not HTTP
            else:
                self._leave()
                self._socket.data_received(data[upgrade_at.args[0] :])
        except httptools.HttpParserError as error:
            self._fail(400, f"this is not HTTP/1.1: {error}")

    def pause_writing(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.release()
        self._leave()

    def _leave(self) -> None:
        self._timeout.cancel()
        del self._parser  # it refers back to this protocol, and nothing collects cycles

    # --- httptools ---

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers.clear()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._timeout.cancel()
        self._timeout = self._start_timeout()
        method = self._parser.get_method()
        refusal = self._foreign()
        if refusal is not None:
            self._fail(403, refusal)
            return
        path = self._url.partition(b"?")[0].decode("latin-1")
        if path == "/ws":
            self._upgrade(method.decode("latin-1"))
            return
        health = self._engine.health(path)
        if health is None:
            self._answer(404, _problem(404, f"{path} is not a path of this server"))
        elif method not in (b"GET", b"HEAD"):
            self._answer(405, _problem(405, "health is asked for with GET"))
        else:
            self._answer(200 if health[0] else 503, health[1], body=method == b"GET")
        if not self._parser.should_keep_alive():
            end_transport(self._transport)

    def _upgrade(self, method: str) -> None:
        headers: dict[str, list[str]] = {}
        for name, value in self._headers:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        peer = self._transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) else None
        version = self._parser.get_http_version()
        request = Request(method, "/ws", {}, headers, b"", address, True, version)
        try:
            self._socket = upgrade(self._engine, self._transport, request)
        except HandshakeRefused as refused:
            self._fail(refused.status, refused.detail, refused.headers)

    # --- answers ---

    def _foreign(self) -> str | None:
        """Why a request must not be answered in development mode."""
        for name, value in self._headers:
            if name in _FORWARDING:
                return f"a request with {name.decode('latin-1')} came through a proxy"
            if name in (b"host", b"origin") and not _is_local(value.decode("latin-1")):
                return f"{name.decode('latin-1')} is {value.decode('latin-1')!r}, expected loopback"
        return None

    def _fail(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        if not self._transport.is_closing():
            self._answer(status, _problem(status, detail), close=True, headers=headers)
            end_transport(self._transport)

    def _answer(
        self,
        status: int,
        content: dict[str, Any],
        *,
        body: bool = True,
        close: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        text = to_json(content) + b"\n"
        kind = "application/json" if status in (200, 503) else "application/problem+json"
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
            f"Content-Type: {kind}\r\n"
            f"Content-Length: {len(text)}\r\n"
            "Cache-Control: no-store\r\n"
            f"{'Connection: close' + chr(13) + chr(10) if close else ''}"
            f"{more}"
            "\r\n"
        )
        self._transport.write(head.encode("latin-1") + (text if body else b""))


def _problem(status: int, detail: str) -> dict[str, Any]:
    return {"title": _REASONS[status], "status": status, "detail": detail}


def _is_local(value: str) -> bool:
    host = value.rpartition("://")[2].lower()
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name in _LOCAL_NAMES
