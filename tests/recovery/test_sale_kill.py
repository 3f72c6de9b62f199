"""Thousands of buyers, SIGKILL at random moments, time that jumps: nobody is sold what another has.

Buyers come over every transport, as themselves or through a back end, many at a time. They send
again what was not answered, with the same key, and sometimes what was answered long ago. Meanwhile
staff opens, pauses, restocks and closes, time goes in leaps, and the server is killed, sometimes
while it recovers. After each kill everybody's own record of what they were told is compared with
the ledger, which is itself proved step by step (sale_proof.py): nothing acknowledged is missing,
nothing happened twice for one key, whoever was refused has nothing, nobody was let in before her
turn, and every unit is where the ledger says.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from base64 import urlsafe_b64encode
from collections import deque

import jwt
import pytest

from tests.process import ServerProcess
from tests.recovery.lines import LINES, OK, OPEN, Cut, Operation, RtLine
from tests.recovery.sale_buyers import Buyer
from tests.recovery.sale_proof import Proof, Queue

SECRET = b"thirty-two bytes that sign tokens"
SERVICE_SECRET = "correct-horse-battery-staple"
FOREVER = 4_102_444_800  # the year 2100
HOUR_MS = 3_600_000
CONFIG = """
[limits]
turn_log_bytes_max = 65536
frame_bytes_max = 65536
[log]
segment_bytes = 524288
snapshot_after_bytes = 262144
[auth]
keys = "{keys}"
services.till.hash = "{hash}"
services.ops = {{ hash = "{hash}", role = "admin" }}
"""
QUEUE = {"rate_per_s": 400, "active_max": 60, "pass_ms": 8_000, "grace_ms": 60_000}


class Sale:
    """What is for sale, how the ledger proves it, and who came."""

    def __init__(self, name, kind, hold_ms, chance):
        self.name = name
        self.kind = kind
        self.hold_ms = hold_ms
        self.buyers = []
        self.restocks = []
        self.opened = False  # somebody was told so
        self.closing = False
        self.queue = QUEUE if kind == "queue" else None
        self.stock = {f"p{n}": chance.randint(100, 500) for n in range(3)}
        self.per_user = {None: 4, "p1": 2}
        self.items = {sku: {"stock": n, "per_user": 2 * (sku == "p1")} for sku, n in self.stock.items()}
        if kind == "hall":
            seats = [(zone, row, seat) for zone in "ab" for row in range(4) for seat in range(20)]
            self.stock = {f"{zone}{row}-{seat}": 1 for zone, row, seat in seats}
            self.items = {
                f"{zone}{row}-{seat}": {"stock": 1, "zone": zone, "row": f"{zone}{row}", "seat": seat}
                for zone, row, seat in seats
            }
            self.per_user = {None: 4}
        self.proof = None

    def params(self):
        scheduled = {"opens_at": FOREVER * 1_000} if self.queue else {}
        return {
            "name": self.name,
            "items": self.items,
            "per_user": self.per_user[None],
            "hold_ms": self.hold_ms,
            **scheduled,
            **({"queue": self.queue} if self.queue else {}),
        }

    def created(self, told):
        queue = None if self.queue is None else Queue(self.queue, told["seed_sha256"])
        self.proof = Proof(self.stock, self.per_user, self.hold_ms, queue)

    def is_over(self):
        """Whether there is little left to buy, or much to prove."""
        free = sum(balance["free"] for balance in self.proof.balances.values())
        return free < 20 or len(self.proof.holds) > 5_000

    def wish(self, chance):
        """Parameters of a reserve."""
        if self.kind == "hall" and chance.random() < 0.7:
            zone = chance.choice([{}, {"zone": "a"}, {"zone": "b"}])
            return {"best": {**zone, "count": chance.randint(1, 4)}}
        skus = chance.sample(sorted(self.stock), chance.randint(1, 2))
        most = 1 if self.kind == "hall" else 2
        return {"items": {sku: chance.randint(1, most) for sku in skus}}

    def part(self, chance, items):
        """Some of the items, at least one unit."""
        sku = chance.choice(sorted(items))
        return {sku: chance.randint(1, items[sku])}


# --- parties ---


class Party:
    """Somebody who comes back when the server does."""

    def __init__(self, trial, name):
        self.trial = trial
        self.chance = random.Random(f"{trial.seed}/{name}")

    async def run(self):
        trial = self.trial
        while not trial.over:
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
        """Takes what is settled to the script; its next operation, if any."""
        if self.operation is not None and self.operation.state == OPEN:
            return
        try:
            self.operation = self.script.send(self.operation)
        except StopIteration:
            self.ended = True

    def was_cut(self):
        """Without a key nobody may ask again."""
        one = self.operation
        if one.state == OPEN and one.sent and one.key is None and one in self.buyer.operations:
            self.ended = True


class Till(Party):
    """A back end that acts for many buyers at a time."""

    size = 25

    def __init__(self, trial, name):
        super().__init__(trial, name)
        self.visits = []

    async def live(self):
        async with self.line(f"key:till:{SERVICE_SECRET}") as line:
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
                    await self.trial.run_on(line, everything, cut=self.chance.random() < 0.03)
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
                visit.buyer.operations.append(double)  # a refusal is not remembered
        for echo, first in echoes:
            same(first, echo)
        for visit in self.visits:
            visit.was_cut()
            if not visit.ended:
                self.trial.heard(visit)
                visit.go_on()
        self.visits = [visit for visit in self.visits if not visit.ended]


def same(first, again):
    """A call under a key that was answered has that answer for ever."""
    if again.state == OPEN or first.state == OPEN:
        return
    if first.state == OK:
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
        async with self.line(token(visit.buyer.user)) as line:
            while self.going and not visit.ended:
                try:
                    await self.trial.run_on(line, [visit.operation], cut=self.chance.random() < 0.02)
                finally:
                    visit.was_cut()
                    if not visit.ended:
                        self.trial.heard(visit)
                        visit.go_on()


class Racer(Party):
    """Confirms in the very turn in which the hold expires, a moment before, and a moment after."""

    def __init__(self, trial, name):
        super().__init__(trial, name)
        self.races = 0

    async def live(self):
        async with RtLine(self.trial.server.address, f"key:ops:{SERVICE_SECRET}") as line:
            while self.going:
                await self.race(line)
                await asyncio.sleep(0.02)

    async def race(self, line):
        self.races += 1
        sale = self.chance.choice([one for one in self.trial.sales if not one.queue])
        buyer = self.trial.register(sale, f"racer{self.races}", acts_for=True)
        buyer.keys = "text"
        reserve = buyer.write("sale.reserve", name=sale.name, **sale.wish(self.chance))
        now = Operation("server.time", {})
        await self.trial.run_on(line, [reserve, now])
        if reserve.state != OK:
            return
        left = reserve.told["expires_at"] - now.told["now"]
        early = self.chance.choice([0, 0, 1, -1])
        leap = Operation("server.advance", {"ms": max(0, left - early)})
        late = self.chance.choice(["refuse", "retake"])
        confirm = buyer.write("sale.confirm", hold=reserve.told["hold"], late=late)
        ops = [leap, confirm] if self.chance.random() < 0.7 else [confirm, leap]
        await self.trial.run_on(line, ops)
        self.trial.raced[confirm.error or "sold"] = self.trial.raced.get(confirm.error or "sold", 0) + 1


class Clock(Party):
    """Time goes in steps and leaps, never back."""

    async def live(self):
        async with RtLine(self.trial.server.address, f"key:ops:{SERVICE_SECRET}") as line:
            while self.going:
                await asyncio.sleep(self.chance.uniform(0, 0.02))
                ms = self.chance.choices([1, 20, 100, 500, 12_000, HOUR_MS], [30, 30, 20, 15, 2, 1])[0]
                await line.call("server.advance", ms=ms)


class Staff(Party):
    """Opens, pauses, restocks; every call under a key, and again until it is answered."""

    def __init__(self, trial, name):
        super().__init__(trial, name)
        self.calls = 0
        self.open = None

    async def live(self):
        async with self.line(f"key:ops:{SERVICE_SECRET}") as line:
            while self.going:
                if self.open is None:
                    self.open = self.next()
                sale, one = self.open
                await self.trial.run_on(line, [one], cut=self.chance.random() < 0.05)
                self.settle(sale, one)
                self.open = None
                await asyncio.sleep(self.chance.uniform(0, 0.05))

    def next(self):
        sale = self.chance.choice(self.trial.sales)
        self.calls += 1
        does = self.chance.choices(["restock", "pause", "open"], [4, 1, 3])[0]
        params = {"name": sale.name}
        if does == "restock":
            skus = sorted(sale.stock)
            most = 1 if sale.kind == "hall" else 9
            less = 0 if sale.kind == "hall" else -3
            params["items"] = {self.chance.choice(skus): self.chance.randint(less, most)}
            if sale.kind == "hall":
                params["items"] = {f"new{self.calls}": 1}
        one = Operation(f"sale.{does}", params, idempotency_key=f"staff:{self.calls}")
        if does == "restock":
            sale.restocks.append(one)
        return sale, one

    def settle(self, sale, one):
        if one.method == "sale.open" and one.state == OK:
            sale.opened = True


def token(user):
    return jwt.encode({"sub": user, "exp": FOREVER}, SECRET, "HS256", headers={"kid": "k"})


# --- the trial ---


class Trial:
    def __init__(self, folder, seed):
        self.folder = folder
        self.seed = seed
        self.chance = random.Random(seed)
        self.server = ServerProcess(
            folder / "data", "--config", folder / "config.toml", "--manual-clock"
        )
        self.up = asyncio.Event()
        self.idle = asyncio.Event()
        self.over = False
        self.busy = 0
        self.kills = self.rounds = self.named = self.users = 0
        self.sales = []  # that are open to buyers
        self.ended = []
        self.raced = {}  # what racers were told
        self.answered = deque(maxlen=3_000)  # operations with a key that succeeded
        self.parties = [
            *(Till(self, f"till{n}") for n in range(4)),
            *(Shopper(self, f"shopper{n}") for n in range(10)),
            *(party(self, party.__name__) for party in (Clock, Staff, Racer)),
        ]
        self.totals = {"calls": 0, "buyers": 0, "steps": 0, "orders": 0, "holds": 0}
        self.configure()

    def configure(self):
        key = {"kty": "oct", "kid": "k", "alg": "HS256"}
        key["k"] = urlsafe_b64encode(SECRET).rstrip(b"=").decode()
        (self.folder / "keys.json").write_text(json.dumps({"keys": [key]}))
        hashed = f"sha256:{hashlib.sha256(SERVICE_SECRET.encode()).hexdigest()}"
        config = CONFIG.format(keys=self.folder / "keys.json", hash=hashed)
        (self.folder / "config.toml").write_text(config)

    # --- calls ---

    async def run_on(self, line, operations, *, cut=False):
        self.totals["calls"] += len(operations)
        await line.run(operations, cut=cut)

    def long_ago(self, chance, number):
        """Operations that were answered at any time."""
        known = self.answered
        return [known[chance.randrange(len(known))] for _ in range(number if known else 0)]

    # --- buyers ---

    def buyer(self, *, acts_for):
        self.users += 1
        return self.register(self.chance.choice(self.sales), f"u{self.users}", acts_for=acts_for)

    def register(self, sale, user, *, acts_for):
        buyer = Buyer(sale, user, random.Random(f"{self.seed}/{user}"), acts_for=acts_for)
        sale.buyers.append(buyer)
        return buyer

    def heard(self, visit):
        """Keeps what was answered, to ask again one day."""
        one = visit.operation
        if one.state == OK and one.key is not None:
            again = one.again()
            if type(one.key) is list or ":" in one.key:
                if one.method != "sale.refund":
                    again.options["as_user"] = visit.buyer.user
            again.state, again.told = one.state, one.told
            self.answered.append(again)

    # --- one life of the server ---

    def start(self):
        chance = self.chance
        self.server.environment = {
            "PYTHONHASHSEED": str(chance.randrange(1 << 32)),
            "RTSERVER_PURE": chance.choice(["", "", "1"]),
        }
        while chance.random() < 0.2:  # it may also die before it listens
            self.server.launch()
            time.sleep(chance.uniform(0, 0.6))
            self.server.kill()
            self.kills += 1
        self.server.start()
        assert not [line for line in self.server.lines if "damage" in line], self.server.lines

    async def live_and_kill(self):
        self.up.set()
        await asyncio.sleep(self.chance.uniform(0.3, 1.5))
        self.up.clear()
        self.server.kill()
        self.kills += 1
        await self.park()

    async def park(self):
        while self.busy:
            self.idle.clear()
            await asyncio.wait_for(self.idle.wait(), 60)
            self.raise_failures()

    def raise_failures(self):
        for task in self.tasks:
            if task.done():
                task.result()

    async def run(self, kills, until):
        await asyncio.to_thread(self.start)
        async with self.staff() as line:
            for kind in ("plain", "queue", "hall"):
                await self.create(line, kind)
        self.tasks = [asyncio.create_task(party.run()) for party in self.parties]
        try:
            while self.kills < kills and time.monotonic() < until:
                await self.live_and_kill()
                await asyncio.to_thread(self.start)
                await self.verify()
                self.rounds += 1
            await self.finish()
        finally:
            self.over = True
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    def staff(self):
        return RtLine(self.server.address, f"key:ops:{SERVICE_SECRET}")

    async def create(self, line, kind):
        self.named += 1
        sale = Sale(f"{kind}{self.named}", kind, 10_000, self.chance)
        sale.created(await line.call("sale.create", **sale.params()))
        self.sales.append(sale)

    async def finish(self):
        """A last life without a kill, in which all that is open is answered; then an orderly end."""
        self.up.set()
        await asyncio.sleep(1)
        self.up.clear()
        await self.park()
        async with self.staff() as line:
            for sale in list(self.sales):
                await self.end(line, sale)
            for sale in self.ended:
                await self.prove(line, sale)
        assert await asyncio.to_thread(self.server.stop) == 0
        await asyncio.to_thread(self.server.start)
        async with self.staff() as line:
            for sale in self.ended:
                sale.proof.seq_before = sale.proof.seq
                await self.prove(line, sale)

    # --- proof ---

    async def verify(self):
        async with self.staff() as line:
            for sale in self.sales:
                await self.prove(line, sale)
            for sale in list(self.sales):
                if sale.is_over() or self.chance.random() < 0.1:
                    await self.end(line, sale)
                    await self.create(line, sale.kind)

    async def end(self, line, sale):
        """Closes a sale: when all holds have ended nothing is stuck."""
        await line.call("sale.close", name=sale.name, release=self.chance.random() < 0.5)
        for _ in range(3):
            await line.call("server.advance", ms=10 * sale.hold_ms)
        status = await self.prove(line, sale)
        assert status["total"]["held"] == 0, status
        assert status["total"]["free"] + status["total"]["sold"] == status["total"]["stock"], status
        self.sales.remove(sale)
        self.ended.append(sale)
        self.totals["buyers"] += len(sale.buyers)
        self.totals["steps"] += sale.proof.seq
        self.totals["orders"] += len(sale.proof.orders)
        self.totals["holds"] += len(sale.proof.holds)

    async def prove(self, line, sale):
        status = await self.status(line, sale)
        proof = sale.proof
        for sku, told in status["items"].items():
            assert told == proof.balance(sku), (sale.name, sku, told, proof.balance(sku))
        assert status["items"].keys() == proof.balances.keys()
        assert status["state"] == proof.phase
        if sale.queue:
            assert status["waiting"] == len(proof.queue.waiting)
            assert status["active"] == len(proof.queue.visits)
        audit = await line.call("sale.audit", name=sale.name)
        assert audit["ok"], audit
        await self.prove_orders(line, sale)
        own = {}
        for hold_id, hold in proof.holds.items():
            own.setdefault(hold.user, {})[hold_id] = hold
        for buyer in sale.buyers:
            prove_buyer(buyer, own.pop(buyer.user, {}), proof)
        assert not own, f"holds of users who never came: {own}"
        self.prove_restocks(sale)
        return status

    async def status(self, line, sale):
        """The status at the last step that was read."""
        items, after = {}, None
        while True:
            status = await line.call("sale.status", name=sale.name, after=after, limit=1_000)
            items |= status["items"]
            after = status["next"]
            if after is None:
                break
        after = sale.proof.seq
        while after is not None:
            page = await line.call("sale.ledger", name=sale.name, after=after, limit=1_000)
            for step in page["items"]:
                sale.proof.take(step, status["seed"])
            after = page["next"]
        return {**status, "items": items}

    async def prove_orders(self, line, sale):
        found, after = [], 0
        while after is not None:
            page = await line.call("sale.orders", name=sale.name, after=after, limit=1_000)
            found += page["orders"]
            after = page["next"]
        for order in found:
            del order["at"]
        assert found == [sale.proof.order(hold) for hold in sale.proof.orders]

    def prove_restocks(self, sale):
        """Each restock is in the ledger once; one that is not answered may be."""
        left = list(sale.proof.restocks)
        for one in sale.restocks:
            if one.state == OK:
                left.remove(one.params["items"])
        unknown = [one.params["items"] for one in sale.restocks if one.state == OPEN and one.sent]
        assert all(items in unknown for items in left), (left, unknown)
        assert len(left) <= len(unknown)


def prove_buyer(buyer, holds, proof):
    """Her record of what she was told against what the ledger has of her."""
    told, unknown = {}, {}
    for one in buyer.operations:
        if one.state == OPEN:
            if one.sent:
                unknown[one.method] = unknown.get(one.method, 0) + 1
            continue
        if one.state == OK:
            CHECKS[one.method](one, holds, proof, told)
        elif one.method == "sale.confirm" and one.error == "expired":
            hold = holds[one.params["hold"]]
            assert hold.state in ("held", "expired", "cancelled"), (one, hold.steps)
    reserved, sold = told.get("reserved", {}), told.get("sold", {})
    extra = holds.keys() - reserved.keys()
    assert len(extra) <= unknown.get("sale.reserve", 0), (buyer.user, extra, buyer.operations)
    orders = {hold for hold, one in holds.items() if one.state in ("sold", "refunded")}
    assert sold.keys() <= orders
    assert len(orders - sold.keys()) <= unknown.get("sale.confirm", 0), buyer.operations
    for name, step in [("sale.cancel", "cancelled"), ("sale.extend", "extended")]:
        happened = sum(hold.steps.count(step) for hold in holds.values())
        known = told.get(step, 0)
        assert known <= happened <= known + unknown.get(name, 0), buyer.operations
    refunds = sum(len(hold.refunds) for hold in holds.values())
    known = told.get("refunded", 0)
    assert known <= refunds <= known + unknown.get("sale.refund", 0), buyer.operations


def _reserved(one, holds, _proof, told):
    hold = holds[one.told["hold"]]
    if "hold" in one.params:
        assert "replaced" in hold.steps
        return
    assert hold.first == one.told["items"], one
    known = told.setdefault("reserved", {})
    assert one.told["hold"] not in known, "two reserves have one hold"
    known[one.told["hold"]] = one


def _confirmed(one, holds, _proof, told):
    hold_id = one.params["hold"]
    hold = holds[hold_id]
    assert one.told["order"] == "o" + hold_id[1:]
    assert hold.state in ("sold", "refunded")
    assert hold.steps.count("confirmed") + hold.steps.count("retaken") == 1, hold.steps
    assert hold.items == one.told["items"], one
    assert hold.reference == one.params.get("reference"), one
    told.setdefault("sold", {})[hold_id] = one


def _refunded(one, holds, _proof, told):
    hold = holds["h" + one.params["order"][1:]]
    assert (one.told["items"], one.params["reference"]) in hold.refunds
    told["refunded"] = told.get("refunded", 0) + 1


def _counted(step):
    def check(_one, _holds, _proof, told):
        told[step] = told.get(step, 0) + 1

    return check


def _nothing(*_):
    pass


CHECKS = {
    "sale.join": _nothing,
    "sale.leave": _nothing,
    "sale.reserve": _reserved,
    "sale.confirm": _confirmed,
    "sale.cancel": _counted("cancelled"),
    "sale.extend": _counted("extended"),
    "sale.refund": _refunded,
}


async def trial(tmp_path, pytestconfig, kills, seconds):
    seed = pytestconfig.getoption("--seed")
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    one = Trial(tmp_path, seed)
    try:
        await one.run(kills, time.monotonic() + seconds)
    except BaseException as error:
        error.add_note(f"run it again with --seed {seed}")
        raise
    finally:
        one.server.kill()
    print(f"seed {seed}, {one.rounds} rounds, {one.kills} kills, {one.totals}, races {one.raced}")
    return one


async def test_what_buyers_were_told_survives_kills(tmp_path, pytestconfig):
    await trial(tmp_path, pytestconfig, kills=5, seconds=60)


@pytest.mark.torture
async def test_minutes_of_kills(tmp_path, pytestconfig):
    await trial(tmp_path, pytestconfig, kills=100_000, seconds=480)
