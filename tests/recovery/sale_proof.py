"""The ledger of a sale, read step by step by rules of its own: what no sale may ever do.

Each step must be allowed by those before it: units are taken from where they are, a hold ends once,
nobody has more than her limit, who is admitted was the next in line and there was a slot, a pass
and an allowance for it. Nothing here is shared with the server but the names of the steps.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque

MOVES = {
    "created": ("in", "free"),
    "restocked": ("in", "free"),
    "reserved": ("free", "held"),
    "confirmed": ("held", "sold"),
    "retaken": ("free", "sold"),
    "freed": ("held", "free"),
    "replaced": ("held", "free"),
    "cancelled": ("held", "free"),
    "expired": ("held", "free"),
    "released": ("held", "free"),
    "refunded": ("sold", "free"),
    "withdrawn": ("sold", "out"),
}
ENDS = {"cancelled", "expired", "released"}


class Hold:
    """What the ledger says of one hold."""

    def __init__(self, user, items, at):
        self.user = user
        self.items = items
        self.first = items
        self.at = at
        self.state = "held"
        self.reference = None
        self.ended_at = None  # when it was sold
        self.extended = 0
        self.refunds = []  # (items, reference)
        self.steps = ["reserved"]


class Queue:
    """Who waits, in the order that was promised, and who may shop."""

    def __init__(self, terms, seed_sha256):
        self.terms = terms
        self.seed_sha256 = seed_sha256
        self.started = False
        self.line = deque()  # (order, user) since the start, also of some who do not wait any more
        self.waiting = {}  # user -> her order; before the start only when she joined
        self.visits = {}  # user -> when her pass ends
        self.credit = max(1_000, terms["rate_per_s"] * 100)  # a tenth of a second, in thousandths
        self.credit_at = None
        self.arrivals = 0

    def start(self, at, seed):
        assert hashlib.sha256(seed.encode()).hexdigest() == self.seed_sha256
        self.started = True
        self.credit_at = at
        for user, joined in self.waiting.items():
            digest = hashlib.sha256(f"{seed}:{user}".encode()).hexdigest()
            self.waiting[user] = (0, int(digest[:16], 16) >> 1, joined)
        self.line = deque(sorted((order, user) for user, order in self.waiting.items()))

    def joined(self, user):
        assert user not in self.waiting, f"{user} joined twice"
        assert user not in self.visits, f"{user} joined and is inside"
        self.arrivals += 1
        self.waiting[user] = self.arrivals
        if self.started:
            self.waiting[user] = (1, self.arrivals, 0)
            self.line.append((self.waiting[user], user))

    def gone(self, user):
        """Left, or abandoned."""
        if user in self.waiting:
            del self.waiting[user]
        else:
            del self.visits[user]

    def admitted(self, at, user):
        while self.waiting.get(self.line[0][1]) != self.line[0][0]:
            self.line.popleft()  # gave it up, and perhaps took another place
        _, head = self.line.popleft()
        assert user == head, f"{user} was admitted before {head}"
        del self.waiting[user]
        most = max(1_000, self.terms["rate_per_s"] * 100)
        elapsed = at - self.credit_at
        self.credit = min(most, self.credit + elapsed * self.terms["rate_per_s"]) - 1_000
        self.credit_at = at
        assert self.credit >= 0, f"{user} was admitted sooner than the rate allows"
        self.visits[user] = at + self.terms["pass_ms"]
        assert len(self.visits) <= self.terms["active_max"], "more shop than may"

    def pass_expired(self, at, user):
        assert at >= self.visits.pop(user)

    def emptied(self, at, user, *, ended):
        """Her last hold ended: with a purchase or by expiry her visit does too."""
        if user in self.visits and (ended or at >= self.visits[user]):
            del self.visits[user]


class Proof:
    """`items`: {sku: stock} at first; `per_user`: {sku or None: limit}, 0 or none for no limit."""

    def __init__(self, items, per_user, hold_ms, queue=None):
        self.created = items
        self.per_user = per_user
        self.hold_ms = hold_ms
        self.queue = queue
        self.seq = 0
        self.at = 0
        self.phase = "scheduled"
        self.balances = {}  # sku -> {place: units}
        self.holds = {}
        self.taken = {}  # (user, sku or None) -> units
        self.open = {}  # user -> number of open holds
        self.restocks = []
        self.orders = []  # ids of holds in the order of their sale
        self.counts = Counter()  # (user, step) -> how often
        self.steps = []

    def take(self, step, seed):
        """The next step; `seed` as the sale tells it."""
        self.seq += 1
        self.steps.append(step)
        assert step["seq"] == self.seq
        assert step["at"] >= self.at, "time went backwards"
        self.at = step["at"]
        name = step["step"]
        self.counts[step["user"], name] += 1
        if name in MOVES:
            self._move(*MOVES[name], step["items"])
        if step["hold"] is not None:
            self._hold(name, step)
        elif name in ("joined", "left", "abandoned", "admitted", "pass_expired"):
            self._queued(name, step["user"])
        else:
            self._staff(name, step, seed)

    def _move(self, source, target, items):
        for sku, units in items.items():
            balance = self.balances.setdefault(sku, {"in": 0, "free": 0, "held": 0, "sold": 0})
            balance[source] = balance.get(source, 0) - units
            balance[target] = balance.get(target, 0) + units
            for place in ("free", "held", "sold"):
                assert balance[place] >= 0, f"{sku} was oversold: {balance}"

    def _staff(self, name, step, seed):
        if name == "created":
            assert step["items"] == self.created
        elif name == "restocked":
            self.restocks.append(step["items"])
        elif name in ("opened", "paused", "closed"):
            assert self.phase != "closed"
            if name == "opened" and self.queue is not None and not self.queue.started:
                self.queue.start(self.at, seed)
            self.phase = {"opened": "open"}.get(name, name)
        else:
            assert name == "configured", step

    def _queued(self, name, user):
        queue = self.queue
        if name == "joined":
            assert self.phase != "closed"
            queue.joined(user)
        elif name == "admitted":
            assert self.phase == "open"
            assert any(balance["free"] for balance in self.balances.values())
            queue.admitted(self.at, user)
        elif name == "pass_expired":
            assert not self.open.get(user)
            queue.pass_expired(self.at, user)
        else:
            assert not (name == "left" and self.open.get(user))
            queue.gone(user)

    # --- holds ---

    def _hold(self, name, step):
        hold = self.holds.get(step["hold"])
        if hold is None:
            assert name == "reserved", f"{name} of a hold that was never made"
            self._reserve(step)
            return
        hold.steps.append(name)
        assert hold.user == step["user"]
        if name == "extended":
            assert hold.state == "held"
            hold.extended += 1
        elif name == "reserved":
            assert hold.steps[-2] == "replaced"
            self._count(hold.user, step["items"], 1)
            hold.items = step["items"]
        elif name == "replaced":
            assert hold.state == "held"
            assert step["items"] == hold.items
            self._count(hold.user, hold.items, -1)
        elif name == "freed":
            assert hold.state == "held"
            self._count(hold.user, step["items"], -1)
            hold.items = less(hold.items, step["items"])
        elif name in ("refunded", "withdrawn"):
            self._refund(hold, step)
        else:
            self._end(name, hold, step)

    def _reserve(self, step):
        user = step["user"]
        assert self.phase == "open", f"{user} reserved while the sale was {self.phase}"
        if self.queue is not None:
            assert user in self.queue.visits, f"{user} reserved and was not admitted"
        self.holds[step["hold"]] = Hold(user, step["items"], self.at)
        self.open[user] = self.open.get(user, 0) + 1
        self._count(user, step["items"], 1)

    def _end(self, name, hold, step):
        if name == "retaken":
            assert hold.state in ("held", "expired"), f"{name} after {hold.steps}"
            hold.items = step["items"]
            self._count(hold.user, hold.items, 1)
        else:
            assert hold.state == "held", f"{name} after {hold.steps}"
            assert step["items"] == hold.items
            self.open[hold.user] -= 1
        if name in ENDS:
            assert name != "expired" or self.at >= hold.at + self.hold_ms
            hold.state = "cancelled" if name == "released" else name
            self._count(hold.user, hold.items, -1)
        else:
            assert name in ("confirmed", "retaken")
            hold.state = "sold"
            hold.ended_at = self.at
            hold.reference = step["reference"]
            self.orders.append(step["hold"])
        if self.queue is not None and not self.open[hold.user]:
            self.queue.emptied(self.at, hold.user, ended=name not in ("cancelled", "released"))

    def _refund(self, hold, step):
        assert hold.state == "sold"
        left = hold.items
        for items, _ in hold.refunds:
            left = less(left, items)
        left = less(left, step["items"])
        hold.refunds.append((step["items"], step["reference"]))
        self._count(hold.user, step["items"], -1)
        if not left:
            hold.state = "refunded"

    def _count(self, user, items, sign):
        for sku, units in items.items():
            for what in (None, sku):
                taken = self.taken.get((user, what), 0) + sign * units
                self.taken[user, what] = taken
                most = self.per_user.get(what, 0)
                assert taken >= 0
                assert not most or taken <= most, f"{user} has {taken} of {what}, {most} allowed"

    # --- what it comes to ---

    def balance(self, sku):
        balance = self.balances[sku]
        counted = {place: balance[place] for place in ("free", "held", "sold")}
        return {"stock": sum(counted.values()), **counted}

    def order(self, hold_id):
        """As sale.orders should tell it, without its time."""
        hold = self.holds[hold_id]
        refunded = {}
        for items, _ in hold.refunds:
            for sku, units in items.items():
                refunded[sku] = refunded.get(sku, 0) + units
        return {
            "order": "o" + hold_id[1:],
            "state": hold.state,
            "user": hold.user,
            "items": hold.items,
            "reference": hold.reference,
            "refunded": refunded,
        }


def less(items, others):
    """Items without others of them; AssertionError where there are not so many."""
    left = {sku: units - others.get(sku, 0) for sku, units in items.items()}
    assert not others.keys() - items.keys()
    assert all(units >= 0 for units in left.values())
    return {sku: units for sku, units in left.items() if units}
