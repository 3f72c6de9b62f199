"""A buyer's own record of what she was told, against what the ledger has of her.

What was acknowledged is there, once; what was refused is not; what was not answered is there at
most as often as it was asked under different keys.
"""

from __future__ import annotations

from collections import Counter

from tests.recovery.lines import OK, OPEN

COUNTED = {
    "sale.leave": "left",
    "sale.cancel": "cancelled",
    "sale.extend": "extended",
}


class Record:
    """`holds`: {id: Hold of the ledger} of this buyer."""

    def __init__(self, buyer, holds, proof):
        self.buyer = buyer
        self.holds = holds
        self.proof = proof
        self.reserved = set()
        self.sold = set()
        self.told = Counter()  # steps that were acknowledged
        self.expires_at = {}  # hold -> what she heard last
        self.unknown = Counter()  # method -> operations without an answer

    def prove(self):
        for one in self.buyer.operations:
            if one.state == OPEN:
                self.unknown[one.method] += bool(one.sent)
            elif one.state == OK:
                getattr(self, one.method.replace("sale.", "_"))(one)
            elif one.method == "sale.confirm" and one.error == "expired":
                hold = self.holds[one.params["hold"]]
                assert hold.state in ("held", "expired", "cancelled"), (one, hold.steps)
        orders = {name for name, hold in self.holds.items() if hold.state in ("sold", "refunded")}
        self._agree("sale.reserve", self.reserved, self.holds.keys())
        self._agree("sale.confirm", self.sold, orders)
        for method, step in COUNTED.items():
            self._count(method, self.told[step], self.proof.counts[self.buyer.user, step])
        assert {"h" + name[1:] for name in self.buyer.watched} <= self.holds.keys()
        assert {name for name in self.buyer.watched if name[0] == "o"} <= {
            "o" + name[1:] for name in orders
        }
        if self.buyer.was_let_in:
            assert self.proof.counts[self.buyer.user, "admitted"], self.buyer.user
        joined = self.proof.counts[self.buyer.user, "joined"]
        assert bool(joined) or not self.told["joined"], self.buyer.operations
        self._count("sale.join", min(joined, self.told["joined"]), joined)  # again: the same place
        refunds = sum(len(hold.refunds) for hold in self.holds.values())
        self._count("sale.refund", self.told["refunded"], refunds)

    def _agree(self, method, told, found):
        assert told <= found, (self.buyer.user, told - found, self.buyer.operations)
        self._count(method, len(told), len(found))

    def _count(self, method, told, found):
        most = told + self.unknown[method]
        assert told <= found <= most, (self.buyer.user, method, told, found, self.buyer.operations)

    # --- what was acknowledged ---

    def _join(self, _one):
        self.told["joined"] += 1

    def _leave(self, one):
        self.told["left"] += one.told["left"]

    def _reserve(self, one):
        name = one.told["hold"]
        hold = self.holds[name]
        self.expires_at[name] = one.told["expires_at"]
        if "hold" in one.params:
            assert "replaced" in hold.steps, one
            return
        assert hold.first == one.told["items"], (one, hold.first)
        assert name not in self.reserved, f"two reserves have the hold {name}"
        self.reserved.add(name)

    def _confirm(self, one):
        name = one.params["hold"]
        hold = self.holds[name]
        self.sold.add(name)
        assert one.told["order"] == "o" + name[1:], one
        assert hold.state in ("sold", "refunded"), (one, hold.steps)
        assert hold.steps.count("confirmed") + hold.steps.count("retaken") == 1, hold.steps
        assert hold.items == one.told["items"], (one, hold.items)
        assert hold.reference == one.params.get("reference"), (one, hold.reference)
        if one.params.get("late") != "retake" and not one.told["already"]:
            assert hold.ended_at < self.expires_at[name], (one, hold.ended_at)

    def _cancel(self, _one):
        self.told["cancelled"] += 1

    def _extend(self, one):
        self.expires_at[one.params["hold"]] = one.told["expires_at"]
        self.told["extended"] += 1

    def _refund(self, one):
        hold = self.holds["h" + one.params["order"][1:]]
        assert (one.told["items"], one.params["reference"]) in hold.refunds, (one, hold.refunds)
        self.told["refunded"] += 1
