"""One visit of the hall: from the admission to the end that a buyer's plan has for it.

Refusals that a buyer has to expect end her visit; what nobody should ever be told is raised.
"""

from __future__ import annotations

import asyncio
from typing import Final

import rtclient
from rtserver.demo.sale.diary import Diary, Fate, Held, refund_of
from rtserver.demo.sale.plans import Course, Plan, Times
from rtserver.demo.sale.till import Till

__all__ = ["EXPECTED", "Visit"]

EXPECTED: Final = (
    rtclient.SoldOut,
    rtclient.NoPass,
    rtclient.NotOpen,
    rtclient.LimitReached,
    rtclient.Expired,
)
_LATE_S: Final = 0.1  # after the deadline


class Visit:
    """shop: the connection of the back end that gives money back."""

    def __init__(
        self,
        plan: Plan,
        till: Till,
        shop: rtclient.Client,
        diary: Diary,
        times: Times,
    ) -> None:
        self._plan = plan
        self._till = till
        self._shop = shop
        self._diary = diary
        self._times = times

    async def run(self, pass_id: str | None, *, second: bool) -> bool:
        """Returns whether she walked away and will be back when her hold is over. second: she is
        here again, and this time to buy."""
        plan = self._plan
        course = Course.BUYS if second else plan.course
        await asyncio.sleep(plan.looks)
        try:
            if course is Course.LEAVES:
                await self._till.leave()
                return False
            held = await self._reserve(pass_id)
            if held is None:
                await self._till.leave()
                return False
            return await self._end(course, held, pass_id)
        except EXPECTED:
            return False

    async def _reserve(self, pass_id: str | None) -> Held | None:
        """As many seats side by side as she wants, or fewer; None where there are none at all."""
        party, zone = self._plan.party, self._plan.zone
        while party:
            try:
                return await self._till.reserve(party, zone, pass_id)
            except rtclient.SoldOut as error:
                if not (error.details or {}).get("free"):
                    return None
                if zone is None:
                    party -= 1
                zone = None
            except rtclient.RateLimited as error:
                await asyncio.sleep((error.details or {}).get("retry_after_ms", 100) / 1_000)
        return None

    async def _end(self, course: Course, held: Held, pass_id: str | None) -> bool:
        plan, till = self._plan, self._till
        hold_s = self._times.hold
        if course is Course.WALKS:
            await asyncio.sleep(hold_s + _LATE_S)
            return plan.again
        if course is Course.LATE:
            await asyncio.sleep(hold_s + _LATE_S)
            await self._pay(held, retake=not plan.again)
            return False
        await asyncio.sleep(plan.pays)
        if course is Course.CANCELS:
            await till.cancel(held)
            if not plan.again:
                await till.leave()
                return False
            other = await self._reserve(pass_id)
            if other is None:
                return False
            held = other
        elif course is Course.SWAPS:
            await self._swap(held, pass_id)
        elif course is Course.EXTENDS:
            await till.extend(held, int(hold_s * 500))
            await asyncio.sleep(plan.pays)
        part = None
        if course is Course.PART and len(held.items) > 1:
            part = dict(list(held.items.items())[:1])
        await self._pay(held, part)
        return False

    async def _swap(self, held: Held, pass_id: str | None) -> None:
        """Other seats for hers; where there are none she keeps them."""
        try:
            await self._till.reserve(len(held.items), None, pass_id, held.id)
        except rtclient.SoldOut:
            return

    async def _pay(
        self, held: Held, part: dict[str, int] | None = None, *, retake: bool = False
    ) -> None:
        try:
            await self._till.confirm(held, part, retake=retake)
        except (rtclient.SoldOut, rtclient.LimitReached, rtclient.NotOpen):
            held.fate = Fate.EXPIRED  # a late one, whose seats are another's by now
            raise
        if self._plan.refund is not None:
            await self._give_back(held)

    async def _give_back(self, held: Held) -> None:
        refund = self._plan.refund
        assert refund is not None, "she gives it back"
        assert held.order is not None, "she bought it"
        await asyncio.sleep(refund.after)
        items = dict(held.bought) if refund.whole else dict(list(held.bought.items())[:1])
        answer = await self._shop.sale.refund(held.order, items, refund_of(held), refund.restock)
        held.refunded.update(answer.items)
