"""One HTTP request as the routes of this server read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["Request"]


class Request(NamedTuple):
    """What came before the blank line, and the body.

    path: without the query, percent-decoded. query: the last value of each name. headers: the
    values of each lower-case name in the order they came, so that a repeated one is seen.
    address: of the client, after trusted proxies. keep_alive: whether the connection goes on.
    version: of HTTP, such as "1.1".
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, Sequence[str]]
    body: bytes
    address: str | None
    keep_alive: bool
    version: str = "1.1"

    def header(self, name: str) -> str | None:
        """The values of a header, joined with commas as RFC 9110 section 5.2 allows."""
        values = self.headers.get(name)
        return None if values is None else ", ".join(values)
