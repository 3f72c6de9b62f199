"""Bytes of the wire: msgpack bodies behind a u32 big-endian length.

Owns the shapes of requests and the cutting of a stream into values; knows nothing of sockets.
Requests are put together from parts that were packed before, so that arguments are taken as they
are at the time of the call and a request can be sent again as it was. Linear in bytes, also
where a large frame arrives in many pieces.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgpack

from rtclient import compiled

__all__ = [
    "FRAME_BYTES_MAX",
    "HEADER_BYTES",
    "Frames",
    "Packer",
    "array_head",
    "header",
    "packed_array",
    "unpack",
]

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024  # the protocol's ceiling
HEADER_BYTES: Final = 4

header = struct.Struct(">I").pack
_length_at = struct.Struct(">I").unpack_from


def unpack(body: bytes) -> Any:
    """The value of a body. Raises ValueError."""
    return msgpack.unpackb(body, raw=False, strict_map_key=False)


class Packer:
    """From values to msgpack. Each thread and each event loop has its own.

    Raises TypeError, ValueError or OverflowError where a value has no form in msgpack.
    """

    __slots__ = ("pack",)

    def __init__(self) -> None:
        self.pack: Callable[[Any], bytes] = msgpack.Packer(use_bin_type=True).pack

    def pack_params(self, params: tuple[Any, ...]) -> bytes:
        """The parameters of a call; what is left out at the end has the server's default."""
        count = len(params)
        while count and params[count - 1] is None:
            count -= 1
        return self.pack(params[:count])


def packed_array(items: Sequence[bytes]) -> bytes:
    """An array of at most 65,535 values that are packed already."""
    return array_head(len(items)) + b"".join(items)


def array_head(count: int) -> bytes:
    """What stands before the items of an array of at most 65,535 values."""
    return bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")


class Frames:
    """Cuts what arrives into values."""

    __slots__ = ("_held", "_held_bytes", "_needed")

    def __init__(self) -> None:
        self._held: list[bytes] = []  # pieces of a frame that is not complete
        self._held_bytes = 0
        self._needed = 0  # bytes until something can be cut

    @property
    def between(self) -> bool:
        """Whether the stream is at the end of a frame."""
        return not self._held

    def cut(self, data: bytes) -> tuple[list[Any], list[int]]:
        """The values that are complete now, and the bytes of each. Raises ValueError."""
        if self._held:
            self._held.append(data)
            self._held_bytes += len(data)
            if self._held_bytes < self._needed:
                return [], []
            data = b"".join(self._held)
            self._held.clear()
        values: list[Any] = []
        sizes: list[int] = []
        position = 0
        needed = HEADER_BYTES
        end = len(data)
        while end - position >= HEADER_BYTES:
            (length,) = _length_at(data, position)
            if length > FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {length} bytes was announced")
            start = position + HEADER_BYTES
            stop = start + length
            if stop > end:
                needed = HEADER_BYTES + length
                break
            values.append(unpack(data[start:stop]))
            sizes.append(length)
            position = stop
        if position < end:
            self._held.append(data[position:])
            self._held_bytes = end - position
            self._needed = needed
        return values, sizes


compiled.take_over(globals())
