"""WebSocket, the server's side of RFC 6455, without any I/O.

Owns the handshake, the way from bytes to messages (`Parser`) and from payloads to frames.
Promises: whatever breaks the standard is a `Violation` with the close code that says so, as early
as the bytes allow (a length before its body, a bad character before the end of its frame). A
message costs time linear in its bytes however they arrive; an idle parser holds no buffer.
Extensions are not offered, so that one encoded frame serves all subscribers.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from rtserver.wire.request import Request

__all__ = [
    "BINARY",
    "CLOSE",
    "PING",
    "PONG",
    "TEXT",
    "HandshakeRefused",
    "Parser",
    "Violation",
    "accept",
    "close_code",
    "close_frame",
    "frame",
]

# Opcodes (section 5.2).
CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

# Close codes (section 7.4.1).
NO_STATUS: Final = 1005  # stands for a Close frame without a code, is never sent
BROKEN: Final = 1002
UNSUPPORTED: Final = 1003
BAD_TEXT: Final = 1007
TOO_BIG: Final = 1009

# Registered ones that may stand in a frame; 1004 is reserved, 1005, 1006 and 1015 are never sent.
_SENDABLE_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))

_VERSION = "13"
_UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade"}  # what 426 has to name
_KEY_BYTES = 16
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_FINAL_BIT = 0x80
_RESERVED_BITS = 0x70
_OPCODE_BITS = 0x0F
_CONTROL_BIT = 0x08
_MASK_BIT = 0x80
_LENGTH_BITS = 0x7F
_CONTROL_BYTES_MAX = 125
_LENGTH_16 = 126  # as the short length: two bytes of length follow
_LENGTH_64 = 127  # eight follow
_MASK_BYTES = 4
_KNOWN = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_REASON_BYTES_MAX = _CONTROL_BYTES_MAX - 2

_short = struct.Struct(">BB").pack
_medium = struct.Struct(">BBH").pack
_long = struct.Struct(">BBQ").pack
_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")


# --- handshake ---


class HandshakeRefused(Exception):
    """The request is no handshake that this server accepts: an HTTP status, what was wrong and what
    was expected, and headers that the answer needs."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


def accept(request: Request, protocols: Sequence[str]) -> tuple[bytes, str | None]:
    """The response to a client's handshake (section 4.2) and the first of its sub-protocols that we
    have; None where it asked for none. Raises HandshakeRefused."""
    _check_upgrade(request)
    version = request.header("sec-websocket-version")
    if version != _VERSION:
        raise HandshakeRefused(
            426,
            f"Sec-WebSocket-Version is {version!r}, expected {_VERSION}",
            {"Sec-WebSocket-Version": _VERSION, **_UPGRADE},
        )
    key = _checked_key(request)
    protocol = _choose(_words(request, "sec-websocket-protocol"), protocols)
    digest = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    chosen = "" if protocol is None else f"Sec-WebSocket-Protocol: {protocol}\r\n"
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {digest.decode('ascii')}\r\n"
        f"{chosen}\r\n"
    ).encode("ascii"), protocol


def _check_upgrade(request: Request) -> None:
    if request.method != "GET":
        raise HandshakeRefused(
            405, f"the method is {request.method}, expected GET", {"Allow": "GET"}
        )
    if request.version != "1.1":
        raise HandshakeRefused(400, f"a WebSocket begins with HTTP/1.1, not {request.version}")
    if request.body:
        raise HandshakeRefused(400, "a handshake has no body")
    for name, expected in (("upgrade", "websocket"), ("connection", "upgrade")):
        if expected not in map(str.lower, _words(request, name)):
            raise HandshakeRefused(
                426,
                f"{name.capitalize()} is {request.header(name)!r}, expected {expected}:"
                " this path speaks WebSocket",
                _UPGRADE,
            )


def _checked_key(request: Request) -> bytes:
    """Sec-WebSocket-Key as it came: base64 of 16 bytes."""
    key = request.header("sec-websocket-key") or ""
    try:
        length = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        length = -1
    if length != _KEY_BYTES:
        raise HandshakeRefused(
            400, f"Sec-WebSocket-Key is {key[:64]!r}, expected {_KEY_BYTES} bytes as base64"
        )
    return key.encode("ascii")


def _choose(asked: list[str], protocols: Sequence[str]) -> str | None:
    for name in asked:
        if name in protocols:
            return name
    if asked:
        raise HandshakeRefused(
            400,
            f"Sec-WebSocket-Protocol is {', '.join(asked)[:64]!r}, expected one of"
            f" {', '.join(protocols)}",
        )
    return None


def _words(request: Request, name: str) -> list[str]:
    """The elements of a header that is a list (RFC 9110 section 5.6.1)."""
    words = [word.strip(" \t") for word in (request.header(name) or "").split(",")]
    return [word for word in words if word]


