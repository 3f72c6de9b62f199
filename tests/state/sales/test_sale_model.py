"""A whole sale against a naive one: every reply, every balance, every step of the ledger.

What is random: baskets of several items and seats, limits of the sale and of items, holds that
expire while their timers are late, extended ones, parts, late confirmations, refunds, stock that
grows and shrinks, terms that change, pauses, the end with and without release, keys that are sent
again, several commands in one turn, and sales that go on from their log or their snapshot.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rtserver.state.sales.ledger import MOVES
from rtserver.state.sales.views import possessions
from tests.sales import Shop
from tests.state.sales.oracle import Item, No, Sale
from tests.world import Refused, World

USERS = ["ann", "bob", "cyd"]
SEATS = [("front", "r1", n) for n in range(1, 6)] + [("back", "r1", n) for n in (1, 2, 4, 5, 6)]
PLAIN = {"a": Item(9), "b": Item(5, per_user=2), "c": Item(3)}
SKUS = [*PLAIN, *(f"{zone}-{seat}" for zone, _, seat in SEATS), "unknown"]
HOLD_MS = 1_000
IDS = {"hold", "order"}  # fields of replies that hold ids
COMMANDS = {"replace": "reserve"}  # where the call is named otherwise here

users = st.sampled_from(USERS)
baskets = st.dictionaries(st.sampled_from(SKUS), st.integers(1, 3), min_size=1, max_size=4)
likely = st.dictionaries(st.sampled_from(SKUS[:6]), st.integers(1, 2), min_size=1, max_size=3)
parts = st.one_of(
    st.none(), likely, st.dictionaries(st.sampled_from("abc"), st.just(1), min_size=1)
)
references = st.sampled_from([None, None, "r", "q"])
holds = st.integers(0, 11)  # which one that is, see SaleMachine.aimed
spans = st.sampled_from([1, 400, 600, 1_000, 1_001, 3_999, 4_000, 5_000])
amounts = st.dictionaries(st.sampled_from([*SKUS[:5], "new"]), st.integers(-4, 4), min_size=1)

Call = tuple[str, dict[str, Any]]


def call(method: str, **named: Any) -> Any:
    return st.tuples(st.just(method), st.fixed_dictionaries(named))


reserves = call("reserve", user=users, items=likely | baskets)
replaces = call("replace", user=users, items=likely, hold=holds)
late = st.sampled_from(["refuse", "retake"])
confirms = call("confirm", hold=holds, reference=references, items=parts, late=late)
cancels = call("cancel", hold=holds)
extends = call("extend", hold=holds, ms=spans)
refunds = call("refund", order=holds, items=parts, reference=references, restock=st.booleans())
restocks = call("restock", items=amounts)
calls = st.one_of(reserves, reserves, replaces, confirms, confirms, cancels, extends, refunds)
staff = st.one_of(
    call(
        "configure", per_user=st.sampled_from([None, 0, 2, 5]), hold_ms=st.sampled_from([None, 500])
    ),
    call("configure", per_user=st.none(), hold_ms=st.just(2_000)),
    call("pause"),
    call("open"),
    call("open"),
)


def declared(item: Item) -> dict[str, Any]:
    row: dict[str, Any] = {"stock": item.free, "per_user": item.per_user}
    if item.place is not None:
        row.update(zip(("zone", "row", "seat"), item.place, strict=True))
    return row


class SaleMachine(RuleBasedStateMachine):
    """`shop` is the real one, `sale` the naive one."""

    @initialize(per_user=st.sampled_from([0, 3, 6]), first=st.lists(reserves, max_size=3))
    def create(self, per_user: int, first: list[Call]) -> None:
        items = {sku: replace(item) for sku, item in PLAIN.items()}
        items |= {f"{place[0]}-{place[2]}": Item(1, 0, place) for place in SEATS}
        rows = {sku: declared(item) for sku, item in items.items()}
        self.shop = Shop(World(), items=rows, per_user=per_user, hold_ms=HOLD_MS)
        self.sale = Sale(self.shop.world.now, per_user, HOLD_MS, items)
        self.sale.steps = [
            ("created", self.sale.now, None, None, {s: i.free for s, i in items.items()}, None),
            ("opened", self.sale.now, None, None, {}, None),
        ]
        self.ids: list[str] = []  # of the holds, without their first letter
        self.keyed: list[tuple[str, dict[str, Any], Any]] = []
        self.tally = {sku: dict.fromkeys(("stock", "free", "held", "sold"), 0) for sku in items}
        self.read = 0  # steps of the ledger
        for call in first:
            self.run(*call)

    # --- one call, both ways ---

    def run(self, method: str, named: dict[str, Any], **how: Any) -> Any:
        """The call's reply, which must be the naive one's."""
        self.catch_up()
        records = len(self.shop.world.records())
        reply, error = self.ask(method, self.arguments(method, named), **how)
        assert error is None or len(self.shop.world.records()) == records
        self.compare(method, named, reply, error)
        return reply

    def ask(self, method: str, sent: dict[str, Any], *who: str, **how: Any) -> tuple[Any, Any]:
        """The reply, or None and the error's name."""
        try:
            return self.shop.ask(f"sale.{COMMANDS.get(method, method)}", *who, **sent, **how), None
        except Refused as refusal:
            return None, refusal.name

    def catch_up(self) -> None:
        """What is due fires at the start of a turn, before its commands."""
        self.sale.now = self.shop.world.now
        if self.shop.world.timers_per_turn:
            self.sale.fire()

    def aimed(self, call: Call) -> Call:
        """With the number of a hold for each pick: of one that is still open, mostly, of any, or 0,
        which is unknown."""
        method, named = call
        open_ones = [hold.number for hold in self.sale.holds if hold.state == "held"]
        for key in IDS & named.keys():
            pick = named[key]
            among = open_ones if pick > 4 and open_ones else range(1, 1 + len(self.ids))
            number = among[pick % len(among)] if among and pick < 11 else 0
            named = {**named, key: number}
            if method == "replace" and number and pick % 4:
                named["user"] = self.sale.holds[number - 1].user
        return method, named

    def arguments(self, method: str, named: dict[str, Any]) -> dict[str, Any]:
        """With ids in the place of numbers."""
        sent = {key: value for key, value in named.items() if value is not None}
        for key in IDS & sent.keys():
            number = sent[key]
            letter = "o" if key == "order" else "h"
            sent[key] = f"{letter}{self.ids[number - 1]}" if number else f"{letter}1-1-{'0' * 16}"
        return (
            sent if method in ("confirm", "cancel", "extend", "refund") else {"name": "s", **sent}
        )

    def compare(self, method: str, named: dict[str, Any], reply: Any, error: str | None) -> None:
        naive = {key: value for key, value in named.items() if value is not None}
        expected, errors = self.naive(COMMANDS.get(method, method), naive)
        assert error in errors, (method, naive, reply, error, errors)
        assert error is not None or self.numbered(reply) == expected, (method, naive)

    def naive(self, method: str, named: dict[str, Any]) -> tuple[Any, tuple[str | None, ...]]:
        """The naive reply with no error, or none and the errors that may be told."""
        try:
            return getattr(self.sale, method)(**named), (None,)
        except No as no:
            return None, no.names

    def numbered(self, value: Any) -> Any:
        """A reply with numbers in the place of ids."""
        if isinstance(value, list):
            return [self.numbered(one) for one in value]
        if not isinstance(value, dict):
            return value
        return {
            key: self.numbered_id(key[0], one) if key in IDS and one else self.numbered(one)
            for key, one in value.items()
        }

    def numbered_id(self, letter: str, text: str) -> int:
        assert text[0] == letter
        sale, number, _ = text[1:].split("-")
        assert sale == "1"
        if int(number, 16) == len(self.ids) + 1:
            self.ids.append(text[1:])
        assert self.ids[int(number, 16) - 1] == text[1:]
        return int(number, 16)

    # --- rules ---

    @rule(call=calls)
    def one(self, call: Call) -> None:
        self.run(*self.aimed(call))

    @precondition(lambda self: self.ids)
    @rule(call=st.one_of(replaces, replaces, confirms, cancels, extends))
    def on_a_hold(self, call: Call) -> None:
        self.run(*self.aimed(call))

    @precondition(lambda self: self.sale.orders())
    @rule(call=refunds, orders=st.integers(0, 3))
    def on_an_order(self, call: Call, orders: int) -> None:
        order = self.sale.orders()[-1 - orders % len(self.sale.orders())]
        self.run("refund", {**call[1], "order": order["order"]})

    @rule(call=restocks)
    def restock(self, call: Call) -> None:
        self.run(*call)

    @rule(call=staff)
    def manage(self, call: Call) -> None:
        self.run(*call)

    @rule(user=users, items=likely)
    def buy(self, user: str, items: dict[str, int]) -> None:
        """As she does it herself."""
        self.run("reserve", {"user": user, "items": items}, role="user", caller=user)
        if self.ids and self.sale.holds[-1].user == user:
            named = {"hold": len(self.ids), "reference": None}
            self.run("confirm", named, role="user", caller=user)

    @rule(caller=users, call=calls)
    def touch(self, caller: str, call: Call) -> None:
        """What is another's is nobody's business."""
        method, named = self.aimed(call)
        hold = named.get("hold", 0)
        owners = {named.get("user", caller), self.sale.holds[hold - 1].user if hold else caller}
        if owners == {caller} and method != "refund":
            self.run(method, named, role="user", caller=caller)
            return
        self.catch_up()
        _, error = self.ask(method, self.arguments(method, named), "user", caller)
        assert error == "forbidden" or (error == "not_found" and method == "replace" and not hold)

    @rule(several=st.lists(calls, min_size=2, max_size=4))
    def burst(self, several: list[Call]) -> None:
        """Several calls within one turn; they know of no hold that is made in it."""
        world = self.shop.world
        self.catch_up()
        several = [self.aimed(call) for call in several]
        world.open_turn()
        sent = []
        for method, named in several:
            name = f"sale.{COMMANDS.get(method, method)}"
            args = self.shop.positional(name, self.arguments(method, named))
            sent.append(world.send(name, *args))
        world.end_turn()
        world.sync()
        replies = {frame[1]: frame[2:] for frame in world.peer.take() if frame[0] == 1}
        for request, (method, named) in zip(sent, several, strict=True):
            error, reply = replies[request]
            self.compare(method, named, reply, error and error[1])

    @rule(user=users, zone=st.sampled_from([None, "front", "back"]), count=st.integers(1, 4))
    def best(self, user: str, zone: str | None, count: int) -> None:
        """Any seats side by side will do; which are best is asked elsewhere."""
        self.catch_up()
        best = {"count": count} if zone is None else {"zone": zone, "count": count}
        runs = self.sale.runs(zone, count)
        reply, error = self.ask("reserve", {"name": "s", "user": user, "best": best})
        if self.sale.phase != "open":
            assert error == "not_open"
        elif not runs:
            assert error == "sold_out"
        else:
            found = list(reply["items"]) if reply else runs[0]
            assert found in runs
            self.compare("reserve", {"user": user, "items": dict.fromkeys(found, 1)}, reply, error)

    @rule(ms=spans, late=st.integers(0, 3))
    def wait(self, ms: int, late: int) -> None:
        """Time passes; now and then the timers lag behind until the next time."""
        self.catch_up()
        world = self.shop.world
        world.timers_per_turn = 0 if late == 0 else 1_000
        world.advance(ms)
        self.catch_up()

    @precondition(lambda self: len(self.sale.steps) > 15)
    @rule(release=st.booleans())
    def close(self, release: bool) -> None:
        self.run("close", {"release": release})

    @rule(call=calls)
    def keyed_call(self, call: Call) -> None:
        """What succeeded under a key is answered again, whatever has become of it."""
        method, named = self.aimed(call)
        sent = self.arguments(method, named)
        options = {"idempotency_key": f"k{len(self.keyed)}"}
        reply = self.run(method, named, options=options)
        if reply is not None:
            self.keyed.append((method, {**sent, "options": options}, reply))

    @precondition(lambda self: self.keyed)
    @rule(back=st.integers(0, 5))
    def again(self, back: int) -> None:
        method, sent, reply = self.keyed[-1 - back % len(self.keyed)]
        self.catch_up()
        records = len(self.shop.world.records())
        assert self.ask(method, sent) == (reply, None)
        assert len(self.shop.world.records()) == records

    @rule()
    def look(self) -> None:
        """Everything there is to read."""
        self.catch_up()
        self.look_at(self.shop.ask)

    def look_at(self, ask: Any) -> None:
        for number, text in enumerate(self.ids, 1):
            assert self.numbered(ask("sale.get", hold=f"h{text}")) == self.sale.get(number)
        orders = self.numbered(ask("sale.orders", name="s", limit=1_000)["orders"])
        by_number = sorted(orders, key=lambda row: row["order"])
        assert by_number == self.sale.orders()
        assert [row["at"] for row in orders] == sorted(row["at"] for row in orders)
        for user in USERS:
            place = self.numbered(ask("sale.place", name="s", user=user))
            mine = sorted(place["holds"], key=lambda row: row["hold"])
            assert mine == self.sale.open_holds(user)
            own = [row for row in orders if row["user"] == user]
            assert place["orders"] == own[::-1]
            found = ask("sale.orders", name="s", user=user, state="refunded")["orders"]
            assert self.numbered(found) == [row for row in own if row["state"] == "refunded"]

    @rule()
    def restart(self) -> None:
        """The same answers from the log alone, and from a snapshot alone."""
        world = self.shop.world
        world.assert_same()
        self.catch_up()
        place = [self.shop.ask("sale.place", name="s", user=user) for user in USERS]
        for store in (world.replayed(), world.restored()):
            sale = store.sales.find("s")
            now = world.now
            found = [{**sale.place(now, user), **possessions(sale, now, user)} for user in USERS]
            assert found == place

    # --- what always holds ---

    @invariant()
    def agrees(self) -> None:
        shop = self.shop
        self.catch_up()
        audit = shop.say("audit")
        assert audit["ok"], audit
        balances = shop.balances()
        assert balances == {sku: self.sale.balance(sku) for sku in self.sale.items}
        assert shop.say("status")["state"] == self.sale.phase
        self.read_ledger()
        assert self.tally == balances
        shop.world.store.check()

    def read_ledger(self) -> None:
        """The new steps are the naive ones, and their movements add up to the balances."""
        rows = self.shop.ask("sale.ledger", name="s", after=self.read, limit=1_000)["items"]
        assert [row["seq"] for row in rows] == list(range(self.read + 1, self.read + 1 + len(rows)))
        self.read += len(rows)
        assert self.read == len(self.sale.steps)
        found = [
            (
                row["step"],
                row["at"],
                row["user"],
                row["hold"] and self.numbered_id("h", row["hold"]),
                row["items"] or {},
                row["reference"],
            )
            for row in rows
        ]
        assert by_turn(found) == by_turn(self.sale.steps[self.read - len(rows) :])
        for step, _, _, _, items, _ in found:
            for sku, units in items.items() if MOVES[step] else ():
                self.add_up(sku, *MOVES[step], units)

    def add_up(self, sku: str, giver: str, taker: str, units: int) -> None:
        row = self.tally.setdefault(sku, dict.fromkeys(("stock", "free", "held", "sold"), 0))
        for column, sign in ((giver, -1), (taker, 1)):
            row["stock" if column in ("in", "out") else column] += (
                -sign if column in ("in", "out") else sign
            ) * units

    def teardown(self) -> None:
        if hasattr(self, "shop"):
            self.shop.world.timers_per_turn = 1_000
            self.agrees()
            self.look()
            self.restart()
            self.shop.world.advance(10 * 2_000)
            self.agrees()
            assert all(row["held"] == 0 for row in self.shop.balances().values())
            self.shop.settle()


def by_turn(steps: list[Any]) -> list[Any]:
    """What expires or is released in one turn may do so in any order."""
    ends = ("expired", "released")
    return sorted(
        steps,
        key=lambda row: (row[1], row[0] in ends, row[3] if row[0] in ends else 0),
    )


SaleMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("SALE_MODEL_EXAMPLES", "100")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestSale = SaleMachine.TestCase
