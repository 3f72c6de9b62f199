"""Errors over HTTP: a status from the table of errors, and a body as RFC 9457 has it.

Owns what a refused request is answered with: `application/problem+json` with the members `code`,
`name`, `retryable` and `details` beside those of the RFC, so that a client handles an error the
same way whatever transport it came by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtserver.errors import (
    ERRORS,
    FORBIDDEN,
    FRAME_TOO_LARGE,
    OVERLOADED,
    PROTOCOL,
    UNKNOWN_METHOD,
    ErrorKind,
)

__all__ = ["KINDS", "Problem", "problem_of"]

# What a refusal of HTTP's own counts as; a status that is not here is a protocol error.
KINDS: dict[int, ErrorKind] = {
    403: FORBIDDEN,
    404: UNKNOWN_METHOD,
    405: UNKNOWN_METHOD,
    413: FRAME_TOO_LARGE,
    503: OVERLOADED,
}
_RETRY_AFTER_MS = 1_000  # where an error that may be tried again does not say when
_RETRIED = frozenset((429, 503, 507))  # statuses that say when


class Problem(Exception):
    """A refused request: how it is answered."""

    def __init__(
        self,
        status: int,
        detail: str,
        headers: Mapping[str, str] | None = None,
        *,
        kind: ErrorKind | None = None,
        details: Any = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind or KINDS.get(status, PROTOCOL)
        self.detail = detail
        self.details = details
        self.headers = {**_headers(status, self.kind, details), **(headers or {})}

    def as_map(self) -> dict[str, Any]:
        kind = self.kind
        members = {
            "type": f"urn:rtserver:{kind.name}",
            "title": kind.name.replace("_", " "),
            "status": self.status,
            "detail": self.detail,
            "code": kind.code,
            "name": kind.name,
            "retryable": kind.retryable,
        }
        return members if self.details is None else {**members, "details": self.details}


def problem_of(error: list[Any]) -> Problem:
    """The problem for an error as it travels in a reply: [code, name, message, details]."""
    _, name, message, details = error
    kind = ERRORS[name]
    return Problem(kind.status, message, kind=kind, details=details)


def _headers(status: int, kind: ErrorKind, details: Any) -> dict[str, str]:
    """What RFC 9110 wants beside some statuses (sections 10.2.3 and 11.6.1)."""
    if status == 401:
        reason = ' error="invalid_token"' if kind.name == "token_expired" else ""
        return {"WWW-Authenticate": f"Bearer{reason}"}
    if status in _RETRIED:
        asked = details.get("retry_after_ms") if isinstance(details, dict) else None
        wait_ms = asked if isinstance(asked, int) else _RETRY_AFTER_MS
        return {"Retry-After": str(-(-wait_ms // 1_000))}
    return {}
