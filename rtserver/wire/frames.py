"""Binary frames: a u32 big-endian length and a body of one msgpack array (protocol.md section 2).

Owns the shapes of requests, replies and pushes as bytes: `encode_*` build whole frames. Cutting a
stream into bodies is the business of the transport that holds the buffer.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from rtserver.errors import CLOSE_TOO_LARGE, FRAME_TOO_LARGE, ProtocolError
from rtserver.wire.codec import pack

__all__ = [
    "NOTIFICATION",
    "REPLY",
    "REQUEST",
    "encode_error",
    "encode_push",
    "encode_reply",
    "frame",
    "too_large",
]

REQUEST: Final = 0
REPLY: Final = 1
NOTIFICATION: Final = 2

HEADER = struct.Struct(">I")
HEADER_BYTES = HEADER.size
_header = HEADER.pack
_HEADERS_MAX = 128
_HEADERS = [_header(length) for length in range(_HEADERS_MAX)]  # of the most frequent replies


def frame(body: bytes) -> bytes:
    """A body with its length before it."""
    return _header(len(body)) + body


def encode_reply(request_id: int, result: Any) -> bytes:
    body = pack((REPLY, request_id, None, result))
    length = len(body)
    return (_HEADERS[length] if length < _HEADERS_MAX else _header(length)) + body


def encode_error(request_id: int | None, error: list[Any]) -> bytes:
    body = pack((REPLY, request_id, error, None))
    return _header(len(body)) + body


def encode_push(method: str, params: Any) -> bytes:
    body = pack((NOTIFICATION, method, params))
    return _header(len(body)) + body


def too_large(length: int, bytes_max: int) -> ProtocolError:
    """The error for a declared length beyond the limit; nothing of the body was read."""
    return ProtocolError(
        f"a frame of {length} bytes was announced, at most {bytes_max} are accepted",
        FRAME_TOO_LARGE,
        CLOSE_TOO_LARGE,
    )
