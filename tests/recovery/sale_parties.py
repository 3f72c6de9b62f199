"""Who comes to a sale at the same time, and comes back after each kill.

Tills are back ends that act for many buyers at once, shoppers buy for themselves, a racer confirms
when her hold expires, staff changes the sale, and the clock moves time.
"""

from __future__ import annotations

import asyncio
import random

import jwt

from tests.recovery.lines import LINES, OK, OPEN, Cut, Operation, RtLine

SECRET = b"thirty-two bytes that sign tokens"
SERVICE_SECRET = "correct-horse-battery-staple"
FOREVER_S = 4_102_444_800  # the year 2100
HOUR_MS = 3_600_000
OPS = f"key:ops:{SERVICE_SECRET}"
TILL = f"key:till:{SERVICE_SECRET}"


def token(user):
    claims = {"sub": user, "exp": FOREVER_S}
    return jwt.encode(claims, SECRET, "HS256", headers={"kid": "k"})


class Party:
    """Somebody who comes back when the server does."""

    def __init__(self, trial, name):
        self.trial = trial
        self.chance = random.Random(f"{trial.seed}/{name}")

    async def run(self):
        trial = self.trial
        while True:
            await trial.up.wait()
            trial.busy += 1
            try:
                await self.live()
            except Cut:
                await asyncio.sleep(0.01)
            finally:
                trial.busy -= 1
                trial.idle.set()

    def line(self, proof):
        return self.chance.choice(LINES)(self.trial.server.address, proof)

    async def send(self, line, operations, cut_chance=0.0):
        """Settles the operations, or is cut, now and then by itself."""
        self.trial.totals["calls"] += len(operations)
        await line.run(operations, cut=self.chance.random() < cut_chance)

    @property
    def going(self):
        return self.trial.up.is_set()


class Visit:
    """A buyer on her way through her script."""

    def __init__(self, buyer):
        self.buyer = buyer
        self.script = buyer.script()
        self.ended = False
        self.operation = None
        self.go_on()

    def go_on(self):
        """Takes what is settled to the script, for its next operation."""
        if self.operation is not None and self.operation.state == OPEN:
            return
        try:
            self.operation = self.script.send(self.operation)
        except StopIteration:
            self.ended = True

    def heard(self, trial):
        """After an attempt, answered or not."""
        one = self.operation
        if one.state == OPEN and one.sent and one.key is None and one in self.buyer.operations:
            self.ended = True  # without a key nobody may ask again
            return
        if one.state == OK and one.key is not None:
            trial.keep(one, self.buyer.user)
        self.go_on()


class Till(Party):
    """A back end that acts for many buyers at a time."""

    size = 25

    def __init__(self, trial, name):
        super().__init__(trial, name)
        self.visits = []

    async def live(self):
        async with self.line(TILL) as line:
            while self.going:
                self.fill()
                doubles = {
                    visit: visit.operation.again()
                    for visit in self.visits
                    if visit.operation.key is not None and self.chance.random() < 0.1
                }
                echoes = [(one.again(), one) for one in self.trial.long_ago(self.chance, 2)]
                everything = [visit.operation for visit in self.visits]
                everything += [*doubles.values(), *(echo for echo, _ in echoes)]
                try:
                    await self.send(line, everything, 0.03)
                finally:
                    self.settle(doubles, echoes)

    def fill(self):
        while len(self.visits) < self.size:
            visit = Visit(self.trial.buyer(acts_for=True))
            if not visit.ended:
                self.visits.append(visit)

    def settle(self, doubles, echoes):
        for visit, double in doubles.items():
            same(visit.operation, double)
            if visit.operation.error and double.state == OK:
                visit.operation.settle(None, double.told)  # a refusal is not remembered
        for echo, first in echoes:
            same(first, echo)
        for visit in self.visits:
            visit.heard(self.trial)
        self.visits = [visit for visit in self.visits if not visit.ended]


def same(first, again):
    """A call under a key that was answered has that answer for ever."""
    if first.state == OK and again.state != OPEN:
        assert again.told == first.told or again.error == "duplicate", (first, again)


class Shopper(Party):
    """Buyers one after the other, each on a connection of her own."""

    def __init__(self, trial, name):
        super().__init__(trial, name)
        self.visit = None

    async def live(self):
        while self.going:
            if self.visit is None or self.visit.ended:
                self.visit = Visit(self.trial.buyer(acts_for=False))
            if not self.visit.ended:
                await self.shop(self.visit)

    async def shop(self, visit):
        buyer = visit.buyer
        async with self.line(token(buyer.user)) as line:
            if line.watches:
                channel = f"$sale:{buyer.sale.name}:user:{buyer.user}"
                await line.call("channel.subscribe", channel=channel)
            while self.going and not visit.ended:
                try:
                    await self.send(line, [visit.operation], 0.02)
                finally:
                    visit.heard(self.trial)
                    for _, _, place in line.pushed():
                        buyer.sees(place)


