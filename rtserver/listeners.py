"""Where the server listens: TCP ports, unix sockets, TLS on either.

Owns the listening sockets and the certificates, from before recovery (a certificate that cannot be
used is told at once) to the end of accepting. The first listener is the one of `listen`; what
speaks on a connection is decided by its first bytes, on each listener alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable

from rtserver.config import Config, ListenerConfig, parse_listen, unix_path
from rtserver.transport.engine import Engine, ListenerInfo
from rtserver.transport.listener import FirstBytes
from rtserver.transport.tls import Certificate, TlsTransport

__all__ = ["Listeners"]

_BACKLOG = 65_535  # not yet accepted; the kernel lowers it to its net.core.somaxconn
_UNIX_MODE = 0o600


class Listeners:
    """All listeners of one server. Raises ConfigError where a certificate cannot be used."""

    def __init__(self, config: Config) -> None:
        self.address = ("", 0)  # of the first one
        self._configs = [ListenerConfig(listen=config.listen), *config.listeners]
        self._certificates = [
            None if one.tls is None else Certificate(one.tls) for one in self._configs
        ]
        self._servers: list[asyncio.Server] = []
        self._unix_files: dict[str, tuple[int, int]] = {}  # {path: (device, inode)} made by us
        self.shown: list[str] = []  # the addresses, for people

    @property
    def has_admin(self) -> bool:
        return any(one.admin for one in self._configs)

    @property
    def url_address(self) -> str:
        """HOST:PORT of the first one, as it stands in a URL."""
        return _url(*self.address)

    async def open(self, engine: Engine) -> None:
        """Listens. Raises OSError that names the address; then none of them is open."""
        try:
            for config, certificate in zip(self._configs, self._certificates, strict=True):
                await self._open(engine, config, certificate)
        except BaseException:
            self.close()
            raise
        engine.admin_only = self.has_admin

    async def _open(
        self, engine: Engine, config: ListenerConfig, certificate: Certificate | None
    ) -> None:
        make = _protocols(engine, ListenerInfo(admin=config.admin), certificate)
        loop = asyncio.get_running_loop()
        try:
            path = unix_path(config.listen)
            if path is not None:
                server = await loop.create_unix_server(make, sock=self._bind(path))
                self.shown.append(f"{'tls+' if certificate else ''}unix:{path}")
            else:
                host, port = parse_listen(config.listen)
                server = await loop.create_server(make, host, port, backlog=_BACKLOG)
                name = server.sockets[0].getsockname()
                if not self._servers:
                    self.address = (name[0], name[1])
                scheme = "rts" if certificate else "rt"
                self.shown.append(f"{scheme}://{_url(name[0], name[1])}")
        except OSError as error:
            raise OSError(error.errno, f"{config.listen}: {error.strerror or error}") from None
        if config.admin:
            self.shown[-1] += " (admin)"
        self._servers.append(server)

    def _bind(self, path: str) -> socket.socket:
        """A socket file that only this user may connect to. Raises OSError."""
        _remove_stale(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            mask = os.umask(0o777 & ~_UNIX_MODE)  # nobody else gets in between bind and chmod
            try:
                listening.bind(path)
            finally:
                os.umask(mask)
            listening.listen(_BACKLOG)
        except BaseException:
            listening.close()
            raise
        made = os.lstat(path)
        self._unix_files[path] = (made.st_dev, made.st_ino)
        return listening

    def reload(self) -> list[Callable[[], str]]:
        """What a SIGHUP reads again."""
        return [one.reload for one in self._certificates if one is not None]

    def close(self) -> None:
        """Accepts nothing more; connections go on."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for path, made in self._unix_files.items():
            with contextlib.suppress(OSError):
                found = os.lstat(path)
                if (found.st_dev, found.st_ino) == made:  # not the one of a server after us
                    os.unlink(path)
        self._unix_files.clear()


def _protocols(
    engine: Engine, listener: ListenerInfo, certificate: Certificate | None
) -> Callable[[], asyncio.Protocol]:
    def make_first() -> FirstBytes:
        return FirstBytes(engine, listener)

    if certificate is None:
        return make_first
    return lambda: TlsTransport(certificate.context, make_first)


def _url(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _remove_stale(path: str) -> None:
    """Removes the socket file of a server that is gone; anything else stays, and is an error.
    Raises OSError."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "is there already and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.setblocking(False)
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # nobody listens
        except BlockingIOError:
            raise OSError(errno.EADDRINUSE, "another process listens there") from None
        else:
            raise OSError(errno.EADDRINUSE, "another process listens there")
