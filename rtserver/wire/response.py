"""HTTP responses as bytes (RFC 9112), each for the request that asked for it.

A `Responder` knows of its request what every answer depends on: whether a body may follow, whether
the connection goes on, which origin may read the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtserver.wire.jsonform import to_json
from rtserver.wire.problem import Problem
from rtserver.wire.request import Request

__all__ = ["CONTINUE", "JSON", "Responder"]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON = "application/json"
_PROBLEM = "application/problem+json"
_REASONS = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    422: "Unprocessable Content",
    426: "Upgrade Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
    507: "Insufficient Storage",
}


class Responder:
    """Makes the response to one request (None: to bytes that were none) at a date."""

    __slots__ = ("_bodiless", "_common", "_connection")

    def __init__(self, date: str, request: Request | None = None) -> None:
        self._bodiless = request is not None and request.method == "HEAD"
        self._common = f"Date: {date}\r\nX-Content-Type-Options: nosniff\r\n"
        self._connection: list[str] = []  # its options (RFC 9110 section 7.6.1)
        if request is None or not request.keep_alive:
            self.close()
        elif request.version == "1.0":
            self._connection = ["keep-alive"]

    def close(self) -> None:
        """No request is answered on this connection after this one."""
        self._connection = ["close"]

    def add(self, headers: Mapping[str, str]) -> None:
        """Headers that every answer carries from now on."""
        self._common += "".join(map(_line, headers.items()))

    def response(
        self, status: int, kind: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """A whole response with a body of a media type."""
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
            f"Content-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Cache-Control: no-store\r\n"
            f"{self._lines(headers or {})}\r\n"
        ).encode("latin-1")
        return head if self._bodiless else head + body

    def json(self, status: int, value: Any) -> bytes:
        return self.response(status, JSON, to_json(value) + b"\n")

    def problem(self, problem: Problem) -> bytes:
        body = to_json(problem.as_map()) + b"\n"
        return self.response(problem.status, _PROBLEM, body, problem.headers)

    def stream_head(self, kind: str) -> bytes:
        """The head of a body that ends with the connection, and that nothing in between may hold
        back or change (X-Accel-Buffering is what nginx asks for)."""
        return (
            f"HTTP/1.1 200 {_REASONS[200]}\r\n"
            f"Content-Type: {kind}\r\n"
            "Cache-Control: no-store, no-transform\r\n"
            "X-Accel-Buffering: no\r\n"
            f"{self._lines({})}\r\n"
        ).encode("latin-1")

    def empty(self, headers: Mapping[str, str]) -> bytes:
        """204, without a body."""
        return (f"HTTP/1.1 204 {_REASONS[204]}\r\n{self._lines(headers)}\r\n").encode("latin-1")

    def _lines(self, headers: Mapping[str, str]) -> str:
        """The headers of every answer and these; both may have options of the connection."""
        others = dict(headers)
        options = [*self._connection, *filter(None, [others.pop("Connection", None)])]
        if options:
            others["Connection"] = ", ".join(options)
        return self._common + "".join(map(_line, others.items()))


def _line(header: tuple[str, str]) -> str:
    name, value = header
    return f"{name}: {value}\r\n"