# --- frames of the server ---


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole message or control frame, unmasked as servers send it."""
    length = len(payload)
    first = _FINAL_BIT | opcode
    if length < _LENGTH_16:
        return _short(first, length) + payload
    if length < 1 << 16:
        return _medium(first, _LENGTH_16, length) + payload
    return _long(first, _LENGTH_64, length) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A Close frame; its reason ends where it no longer fits."""
    if code == NO_STATUS:
        return frame(CLOSE, b"")
    text = reason.encode("utf-8")[:_REASON_BYTES_MAX].decode("utf-8", "ignore")
    return frame(CLOSE, code.to_bytes(2, "big") + text.encode("utf-8"))


# --- frames of the client ---


class Violation(Exception):
    """The peer broke the standard or a limit; nothing after it can be read."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Parser:
    """The messages and control frames in the bytes of one client.

    message_bytes_max: of one message, all its fragments together. fragments_max: of one message,
    empty ones counted. accepts: the kinds of messages that may come.
    """

    __slots__ = (
        "_accepts",
        "_buffer",
        "_collected",
        "_decoder",
        "_fragments",
        "_fragments_max",
        "_is_last",
        "_left",
        "_mask",
        "_message_bytes_max",
        "_opcode",
        "_position",
        "ended",
        "frames",
    )

    def __init__(
        self, message_bytes_max: int, fragments_max: int, accepts: Sequence[int] = (TEXT, BINARY)
    ) -> None:
        self.ended = False  # after a Close or a Violation: what follows is not read
        self.frames = 0  # whose headers were read
        self._message_bytes_max = message_bytes_max
        self._fragments_max = fragments_max
        self._accepts = accepts
        self._buffer = b""  # received and not parsed, from `_position` on
        self._position = 0
        # of the message under way:
        self._opcode = CONTINUATION  # none
        self._fragments = 0
        self._collected: bytearray | None = None  # its payload so far, where it came in pieces
        self._decoder: codecs.IncrementalDecoder | None = None  # of a text
        # of its frame under way:
        self._left = 0  # bytes of the payload that are to come
        self._mask = b""
        self._is_last = True

    @property
    def kept(self) -> int:
        """Bytes that were received and are part of no message that was handed out."""
        return len(self._buffer) - self._position + len(self._collected or b"")

    def receive(self, data: bytes) -> None:
        if self._position < len(self._buffer):
            self._buffer = self._buffer[self._position :] + data
        else:
            self._buffer = data
        self._position = 0

    def next(self) -> tuple[int, bytes] | None:
        """The next whole message or control frame as (opcode, payload): texts are valid UTF-8 and a
        Close is well formed. None when more bytes are needed. Raises Violation, after which there
        is nothing more."""
        try:
            found = self._next()
        except Violation:
            self.ended = True
            raise
        finally:
            if self.ended or self._position == len(self._buffer):
                self._buffer = b""
                self._position = 0
        return found

    def _next(self) -> tuple[int, bytes] | None:
        found = None
        while found is None and not self.ended:
            if self._left:
                if self._position == len(self._buffer):
                    break
                found = self._collect()
            else:
                header = self._read_header()
                if header is None:
                    break
                opcode, length = header
                if opcode & _CONTROL_BIT:
                    found = self._control(opcode, length)
                else:
                    found = self._begin(opcode, length)
        return found

    # --- headers ---

    def _read_header(self) -> tuple[int, int] | None:
        """Moves to the payload of the next frame: (opcode, length). None while its header, or any
        byte of a control frame, is missing."""
        buffer = self._buffer
        start = self._position
        there = len(buffer) - start
        if there < 2:
            return None
        first = buffer[start]
        second = buffer[start + 1]
        opcode = first & _OPCODE_BITS
        is_control = opcode & _CONTROL_BIT
        _check_bits(first, second)
        if not is_control:
            self._check_order(opcode)
        length = second & _LENGTH_BITS
        size = 2
        if length >= _LENGTH_16:
            size = 4 if length == _LENGTH_16 else 10
            if there < size:
                return None
            length = _long_length(buffer[start + 2 : start + size])
        if not is_control:
            self._check_size(length)
        size += _MASK_BYTES
        if there < size + (length if is_control else 0):
            return None
        self.frames += 1
        self._position = start + size
        self._mask = buffer[self._position - _MASK_BYTES : self._position]
        if not is_control:
            self._is_last = first >= _FINAL_BIT
        return opcode, length

    def _check_order(self, opcode: int) -> None:
        """Whether a data frame may come now (section 5.4)."""
        if opcode == CONTINUATION:
            if self._opcode == CONTINUATION:
                raise Violation(BROKEN, "a continuation without a message")
            return
        if self._opcode != CONTINUATION:
            raise Violation(BROKEN, "a new message before the last fragment of the one before")
        if opcode not in self._accepts:
            expected = "binary" if opcode == TEXT else "text"
            raise Violation(UNSUPPORTED, f"this sub-protocol takes {expected} messages")

    def _check_size(self, length: int) -> None:
        """Refuses what would be too large before any of it is read."""
        collected = self._collected
        total = length if collected is None else length + len(collected)
        if total > self._message_bytes_max:
            raise Violation(
                TOO_BIG, f"a message of {total} bytes or more, at most {self._message_bytes_max}"
            )
        if self._fragments >= self._fragments_max:
            raise Violation(TOO_BIG, f"a message of more than {self._fragments_max} fragments")

    # --- payloads ---

    def _control(self, opcode: int, length: int) -> tuple[int, bytes]:
        end = self._position + length
        payload = _unmask(self._buffer[self._position : end], self._mask)
        self._position = end
        if opcode == CLOSE:
            _check_close(payload)
            self.ended = True
        return opcode, payload

    def _begin(self, opcode: int, length: int) -> tuple[int, bytes] | None:
        """A data frame: the message, where it is whole and all here, as most are."""
        start = self._position
        end = start + length
        if self._is_last and opcode != CONTINUATION and end <= len(self._buffer):
            self._position = end
            payload = _unmask(self._buffer[start:end], self._mask)
            if opcode == TEXT and not payload.isascii():
                _check_text(payload)
            return opcode, payload
        if opcode != CONTINUATION:
            self._opcode = opcode
            self._collected = bytearray()
            self._decoder = _new_utf8_decoder() if opcode == TEXT else None
        self._fragments += 1
        self._left = length
        return self._collect()

    def _collect(self) -> tuple[int, bytes] | None:
        """Takes what is here of a frame's payload; the message, when that was the last of it."""
        assert self._collected is not None, "a message is under way"
        start = self._position
        piece = self._buffer[start : start + self._left]
        size = len(piece)
        self._position = start + size
        self._left -= size
        payload = _unmask(piece, self._mask)
        self._mask = self._mask[size % _MASK_BYTES :] + self._mask[: size % _MASK_BYTES]
        self._collected += payload
        is_whole = self._is_last and not self._left
        if self._decoder is not None:
            try:
                self._decoder.decode(payload, is_whole)
            except UnicodeDecodeError as error:
                raise _bad_text(error) from None
        return self._complete() if is_whole else None

    def _complete(self) -> tuple[int, bytes]:
        assert self._collected is not None, "a message is under way"
        opcode, payload = self._opcode, bytes(self._collected)
        self._opcode = CONTINUATION
        self._fragments = 0
        self._collected = None
        self._decoder = None
        return opcode, payload


