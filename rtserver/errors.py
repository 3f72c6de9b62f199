"""Every error and every close code the server can answer, one row each.

Owns the numbers and names that clients depend on: a code is never reused or given another
meaning. `protocol.md` and the SDK's error classes are generated from these two tables.

Codes: 1xx the request, 2xx the state, 3xx limits and overload, 4xx rights, 5xx the server.
Close codes: 4000-4499 reconnect and resume, 4500-4999 stop.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CLOSES", "ERRORS", "CloseKind", "ErrorKind", "ProtocolError", "RtError", "shown"]


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the error table. `advice` is one line of what the caller should do."""

    code: int
    name: str
    retryable: bool
    advice: str

    @property
    def status(self) -> int:
        """What an HTTP response says (RFC 9110 section 15)."""
        return _STATUSES.get(self.name) or _GROUP_STATUSES[self.code // 100]


@dataclass(frozen=True, slots=True)
class CloseKind:
    """One row of the close table. `resume`: the client should reconnect and resume."""

    code: int
    name: str
    advice: str

    @property
    def resume(self) -> bool:
        return self.code < 4500


ERRORS: dict[str, ErrorKind] = {}
CLOSES: dict[str, CloseKind] = {}


def _error(code: int, name: str, retryable: bool, advice: str) -> ErrorKind:
    kind = ERRORS[name] = ErrorKind(code, name, retryable, advice)
    return kind


def _close(code: int, name: str, advice: str) -> CloseKind:
    kind = CLOSES[name] = CloseKind(code, name, advice)
    return kind


# 1xx: the request itself
PROTOCOL = _error(
    100, "protocol_error", False, "Send frames as protocol.md section 2 describes them."
)
FRAME_TOO_LARGE = _error(101, "frame_too_large", False, "Split the request; hello tells the limit.")
UNKNOWN_METHOD = _error(
    102, "unknown_method", False, "Use a method that `help` lists; the server may be older."
)
INVALID_PARAMS = _error(
    103, "invalid_params", False, "Correct the parameter that the message names."
)
INVALID_OPTION = _error(104, "invalid_option", False, "Correct the option that the message names.")
KEY_REUSED = _error(
    105, "key_reused", False, "Use a fresh idempotency key for a request with other arguments."
)
DUPLICATE = _error(
    106, "duplicate", False, "Nothing to do: this key or source offset was applied before."
)
DEADLINE_EXCEEDED = _error(
    107, "deadline_exceeded", True, "Nothing was done; send it again with a longer timeout_ms."
)
UNSUPPORTED_VERSION = _error(
    108, "unsupported_version", False, "Use a protocol version that the message names."
)

# 2xx: the state
NOT_FOUND = _error(200, "not_found", False, "Create it first, or correct the name.")
CONFLICT = _error(201, "conflict", False, "What exists does not allow it; the message says why.")
LIMIT_REACHED = _error(202, "limit_reached", False, "Remove something first, or raise the limit.")
OUT_OF_RANGE = _error(
    203, "out_of_range", False, "Keep the result within what the message names; nothing changed."
)
BANNED = _error(204, "banned", False, "The member was banned from this board.")
SOLD_OUT = _error(
    205, "sold_out", False, "Unless details.final is true, units that are held may still come back."
)
EXPIRED = _error(206, "expired", False, "Reserve again; confirm in time, or extend the hold.")
ALREADY_CONFIRMED = _error(207, "already_confirmed", False, "The hold was sold: see its order.")
ALREADY_CANCELLED = _error(208, "already_cancelled", False, "Reserve again.")
ALREADY_REFUNDED = _error(209, "already_refunded", False, "Nothing of the order is left to refund.")
NOT_OPEN = _error(210, "not_open", False, "The details tell the state of the sale.")
NO_PASS = _error(211, "no_pass", False, "Join the queue, and reserve while your pass lasts.")

# 3xx: limits and overload
OVERLOADED = _error(300, "overloaded", True, "Wait a moment, then send it again.")
DISK_FULL = _error(
    301, "disk_full", True, "Nothing was done; make room on the server's disk, then send it again."
)

MEMORY_FULL = _error(
    302, "memory_full", True, "Nothing was done; delete something, or raise limits.memory_max."
)
RATE_LIMITED = _error(303, "rate_limited", True, "Wait as long as the details say.")

# 4xx: rights
FORBIDDEN = _error(400, "forbidden", False, "Act with the role that the message names.")

UNAUTHENTICATED = _error(
    401, "unauthenticated", False, "Say who you are with a token or a key that is valid."
)
TOKEN_EXPIRED = _error(402, "token_expired", False, "Fetch a fresh token, then send it again.")
BLOCKED = _error(403, "blocked", False, "This user was sent away; wait as long as it says.")
CHALLENGE_FAILED = _error(
    404, "challenge_failed", False, "Solve the challenge of this sale, and send its token."
)

# 5xx: the server
INTERNAL = _error(500, "internal_error", False, "A defect of the server; please report it.")
OUTCOME_UNKNOWN = _error(
    501,
    "outcome_unknown",
    False,
    "It was applied and may yet be lost; send it again only with the same idempotency key.",
)

# HTTP statuses: of each group, and of the errors that have another
_GROUP_STATUSES = {1: 400, 2: 409, 3: 503, 4: 403, 5: 500}
_STATUSES = {
    "frame_too_large": 413,
    "unknown_method": 404,
    "key_reused": 422,
    "duplicate": 409,
    "deadline_exceeded": 503,
    "not_found": 404,
    "out_of_range": 422,
    "banned": 403,
    "disk_full": 507,
    "memory_full": 507,
    "rate_limited": 429,
    "unauthenticated": 401,
    "token_expired": 401,
    "outcome_unknown": 504,
}

# Close codes
CLOSE_DRAIN = _close(4000, "drain", "The server stops or restarts; reconnect after the delay.")
CLOSE_SLOW = _close(
    4001, "slow_consumer", "You read too slowly and fell out of the history; reconnect and resume."
)
CLOSE_IDLE = _close(4002, "idle_timeout", "No bytes came within two heartbeats; reconnect.")
CLOSE_TOO_MANY = _close(
    4003, "too_many_connections", "The server has all the connections it takes; reconnect later."
)
CLOSE_INTERNAL = _close(
    4004, "internal_error", "The server failed on your request; reconnect, and please report it."
)
CLOSE_EXPIRED = _close(
    4005, "token_expired", "Your token has expired; reconnect with a fresh one and resume."
)
CLOSE_OVERLOADED = _close(
    4006, "overloaded", "Requests that are not complete fill the server; reconnect later."
)
CLOSE_PROTOCOL = _close(4500, "protocol_error", "Your client sent what it must not; mend it.")
CLOSE_TOO_LARGE = _close(
    4501, "frame_too_large", "Your client sent a larger frame than allowed; mend it."
)
CLOSE_REPLACED = _close(
    4502, "replaced", "Another connection resumed this session; let that one go on."
)
CLOSE_KICKED = _close(4503, "kicked", "The application sent this user away.")
CLOSE_UNAUTHENTICATED = _close(
    4504, "unauthenticated", "Say who you are in time, with a token that is valid."
)


_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 80
_brief.maxlist = _brief.maxdict = 4


def shown(value: Any) -> str:
    """A value for an error message: its beginning, at a cost that does not grow with it."""
    return _brief.repr(value[:80] if isinstance(value, bytes) else value)


class RtError(Exception):
    """An error reply. `message` says which value was wrong and what was expected."""

    def __init__(
        self, kind: ErrorKind, message: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.details = details

    def as_wire(self) -> list[Any]:
        """The error as it travels in a reply: [code, name, message, details]."""
        kind = self.kind
        details = None if self.details is None else dict(self.details)
        return [kind.code, kind.name, self.message, details]


class ProtocolError(RtError):
    """A frame that cannot be parsed: answered once, then the connection is closed."""

    def __init__(
        self, message: str, kind: ErrorKind = PROTOCOL, close: CloseKind = CLOSE_PROTOCOL
    ) -> None:
        super().__init__(kind, message)
        self.close = close
