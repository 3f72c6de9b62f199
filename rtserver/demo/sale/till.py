"""One buyer's requests: how they are sent, how long they take, and what they were answered.

Through the shop, which says for whom it acts and from which address, or through her own
connection. Who clicks twice sends each write on two connections at once, under one idempotency
key. Every answer goes into the diary; a refusal is counted there and raised.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import rtclient
from rtclient.options import WriteOptions
from rtclient.results import Place, WholePlace
from rtserver.demo.sale.diary import Diary, Fate, Held, Latencies, payment_of
from rtserver.demo.sale.plans import Kind, Plan

__all__ = ["ADMITTED", "SOLD_OUT", "WAITING", "Till"]

T = TypeVar("T")

WAITING: Final = "waiting"
ADMITTED: Final = "admitted"
SOLD_OUT: Final = "sold_out"


class Till:
    """Of one buyer. clients: the connections that her requests may take."""

    __slots__ = ("_diary", "_keys", "_plan", "_sale", "clients", "options")

    def __init__(
        self, sale: str, diary: Diary, plan: Plan, clients: Sequence[rtclient.Client]
    ) -> None:
        self._sale = sale
        self._diary = diary
        self._plan = plan
        self.clients = clients
        self._keys = 0
        self.options: WriteOptions = {}
        if plan.kind is not Kind.OWN:
            self.options = {"as_user": plan.user, "address": plan.address}

    # --- the queue ---

    async def join(self) -> Place:
        place = await self._write(
            lambda rt, options: rt.sale.join(self._sale, **options), self._diary.joins
        )
        if place.state in (WAITING, ADMITTED, SOLD_OUT):
            self._diary.joined[self._plan.user] += 1
        self._look(place.state)
        return place

    async def place(self) -> WholePlace:
        """Where she is now."""
        rt = self.clients[0]
        place = await rt.sale.place(self._sale, self._plan.user)
        self._look(place.state)
        return place

    def _look(self, state: str) -> None:
        if state == SOLD_OUT:
            self._diary.sold_out.add(self._plan.user)

    async def leave(self) -> None:
        await self._write(lambda rt, options: rt.sale.leave(self._sale, **options))

    # --- buying ---

    async def reserve(
        self, party: int, zone: str | None, pass_id: str | None, hold: str | None = None
    ) -> Held:
        """Adjacent seats, the best there are."""
        best = {"count": party, "zone": zone}
        answer = await self._write(
            lambda rt, options: rt.sale.reserve(
                self._sale, best=best, pass_id=pass_id, hold=hold, **options
            ),
            self._diary.reserves,
        )
        return self._diary.reserved(self._plan.user, answer.hold, answer.items)

    async def confirm(
        self, held: Held, items: dict[str, int] | None = None, *, retake: bool = False
    ) -> None:
        reference = payment_of(held.id)
        try:
            answer = await self._write(
                lambda rt, options: rt.sale.confirm(
                    held.id, reference, items, "retake" if retake else "refuse", **options
                ),
                self._diary.confirms,
            )
        except rtclient.Expired:
            held.fate = Fate.EXPIRED
            raise
        self._diary.confirmed(held, answer.order, answer.items, reference)

    async def cancel(self, held: Held) -> None:
        await self._write(lambda rt, options: rt.sale.cancel(held.id, **options))
        held.fate = Fate.CANCELLED

    async def extend(self, held: Held, ms: int) -> None:
        await self._write(lambda rt, options: rt.sale.extend(held.id, ms, **options))

    # --- sending ---

    async def _write(
        self,
        call: Callable[[rtclient.Client, WriteOptions], Awaitable[T]],
        latencies: Latencies | None = None,
    ) -> T:
        started = time.perf_counter()
        try:
            if self._plan.twice:
                return await self._write_twice(call)
            return await call(self.clients[0], self.options)
        except rtclient.Error as error:
            self._diary.refused[error.name] += 1
            raise
        finally:
            if latencies is not None:
                latencies.add(time.perf_counter() - started)

    async def _write_twice(
        self, call: Callable[[rtclient.Client, WriteOptions], Awaitable[T]]
    ) -> T:
        self._keys += 1
        options: WriteOptions = {
            **self.options,
            "idempotency_key": f"{self._plan.user}-{self._keys}",
        }
        answers = await asyncio.gather(
            call(self.clients[0], options),
            call(self.clients[-1], options),
            return_exceptions=True,
        )
        good = [answer for answer in answers if not isinstance(answer, BaseException)]
        if len(good) == len(answers):
            self._diary.retries += 1
            if good[0] != good[1]:
                self._diary.contradictions.append(
                    f"{self._plan.user} asked twice under one key, and was told {good[0]}, then"
                    f" {good[1]}"
                )
        for answer in answers:
            if isinstance(answer, BaseException) and not good:
                raise answer
        return good[0]
