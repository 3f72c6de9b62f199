"""All buyers of a sale together, and the bots among them.

Those who wait cost an entry, not a task: the shop follows the sale's ledger, and a step that
admits one of its customers begins her visit. Buyers with a connection of their own watch their own
place instead, and some of those connections break.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import rtclient
from rtclient.client import Connecting
from rtclient.results import Step
from rtserver.demo.sale.diary import Diary
from rtserver.demo.sale.plans import Kind, Plan, Times
from rtserver.demo.sale.till import ADMITTED, SOLD_OUT, WAITING, Till
from rtserver.demo.sale.visit import EXPECTED, Visit

__all__ = ["Connect", "Crowd"]

Connect = Callable[[Plan], Connecting]
"""A connection of a buyer's own."""

_BATCH: Final = 200  # buyers who come late at once, before the loop has a look at its sockets
_ASKS: Final = 500  # places that are asked for at once, at the end


class Buyer:
    """One of them, while the sale goes on."""

    __slots__ = ("plan", "till", "visits", "waits")

    def __init__(self, plan: Plan, till: Till) -> None:
        self.plan = plan
        self.till = till
        self.waits = False  # has a place in the queue
        self.visits = 0


class Crowd:
    """shop: connections of the back end, at least one."""

    def __init__(
        self,
        sale: str,
        plans: list[Plan],
        times: Times,
        diary: Diary,
        shop: Sequence[rtclient.Client],
        connect: Connect,
    ) -> None:
        self._sale = sale
        self._plans = plans
        self._times = times
        self._diary = diary
        self._shop = shop
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._buyers: dict[str, Buyer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._patience: set[asyncio.Timeout] = set()  # of who watches her own place
        self._over = False
        self.came = 0
        self.pushed: list[Step] = []  # the ledger, as it was heard

    @property
    def visiting(self) -> bool:
        """Whether anybody is on her way, other than who watches her place."""
        return len(self._tasks) > len(self._patience)

    # --- coming ---

    async def come(self) -> None:
        """Everybody, each at her time."""
        started = self._loop.time()
        for plan in self._plans:
            early = started + plan.comes - self._loop.time()
            if early > 0:
                await asyncio.sleep(early)
            elif self.came % _BATCH == 0:
                await asyncio.sleep(0)
            self.came += 1
            self._start(self._arrive(plan))

    async def done(self) -> None:
        """Nobody is on her way any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """Everybody goes home at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, life: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(life)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not (isinstance(error, rtclient.Error) and error.retryable):
            self._diary.contradictions.append(f"nobody should be told {error!r}")

    async def _arrive(self, plan: Plan) -> None:
        if plan.kind is Kind.OWN:
            with contextlib.suppress(*EXPECTED):
                await self._own(plan)
            return
        clients = [self._shop[(self.came + turn) % len(self._shop)] for turn in (0, 1)]
        await self._queue(Buyer(plan, Till(self._sale, self._diary, plan, clients)))

    async def _queue(self, buyer: Buyer) -> None:
        """Takes a place; what follows comes by the ledger, or at once."""
        buyer.waits = True  # before the answer: the admission may be heard first
        self._buyers[buyer.plan.user] = buyer
        try:
            place = await buyer.till.join()
        except EXPECTED:
            buyer.waits = False
            return
        if place.state == ADMITTED:
            await self._visit(buyer, place.pass_id)
        elif place.state == WAITING and not buyer.visits:
            self._expect(buyer)

    def _expect(self, buyer: Buyer) -> None:
        """What she will do while she waits."""
        plan = buyer.plan
        if plan.leaves is not None:
            self._loop.call_later(plan.leaves, self._while_waiting, buyer, self._leave)
        if plan.pushes is not None:
            self._loop.call_later(plan.pushes, self._while_waiting, buyer, self._push)

    def _while_waiting(
        self, buyer: Buyer, act: Callable[[Buyer], Coroutine[Any, Any, None]]
    ) -> None:
        if buyer.waits and not self._over:
            self._start(act(buyer))

    async def _leave(self, buyer: Buyer) -> None:
        buyer.waits = False
        await buyer.till.leave()

    async def _push(self, buyer: Buyer) -> None:
        """Tries to get past the queue."""
        try:
            await buyer.till.reserve(buyer.plan.party, None, None)
        except EXPECTED:
            return
        self._diary.contradictions.append(f"{buyer.plan.user} has seats without a pass")

    # --- the shop's customers ---

    async def follow(self) -> None:
        """Hears the ledger, and begins the visit of whoever is admitted; until cancelled."""
        async with self._shop[0].sale.follow_ledger(self._sale, {"last": 1_000}) as steps:
            async for step in steps:
                if isinstance(step, rtclient.Gap):
                    self._diary.contradictions.append(f"steps of the ledger were lost: {step}")
                    continue
                self.pushed.append(step)
                if step.step == ADMITTED and step.user is not None:
                    buyer = self._buyers.get(step.user)
                    if buyer is not None:
                        self._start(self._admit(buyer))

    async def _admit(self, buyer: Buyer) -> None:
        place = await buyer.till.place()
        if place.state == ADMITTED:
            await self._visit(buyer, place.pass_id)

    async def _visit(self, buyer: Buyer, pass_id: str | None) -> None:
        if not buyer.waits:
            return  # she left, or is inside already
        buyer.waits = False
        buyer.visits += 1
        self._diary.admitted[buyer.plan.user] += 1
        visit = Visit(buyer.plan, buyer.till, self._shop[-1], self._diary, self._times)
        back = await visit.run(pass_id, second=buyer.visits > 1)
        if back and buyer.visits == 1 and buyer.plan.kind is not Kind.OWN:
            await self._queue(buyer)

    # --- buyers with a connection of their own ---

    async def _own(self, plan: Plan) -> None:
        joined = False
        buyer = Buyer(plan, Till(self._sale, self._diary, plan, []))
        while True:
            async with self._connect(plan) as rt:
                buyer.till.clients = [rt]
                if not joined:
                    await buyer.till.join()
                buyer.waits = True
                pass_id = await self._await_pass(rt, plan, None if joined else plan.cut)
                if pass_id is not None:
                    await self._visit(buyer, pass_id)
            if joined or pass_id is not None or plan.cut is None or plan.back is None:
                return
            joined = True
            await asyncio.sleep(plan.back)

    async def _await_pass(
        self, rt: rtclient.Client, plan: Plan, within: float | None
    ) -> str | None:
        """Watches the own place until there is a pass, or nothing to wait for, or no time left."""
        patience = asyncio.timeout(0 if self._over else within)
        self._patience.add(patience)
        try:
            async with patience, rt.sale.watch_place(self._sale) as places:
                async for place in places:
                    if place.state == SOLD_OUT:
                        self._diary.sold_out.add(plan.user)
                    if place.state != WAITING:
                        return place.pass_id
        except TimeoutError:
            pass
        finally:
            self._patience.discard(patience)
        return None

    # --- the end ---

    async def tell(self) -> None:
        """Whoever still waits has a last look at her place, and goes."""
        self._over = True
        left = [buyer for buyer in self._buyers.values() if buyer.waits]
        for start in range(0, len(left), _ASKS):
            await asyncio.gather(*(buyer.till.place() for buyer in left[start : start + _ASKS]))
        for patience in self._patience:
            patience.reschedule(self._loop.time())
