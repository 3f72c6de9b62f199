"""The token that says who calls: given once, or fetched anew for each connection.

A token that is fetched by a callable is also renewed in place, before it expires, where the server
says when that is. Times are compared with this machine's clock; where that is wrong, or fetching
fails, the server's close (`token_expired`) leads to a new connection with a fresh token.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from rtclient.command import Command, Effect
from rtclient.errors import ConnectionLost, Error
from rtclient.ledger import Ledger

__all__ = ["Credentials", "Token"]

Token = str | Callable[[], str | Awaitable[str]]
"""A token, or a function (async or not) that gets one."""

_log = logging.getLogger("rtclient")

_AUTH: Final[Command[dict[str, Any]]] = Command("server.auth", Effect.READ)
_EARLY_SHARE: Final = 0.2  # of a token's life that is left when it is renewed, at most
_RENEW_MIN_S: Final = 1.0


class Credentials:
    """Fetches the token, and keeps the present connection's fresh between `renew_before` and
    `stop`."""

    def __init__(
        self, token: Token | None, ledger: Ledger, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._token = token
        self._ledger = ledger
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def renewable(self) -> bool:
        """Whether asking again gives another token."""
        return callable(self._token)

    async def fetch(self) -> str | None:
        """The token to say hello with. Raises Error, retryable where the callable failed with
        something else."""
        if not callable(self._token):
            return self._token
        try:
            token = self._token()
            return await token if inspect.isawaitable(token) else token
        except Error:
            raise
        except Exception as error:
            raise ConnectionLost(f"fetching a token failed: {error!r}", retryable=True) from error

    def renew_before(self, expires_at: int | None) -> None:
        """The connection's token expires then (ms since 1970); None: never."""
        if expires_at is None or not self.renewable:
            return
        left_s = expires_at / 1000 - time.time()
        delay_s = max(_RENEW_MIN_S, left_s * (1 - random.uniform(_EARLY_SHARE / 2, _EARLY_SHARE)))
        self._timer = self._loop.call_later(delay_s, self._renew_soon)

    def stop(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _renew_soon(self) -> None:
        self._task = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        try:
            reply = await self._ledger.call(_AUTH, (await self.fetch(),), {})
        except Error as error:
            _log.warning("the token could not be renewed: %s", error)
            return
        self.renew_before(reply.get("expires_at"))
