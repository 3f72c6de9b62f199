"""HTTP/1.1 requests from bytes (RFC 9112), without I/O.

httptools (llhttp, strict) takes the bytes apart; on top of that this module refuses whatever two
readers could understand differently: where a request ends is never guessed. After a request that
cannot be read nothing more of the connection is. Heads, bodies and what lies between their parts
are bounded.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Any
from urllib.parse import parse_qsl, unquote

import httptools

from rtserver.limits import Limits
from rtserver.wire.problem import Problem
from rtserver.wire.request import Request

__all__ = ["Phase", "RequestParser", "host_name"]

_HOST = re.compile(r"(?P<name>[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ABSOLUTE = re.compile(r"https?://(?P<authority>[^/?#]+)(?P<rest>.*)", re.IGNORECASE)
_ORIGIN_FORM = re.compile(r"/[!-~]*")
_QUERY_FIELDS_MAX = 64


class Phase(Enum):
    """What of a request has come."""

    NOTHING = auto()
    HEAD = auto()
    BODY = auto()


class RequestParser:
    """The requests of one connection. `feed` it piece by piece, take what is `ready`. `is_known`
    is asked by the head of a request whose body is more than a stranger may send."""

    __slots__ = (
        "_body",
        "_body_bytes_max",
        "_expects",
        "_framing",
        "_head_bytes",
        "_headers",
        "_idle_bytes",
        "_is_head_over",
        "_is_known",
        "_limits",
        "_parser",
        "_request",
        "_url",
        "closed",
        "phase",
        "ready",
        "rest",
    )

    def __init__(
        self, limits: Limits, is_known: Callable[[Request], bool] = lambda _request: True
    ) -> None:
        self.ready: deque[Request | Problem] = deque()  # whole requests, or why there is none
        self.phase = Phase.NOTHING
        self.closed = False  # nothing that comes after what is ready is a request
        self.rest = b""  # what came after a request to speak another protocol
        self._limits = limits
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, list[str]] = {}
        self._head_bytes = 0
        self._idle_bytes = 0  # of a head, or between the parts of a body
        self._body = bytearray()
        self._is_known = is_known
        self._body_bytes_max = 0  # of this request, as far as was asked
        self._expects = False
        self._framing: bytes | None = None  # of a body that httptools takes for something else
        self._is_head_over = False  # its events are about our own words
        self._request: Request | None = None

    def feed(self, data: bytes) -> None:
        """Bytes of the connection. Keep pieces small: a piece may hold many requests."""
        if self.closed:
            return
        self._idle_bytes += len(data)
        try:
            while data:
                data = self._parse(data)
        except httptools.HttpParserError as error:
            self._refuse(Problem(400, f"this is not HTTP/1.1: {error}"))
        if self.phase is Phase.NOTHING:
            self._idle_bytes = 0
        elif self._idle_bytes > self._limits.http_head_bytes_max:
            self._refuse_head(self._idle_bytes)

    def _parse(self, data: bytes) -> bytes:
        """Feeds httptools; answers what it did not take."""
        try:
            self._parser.feed_data(data)
            return b""
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        if self.closed:  # to speak another protocol, or because nothing more is read
            self.rest = rest
            return b""
        # Who offers h2c and the like is answered in HTTP/1.1. httptools has stopped before a body,
        # so another one reads on, and is told how long the body is.
        self._parser = httptools.HttpRequestParser(self)
        framing, self._framing = self._framing, None
        if framing is not None:
            self._is_head_over = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
            self._is_head_over = False
        return rest

    def wants_continue(self) -> bool:
        """Whether the client waits for a word before it sends the body; True once a request."""
        expects, self._expects = self._expects, False
        return expects and self.phase is Phase.BODY

    def release(self) -> None:
        """The parser refers back to this object, and nothing collects cycles."""
        self.closed = True
        self._parser = None

    def _refuse(self, problem: Problem) -> None:
        if not self.closed:
            self.closed = True
            self.phase = Phase.NOTHING
            self.ready.append(problem)

    def _refuse_head(self, size: int) -> None:
        bound = self._limits.http_head_bytes_max
        self._refuse(Problem(431, f"a head of {size} bytes or more, at most {bound} are accepted"))

    # --- what httptools calls ---

    def on_message_begin(self) -> None:
        if not self.closed and not self._is_head_over:
            self.phase = Phase.HEAD
            self._url = b""
            self._headers = {}
            self._head_bytes = 0
            self._idle_bytes = 0
            self._body = bytearray()
            self._expects = False
            self._request = None
            limits = self._limits
            self._body_bytes_max = min(limits.http_body_bytes_max, limits.unauthenticated_bytes_max)

    def on_url(self, url: bytes) -> None:
        if not self._is_head_over:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._request is not None or self.closed:
            return  # a trailer: nobody asks for those
        values = self._headers.setdefault(name.decode("latin-1").lower(), [])
        values.append(value.decode("latin-1").strip(" \t"))

    def on_headers_complete(self) -> None:
        if self.closed or self._is_head_over:
            return
        size = self._head_bytes + len(self._url)
        if size > self._limits.http_head_bytes_max:
            self._refuse_head(size)
            return
        try:
            request = self._checked()
            length = int(self._headers.get("content-length", ["0"])[0])
            self._check_length(request, length, f"{length} bytes")
        except Problem as problem:
            self._refuse(problem)
            return
        self._request = request
        self.phase = Phase.BODY
        self._idle_bytes = 0
        if self._parser.should_upgrade():
            self._framing = self._body_framing()

    def on_body(self, data: bytes) -> None:
        if self.closed or self._request is None:
            return
        self._body += data
        self._idle_bytes = 0
        length = len(self._body)
        try:
            self._check_length(self._request, length, f"{length} bytes or more")
        except Problem as problem:
            self._refuse(problem)

    def on_message_complete(self) -> None:
        if self.closed or self._request is None or self._framing is not None:
            return
        if self._head_bytes > 2 * self._limits.http_head_bytes_max:
            self._refuse_head(self._head_bytes)  # of trailers
            return
        self.phase = Phase.NOTHING
        request = self._request._replace(body=bytes(self._body))
        self._body = bytearray()
        self.ready.append(request)
        self._request = None
        self.closed = not request.keep_alive

    # --- heads ---

    def _checked(self) -> Request:
        """The request without its body. Raises Problem."""
        parser = self._parser
        version = parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise Problem(505, f"the version is HTTP/{version}, expected HTTP/1.1")
        self._check_framing(version)
        if self._leaves_http() and self._body_framing() is not None:
            raise Problem(400, "a request for a WebSocket has no body")
        self._expects = self._check_expectation(version)
        host = self._host(version)
        path, query = _target(self._url.decode("latin-1"), host)
        return Request(
            method=parser.get_method().decode("latin-1"),
            path=path,
            query=query,
            headers=self._headers,
            body=b"",
            address=None,
            keep_alive=parser.should_keep_alive() and not self._leaves_http(),
            version=version,
        )

    def _leaves_http(self) -> bool:
        """Whether a WebSocket begins where this request ends, if we agree."""
        protocols = ",".join(self._headers.get("upgrade", [])).lower().split(",")
        return self._parser.should_upgrade() and "websocket" in map(str.strip, protocols)

    def _body_framing(self) -> bytes | None:
        """How the body of this request ends, in the words of its head; None where it has none."""
        if "transfer-encoding" in self._headers:
            return b"Transfer-Encoding: chunked"
        length = int(self._headers.get("content-length", ["0"])[0])
        return b"Content-Length: %d" % length if length else None

    def _check_framing(self, version: str) -> None:
        """Where the body ends (RFC 9112 section 6). Two lengths, or a length beside an encoding,
        httptools has refused."""
        coding = self._headers.get("transfer-encoding")
        if coding is not None:
            if [value.lower() for value in coding] != ["chunked"]:
                raise Problem(
                    501, f"Transfer-Encoding is {', '.join(coding)!r}, expected chunked alone"
                )
            if version == "1.0":
                raise Problem(400, "HTTP/1.0 knows no Transfer-Encoding")

    def _check_length(self, request: Request, length: int, shown: str) -> None:
        bound = self._limits.http_body_bytes_max
        if length <= self._body_bytes_max:
            return
        if length > bound:
            raise Problem(413, f"a body of {shown}, at most {bound} are accepted")
        if not self._is_known(request):
            raise Problem(
                413,
                f"a body of {shown}, at most {self._body_bytes_max} are accepted of who shows"
                " neither a valid token nor a session",
            )
        self._body_bytes_max = bound

    def _check_expectation(self, version: str) -> bool:
        """Whether the client waits for 100 (RFC 9110 section 10.1.1)."""
        expected = self._headers.get("expect")
        if expected is None or version == "1.0":
            return False
        if [value.lower() for value in expected] != ["100-continue"]:
            raise Problem(417, f"Expect is {', '.join(expected)!r}, expected 100-continue")
        return True

    def _host(self, version: str) -> str | None:
        """The one Host (RFC 9112 section 3.2)."""
        hosts = self._headers.get("host", [])
        if len(hosts) != 1 and not (version == "1.0" and not hosts):
            raise Problem(400, f"{len(hosts)} Host headers, expected one")
        if hosts and _HOST.fullmatch(hosts[0]) is None:
            raise Problem(400, f"Host is {hosts[0]!r}, expected a name or an address and a port")
        return hosts[0] if hosts else None


def host_name(host: str) -> str:
    """The name of a well-formed Host without its port, in lower case."""
    found = _HOST.fullmatch(host)
    return "" if found is None else found["name"].lower()


def _target(url: str, host: str | None) -> tuple[str, dict[str, str]]:
    """(path, query) of a request target in origin-form or absolute-form. Raises Problem."""
    absolute = _ABSOLUTE.fullmatch(url)
    if absolute is not None:
        if host is None or absolute["authority"].lower() != host.lower():
            raise Problem(400, f"the target names {absolute['authority']!r}, Host is {host!r}")
        rest = absolute["rest"]
        url = rest if rest.startswith("/") else f"/{rest}"
    if _ORIGIN_FORM.fullmatch(url) is None or "#" in url:
        raise Problem(400, f"the target is {url[:80]!r}, expected a path that begins with /")
    path, _, query = url.partition("?")
    try:
        fields = parse_qsl(
            query, keep_blank_values=True, errors="strict", max_num_fields=_QUERY_FIELDS_MAX
        )
        return unquote(path, errors="strict"), dict(fields)
    except ValueError:
        raise Problem(
            400, f"the target is not UTF-8, or has more than {_QUERY_FIELDS_MAX} fields"
        ) from None
