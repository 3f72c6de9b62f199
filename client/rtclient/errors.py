"""Errors: one root, a class per group of the server's codes, and what the SDK itself reports.

`server_errors` has one class for each error the server can answer, generated from its table; a
newer server's unknown error becomes the class of its group. Every error can be pickled. Nothing
is retried or logged here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "Closed",
    "ConnectionLost",
    "Error",
    "LimitError",
    "RequestError",
    "RightsError",
    "ServerError",
    "StateError",
    "Timeout",
]


class Error(Exception):
    """The root of all errors of this package.

    code: the server's stable number, 0 where the SDK itself reports. name: the stable snake_case
    name. retryable: sending the same again may succeed and does no harm. details: what the server
    adds for programs. message: which value was wrong and what was expected.
    """

    code: int = 0
    name: str = "error"
    retryable: bool = False
    advice: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        details: Mapping[str, Any] | None = None,
        *,
        code: int | None = None,
        name: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        if code is not None:
            self.code = code
        if name is not None:
            self.name = name
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__.copy())


def _rebuild(kind: type[Error], message: str, state: dict[str, Any]) -> Error:
    error = kind(message)
    error.__dict__.update(state)
    return error


class RequestError(Error):
    """1xx: the request itself is wrong."""


class StateError(Error):
    """2xx: the state does not allow it."""


class LimitError(Error):
    """3xx: a limit or overload."""


class RightsError(Error):
    """4xx: the caller may not do this."""


class ServerError(Error):
    """5xx: the server failed, stops, or cannot tell."""


class ConnectionLost(Error, ConnectionError):
    """No connection could be made, or the server ended it for good (`details` says why)."""

    name = "connection_lost"


class Timeout(Error, TimeoutError):
    """No answer within the call's timeout, and calling again is safe: it was not sent, or it
    reads, or it carries an idempotency key of yours."""

    name = "timeout"
    retryable = True


class Closed(Error):
    """The client was closed."""

    name = "closed"
