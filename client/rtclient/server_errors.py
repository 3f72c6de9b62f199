"""The errors that the server answers, one class each.

Made by client/generate.py from the server's tables; change those, not this.
"""

from __future__ import annotations

from typing import ClassVar, Final

from rtclient.errors import Error, LimitError, RequestError, RightsError, ServerError, StateError

__all__ = [
    "ERRORS",
    "AlreadyCancelled",
    "AlreadyConfirmed",
    "AlreadyRefunded",
    "Banned",
    "Blocked",
    "ChallengeFailed",
    "Conflict",
    "DeadlineExceeded",
    "DiskFull",
    "Duplicate",
    "Expired",
    "Forbidden",
    "FrameTooLarge",
    "InternalError",
    "InvalidOption",
    "InvalidParams",
    "KeyReused",
    "LimitReached",
    "MemoryFull",
    "NoPass",
    "NotFound",
    "NotOpen",
    "OutOfRange",
    "OutcomeUnknown",
    "Overloaded",
    "ProtocolError",
    "RateLimited",
    "SoldOut",
    "TokenExpired",
    "Unauthenticated",
    "UnknownMethod",
    "UnsupportedVersion",
]


class ProtocolError(RequestError):
    """Send frames as protocol.md section 2 describes them."""

    code = 100
    name = "protocol_error"
    retryable = False
    advice: ClassVar[str] = "Send frames as protocol.md section 2 describes them."


class FrameTooLarge(RequestError):
    """Split the request; hello tells the limit."""

    code = 101
    name = "frame_too_large"
    retryable = False
    advice: ClassVar[str] = "Split the request; hello tells the limit."


class UnknownMethod(RequestError):
    """Use a method that `help` lists; the server may be older."""

    code = 102
    name = "unknown_method"
    retryable = False
    advice: ClassVar[str] = "Use a method that `help` lists; the server may be older."


class InvalidParams(RequestError):
    """Correct the parameter that the message names."""

    code = 103
    name = "invalid_params"
    retryable = False
    advice: ClassVar[str] = "Correct the parameter that the message names."


class InvalidOption(RequestError):
    """Correct the option that the message names."""

    code = 104
    name = "invalid_option"
    retryable = False
    advice: ClassVar[str] = "Correct the option that the message names."


class KeyReused(RequestError):
    """Use a fresh idempotency key for a request with other arguments."""

    code = 105
    name = "key_reused"
    retryable = False
    advice: ClassVar[str] = "Use a fresh idempotency key for a request with other arguments."


class Duplicate(RequestError):
    """Nothing to do: this key or source offset was applied before."""

    code = 106
    name = "duplicate"
    retryable = False
    advice: ClassVar[str] = "Nothing to do: this key or source offset was applied before."


class DeadlineExceeded(RequestError):
    """Nothing was done; send it again with a longer timeout_ms."""

    code = 107
    name = "deadline_exceeded"
    retryable = True
    advice: ClassVar[str] = "Nothing was done; send it again with a longer timeout_ms."


class UnsupportedVersion(RequestError):
    """Use a protocol version that the message names."""

    code = 108
    name = "unsupported_version"
    retryable = False
    advice: ClassVar[str] = "Use a protocol version that the message names."


class NotFound(StateError):
    """Create it first, or correct the name."""

    code = 200
    name = "not_found"
    retryable = False
    advice: ClassVar[str] = "Create it first, or correct the name."


class Conflict(StateError):
    """What exists does not allow it; the message says why."""

    code = 201
    name = "conflict"
    retryable = False
    advice: ClassVar[str] = "What exists does not allow it; the message says why."


class LimitReached(StateError):
    """Remove something first, or raise the limit."""

    code = 202
    name = "limit_reached"
    retryable = False
    advice: ClassVar[str] = "Remove something first, or raise the limit."


class OutOfRange(StateError):
    """Keep the result within what the message names; nothing changed."""

    code = 203
    name = "out_of_range"
    retryable = False
    advice: ClassVar[str] = "Keep the result within what the message names; nothing changed."


class Banned(StateError):
    """The member was banned from this board."""

    code = 204
    name = "banned"
    retryable = False
    advice: ClassVar[str] = "The member was banned from this board."


class SoldOut(StateError):
    """Unless details.final is true, units that are held may still come back."""

    code = 205
    name = "sold_out"
    retryable = False
    advice: ClassVar[str] = "Unless details.final is true, units that are held may still come back."


class Expired(StateError):
    """Reserve again; confirm in time, or extend the hold."""

    code = 206
    name = "expired"
    retryable = False
    advice: ClassVar[str] = "Reserve again; confirm in time, or extend the hold."


