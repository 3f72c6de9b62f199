"""A server with pages for a browser, which tests kill and start again.

It can publish numbers on one channel, and tell whether a page has heard all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from tests.process import ServerProcess


class Site:
    """A server that shows the pages of a directory, on one port over all its restarts."""

    def __init__(self, data: Path, pages: Path) -> None:
        self._data = data
        self._pages = pages
        self._process = ServerProcess(data, "--pages", pages).start()
        self._host, self._port = self._process.address
        self._published = 0

    def url(self, path: str = "/") -> str:
        return f"http://{self._host}:{self._port}{path}"

    def kill(self) -> None:
        self._process.kill()

    def drain(self) -> None:
        """SIGTERM: it says so, spreads the reconnects and closes."""
        assert self._process.stop() == 0

    def start(self) -> None:
        listen = f"{self._host}:{self._port}"
        options = ("--listen", listen, "--pages", self._pages)
        self._process = ServerProcess(self._data, *options).start()

    async def publish(self, count: int) -> None:
        """So many more numbers on probe:1, a little apart."""
        with self._process.client() as client:
            for _ in range(count):
                self._published += 1
                client.call("channel.publish", "probe:1", self._published)
                await asyncio.sleep(0.005)

    def client(self):
        return self._process.client()

    @property
    def all(self) -> str:
        """The JavaScript condition that everything has come, in order and once."""
        expected = list(range(1, self._published + 1))
        return f"got.length >= {self._published} && JSON.stringify(got) === '{expected}'".replace(
            ", ", ","
        )

    def stop(self) -> None:
        with contextlib.suppress(AssertionError):
            self._process.kill()
