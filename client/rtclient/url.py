"""Where the server is: rt://[user[:token]@]host[:port], over TLS, WebSocket or a unix socket too.

rt://host:port     rts://host:port (TLS)
ws://host:port     wss://host:port (TLS), at the path /ws unless the URL has another
rt+unix:///path    unix:/path is the same
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

__all__ = ["DEFAULT_URL", "Address", "parse_url"]

DEFAULT_PORT: Final = 7370
DEFAULT_URL: Final = f"rt://127.0.0.1:{DEFAULT_PORT}"
_WEB_PORTS: Final = {"ws": 80, "wss": 443}  # as everywhere on the web
_NETWORK: Final = ("rt", "rts", "ws", "wss")
_UNIX: Final = ("rt+unix", "unix")
_WS_PATH: Final = "/ws"
_EXPECTED: Final = (
    "expected rt://, rts://, ws:// or wss://[user[:token]@]host[:port], or rt+unix:///path"
)


class Address(NamedTuple):
    """A server, and who calls.

    scheme: rt, rts, ws, wss or rt+unix. path: of the WebSocket (with its query) or of the unix
    socket.
    """

    host: str
    port: int
    user: str | None
    token: str | None
    scheme: str = "rt"
    path: str = ""

    @property
    def tls(self) -> bool:
        return self.scheme in ("rts", "wss")

    @property
    def websocket(self) -> bool:
        return self.scheme in ("ws", "wss")

    @property
    def unix(self) -> bool:
        return self.scheme == "rt+unix"

    @property
    def authority(self) -> str:
        """host:port as a Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        """Without who calls, for messages."""
        place = "" if self.unix else self.authority
        return f"{self.scheme}://{place}{self.path}"


def parse_url(url: str | None) -> Address:
    """The address that a URL names; without one, that of the environment variable RT_URL, else
    DEFAULT_URL. Raises ValueError, naming what is wrong."""
    url = url or os.environ.get("RT_URL") or DEFAULT_URL
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"the URL {url!r} is wrong ({error}); {_EXPECTED}") from None
    if parts.scheme in _UNIX:
        return _unix(url, parts)
    if parts.scheme not in _NETWORK:
        raise ValueError(f"the URL {url!r} has the scheme {parts.scheme!r}; {_EXPECTED}")
    if not parts.hostname:
        raise ValueError(f"the URL {url!r} names no host; {_EXPECTED}")
    path = ""
    if parts.scheme in ("ws", "wss"):
        path = _WS_PATH if parts.path in ("", "/") else parts.path
        path += f"?{parts.query}" if parts.query else ""
    elif parts.path.strip("/") or parts.query:
        raise ValueError(f"the URL {url!r} has more than host and port; {_EXPECTED}")
    if parts.fragment:
        raise ValueError(f"the URL {url!r} has a fragment; {_EXPECTED}")
    if port is None:
        port = _WEB_PORTS.get(parts.scheme, DEFAULT_PORT)
    return Address(parts.hostname, port, *_caller(parts), parts.scheme, path)


def _unix(url: str, parts: SplitResult) -> Address:
    if parts.hostname or parts.port or parts.query or parts.fragment:
        raise ValueError(f"the URL {url!r} has more than the path of a socket; {_EXPECTED}")
    path = unquote(parts.path)
    if len(path) < 2:
        raise ValueError(f"the URL {url!r} names no path; {_EXPECTED}")
    return Address("", 0, *_caller(parts), "rt+unix", path)


def _caller(parts: SplitResult) -> tuple[str | None, str | None]:
    return (
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
    )