class Watcher(Party):
    """Watches all sales and their ledgers, and goes on after each kill where it was."""

    async def live(self):
        async with RtLine(self.trial.server.address, OPS) as line:
            watched = {}
            while self.going:
                for sale in self.trial.sales:
                    if f"$sale:{sale.name}" not in watched:
                        watched[f"$sale:{sale.name}"] = watched[f"$sale:{sale.name}:ledger"] = sale
                        await self.watch(line, sale)
                await asyncio.sleep(0.02)
                await line.call("server.time")  # pushes come with its answer
                for channel, offset, data in line.pushed():
                    if channel.endswith(":ledger"):
                        self.take(watched[channel], offset, data)
                    else:
                        adds_up(data)

    async def watch(self, line, sale):
        await line.call("channel.subscribe", channel=f"$sale:{sale.name}")
        since = [sale.epoch, len(sale.pushed)] if sale.epoch else None
        channel = f"$sale:{sale.name}:ledger"
        told = await line.call("channel.subscribe", channel=channel, since=since)
        assert told["recovered"] or since is None, told
        if since is None:
            sale.pushed = [None] * (told["offset"] - len(told["messages"]))
        sale.epoch = told["epoch"]
        for message in told["messages"]:
            self.take(sale, message["offset"], message["data"])

    def take(self, sale, offset, step):
        assert offset == len(sale.pushed) + 1, "a gap, or a repetition"
        sale.pushed.append(step)


def adds_up(status):
    """What was pushed of a sale: all of it, or what changed."""
    balances = [
        *status.get("items", {}).values(),
        *([status["total"]] if "total" in status else []),
    ]
    for told in balances:
        assert told["stock"] == told["free"] + told["held"] + told["sold"], told


class Racer(Party):
    """Confirms in the very turn in which the hold expires, a moment before, a moment after."""

    def __init__(self, trial, name):
        super().__init__(trial, name)
        self.races = 0

    async def live(self):
        async with RtLine(self.trial.server.address, OPS) as line:
            while self.going:
                await self.race(line)
                await asyncio.sleep(0.02)

    async def race(self, line):
        self.races += 1
        sale = self.chance.choice([one for one in self.trial.sales if not one.queue])
        buyer = self.trial.enter(sale, f"racer{self.races}", acts_for=True)
        buyer.keys = "text"
        reserve = buyer.write("sale.reserve", name=sale.name, **sale.wish(self.chance))
        now = Operation("server.time", {})
        await self.send(line, [reserve, now])
        if reserve.state != OK:
            return
        left = reserve.told["expires_at"] - now.told["now"]
        late = self.chance.choice(["refuse", "retake"])
        confirm = buyer.write("sale.confirm", hold=reserve.told["hold"], late=late)
        if self.trial.manual:
            leap = Operation("server.advance", {"ms": left - self.chance.choice([0, 0, 1])})
            order = [leap, confirm] if self.chance.random() < 0.7 else [confirm, leap]
            await self.send(line, order)
        else:
            await asyncio.sleep(left / 1_000 - self.chance.uniform(0, 0.004))
            await self.send(line, [confirm])
        self.trial.races[confirm.error or "sold"] += 1


class Clock(Party):
    """Time goes in steps and leaps, never back; or else the wall's clock does, in both
    directions, and the server's time does not care."""

    async def live(self):
        async with RtLine(self.trial.server.address, OPS) as line:
            while self.going:
                await asyncio.sleep(self.chance.uniform(0, 0.02))
                if self.trial.manual:
                    leaps, weights = [1, 20, 100, 500, 12_000, HOUR_MS], [30, 30, 20, 15, 2, 1]
                    ms = self.chance.choices(leaps, weights)[0]
                    await line.call("server.advance", ms=ms)
                elif self.chance.random() < 0.1:
                    self.trial.set_wall(self.chance.choice([-24, -1, 0, 1, 24]) * HOUR_MS)


class Staff(Party):
    """Opens, pauses, restocks; every call under a key, and again until it is answered."""

    def __init__(self, trial, name):
        super().__init__(trial, name)
        self.calls = 0
        self.open = None

    async def live(self):
        async with self.line(OPS) as line:
            while self.going:
                if self.open is None:
                    self.open = self.next()
                sale, one = self.open
                await self.send(line, [one], 0.05)
                if one.method == "sale.open" and one.state == OK:
                    sale.opened = True
                self.open = None
                await asyncio.sleep(self.chance.uniform(0, 0.05))

    def next(self):
        sale = self.chance.choice(self.trial.sales)
        self.calls += 1
        does = self.chance.choices(["restock", "pause", "open"], [4, 1, 3])[0]
        params = {"name": sale.name}
        if does == "restock":
            params["items"] = sale.delivery(self.chance, self.calls)
        one = Operation(f"sale.{does}", params, idempotency_key=f"staff:{self.calls}")
        if does == "restock":
            sale.restocks.append(one)
        return sale, one