class AlreadyConfirmed(StateError):
    """The hold was sold: see its order."""

    code = 207
    name = "already_confirmed"
    retryable = False
    advice: ClassVar[str] = "The hold was sold: see its order."


class AlreadyCancelled(StateError):
    """Reserve again."""

    code = 208
    name = "already_cancelled"
    retryable = False
    advice: ClassVar[str] = "Reserve again."


class AlreadyRefunded(StateError):
    """Nothing of the order is left to refund."""

    code = 209
    name = "already_refunded"
    retryable = False
    advice: ClassVar[str] = "Nothing of the order is left to refund."


class NotOpen(StateError):
    """The details tell the state of the sale."""

    code = 210
    name = "not_open"
    retryable = False
    advice: ClassVar[str] = "The details tell the state of the sale."


class NoPass(StateError):
    """Join the queue, and reserve while your pass lasts."""

    code = 211
    name = "no_pass"
    retryable = False
    advice: ClassVar[str] = "Join the queue, and reserve while your pass lasts."


class Overloaded(LimitError):
    """Wait a moment, then send it again."""

    code = 300
    name = "overloaded"
    retryable = True
    advice: ClassVar[str] = "Wait a moment, then send it again."


class DiskFull(LimitError):
    """Nothing was done; make room on the server's disk, then send it again."""

    code = 301
    name = "disk_full"
    retryable = True
    advice: ClassVar[str] = "Nothing was done; make room on the server's disk, then send it again."


class MemoryFull(LimitError):
    """Nothing was done; delete something, or raise limits.memory_max."""

    code = 302
    name = "memory_full"
    retryable = True
    advice: ClassVar[str] = "Nothing was done; delete something, or raise limits.memory_max."


class RateLimited(LimitError):
    """Wait as long as the details say."""

    code = 303
    name = "rate_limited"
    retryable = True
    advice: ClassVar[str] = "Wait as long as the details say."


class Forbidden(RightsError):
    """Act with the role that the message names."""

    code = 400
    name = "forbidden"
    retryable = False
    advice: ClassVar[str] = "Act with the role that the message names."


class Unauthenticated(RightsError):
    """Say who you are with a token or a key that is valid."""

    code = 401
    name = "unauthenticated"
    retryable = False
    advice: ClassVar[str] = "Say who you are with a token or a key that is valid."


class TokenExpired(RightsError):
    """Fetch a fresh token, then send it again."""

    code = 402
    name = "token_expired"
    retryable = False
    advice: ClassVar[str] = "Fetch a fresh token, then send it again."


class Blocked(RightsError):
    """This user was sent away; wait as long as it says."""

    code = 403
    name = "blocked"
    retryable = False
    advice: ClassVar[str] = "This user was sent away; wait as long as it says."


class ChallengeFailed(RightsError):
    """Solve the challenge of this sale, and send its token."""

    code = 404
    name = "challenge_failed"
    retryable = False
    advice: ClassVar[str] = "Solve the challenge of this sale, and send its token."


class InternalError(ServerError):
    """A defect of the server; please report it."""

    code = 500
    name = "internal_error"
    retryable = False
    advice: ClassVar[str] = "A defect of the server; please report it."


class OutcomeUnknown(ServerError):
    """It was applied and may yet be lost; send it again only with the same idempotency key."""

    code = 501
    name = "outcome_unknown"
    retryable = False
    advice: ClassVar[str] = (
        "It was applied and may yet be lost; send it again only with the same idempotency key."
    )


ERRORS: Final[dict[str, type[Error]]] = {
    "protocol_error": ProtocolError,
    "frame_too_large": FrameTooLarge,
    "unknown_method": UnknownMethod,
    "invalid_params": InvalidParams,
    "invalid_option": InvalidOption,
    "key_reused": KeyReused,
    "duplicate": Duplicate,
    "deadline_exceeded": DeadlineExceeded,
    "unsupported_version": UnsupportedVersion,
    "not_found": NotFound,
    "conflict": Conflict,
    "limit_reached": LimitReached,
    "out_of_range": OutOfRange,
    "banned": Banned,
    "sold_out": SoldOut,
    "expired": Expired,
    "already_confirmed": AlreadyConfirmed,
    "already_cancelled": AlreadyCancelled,
    "already_refunded": AlreadyRefunded,
    "not_open": NotOpen,
    "no_pass": NoPass,
    "overloaded": Overloaded,
    "disk_full": DiskFull,
    "memory_full": MemoryFull,
    "rate_limited": RateLimited,
    "forbidden": Forbidden,
    "unauthenticated": Unauthenticated,
    "token_expired": TokenExpired,
    "blocked": Blocked,
    "challenge_failed": ChallengeFailed,
    "internal_error": InternalError,
    "outcome_unknown": OutcomeUnknown,
}
