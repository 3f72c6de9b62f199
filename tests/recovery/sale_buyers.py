"""What is for sale, and buyers as they are.

They join, look, reserve, buy, change their minds, ask twice, or vanish.

A script is a generator that gives an operation and gets it back when it is settled, however often
it had to be sent. It checks what it is told against what it was told before, and only that: what
is in the ledger is looked up by the trial.
"""

from __future__ import annotations

from tests.recovery.lines import OK, Operation
from tests.recovery.sale_proof import Proof, Queue

FOREVER_MS = 4_102_444_800_000  # the year 2100
PATIENCE = 25  # looks at a place in the queue
LOST = {"expired", "already_cancelled"}  # what a hold may be that was held a while ago
NOT_NOW = {"sold_out", "not_open", "limit_reached", "no_pass", "rate_limited"}


QUEUE = {"rate_per_s": 400, "active_max": 60, "pass_ms": 8_000, "grace_ms": 5_000}
SEATS = [(zone, row, seat) for zone in "ab" for row in range(4) for seat in range(20)]


class Sale:
    """What is for sale, and who came. `kind`: plain, queue or hall."""

    def __init__(self, name, kind, hold_ms, chance):
        self.name = name
        self.kind = kind
        self.hold_ms = hold_ms
        self.queue = QUEUE if kind == "queue" else None
        self.buyers = []
        self.restocks = []
        self.pushed = []  # steps, as whoever watches the ledger was told
        self.epoch = None  # of that
        self.opened = False  # and somebody was told so
        if kind == "hall":
            places = {f"{zone}{row}-{seat}": (zone, row, seat) for zone, row, seat in SEATS}
            self.items = {
                sku: {"stock": 1, "zone": zone, "row": f"{zone}{row}", "seat": seat}
                for sku, (zone, row, seat) in places.items()
            }
        else:
            self.items = {f"p{n}": {"stock": chance.randint(100, 500)} for n in range(3)}
            self.items["p1"]["per_user"] = 2
        self.per_user = {None: 4, **({} if kind == "hall" else {"p1": 2})}
        self.skus = sorted(self.items)

    def params(self):
        """Of sale.create."""
        queued = {"queue": self.queue, "opens_at": FOREVER_MS} if self.queue else {}
        terms = {"per_user": self.per_user[None], "hold_ms": self.hold_ms}
        return {"name": self.name, "items": self.items, **terms, **queued}

    def created(self, told):
        self.seed_sha256 = told["seed_sha256"]
        self.proof = self.fresh_proof()

    def fresh_proof(self):
        """Nothing read yet."""
        queue = None if self.queue is None else Queue(self.queue, self.seed_sha256)
        stock = {sku: item["stock"] for sku, item in self.items.items()}
        return Proof(stock, self.per_user, self.hold_ms, queue)

    def is_over(self):
        """Whether there is little left to buy, or much to prove."""
        free = sum(balance["free"] for balance in self.proof.balances.values())
        return free < 20 or len(self.proof.holds) > 5_000

    def wish(self, chance):
        """What a reserve asks for."""
        if self.kind == "hall" and chance.random() < 0.7:
            zone = chance.choice([{}, {"zone": "a"}, {"zone": "b"}])
            return {"best": {**zone, "count": chance.randint(1, 4)}}
        most = 1 if self.kind == "hall" else 2
        skus = chance.sample(self.skus, chance.randint(1, 2))
        return {"items": {sku: chance.randint(1, most) for sku in skus}}

    def part(self, chance, items):
        """Some of the items, at least one unit."""
        sku = chance.choice(sorted(items))
        return {sku: chance.randint(1, items[sku])}

    def delivery(self, chance, number):
        """What a restock brings, or takes away."""
        if self.kind == "hall":
            return {f"new{number}": 1}
        return {chance.choice(self.skus): chance.randint(-3, 9)}


