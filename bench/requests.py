"""What goes over the wire: requests as bytes, and the batches in which the generator sends them.

Ids are one byte, so that all requests of one shape have the same size; they repeat, which the
protocol allows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from rtserver.wire.frames import HEADER

__all__ = ["BATCH_HEAD", "Batch", "command", "frame", "reply_frame", "write_batches"]

BATCH_HEAD = struct.Struct("<3I")  # bytes, replies, publishes; load.c reads it
_IDS = 128  # ids below it take one byte


class Batch(NamedTuple):
    """What is sent at once, how many replies it brings, and how many messages to subscribers."""

    data: bytes
    replies: int
    publishes: int = 0


def write_batches(path: Path, batches: Iterable[Batch]) -> None:
    """The file that the load generator sends from."""
    with path.open("wb") as file:
        for data, replies, publishes in batches:
            file.write(BATCH_HEAD.pack(len(data), replies, publishes))
            file.write(data)


def frame(number: int, method: str, *params: Any, **options: Any) -> bytes:
    """A request of rtserver."""
    return _framed((0, number % _IDS, method, params, *([options] if options else [])))


def reply_frame(number: int, result: Any) -> bytes:
    """What rtserver answers to `frame(number, ...)`."""
    return _framed((1, number % _IDS, None, result))


def _framed(body: tuple[Any, ...]) -> bytes:
    data = msgpack.packb(body)
    return HEADER.pack(len(data)) + data


def command(*words: str) -> bytes:
    """A request of redis, and a message as its subscribers get it."""
    parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{parts}".encode()
