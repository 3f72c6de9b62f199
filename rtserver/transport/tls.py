"""TLS on a socket: a transport above a transport (RFC 8446), with the `ssl` module's memory BIOs.

Owns the certificate of a listener and what lies between the kernel's bytes and those that the
protocols see. It is written here and not taken from the loop because three promises hang on it: a
socket counts, and its time runs, from before its handshake; `get_write_buffer_size` knows of every
byte that the peer has not taken; and a peer that closes its sending half still gets its replies, as
over plain TCP. All ciphertext goes down at once, so nothing is buffered here but the begin of a
record that is not complete, and what came while nobody read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from rtserver.config import ConfigError, TlsConfig

__all__ = ["Certificate", "TlsTransport"]

_RECORDS_PER_READ = 256  # decrypted in one go: a peer may send records of one byte
_RECORD_BYTES = 16 * 1024
_PROTOCOLS = ["http/1.1"]


class Certificate:
    """Certificate and key of one listener, for the handshakes to come. Raises ConfigError."""

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self.context = self._load()

    def reload(self) -> str:
        """Reads the files again; what was read. Raises ConfigError, and the old ones stay."""
        self.context = self._load()
        return f"the certificate {self._config.certificate}"

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(_PROTOCOLS)
        certificate, key = self._config.certificate, self._config.key
        for path in (certificate, key):
            try:
                Path(path).read_bytes()  # `ssl` does not say which of the two it could not read
            except OSError as error:
                raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except ssl.SSLError as error:
            raise ConfigError(
                f"{certificate}: is no certificate in PEM form with its key in {key}:"
                f" {error.reason or error}"
            ) from None
        except _Encrypted:
            raise ConfigError(f"{key}: is encrypted, expected a key without a password") from None
        return context


class _Encrypted(Exception):
    """The key asks for a password; without this, `ssl` would ask the terminal."""


def _no_password() -> str:
    raise _Encrypted


class TlsTransport(asyncio.Transport, asyncio.Protocol):
    """The server's side of one TLS connection: a transport for the protocol that is made for it,
    which is told of it before the handshake. A protocol writes only after bytes came."""

    __slots__ = (
        "_below",
        "_closing",
        "_context",
        "_ended",
        "_incoming",
        "_is_finished",
        "_is_reading",
        "_is_secure",
        "_outgoing",
        "_protocol",
        "_tls",
        "_waits",
    )

    def __init__(
        self, context: ssl.SSLContext, make_protocol: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        super().__init__()
        self._context = context
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._protocol: Any = make_protocol()
        self._below: Any = None  # the socket's transport
        self._is_secure = False  # the handshake is over
        self._is_reading = True  # the protocol takes bytes
        self._waits = False  # decrypting goes on in a moment
        self._ended = False  # the peer sends nothing more, and the protocol knows
        self._is_finished = False  # nothing more may be written below
        self._closing = False

    # --- the socket's protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below = cast(asyncio.Transport, transport)
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._incoming.write(data)
        if self._is_secure or self._shake_hands():
            self._take()

    def _shake_hands(self) -> bool:
        """True once that is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return False
        except ssl.SSLError:
            self._send()  # the alert that says why
            self.close()
            return False
        self._is_secure = True
        self._send()
        return True

    def _take(self) -> None:
        """Hands on what can be decrypted."""
        self._waits = False
        if not self._is_reading or self._closing:
            return
        parts: list[bytes] = []
        ended = False
        try:
            for _ in range(_RECORDS_PER_READ):
                part = self._tls.read(_RECORD_BYTES)
                ended = not part
                if ended:
                    break
                parts.append(part)
            else:
                self._waits = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError:
            self._send()
            self.abort()
            return
        self._send()  # a key update may want an answer
        if self._waits:
            asyncio.get_running_loop().call_soon(self._take)
        self._regulate()
        if parts:
            self._protocol.data_received(b"".join(parts))
        if ended:
            self.eof_received()

    def eof_received(self) -> bool:
        """The peer sends nothing more: it said so, or its socket ended without a word."""
        if not self._is_secure or self._closing:
            self.close()
        elif not self._ended:
            self._ended = True
            if not self._protocol.eof_received():
                self.close()
        return not self._closing

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        protocol, self._protocol = self._protocol, None  # nothing collects cycles
        protocol.connection_lost(exc)

    # --- the protocol's transport ---

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self._protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return self._context
        if name == "ssl_object":
            return self._tls
        return self._below.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._closing or not data:
            return
        if not self._is_secure:
            raise RuntimeError("nothing can be written before the handshake is over")
        left = memoryview(data)
        try:
            while left:
                left = left[self._tls.write(left) :]
        except ssl.SSLError:
            self.abort()
            return
        self._send()

    def _send(self) -> None:
        """Everything that is encrypted goes down."""
        data = self._outgoing.read()
        if data and not self._is_finished and not self._below.is_closing():
            self._below.write(data)

    def get_write_buffer_size(self) -> int:
        return int(self._below.get_write_buffer_size())

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high=high, low=low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return cast(tuple[int, int], self._below.get_write_buffer_limits())

    def can_write_eof(self) -> bool:
        return bool(self._below.can_write_eof())

    def write_eof(self) -> None:
        self._say_end()
        self._is_finished = True
        self._below.write_eof()

    def _say_end(self) -> None:
        """close_notify (RFC 8446 section 6.1); the peer's own is not waited for."""
        if not self._is_secure:
            return
        with contextlib.suppress(ssl.SSLError):  # its answer is not here yet, or requests are
            self._tls.unwrap()
        self._send()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._below.is_closing():
                self._say_end()
            self._below.close()

    def abort(self) -> None:
        self._closing = True
        self._below.abort()

    # --- reading ---

    def is_reading(self) -> bool:
        return self._is_reading and not self._closing

    def pause_reading(self) -> None:
        self._is_reading = False
        self._regulate()

    def resume_reading(self) -> None:
        self._is_reading = True
        if not self._waits:
            self._waits = True
            asyncio.get_running_loop().call_soon(self._take)

    def _regulate(self) -> None:
        """Bytes stay in the kernel while there are some to decrypt."""
        if self._below.is_closing():
            return
        if self._is_reading and not self._waits:
            self._below.resume_reading()
        else:
            self._below.pause_reading()
