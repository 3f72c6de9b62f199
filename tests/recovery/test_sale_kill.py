"""Thousands of buyers, SIGKILL at random moments, time that jumps: nobody is sold what another has.

Buyers come over every transport, as themselves or through a back end, many at a time. They send
again what was not answered, with the same key, and sometimes what was answered long ago. Meanwhile
staff opens, pauses, restocks and closes, time goes in leaps, and the server is killed, sometimes
while it recovers. After each kill everybody's own record of what they were told is compared with
the ledger (sale_records.py), which is itself proved step by step (sale_proof.py): nothing
acknowledged is missing, nothing happened twice for one key, whoever was refused has nothing,
nobody was let in before her turn, and every unit is where the ledger says.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import time
from base64 import urlsafe_b64encode
from collections import Counter, deque

import pytest

from rtserver.state.sales.ledger import MOVES
from tests.process import ServerProcess, cli
from tests.recovery.lines import OK, OPEN, Operation, RtLine
from tests.recovery.sale_buyers import Buyer, Sale
from tests.recovery.sale_parties import (
    HOUR_MS,
    OPS,
    SECRET,
    SERVICE_SECRET,
    Clock,
    Racer,
    Shopper,
    Staff,
    Till,
    Watcher,
)
from tests.recovery.sale_records import Record

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
# Loaded by the server's Python before anything else: the wall's clock stands where a file says.
WALL = """
import pathlib, time
_true, _file = time.time_ns, pathlib.Path({file!r})
time.time_ns = lambda: _true() + int(_file.read_text() or 0) * 1_000_000
"""


class Trial:
    """`manual`: time moves only as the clock party moves it; else it is real and the wall's clock
    is not."""

    def __init__(self, folder, seed, *, manual, life_s):
        self.folder = folder
        self.seed = seed
        self.manual = manual
        self.life_s = life_s  # at most
        self.hold_ms = 10_000 if manual else 500
        self.chance = random.Random(seed)
        options = ["--config", folder / "config.toml", *(["--manual-clock"] if manual else [])]
        self.server = ServerProcess(folder / "data", *options)
        self.up = asyncio.Event()
        self.idle = asyncio.Event()
        self.busy = 0  # parties that have a life of the server to live
        self.kills = self.rounds = self.users = self.named = 0
        self.sales = []  # that are open to buyers
        self.ended = []
        self.answered = deque(maxlen=3_000)  # operations with a key that succeeded
        self.races = Counter()  # what racers were told
        self.totals = Counter()
        self.steps = Counter()  # of all ledgers
        self.tasks = []
        self.parties = [
            *(Till(self, f"till{n}") for n in range(4)),
            *(Shopper(self, f"shopper{n}") for n in range(10)),
            *(party(self, party.__name__) for party in (Clock, Staff, Racer, Watcher)),
        ]
        self.configure()

    def configure(self):
        key = {"kty": "oct", "kid": "k", "alg": "HS256"}
        key["k"] = urlsafe_b64encode(SECRET).rstrip(b"=").decode()
        (self.folder / "keys.json").write_text(json.dumps({"keys": [key]}))
        hashed = f"sha256:{hashlib.sha256(SERVICE_SECRET.encode()).hexdigest()}"
        config = CONFIG.format(keys=self.folder / "keys.json", hash=hashed)
        (self.folder / "config.toml").write_text(config)
        self.set_wall(0)
        wall = WALL.format(file=str(self.folder / "wall"))
        (self.folder / "python").mkdir()
        (self.folder / "python" / "sitecustomize.py").write_text(wall)

    def set_wall(self, ms):
        (self.folder / "wall.new").write_text(str(ms))
        (self.folder / "wall.new").rename(self.folder / "wall")

    # --- buyers ---

    def buyer(self, *, acts_for):
        self.users += 1
        return self.enter(self.chance.choice(self.sales), f"u{self.users}", acts_for=acts_for)

    def enter(self, sale, user, *, acts_for):
        buyer = Buyer(sale, user, random.Random(f"{self.seed}/{user}"), acts_for=acts_for)
        sale.buyers.append(buyer)
        return buyer

    def keep(self, one, user):
        """What was answered, for whoever asks again one day, through a till."""
        known = one.again()
        known.state, known.told = one.state, one.told
        if one.method != "sale.refund":  # which the till calls for itself
            known.options["as_user"] = user
        self.answered.append(known)

    def long_ago(self, chance, number):
        """Operations that were answered at any time."""
        known = self.answered
        return [known[chance.randrange(len(known))] for _ in range(number if known else 0)]

    # --- lives of the server ---

    async def run(self, rounds, until):
        await self.start()
        async with self.staff() as line:
            for kind in ("plain", "queue", "hall"):
                await self.create(line, kind)
        self.tasks = [asyncio.create_task(party.run()) for party in self.parties]
        try:
            while self.rounds < rounds and time.monotonic() < until:
                await self.live(self.chance.uniform(0.3, self.life_s))
                self.server.kill()
                self.kills += 1
                await self.park()
                await self.start()
                await self.verify()
                self.rounds += 1
            await self.finish()
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def start(self):
        chance = self.chance
        self.server.environment = {
            "PYTHONHASHSEED": str(chance.randrange(1 << 32)),
            "RTSERVER_PURE": chance.choice(["", "", "1"]),
            **({} if self.manual else {"PYTHONPATH": str(self.folder / "python")}),
        }
        while chance.random() < 0.2:  # it may also die before it listens
            self.server.launch()
            await asyncio.sleep(chance.uniform(0, 0.6))
            self.server.kill()
            self.kills += 1
        await asyncio.to_thread(self.server.start)
        assert not [line for line in self.server.lines if "damage" in line], self.server.lines

    async def live(self, seconds):
        self.up.set()
        await asyncio.sleep(seconds)
        self.up.clear()

    async def park(self):
        """Until all parties know that they are to wait; what one of them found is raised."""
        while self.busy:
            self.idle.clear()
            await asyncio.wait_for(self.idle.wait(), 60)
        for task in self.tasks:
            if task.done():
                task.result()

    async def finish(self):
        """A last life, in which what is open is answered; then an orderly end, after which the
        log is replayed from its first record and the whole ledger is read once more."""
        await self.live(1)
        await self.park()
        async with self.staff() as line:
            for sale in list(self.sales):
                await self.end(line, sale)
            for sale in self.ended:  # some came late, or got their money back
                await self.prove(line, sale)
        assert await asyncio.to_thread(self.server.stop) == 0
        await asyncio.to_thread(self.audit)
        await asyncio.to_thread(self.server.start)
        async with self.staff() as line:
            for sale in self.ended:
                sale.proof = sale.fresh_proof()
                await self.prove(line, sale)

    def audit(self):
        done = cli("log", "audit-sales", self.folder / "data", "--json", timeout_s=300)
        assert done.returncode == 0, (done.stdout, done.stderr)
        found = {one["name"]: one for one in json.loads(done.stdout)["sales"]}
        for sale in self.ended:
            steps = found[sale.name]["steps"]
            assert steps == sale.proof.seq, (sale.name, steps, sale.proof.seq)

    # --- sales ---

    def staff(self):
        return RtLine(self.server.address, OPS)

    async def create(self, line, kind):
        self.named += 1
        sale = Sale(f"{kind}{self.named}", kind, self.hold_ms, self.chance)
        sale.created(await line.call("sale.create", **sale.params()))
        self.sales.append(sale)

    async def end(self, line, sale):
        """Closes a sale: when all holds have ended nothing is stuck."""
        release = self.chance.random() < 0.5
        await line.call("sale.close", name=sale.name, release=release)
        deadline = time.monotonic() + 30
        while (await line.call("sale.status", name=sale.name))["total"]["held"]:
            assert time.monotonic() < deadline, "units are stuck"
            if self.manual:
                await line.call("server.advance", ms=5 * sale.hold_ms)
            await asyncio.sleep(0.02)
        await self.prove(line, sale)
        total = (await line.call("sale.status", name=sale.name))["total"]
        assert (total["held"], total["free"] + total["sold"]) == (0, total["stock"]), total
        self.sales.remove(sale)
        self.ended.append(sale)
        self.totals["buyers"] += len(sale.buyers)
        self.steps.update(step["step"] for step in sale.proof.steps)
        self.totals["pushed"] += len(sale.pushed)
        self.totals["holds"] += len(sale.proof.holds)
        self.totals["orders"] += len(sale.proof.orders)

    # --- proof ---

    async def verify(self):
        async with self.staff() as line:
            if self.chance.random() < 0.4:  # what is killed next comes back from there
                await self.snapshot(line)
            if self.manual and self.chance.random() < 0.5:  # older than any key without an owner
                await line.call("server.advance", ms=2 * HOUR_MS)
            for sale in list(self.sales):
                await self.prove(line, sale)
                if sale.is_over() or self.chance.random() < 0.1:
                    await self.end(line, sale)
                    await self.create(line, sale.kind)

    async def snapshot(self, line):
        """As soon as the child of the server that was killed has noticed."""
        deadline = time.monotonic() + 60
        while True:
            one = Operation("server.snapshot", {})
            await line.run([one], timeout_s=120)
            if one.state == OK:
                return
            assert "another process" in one.told[2], one
            assert time.monotonic() < deadline, one
            await asyncio.sleep(0.2)

    async def prove(self, line, sale):
        proof = sale.proof
        status = await self.read(line, sale)
        assert status["items"] == {sku: proof.balance(sku) for sku in proof.balances}
        assert status["state"] == proof.phase
        if sale.queue:
            found = len(proof.queue.waiting), len(proof.queue.visits)
            assert (status["waiting"], status["active"]) == found
        for place, step in enumerate(sale.pushed):
            assert step in (None, proof.steps[place]), "what was pushed is not what happened"
        audit = await line.call("sale.audit", name=sale.name)
        assert audit["ok"], audit
        await self.prove_orders(line, sale)
        holds = {}
        for name, hold in proof.holds.items():
            holds.setdefault(hold.user, {})[name] = hold
        for buyer in sale.buyers:
            Record(buyer, holds.pop(buyer.user, {}), proof).prove()
        assert not holds, f"holds of users who never came: {holds}"
        self.prove_restocks(sale)

    async def read(self, line, sale):
        """The rest of the ledger, and the status that belongs to its end."""
        while True:
            seed = (await line.call("sale.status", name=sale.name, limit=1))["seed"]
            async for step in pages(line, "sale.ledger", "items", sale, after=sale.proof.seq):
                sale.proof.take(step, seed)
            status = await line.call("sale.status", name=sale.name, limit=1_000)
            assert status["next"] is None
            if not (await line.call("sale.ledger", name=sale.name, after=sale.proof.seq))["items"]:
                return status

    async def prove_orders(self, line, sale):
        found = [order async for order in pages(line, "sale.orders", "orders", sale, after=0)]
        for order in found:
            assert order.pop("at") == sale.proof.holds["h" + order["order"][1:]].ended_at
        assert found == [sale.proof.order(name) for name in sale.proof.orders]

    def prove_restocks(self, sale):
        """Each restock is in the ledger once; one that is not answered may be."""
        left = list(sale.proof.restocks)
        for one in sale.restocks:
            if one.state == OK:
                left.remove(one.params["items"])
        unknown = [one.params["items"] for one in sale.restocks if one.state == OPEN and one.sent]
        assert all(items in unknown for items in left), (left, unknown)
        assert len(left) <= len(unknown)


async def pages(line, method, field, sale, *, after):
    """All rows of a list of a sale."""
    while after is not None:
        page = await line.call(method, name=sale.name, after=after, limit=1_000)
        for row in page[field]:
            yield row
        after = page["next"]


# --- the tests ---


async def trial(tmp_path, pytestconfig, capsys, *, rounds, seconds, manual=True, life_s=1.2):
    seed = pytestconfig.getoption("--seed")
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    one = Trial(tmp_path, seed, manual=manual, life_s=life_s)
    try:
        await one.run(rounds, time.monotonic() + seconds)
    except BaseException as error:
        error.add_note(f"run it again with --seed {seed}")
        raise
    finally:
        one.server.kill()
    with capsys.disabled():
        sums = dict(one.totals + one.steps)
        sys.stdout.write(f"\nseed {seed}, {one.rounds} rounds, {one.kills} kills, {sums}\n")
    for what in ("orders", "pushed"):
        assert one.totals[what] > 20 * one.rounds, "too little load to mean anything"
    return one


async def test_what_buyers_were_told_survives_kills(tmp_path, pytestconfig, capsys):
    await trial(tmp_path, pytestconfig, capsys, rounds=5, seconds=20)


async def test_with_real_time_and_a_wall_clock_that_jumps(tmp_path, pytestconfig, capsys):
    await trial(tmp_path, pytestconfig, capsys, rounds=2, seconds=10, manual=False)


@pytest.mark.torture
@pytest.mark.parametrize("manual", [True, False])
async def test_minutes_of_kills(tmp_path, pytestconfig, capsys, manual):
    terms = {"rounds": 10_000, "seconds": 230, "manual": manual, "life_s": 4}
    one = await trial(tmp_path, pytestconfig, capsys, **terms)
    assert len(one.races) > 1
    if manual:
        assert one.steps.keys() | {"configured"} == MOVES.keys()
