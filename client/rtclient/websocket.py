"""The client's side of a WebSocket (RFC 6455), without I/O: a tunnel for the bytes of the wire.

Bytes go in by `receive`, which gives the bytes that were carried, piece by piece as they come; so
no message is put together here, and its memory is that of one control frame. What has to be
answered (pongs, the other side's Close) lies in `take_answers`. Every frame is masked with a fresh
key. There are no extensions. A violation of the standard is a ValueError: the connection is over.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from rtclient.errors import ConnectionLost, Error

__all__ = ["SUBPROTOCOL", "Tunnel"]

SUBPROTOCOL: Final = "rt1.msgpack"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HEAD_BYTES_MAX: Final = 64 * 1024  # of the answer to the handshake
_DETAIL_BYTES_MAX: Final = 300  # of a refusal's body, for the message of the error
_CONTROL_BYTES_MAX: Final = 125
_GOES_ON: Final = 0x0
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_FIN: Final = 0x80
_RESERVED_BITS: Final = 0x70
_MASKED: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_NORMAL: Final = 1000
_OWN_HEADERS: Final = frozenset(
    ("host", "upgrade", "connection", "content-length", "transfer-encoding")
)
_TEMPORARY: Final = frozenset((408, 425, 429))  # statuses below 500 after which to try again


class _State(Enum):
    SHAKING = auto()  # hands: the HTTP answer is still to come
    OPEN = auto()
    CLOSED = auto()  # a Close came, or ours was sent: nothing that comes counts


class Tunnel:
    """One WebSocket. `close_code` and `close_reason` are what the other side closed with."""

    __slots__ = (
        "_accept",
        "_answers",
        "_fragmented",
        "_held",
        "_in_frame",
        "_left",
        "_opcode",
        "_state",
        "close_code",
        "close_reason",
        "request",
    )

    def __init__(self, authority: str, path: str, headers: Mapping[str, str]) -> None:
        key = base64.b64encode(secrets.token_bytes(16))
        self._accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
        self.request = _request(authority, path, key.decode(), headers)
        self.close_code: int | None = None
        self.close_reason = ""
        self._state = _State.SHAKING
        self._held = b""  # a head that is not complete, or a control frame's payload
        self._in_frame = False  # its head came, its payload not all
        self._left = 0  # bytes of that payload that are still to come
        self._opcode = _GOES_ON  # of the present frame
        self._fragmented = False  # a message goes on in the next data frame
        self._answers: list[bytes] = []

    @property
    def is_open(self) -> bool:
        """Whether hands were shaken, and nobody has closed."""
        return self._state is _State.OPEN

    @property
    def is_closed(self) -> bool:
        return self._state is _State.CLOSED

    @property
    def between(self) -> bool:
        """Whether the stream is at the end of a frame."""
        return not self._held and not self._in_frame

    # --- out ---

    def message(self, data: bytes) -> bytes:
        """A binary message that holds these bytes."""
        return _frame(_BINARY, data)

    def close(self) -> bytes:
        """The Close frame that says goodbye; nothing where it was said already."""
        if self._state is not _State.OPEN:
            return b""
        self._state = _State.CLOSED
        return _frame(_CLOSE, _NORMAL.to_bytes(2, "big"))

    def take_answers(self) -> bytes:
        """What is to be sent because of what came."""
        answers = b"".join(self._answers)
        self._answers.clear()
        return answers

    # --- in ---

    def receive(self, data: bytes) -> bytes:
        """The bytes that were carried to us. Raises ValueError where the other side breaks the
        standard, and ConnectionLost where it refuses the handshake."""
        if self._held:
            data, self._held = self._held + data, b""
        position = self._shake(data) if self._state is _State.SHAKING else 0
        carried: list[bytes] = []
        while self._state is _State.OPEN:
            if not self._in_frame:
                start = self._begin(data, position)
                if start is None:
                    break
                position = start
            stop = min(position + self._left, len(data))
            if self._opcode < _CLOSE:
                carried.append(data[position:stop])
                self._left -= stop - position
            elif stop - position == self._left:
                self._answer(data[position:stop])
                self._left = 0
            else:
                break
            position = stop
            self._in_frame = self._left > 0
            if self._in_frame:
                break
        if self._state is not _State.CLOSED:
            self._held = data[position:]
        return b"".join(carried)

    def _shake(self, data: bytes) -> int:
        """Where the first frame begins, when the answer to the handshake is complete."""
        head, end, body = data.partition(b"\r\n\r\n")
        if len(head) > _HEAD_BYTES_MAX:
            raise ValueError("the answer to the WebSocket handshake has no end")
        if not end:
            return 0
        line, *lines = head.decode("latin-1").split("\r\n")
        version, _, status = line.partition(" ")
        if not version.startswith("HTTP/1.") or not status[:3].isdigit():
            raise ValueError(f"the answer to the WebSocket handshake is {line[:100]!r}, not HTTP")
        if status[:3] != "101":
            raise _refused(status, body)
        headers: dict[str, str] = {}
        for name, _, value in (line.partition(":") for line in lines):
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self._check(headers)
        self._state = _State.OPEN
        return len(head) + len(end)

    def _check(self, headers: Mapping[str, str]) -> None:
        """RFC 6455 section 4.1: what the server has to say."""
        expected = {
            "upgrade": "websocket",
            "connection": "upgrade",
            "sec-websocket-accept": self._accept,
            "sec-websocket-protocol": SUBPROTOCOL,
        }
        for name, value in expected.items():
            said = headers.get(name, "")
            exact = name.startswith("sec-")
            if said != value if exact else value not in _tokens(said):
                raise ValueError(f"the WebSocket handshake answers {name}: {said!r}, not {value!r}")
        if "sec-websocket-extensions" in headers:
            raise ValueError("the server uses a WebSocket extension that nobody asked for")

    def _begin(self, data: bytes, position: int) -> int | None:
        """Reads the head of a frame: where its payload begins, None while the head is not
        complete."""
        if len(data) - position < 2:
            return None
        first, second = data[position], data[position + 1]
        opcode = first & 0x0F
        if first & _RESERVED_BITS:
            raise ValueError("a WebSocket frame has reserved bits set")
        if second & _MASKED:
            raise ValueError("a WebSocket frame from the server is masked")
        length, start = second, position + 2
        if length > _CONTROL_BYTES_MAX:
            size = 2 if length == _LENGTH_16 else 8
            if len(data) - start < size:
                return None
            length = int.from_bytes(data[start : start + size], "big")
            start += size
            if length >> 63 or length <= (_CONTROL_BYTES_MAX if size == 2 else 0xFFFF):
                raise ValueError(f"a WebSocket frame has its length {length} in {size} bytes")
        is_last = bool(first & _FIN)
        if opcode >= _CLOSE:
            self._check_control(opcode, length, is_last)
        elif opcode not in (_GOES_ON, _BINARY):
            raise ValueError(f"a WebSocket frame has the opcode {opcode}, expected binary")
        elif (opcode == _GOES_ON) is not self._fragmented:
            raise ValueError("a fragmented WebSocket message goes on wrongly")
        else:
            self._fragmented = not is_last
        self._opcode = opcode
        self._left = length
        self._in_frame = True
        return start

    @staticmethod
    def _check_control(opcode: int, length: int, is_last: bool) -> None:
        if opcode not in (_CLOSE, _PING, _PONG):
            raise ValueError(f"a WebSocket frame has the unknown opcode {opcode}")
        if length > _CONTROL_BYTES_MAX or not is_last:
            raise ValueError("a WebSocket control frame is too long or fragmented")

    def _answer(self, payload: bytes) -> None:
        """A control frame came."""
        if self._opcode == _PING:
            self._answers.append(_frame(_PONG, payload))
        elif self._opcode == _CLOSE:
            if len(payload) == 1:
                raise ValueError("a Close frame has half a code")
            if payload:
                self.close_code = int.from_bytes(payload[:2], "big")
                self.close_reason = payload[2:].decode("utf-8", "replace")
            self._answers.append(_frame(_CLOSE, payload[:2]))
            self._state = _State.CLOSED


def _request(authority: str, path: str, key: str, headers: Mapping[str, str]) -> bytes:
    """The opening handshake. Raises ValueError for headers that cannot be sent."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {authority}"]
    lines += ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}"]
    lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"]
    for name, value in headers.items():
        low = name.lower()
        if low in _OWN_HEADERS or low.startswith("sec-websocket-"):
            raise ValueError(f"the header {name!r} is the handshake's own")
        lines.append(f"{name}: {value}")
    if any(ord(letter) < ord(" ") for line in lines for letter in line):
        raise ValueError("a header or the path has control characters")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _refused(status: str, body: bytes) -> Error:
    """What a proxy or the server answered in place of 101. Raised, not returned as a violation:
    some refusals pass by."""
    code = int(status[:3])
    detail = body[:_DETAIL_BYTES_MAX].decode("utf-8", "replace").strip()
    return ConnectionLost(
        f"the WebSocket handshake was refused: {status}{': ' if detail else ''}{detail}",
        {"status": code},
        retryable=code >= 500 or code in _TEMPORARY,
    )


def _tokens(value: str) -> list[str]:
    return [token.strip().lower() for token in value.split(",")]


def _frame(opcode: int, payload: bytes) -> bytes:
    """A whole message in one frame, masked."""
    length = len(payload)
    if length <= _CONTROL_BYTES_MAX:
        head = bytes((_FIN | opcode, _MASKED | length))
    elif length <= 0xFFFF:
        head = bytes((_FIN | opcode, _MASKED | _LENGTH_16)) + length.to_bytes(2, "big")
    else:
        head = bytes((_FIN | opcode, _MASKED | _LENGTH_64)) + length.to_bytes(8, "big")
    key = secrets.token_bytes(4)
    return head + key + _masked(payload, key)


def _masked(payload: bytes, key: bytes) -> bytes:
    """RFC 6455 section 5.3, as one sum of large numbers: a byte at a time would take a hundred
    times as long."""
    length = len(payload)
    mask = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(length, "big")
