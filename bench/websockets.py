"""WebSockets as bytes, as the generator sends them: the handshake, masked frames, what came back.

RFC 6455 only as far as a benchmark needs it: frames of up to 64 KiB to the server, whole messages
from it.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from bench.requests import frame

__all__ = [
    "ACCEPT",
    "Canned",
    "Door",
    "bodies",
    "capture",
    "door",
    "masked",
    "messages",
    "records",
    "subscriber",
    "write_records",
]

_KEY = base64.b64encode(bytes(range(16))).decode()
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
ACCEPT = base64.b64encode(hashlib.sha1((_KEY + _GUID).encode()).digest()).decode()
_MASK = bytes((0x5A, 0xA5, 0x3C, 0xC3))
_BINARY = 0x82  # with FIN
_MASKED = 0x80
_ANSWER_S = 30
_RECORD = struct.Struct("<I")
_LENGTH = struct.Struct(">I")


class Door(NamedTuple):
    """How a socket becomes a listener: its handshake, what it says then, what it waits for."""

    handshake: bytes
    hello: bytes = b""  # masked frames
    replies: int = 0
    whole: bool = False  # each WebSocket message counts as one; else the frames in it


def door(path: str, *requests: bytes, protocol: str | None = None) -> Door:
    """To `path`, with requests of rtserver after the handshake."""
    head = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {_KEY}",
        "Sec-WebSocket-Version: 13",
        *([f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []),
    ]
    handshake = ("\r\n".join(head) + "\r\n\r\n").encode()
    return Door(handshake, b"".join(map(masked, requests)), len(requests), protocol is None)


def subscriber(channel: str) -> Door:
    """A subscriber of rtserver."""
    return door("/ws", frame(0, "channel.subscribe", channel), protocol="rt1.msgpack")


class Canned(NamedTuple):
    """What a server sends to a listener, and to a publisher, to be sent again without thought."""

    opened: bytes
    hello: bytes
    push: bytes
    reply: bytes


def capture(address: tuple[str, int], listener: Door, publish: bytes) -> Canned:
    """The bytes of a server: to one who opens, and to all when somebody publishes."""
    with (
        socket.create_connection(address, timeout=_ANSWER_S) as first,
        socket.create_connection(address, timeout=_ANSWER_S) as second,
    ):
        first.sendall(listener.handshake)
        opened = _read(first, lambda data: b"\r\n\r\n" in data)
        first.sendall(listener.hello)
        hello = _read(first, _is_message)
        second.sendall(publish)
        push = _read(first, _is_message)
        reply = _read(second, lambda data: len(data) >= 4 + int.from_bytes(data[:4], "big"))
    return Canned(opened, hello, push, reply)


def _is_message(data: bytes) -> bool:
    return next(messages(data), None) is not None


def _read(connection: socket.socket, is_all: Callable[[bytes], bool]) -> bytes:
    data = b""
    while not is_all(data):
        got = connection.recv(4096)
        if not got:
            raise RuntimeError(f"the server closed after {data!r}")
        data += got
    return data


def masked(payload: bytes) -> bytes:
    """One binary message of a client."""
    size = len(payload)
    head = bytes((_BINARY, _MASKED | size)) if size < 126 else b""
    if not head:
        head = bytes((_BINARY, _MASKED | 126)) + size.to_bytes(2, "big")
    key = int.from_bytes((_MASK * (size // 4 + 1))[:size], "big")
    return head + _MASK + (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def write_records(path: Path, items: list[bytes]) -> None:
    """As sockets.c reads them."""
    path.write_bytes(b"".join(_RECORD.pack(len(item)) + item for item in items))


def records(path: Path) -> Iterator[bytes]:
    """What sockets.c wrote."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (size,) = _RECORD.unpack_from(data, at)
        yield data[at + 4 : at + 4 + size]
        at += 4 + size


def messages(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Frames of a server, in whole: with their heads, and their payloads."""
    at = 0
    while at + 2 <= len(data):
        head, size = at + 2, data[at + 1]
        if size >= 126:
            wide = 2 if size == 126 else 8
            size = int.from_bytes(data[head : head + wide], "big")
            head += wide
        if head + size > len(data):
            return
        yield data[at : head + size], data[head : head + size]
        at = head + size


def bodies(data: bytes) -> Iterator[list[Any]]:
    """The frames of rtserver in what a socket received, as values."""
    for _, payload in messages(data):
        at = 0
        while at < len(payload):
            (size,) = _LENGTH.unpack_from(payload, at)
            yield msgpack.unpackb(payload[at + 4 : at + 4 + size])
            at += 4 + size
