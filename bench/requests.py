"""What goes over the wire: requests as bytes, and replies counted without decoding them.

Ids are one byte, so that all requests of one shape have the same size; they repeat, which the
protocol allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from rtserver.wire.frames import HEADER, HEADER_BYTES

__all__ = [
    "Batch",
    "CountReplies",
    "RequestFailed",
    "command",
    "count_frames",
    "count_lines",
    "frame",
    "reply_frame",
]

Batch = tuple[bytes, int]  # what is sent at once, and how many replies it brings
CountReplies = Callable[[bytes], tuple[int, int]]  # -> complete replies, bytes they take

_IDS = 128  # ids below it take one byte


class RequestFailed(Exception):
    """The peer refused a request that a benchmark sends."""


# --- binary frames ---


def frame(number: int, method: str, *params: Any) -> bytes:
    """A request of rtserver."""
    return _framed((0, number % _IDS, method, params))


def reply_frame(number: int, result: Any) -> bytes:
    """What rtserver answers to `frame(number, ...)`."""
    return _framed((1, number % _IDS, None, result))


def _framed(body: tuple[Any, ...]) -> bytes:
    data = msgpack.packb(body)
    return HEADER.pack(len(data)) + data


def count_frames(data: bytes) -> tuple[int, int]:
    """Walks from length to length. That none is an error, `server.stats` tells afterwards."""
    length_at = HEADER.unpack_from
    size = len(data)
    count = stop = 0
    while stop + HEADER_BYTES <= size:
        after = stop + HEADER_BYTES + length_at(data, stop)[0]
        if after > size:
            break
        stop = after
        count += 1
    return count, stop


# --- RESP, the protocol of redis ---


def command(*words: str) -> bytes:
    """A request of redis."""
    parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{parts}".encode()


def count_lines(data: bytes) -> tuple[int, int]:
    """Counts integer replies, one a line; none of ours is negative, so a minus is an error."""
    if b"-" in data:
        raise RequestFailed(data.decode(errors="replace"))
    return data.count(b"\n"), len(data)
