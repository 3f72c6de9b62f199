"""The plainest possible WebSocket client: frames as bytes, also such as no client should send."""

from __future__ import annotations

import socket
from typing import Any

from tests.process import ANSWER_TIMEOUT_S, frame

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
MASK = b"\x37\xfa\x21\x3d"


def client_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    mask: bytes | None = MASK,
    reserved: int = 0,
    length_bytes: int | None = None,
    declared: int | None = None,
) -> bytes:
    """One frame. length_bytes: 0, 2 or 8 beside the short length, the shortest unless given.
    declared: a length that need not be true."""
    length = len(payload) if declared is None else declared
    if length_bytes is None:
        length_bytes = 0 if length < 126 else 2 if length < 1 << 16 else 8
    short = {0: length, 2: 126, 8: 127}[length_bytes]
    first = (0x80 if final else 0) | reserved << 4 | opcode
    head = bytes((first, short | (0x80 if mask else 0)))
    if length_bytes:
        head += length.to_bytes(length_bytes, "big")
    if not mask:
        return head + payload
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return head + mask + masked


def message(opcode: int, *fragments: bytes) -> bytes:
    """A message in fragments."""
    last = len(fragments) - 1
    return b"".join(
        client_frame(opcode if place == 0 else 0, fragment, final=place == last)
        for place, fragment in enumerate(fragments)
    )


def request(request_id: int, method: str, *params: Any, **options: Any) -> bytes:
    """A request as a message of rt1.msgpack."""
    return client_frame(BINARY, frame([0, request_id, method, list(params), options]))


def cut(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole frames of a server at the begin of bytes as (opcode, payload), and the rest."""
    found = []
    while len(data) >= 2:
        assert data[0] & 0xF0 == 0x80, "a server's frame is final, without reserved bits"
        assert not data[1] & 0x80, "a server's frame is not masked"
        length, size = data[1], 2
        if length >= 126:
            size = 4 if length == 126 else 10
            length = int.from_bytes(data[2:size], "big")
        if len(data) < size + length:
            break
        found.append((data[0] & 0x0F, data[size : size + length]))
        data = data[size + length :]
    return found, data


def handshake(
    path: str = "/ws", *, protocol: str | None = None, host: str = "127.0.0.1", **changes: str
) -> bytes:
    """A request to upgrade. changes: header values by name with _ for -, "" leaves one out."""
    headers = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    if protocol is not None:
        headers["Sec-WebSocket-Protocol"] = protocol
    headers.update({name.replace("_", "-"): value for name, value in changes.items()})
    lines = [f"{name}: {value}" for name, value in headers.items() if value]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


class RawWebSocket:
    """A blocking connection after its handshake."""

    def __init__(
        self, address: tuple[str, int], protocol: str | None = None, path: str = "/ws"
    ) -> None:
        self.socket = socket.create_connection(address, timeout=ANSWER_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(handshake(path, protocol=protocol))
        self._data = b""
        while b"\r\n\r\n" not in self._data:
            self._receive()
        self.response, _, self._data = self._data.partition(b"\r\n\r\n")
        assert self.response.startswith(b"HTTP/1.1 101 "), self.response

    def _receive(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise EOFError("the server closed the connection")
        self._data += data

    def send(self, *data: bytes) -> None:
        self.socket.sendall(b"".join(data))

    def read(self) -> tuple[int, bytes]:
        """The next frame as (opcode, payload)."""
        while True:
            found, rest = cut(self._data)
            if found:
                self._data = b"".join(
                    bytes((0x80 | code, 127)) + len(data).to_bytes(8, "big") + data
                    for code, data in found[1:]
                )
                self._data += rest
                return found[0]
            self._receive()

    def read_to_end(self) -> list[tuple[int, bytes]]:
        """Every frame until the server closes."""
        try:
            while True:
                self._receive()
        except (EOFError, ConnectionResetError):
            found, rest = cut(self._data)
            assert not rest, "half a frame"
            return found

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> RawWebSocket:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def close_payload(code: int, reason: str = "") -> bytes:
    return code.to_bytes(2, "big") + reason.encode()
