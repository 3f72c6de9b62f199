"""Audits of sales that are too large for one turn: who goes on with them, and when.

One piece a turn, at its start, when state and log agree; whatever else there is to do goes on
between them. One audit runs at a time, others wait for it, and beyond a bound they are refused.
What an audit added up is freed in slices, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from rtserver.errors import INTERNAL, NOT_FOUND, OVERLOADED, RtError
from rtserver.limits import Limits
from rtserver.state.sales.audit import Audit
from rtserver.state.sales.sales import Sales
from rtserver.tick import Turn

__all__ = ["Audits"]

_log = logging.getLogger("rtserver")


class Audits:
    """Goes on with audits whose first piece is done."""

    def __init__(self, turn: Turn, sales: Sales, limits: Limits) -> None:
        self._turn = turn
        self._sales = sales
        self._most = limits.sale_audits_max
        self._slice = limits.reclaimed_per_turn
        self._running = 0
        self._stopping = False
        self._one = asyncio.Lock()

    def stop(self) -> None:
        """Ends what runs, with an error that says so."""
        self._stopping = True

    async def finish(self, audit: Audit) -> dict[str, Any]:
        """The result of an audit. Raises RtError not_found where its sale is deleted meanwhile,
        overloaded where too many run or the server stops."""
        if self._running >= self._most:
            raise RtError(
                OVERLOADED,
                f"{self._running} audits run, at most {self._most} (limits.sale_audits_max)",
            )
        self._running += 1
        try:
            async with self._one:
                return await self._run(audit)
        except RtError:
            raise
        except Exception:
            _log.exception("the audit of %r failed", audit.sale.name)
            raise RtError(INTERNAL, "the audit failed; the server's log says why") from None
        finally:
            self._running -= 1

    async def _run(self, audit: Audit) -> dict[str, Any]:
        done = False
        while not done and self._sales.get(audit.sale.name) is audit.sale:
            done = await self._at_start(audit.proceed)
        result = audit.result if done else None
        while not await self._at_start(lambda: audit.reckoning.release(self._slice)):
            pass
        if result is None:
            raise RtError(NOT_FOUND, f"the sale {audit.sale.name!r} was deleted meanwhile")
        return result

    async def _at_start(self, action: Callable[[], bool]) -> bool:
        """What an action answers at the start of the next turn. What it raises is no failure of the
        turn: it only reads."""
        if self._stopping:
            raise RtError(OVERLOADED, "the server stops; ask for the audit again")
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def act() -> None:
            if done.done():
                return
            try:
                done.set_result(action())
            except Exception as error:
                done.set_exception(error)

        self._turn.at_start(act)
        return await done