def _check_bits(first: int, second: int) -> None:
    """What the first two bytes of a client's frame alone can break (sections 5.1, 5.2, 5.5)."""
    opcode = first & _OPCODE_BITS
    if first & _RESERVED_BITS:
        raise Violation(BROKEN, "a reserved bit is set, and no extension was negotiated")
    if opcode not in _KNOWN:
        raise Violation(BROKEN, f"opcode {opcode:#x} is reserved")
    if not second & _MASK_BIT:
        raise Violation(BROKEN, "a frame of a client must be masked")
    if opcode & _CONTROL_BIT:
        if not first & _FINAL_BIT:
            raise Violation(BROKEN, "a control frame must not be fragmented")
        if second & _LENGTH_BITS > _CONTROL_BYTES_MAX:
            raise Violation(BROKEN, f"a control frame has at most {_CONTROL_BYTES_MAX} bytes")


def _long_length(encoded: bytes) -> int:
    """A length of two or eight bytes, which must be the shortest that can say it."""
    length = int.from_bytes(encoded, "big")
    if length >> 63:
        raise Violation(BROKEN, "the highest bit of a length of 64 bits must be 0")
    if length < (_LENGTH_16 if len(encoded) == 2 else 1 << 16):
        raise Violation(BROKEN, f"a length of {length} in {len(encoded)} bytes is not the shortest")
    return length


def _check_close(payload: bytes) -> None:
    """A Close carries nothing, or a code that may be sent and a reason (sections 5.5.1, 7.4)."""
    if not payload:
        return
    if len(payload) == 1:
        raise Violation(BROKEN, "a close code has two bytes")
    code = close_code(payload)
    if code not in _SENDABLE_CODES and not 3000 <= code <= 4999:
        raise Violation(BROKEN, f"{code} is no close code that may be sent")
    _check_text(payload[2:])


def close_code(payload: bytes) -> int:
    """The code in a Close frame."""
    return int.from_bytes(payload[:2], "big") if payload else NO_STATUS


def _check_text(payload: bytes) -> None:
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad_text(error) from None


def _bad_text(error: UnicodeDecodeError) -> Violation:
    return Violation(BAD_TEXT, f"text is not valid UTF-8: {error.reason}")


def _unmask(data: bytes, mask: bytes) -> bytes:
    """data XOR the mask, repeated (section 5.3): as one large integer, the quickest that plain
    Python can."""
    size = len(data)
    key = (mask * (size // _MASK_BYTES + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")