class Buyer:
    """`acts_for`: a back end acts for her, else she acts herself. Her own record is `told`."""

    def __init__(self, sale, user, chance, *, acts_for):
        self.sale = sale
        self.user = user
        self.chance = chance
        self.acts_for = acts_for
        self.keys = chance.choice(["text", "text", "client", "none"])
        self.operations = []
        self.numbers = 0
        self.position = None  # the last one that she was told after the opening
        self.watched = set()  # holds and orders that she was shown
        self.was_let_in = False

    # --- operations ---

    def write(self, method, *, staff=False, **params):
        options = {} if staff else self.identity()
        self.numbers += 1
        if self.keys == "text" or staff:
            options["idempotency_key"] = f"{self.user}:{self.numbers}"
        elif self.keys == "client":
            options["idempotency_key"] = [f"c:{self.user}", self.numbers, self.numbers - 1]
        if self.chance.random() < 0.4:
            options["ack"] = "logged"
        one = Operation(method, params, **options)
        self.operations.append(one)
        return one

    def read(self, method, **params):
        return Operation(method, params, **self.identity())

    def identity(self):
        return {"as_user": self.user} if self.acts_for else {}

    def sees(self, place):
        """She was pushed where she is and what she has."""
        self.watched |= {one["hold"] for one in place["holds"]}
        self.watched |= {one["order"] for one in place["orders"]}
        self.was_let_in |= self.sale.queue is not None and place["state"] == "admitted"

    # --- scripts ---

    def script(self):
        """Everything one buyer does."""
        pass_id = None
        if self.sale.queue:
            pass_id = yield from self.queue()
            if pass_id is None:
                return
        hold = yield from self.reserve(pass_id)
        if hold is not None:
            yield from self.hold(hold)

    def queue(self):
        """The pass, or None."""
        joined = yield self.write("sale.join", name=self.sale.name)
        if joined.state != OK:
            assert joined.error in ("not_open", "limit_reached"), joined
            return None
        if self.chance.random() < 0.1:
            again = yield self.write("sale.join", name=self.sale.name)
            assert again.state == OK or again.error == "not_open", again
        place = joined.told
        for _ in range(self.chance.choice([2, PATIENCE, PATIENCE])):
            if place["state"] != "waiting":
                break
            opened = self.sale.opened
            looked = yield self.read("sale.place", name=self.sale.name)
            assert looked.state == OK, looked
            place = looked.told
            if opened:
                self.moves_on(place)
        if place["state"] == "admitted":
            return place["pass_id"]
        if place["state"] == "waiting" and self.chance.random() < 0.5:
            left = yield self.write("sale.leave", name=self.sale.name)
            assert left.state == OK, left
        return None

    def moves_on(self, place):
        """Who waits after the opening is never sent back."""
        position = place["position"]
        if position is not None and self.position is not None:
            assert position <= self.position, (self.user, place, self.position)
        self.position = position

    def reserve(self, pass_id):
        """The hold as she was told, or None."""
        wanted = self.sale.wish(self.chance)
        passes = {} if pass_id is None else {"pass_id": pass_id}
        reserved = yield self.write("sale.reserve", name=self.sale.name, **wanted, **passes)
        if reserved.state != OK:
            assert reserved.error in NOT_NOW, reserved
            return None
        hold = reserved.told
        if "items" in wanted:
            assert hold["items"] == wanted["items"], reserved
        else:
            assert sum(hold["items"].values()) == wanted["best"]["count"], reserved
        return hold

    def hold(self, hold):
        does = self.chance.choices(
            [self.buy, self.buy_a_part, self.extend, self.replace, self.cancel, self.vanish],
            [45, 10, 10, 10, 15, 10],
        )[0]
        yield from does(hold)

    def vanish(self, _hold):
        """Nothing more is heard of her."""
        yield from ()

    def buy(self, hold, **part):
        reference = f"ref:{self.user}:{self.numbers}"
        late = self.chance.choice(["refuse", "refuse", "retake"])
        params = {"hold": hold["hold"], "reference": reference, **part}
        done = yield self.write("sale.confirm", **params, late=late)
        expected = part.get("items") or hold["items"]
        if done.state != OK:
            assert done.error in LOST | (
                {"sold_out", "limit_reached"} if late != "refuse" else set()
            )
            return
        assert done.told["items"] == expected, done
        if self.chance.random() < 0.3:
            yield from self.ask_again(hold, params, done.told)
        if self.acts_for and self.chance.random() < 0.2:
            yield from self.refund(done.told)

    def ask_again(self, hold, params, told):
        """A second attempt sells nothing more, and says so."""
        again = yield self.write("sale.confirm", **params)
        assert again.state == OK, again
        assert again.told["already"], again
        assert (again.told["order"], again.told["items"]) == (told["order"], told["items"]), again
        other = yield self.write("sale.confirm", hold=hold["hold"], reference="another")
        assert other.error == "already_confirmed", other
        late = yield self.write("sale.cancel", hold=hold["hold"])
        assert late.error == "already_confirmed", late

    def refund(self, told):
        part = self.sale.part(self.chance, told["items"])
        for reference, items in [("r1", part), ("r2", None)]:
            back = yield self.write(
                "sale.refund",
                staff=True,
                order=told["order"],
                reference=f"{reference}:{self.user}",
                restock=self.chance.random() < 0.7,
                **({"items": items} if items else {}),
            )
            assert back.state == OK or back.error == "already_refunded", back

    def buy_a_part(self, hold):
        yield from self.buy(hold, items=self.sale.part(self.chance, hold["items"]))

    def extend(self, hold):
        longer = yield self.write("sale.extend", hold=hold["hold"], ms=self.sale.hold_ms)
        if longer.state != OK:
            assert longer.error in LOST, longer
            return
        assert longer.told["expires_at"] == hold["expires_at"] + self.sale.hold_ms, longer
        yield from self.buy(longer.told)

    def replace(self, hold):
        wanted = self.sale.wish(self.chance)
        other = yield self.write("sale.reserve", name=self.sale.name, **wanted, hold=hold["hold"])
        if other.state != OK:
            assert other.error in LOST | {"sold_out", "limit_reached", "not_open"}, other
            yield from self.buy(hold)
            return
        assert other.told["hold"] == hold["hold"], other
        assert other.told["expires_at"] == hold["expires_at"], other
        yield from self.buy(other.told)

    def cancel(self, hold):
        done = yield self.write("sale.cancel", hold=hold["hold"])
        if done.state != OK:
            assert done.error in LOST, done
            return
        assert done.told == {"cancelled": True, "items": hold["items"]}, done
        again = yield self.write("sale.cancel", hold=hold["hold"])
        assert again.error == "already_cancelled", again
        late = yield self.write("sale.confirm", hold=hold["hold"], late="retake")
        assert late.error == "already_cancelled", late
