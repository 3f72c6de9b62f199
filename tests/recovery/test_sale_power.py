"""Power failures under buyers: what was answered as synced is there, and what is left is a whole.

The same buyers as in test_sale_kill.py, but in one process and on a disk in memory, which at a
power failure loses, keeps or halves what was not synced. Who had been answered as `logged` may have
lost it, and then asks again, as for what was not answered at all.
"""

from __future__ import annotations

import random

import pytest

from rtserver.commands.replay import Replay
from rtserver.commands.table import load
from rtserver.persist.compaction import compact
from rtserver.persist.log import Log
from rtserver.persist.recovery import recover
from rtserver.state.store import Store
from rtserver.wire.codec import pack
from tests.persist.disk import Disk, SimulatedFiles
from tests.persist.states import SMALL, STORE
from tests.recovery.lines import OPEN
from tests.recovery.sale_buyers import Buyer, Sale
from tests.recovery.sale_parties import Visit
from tests.recovery.sale_records import Record
from tests.world import START_MS, World

TURNS = 60  # of one life
VISITS = 12  # at a time
HOLD_MS = 2_000


class Machine:
    """A server on a disk that outlives it; `now` is the time of its wall clock."""

    def __init__(self, chance):
        self.chance = chance
        self.disk = Disk()
        self.now = START_MS
        self.unsure = []  # operations that were answered since the last sync
        self.lost = 0  # records that were written and are gone

    def boot(self):
        self.files = SimulatedFiles(self.disk)
        store = Store()
        replay = Replay(load(), store)
        recovered = recover(
            STORE, self.files, apply_block=replay.apply_block, load_chunk=replay.load_chunk
        )
        store.check()
        self.log = Log.open(
            STORE,
            self.files,
            recovered,
            config=SMALL,
            closing_record=self.totals,
            notify=lambda: None,
            threaded=False,
        )
        self.log.work()  # prepares the next segment
        self.now = max(self.now, recovered.now_ms)
        self.world = World(restarted_ms=self.now, store=store)
        self.write()
        self.sync()
        return recovered

    def totals(self):
        return pack(("log.totals", 1, [self.world.store.totals()]))

    # --- turns ---

    def turn(self, operations):
        """One turn with these operations; those that do not wait for a sync are settled."""
        world = self.world
        world.now = self.now
        world.open_turn()
        asked = {}
        for one in operations:
            one.sent += 1
            command = world.table[one.method]
            args = [one.params.get(param.name) for param in command.params]
            asked[world.send(one.method, *args, options=one.options)] = one
        world.end_turn()
        self.write()
        self.hear(asked)
        if self.chance.random() < 0.25:
            self.sync()
            self.hear(asked)
            self.unsure.clear()
        else:
            world.waiting.clear()  # nobody waits so long

    def write(self):
        for now, records in self.world.blocks:
            while not self.log.reserve(sum(map(len, records))):
                self.log.work()  # prepares the next segment, and syncs on the way
            self.log.append(records, now)
        self.world.blocks.clear()

    def hear(self, asked):
        for frame in self.world.peer.take():
            if frame[0] == 1:
                one = asked[frame[1]]
                one.settle(frame[2], frame[3])
                self.unsure.append(one)

    def sync(self):
        self.log.request_sync()
        self.log.work()
        self.log.poll()
        assert self.log.synced_seq == self.log.written_seq
        self.world.sync()

    def snapshot(self):
        self.log.rotate(self.now)
        self.work_off()
        made = compact(STORE, self.files, lambda: Replay(load(), Store()))
        if made.pop("created"):
            self.log.register_snapshot(made)
            self.work_off()

    def work_off(self):
        while not self.log.settled:
            self.log.work()
            self.log.poll()

    def fail(self):
        """The machine goes down. What was not synced is as unknown as what was not answered."""
        written = self.log.written_seq
        self.disk.lose_power(self.chance, self.chance.choice([0.0, 0.3, 0.9]))
        recovered = self.boot()
        self.lost += written - recovered.seq
        for one in self.unsure:
            one.state, one.told = OPEN, None
        self.unsure.clear()

    def call(self, method, *args):
        self.world.now = self.now
        result = self.world.call(method, *args)
        self.write()
        self.sync()
        return result


class Fair:
    """Buyers on one machine, and what they were told."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.machine = Machine(self.chance)
        self.machine.boot()
        self.sales = [Sale(kind, kind, HOLD_MS, self.chance) for kind in ("plain", "queue", "hall")]
        for sale in self.sales:
            params = sale.params()
            items, per_user, hold_ms = params["items"], params["per_user"], params["hold_ms"]
            terms = [items, per_user, hold_ms, params.get("opens_at"), None, sale.queue]
            sale.created(self.machine.call("sale.create", sale.name, *terms))
            self.machine.call("sale.open", sale.name)
        self.visits = []
        self.users = 0

    def keep(self, _operation, _user):
        """A visit offers what was answered; here nobody asks for it later."""

    def live(self):
        machine, chance = self.machine, self.chance
        for _ in range(chance.randint(1, TURNS)):
            while len(self.visits) < VISITS:
                self.visits.append(self.enter())
            machine.now += chance.choice([0, 1, 20, 200])
            machine.turn([visit.operation for visit in self.visits])
            for visit in self.visits:
                visit.heard(self)
            self.visits = [visit for visit in self.visits if not visit.ended]
            if chance.random() < 0.02:
                machine.snapshot()

    def enter(self):
        self.users += 1
        sale = self.chance.choice(self.sales)
        buyer = Buyer(sale, f"u{self.users}", random.Random(self.chance.random()), acts_for=True)
        sale.buyers.append(buyer)
        return Visit(buyer)

    def fail(self):
        """Whoever heard of something that may be gone starts no second attempt with it."""
        unsure = {id(one) for one in self.machine.unsure}
        self.machine.fail()
        self.visits = [
            visit
            for visit in self.visits
            if not any(id(one) in unsure for one in visit.buyer.operations)
        ]

    def prove(self):
        for sale in self.sales:
            proof = sale.fresh_proof()
            self.read(sale, proof)
            status = self.machine.call("sale.status", sale.name, None, 1_000)
            assert status["items"] == {sku: proof.balance(sku) for sku in proof.balances}
            assert self.machine.call("sale.audit", sale.name)["ok"]
            holds = {}
            for name, hold in proof.holds.items():
                holds.setdefault(hold.user, {})[name] = hold
            for buyer in sale.buyers:
                Record(buyer, holds.pop(buyer.user, {}), proof).prove()
            assert not holds

    def read(self, sale, proof):
        seed = self.machine.call("sale.status", sale.name, None, 1)["seed"]
        while True:
            page = self.machine.call("sale.ledger", sale.name, proof.seq, 1_000)
            for step in page["items"]:
                proof.take(step, seed)
            if page["next"] is None:
                return


def survive(seed):
    """How many records were lost on the way."""
    fair = Fair(seed)
    try:
        for _ in range(6):
            fair.live()
            fair.fail()
            fair.prove()
    except BaseException as error:
        error.add_note(f"the seed is {seed}")
        raise
    assert fair.users > 100, "too little load to mean anything"
    return fair.machine.lost


@pytest.mark.parametrize("seed", range(4))
def test_what_was_synced_survives_power_failures(seed):
    assert survive(seed) > 0, "no power failure took anything"


@pytest.mark.torture
def test_hundreds_of_power_failures(pytestconfig):
    seed = pytestconfig.getoption("--seed")
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    assert sum(survive(seed + number) for number in range(60)) > 500
