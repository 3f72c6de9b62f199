"""The audit of a sale: it agrees while the sale goes on, and finds what is changed behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rtserver.state.sales.audit import Audit
from rtserver.state.sales.book import Hold
from rtserver.state.sales.ledger import STEPS, Ledger
from rtserver.state.sales.sale import Sale
from tests.sales import Shop
from tests.world import Refused

SEATS = {f"s{n}": {"stock": 1, "row": "r", "seat": n} for n in range(6)}
QUEUE = {"rate_per_s": 1_000, "active_max": 3, "pass_ms": 20_000, "grace_ms": 1_000}
USERS = ["ann", "bob", "cid", "dan", "eve", "fay"]


def sale_of(shop: Shop) -> Sale:
    return shop.world.store.sales.find("s")


class AuditMachine(RuleBasedStateMachine):
    """Whatever the sale does between its pieces, an audit ends without a problem and with the sums
    of its last moment."""

    @initialize(queued=st.booleans(), piece=st.integers(1, 40))
    def begin(self, queued: bool, piece: int) -> None:
        terms: dict[str, Any] = {"queue": QUEUE} if queued else {}
        items = {"a": 30, "b": {"stock": 20, "per_user": 4}, **SEATS}
        self.shop = Shop(items=items, per_user=0, **terms)
        self.piece = piece
        self.holds = [""]
        self.audit = Audit(sale_of(self.shop))

    def say(self, words: str, **options: str) -> Any:
        try:
            return self.shop.say(words, **options)
        except Refused:
            return None

    @rule(user=st.sampled_from(USERS), sku=st.sampled_from(["a", "b", "s1", "s4"]))
    def reserve(self, user: str, sku: str) -> None:
        joined = self.say(f"join user={user}") or {}
        proof = f" pass_id={joined['pass_id']}" if joined.get("pass_id") else ""
        basket = f"{sku}:1" if sku != "a" else "a:2+b:1"
        held = self.say(f"reserve user={user} items={basket}{proof}")
        if held is not None:
            self.holds.append(held["hold"])

    @rule(
        words=st.sampled_from(
            [
                "confirm",
                "confirm items=a:1",
                "confirm late=retake",
                "cancel",
                "extend ms=1000",
                "refund",
                "refund items=a:1",
                "refund restock=false",
            ]
        ),
        back=st.integers(1, 5),
    )
    def change_a_hold(self, words: str, back: int) -> None:
        self.shop.hold = self.holds[-min(back, len(self.holds))]
        self.say(words)

    @rule(user=st.sampled_from(USERS), words=st.sampled_from(["join", "leave"]))
    def queue(self, user: str, words: str) -> None:
        self.say(f"{words} user={user}")

    @rule(words=st.sampled_from(["pause", "open", "restock items=a:3", "restock items=b:-1"]))
    def change_the_sale(self, words: str) -> None:
        self.say(words)

    @rule(ms=st.sampled_from([1, 30_000, 60_000]))
    def wait(self, ms: int) -> None:
        self.shop.world.advance(ms)

    @rule()
    def proceed(self) -> None:
        if self.audit.proceed(self.piece):
            result = self.audit.result
            assert result["ok"], result
            assert result["steps"] == len(sale_of(self.shop).ledger)
            assert self.audit.reckoning.balance() == sale_of(self.shop).total()
            self.audit = Audit(sale_of(self.shop))

    @invariant()
    def a_whole_one_agrees_too(self) -> None:
        result = self.shop.say("audit")
        assert result["ok"], result


TestAudit = AuditMachine.TestCase
TestAudit.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def shop_with_everything() -> Shop:
    """Holds of each kind: 2 sold, 3 cancelled, 1 and 4 expired, 5 held, 6 refunded in part."""
    shop = Shop(items={"a": 30, "b": 20, **SEATS}, per_user=0)
    for number, user in enumerate(USERS[:5], 1):
        shop.hold = shop.say(f"reserve user={user} items=a:2+b:1+s{number}:1")["hold"]
        if number in (2, 5):
            shop.say("confirm reference=paid")
        if number == 3:
            shop.say("cancel")
        if number == 5:
            shop.say("refund items=a:1")
        if number == 4:
            shop.world.advance(60_000)
            shop.hold = shop.say("reserve user=ann items=a:2")["hold"]
    return shop


def audited(shop: Shop) -> list[str]:
    audit = Audit(sale_of(shop))
    while not audit.proceed(3):
        pass
    assert audit.result["ok"] == (not audit.result["problems"])
    problems: list[str] = audit.result["problems"]
    return problems


def hold(sale: Sale, number: int) -> Hold:
    return sale.book.at(number)


def change_free(sale: Sale) -> None:
    sale.book.sequence[0].free += 1


def change_sold_and_stock(sale: Sale) -> None:
    sale.book.sequence[1].sold += 1
    sale.book.sequence[1].stock += 1


def change_total(sale: Sale) -> None:
    sale.book.sold += 1


def change_state(sale: Sale) -> None:
    hold(sale, 3).state = hold(sale, 2).state


def change_user(sale: Sale) -> None:
    hold(sale, 2).user = "bob's brother"


def change_basket(sale: Sale) -> None:
    hold(sale, 2).amounts = (2, 2, 1)


def change_items(sale: Sale) -> None:
    hold(sale, 2).items = hold(sale, 1).items


def change_refunds(sale: Sale) -> None:
    hold(sale, 6).refunds = None


def forget_order(sale: Sale) -> None:
    sale.book.pages[0][2] = None


def change_taken(sale: Sale) -> None:
    buyer = sale.book.buyers.get("bob")
    assert buyer is not None
    buyer.taken -= 1


def double_order(sale: Sale) -> None:
    buyer = sale.book.buyers.get("bob")
    assert buyer is not None
    sale.book.note_order(buyer, 2)


def lose_user(sale: Sale) -> None:
    sale.book.buyers.pop("bob")


def add_user(sale: Sale) -> None:
    sale.book.buyer("nobody")


def change_hall(sale: Sale) -> None:
    sale.hall.free("s2")


def lose_step(sale: Sale) -> None:
    """The third of the steps that reserve is gone from the ledger."""
    ledger = Ledger()
    rows = list(sale.ledger.rows(0, 1_000))

    for row in rows[:3] + rows[4:]:
        ledger.append(STEPS.index(row[0]), *row[1:])
    sale.ledger = ledger


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (change_free, "item 'a'"),
        (change_free, "item 'a' does not add up"),
        (change_sold_and_stock, "item 'b'"),
        (change_total, "all items"),
        (change_state, "hold 3: the ledger adds up to ('cancelled', 'cid')"),
        (change_user, "hold 2: the ledger adds up to ('sold', 'bob')"),
        (change_basket, "hold 2: the ledger adds up to another basket"),
        (change_items, "hold 2: the ledger adds up to another basket"),
        (change_refunds, "hold 6: the ledger adds up to another basket"),
        (forget_order, "hold 2: the ledger adds up to sold, the sale says nothing of it"),
        (change_taken, "units, holds and orders of 'bob'"),
        (double_order, "orders: the ledger adds up to 2, the sale says 3"),
        (lose_user, "units, holds and orders of 'bob'"),
        (add_user, "users"),
        (change_hall, "item 's2': the hall disagrees"),
        (lose_step, "step 4 "),
    ],
)
def test_what_is_changed_behind_the_ledger_is_found(
    change: Callable[[Sale], None], problem: str
) -> None:
    shop = shop_with_everything()
    assert audited(shop) == []
    change(sale_of(shop))
    problems = audited(shop)
    assert any(problem in text for text in problems), problems


def test_the_queue_is_compared() -> None:
    shop = Shop(queue=QUEUE, opens_in=1_000)
    for user in USERS:
        shop.say(f"join user={user}")
    assert audited(shop) == []
    room = sale_of(shop).room
    assert room is not None
    room.leave("ann")
    assert audited(shop) == ["waiting: the ledger adds up to 6, the sale says 5"]


def test_a_sale_that_grows_faster_than_the_pieces_is_audited_all_the_same() -> None:
    shop = Shop(items={"a": 10_000}, per_user=0)
    for _ in range(50):
        shop.say("reserve items=a:1")
        shop.say("restock items=a:1")
    audit = Audit(sale_of(shop))
    pieces = 1
    while not audit.proceed(2):
        pieces += 1
        for _ in range(5):
            shop.say("restock items=a:1")
        assert pieces < 100
    assert audit.result["ok"]


def test_an_unknown_sale_is_not_found() -> None:
    with pytest.raises(Refused, match="there is no sale"):
        Shop().ask("sale.audit", name="none")
