"""Where the server is: rt://[user[:token]@]host[:port]."""

from __future__ import annotations

import os
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

__all__ = ["DEFAULT_URL", "Address", "parse_url"]

DEFAULT_PORT: Final = 7370
DEFAULT_URL: Final = f"rt://127.0.0.1:{DEFAULT_PORT}"


class Address(NamedTuple):
    """A server, and who calls."""

    host: str
    port: int
    user: str | None
    token: str | None


def parse_url(url: str | None) -> Address:
    """The address that a URL names; without one, that of the environment variable RT_URL, else
    DEFAULT_URL. Raises ValueError, naming what is wrong."""
    url = url or os.environ.get("RT_URL") or DEFAULT_URL
    expected = "expected rt://[user[:token]@]host[:port]"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"the URL {url!r} is wrong ({error}); {expected}") from None
    if parts.scheme != "rt":
        raise ValueError(f"the URL {url!r} has the scheme {parts.scheme!r}; {expected}")
    if not parts.hostname:
        raise ValueError(f"the URL {url!r} names no host; {expected}")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"the URL {url!r} has more than host and port; {expected}")
    return Address(
        parts.hostname,
        DEFAULT_PORT if port is None else port,
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
    )
