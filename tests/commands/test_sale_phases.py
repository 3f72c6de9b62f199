"""The phases of a sale, the order of its refusals, its stock, and what creating it again means."""

from __future__ import annotations

import pytest

from rtserver.state.sales import buying
from rtserver.state.sales.views import possessions
from tests.sales import HOLD_MS, ITEMS, Shop, rows_of
from tests.world import Refused

HOUR_MS = 3_600_000
QUEUE = {"rate_per_s": 1_000, "active_max": 100}

# How a sale that opens after an hour and closes an hour later comes to be in its phase. Where it
# was open Ann holds one of `a`; where it takes joins Eve has joined.
PHASES = {
    "scheduled": ["join user=eve"],
    "open": ["open", "buy", "join user=eve"],
    "open by time": [f"wait {HOUR_MS}", "buy", "join user=eve"],
    "paused": ["open", "buy", "join user=eve", "pause"],
    "closed": ["open", "buy", "join user=eve", "close"],
    "closed by time": [f"wait {HOUR_MS}", f"wait {HOUR_MS - 1_000}", "buy", "wait 1000"],
    "called off": ["join user=eve", "close"],  # closed before it ever opened
}

# A phase: then each call, the error or -, and the phase that follows (none: it is gone).
CALLS = """
scheduled:
  reserve items=a:1           not_open  scheduled
  join user=dan               -         scheduled
  leave user=eve              -         scheduled
  place user=eve              -         scheduled
  status                      -         scheduled
  restock items=a:5+new:3     -         scheduled
  configure hold_ms=5000      -         scheduled
  open                        -         open
  pause                       conflict  scheduled
  close                       -         closed
  delete                      conflict  scheduled

open:
  reserve items=a:1           -         open
  confirm                     -         open
  cancel                      -         open
  extend ms=10                -         open
  join user=dan               -         open
  leave user=eve              -         open
  restock items=a:5+new:3     -         open
  configure per_user=3        -         open
  open                        -         open
  pause                       -         paused
  close                       -         closed
  close release=true          -         closed
  delete                      conflict  open

open by time:
  reserve items=a:1           -         open
  open                        -         open
  pause                       -         paused

paused:
  reserve items=a:1           not_open  paused
  confirm                     -         paused
  cancel                      -         paused
  extend ms=10                -         paused
  join user=dan               -         paused
  leave user=eve              -         paused
  restock items=a:-1          -         paused
  configure per_user=3        -         paused
  open                        -         open
  pause                       -         paused
  close                       -         closed
  delete                      conflict  paused

closed:
  reserve items=a:1           not_open  closed
  confirm                     -         closed
  cancel                      -         closed
  extend ms=10                -         closed
  join user=dan               not_open  closed
  leave user=eve              -         closed
  place user=eve              -         closed
  restock items=a:1           conflict  closed
  configure per_user=3        conflict  closed
  open                        conflict  closed
  pause                       conflict  closed
  close                       -         closed
  close release=true          -         closed

closed by time:
  reserve items=a:1           not_open  closed
  confirm                     -         closed
  join user=dan               not_open  closed
  close                       -         closed

called off:
  reserve items=a:1           not_open  closed
  join user=dan               not_open  closed
  open                        conflict  closed
  delete                      -         -
"""


def in_phase(phase, **terms):
    shop = Shop(opens_in=HOUR_MS, closes_in=2 * HOUR_MS, **terms)
    for step in PHASES[phase]:
        if step == "buy":
            shop.hold = shop.say(f"reserve items=a:1 {passed(shop, 'ann')}")["hold"]
        else:
            shop.say(step)
    return shop


def passed(shop, user):
    """The pass of a user who joins, as a parameter; nothing where nobody needs one."""
    shop.say(f"join user={user}")
    shop.say("wait 10")  # admissions are so many a second
    place = shop.say(f"place user={user}")
    return f"pass_id={place['pass_id']}" if place["pass_id"] else ""


@pytest.mark.parametrize("queue", [None, QUEUE], ids=["plain", "queued"])
@pytest.mark.parametrize(("phase", "call", "error", "then"), rows_of(CALLS))
def test_phases(phase, call, error, then, queue):
    shop = in_phase(phase, queue=queue)
    if call.startswith("reserve"):
        call += " user=fay " + (passed(shop, "fay") if error == "-" else "")
    _, refusal = shop.attempt(call)
    assert (refusal.name if refusal else "-") == error, refusal
    if error == "not_open":
        assert refusal.details == {"state": then, "opens_at": shop.say("status")["opens_at"]}
    if then == "-":
        with pytest.raises(Refused, match="not_found"):
            shop.say("status")
        shop.world.assert_same()
        return
    assert shop.say("status")["state"] == then
    shop.settle()
    shop.say(f"wait {3 * HOUR_MS}")
    assert shop.say("status")["state"] == "closed", "whatever happened, it ends in time"
    shop.settle()


def test_a_sale_opens_and_closes_at_its_times_to_the_millisecond():
    shop = Shop(opens_in=1_000, closes_in=3_000)
    shop.say("wait 999")
    assert shop.attempt("reserve items=a:1")[1].name == "not_open"
    shop.say("wait 1")
    shop.hold = shop.say("reserve items=a:1")["hold"]
    shop.say("wait 1999")
    shop.say("reserve items=a:1")
    shop.say("wait 1")
    assert shop.attempt("reserve items=a:1")[1].name == "not_open"
    assert shop.attempt("join")[1].name == "not_open"
    shop.say("confirm")
    steps = [row["step"] for row in shop.steps()]
    assert steps == ["created", "opened", "reserved", "reserved", "closed", "confirmed"]
    shop.settle()


@pytest.mark.parametrize("ms", [1_000, 3_000])
def test_late_timers_change_no_phase_early_or_late(ms):
    """With the timer of its opening or closing not fired yet, a sale says one thing everywhere."""
    shop = Shop(opens_in=1_000, closes_in=3_000)
    shop.say(f"wait {ms - 500}")
    shop.world.timers_per_turn = 0
    shop.say("wait 500")
    state = shop.say("status")["state"]
    refusal = shop.attempt("reserve items=a:1")[1]
    assert (refusal is None) == (state == "open")
    shop.world.timers_per_turn = 1_000
    shop.say("wait 0")
    assert shop.say("status")["state"] == ("open" if ms == 1_000 else "closed")
    shop.settle()


def test_a_pause_is_not_ended_by_the_time_of_opening():
    shop = Shop(opens_in=1_000, closes_in=3_000)
    shop.say("open")
    shop.say("pause")
    shop.say("wait 1000")
    assert shop.say("status")["state"] == "paused"
    shop.say("wait 2000")
    assert shop.say("status")["state"] == "closed"
    shop.settle()


def test_times_may_be_moved_while_a_sale_waits_and_while_it_runs():
    shop = Shop(opens_in=1_000, closes_in=3_000)
    start = shop.world.now
    shop.say(f"configure opens_at={start + 2_000} closes_at={start + 4_000}")
    shop.say("wait 1000")
    assert shop.say("status")["state"] == "scheduled"
    shop.say("wait 1000")
    assert shop.say("status")["state"] == "open"
    shop.say(f"configure closes_at={start + 2_500}")
    shop.say("wait 500")
    assert shop.say("status")["state"] == "closed"
    shop.say("wait 5000")
    steps = [row["step"] for row in shop.steps() if row["step"] in ("opened", "closed")]
    assert steps == ["opened", "closed"]
    shop.settle()


def test_closing_releases_what_is_held_only_where_that_is_asked():
    shop = Shop()
    shop.hold = shop.say("reserve items=a:2+b:1")["hold"]
    other = shop.say("reserve user=bob items=c:4")["hold"]
    shop.say("close")
    assert shop.balances()["a"] == {"stock": 10, "free": 8, "held": 2, "sold": 0}
    shop.say("confirm")
    shop.say("close release=true")
    shop.say("wait 0")
    balances = shop.balances()
    assert {sku: row["held"] for sku, row in balances.items()} == {"a": 0, "b": 0, "c": 0}
    assert balances["c"]["free"] == 4
    assert shop.ask("sale.get", hold=other)["state"] == "cancelled"
    assert shop.say("get")["state"] == "sold"
    assert shop.steps()[-1]["step"] == "released"
    shop.settle()


def test_a_deleted_sale_is_gone_and_its_name_is_free_again():
    shop = Shop()
    shop.hold = shop.say("reserve items=a:2+b:1")["hold"]
    shop.say("confirm reference=r")
    shop.say("reserve user=bob items=c:4")
    shop.say("close")
    if shop.attempt("delete")[1] is not None:  # what is held is nobody's to throw away
        shop.say("close release=true")
        shop.say("wait 0")
        shop.say("delete")
    for call in ("get", "confirm", "cancel", "extend ms=1", "refund", "status", "join", "delete"):
        with pytest.raises(Refused, match="not_found"):
            shop.say(call)
    shop.say(f"wait {10 * HOLD_MS}")
    again = Shop(shop.world)
    assert again.made["created"]
    again.hold = shop.hold
    assert again.attempt("get")[1].name == "not_found"
    assert again.balances()["a"] == {"stock": 10, "free": 10, "held": 0, "sold": 0}
    assert again.say("orders")["orders"] == []
    again.settle()


@pytest.mark.parametrize("queue", [None, QUEUE], ids=["plain", "queued"])
def test_what_changes_nothing_for_a_user_is_not_logged(queue):
    shop = Shop(queue=queue)
    shop.say("join user=eve")
    records, steps = len(shop.world.records()), shop.steps()
    assert shop.say("leave user=dan") == {"left": False}
    assert shop.say("join user=eve")["state"] == "admitted"
    assert len(shop.world.records()) == records
    assert shop.steps() == steps
    shop.settle()


# --- the order of refusals ---

# What holds of the sale: what Bob asks, the first of the refusals, and what it must name.
ORDER = """
:
  reserve name=nosale items=zzz:1      not_found      nosale
  reserve items=a:1+zzz:1              not_found      zzz
  reserve items=a:7                    limit_reached  6
  reserve items=b:4                    limit_reached  3
  reserve items=b:4+a:3                limit_reached  6
closed:
  reserve items=a:1+zzz:1              not_found      zzz
paused, c is sold out, no pass:
  reserve items=c:1                    not_open       paused
c is sold out, no pass:
  reserve items=c:1                    sold_out       c
  reserve items=a:1+c:1                sold_out       c
  reserve items=a:11                   sold_out       a
c is sold out:
  reserve items=c:1                    sold_out       c
  reserve items=c:100                  sold_out       c
  reserve items=a:100                  sold_out       a
no pass:
  reserve items=a:7                    no_pass        queue
  reserve items=a:1 pass_id=guessed    no_pass        queue
dwell:
  reserve items=a:7                    rate_limited   retry_after_ms
  reserve items=b:4 pass_id=guessed    no_pass        guessed
"""


@pytest.mark.parametrize(("holds", "call", "error", "names"), rows_of(ORDER))
def test_refusals_come_in_one_order(holds, call, error, names):
    needs_pass = "no pass" in holds or "dwell" in holds
    shop = Shop(queue=QUEUE if needs_pass else None)
    if "sold out" in holds:
        shop.say(f"reserve items=c:4 {passed(shop, 'ann')}")
    if "dwell" in holds:
        shop.ask("sale.configure", name="s", queue={"dwell_ms": 1_000})
        found = passed(shop, "bob")
        call += f" {found}" if "pass_id" not in call else ""
    for phase, word in (("paused", "pause"), ("closed", "close")):
        if phase in holds:
            shop.say(word)
    _, refusal = shop.attempt(f"{call} user=bob")
    assert refusal.name == error, refusal
    assert names in f"{refusal.message} {refusal.details}"
    if "nosale" not in call:
        assert shop.say("status")["refused"] == {error: 1}
    shop.settle()


def test_the_dwell_ends_to_the_millisecond():
    shop = Shop(queue={**QUEUE, "dwell_ms": 1_000})
    found = passed(shop, "ann")
    shop.say("wait 989")
    refusal = shop.attempt(f"reserve items=a:1 {found}")[1]
    assert refusal.name == "rate_limited"
    assert refusal.details == {"retry_after_ms": 1}
    shop.say("wait 1")
    shop.say(f"reserve items=a:1 {found}")
    shop.settle()


def test_sold_out_is_final_only_when_nothing_can_come_back():
    shop = Shop(items={"a": 10, "c": 2})
    shop.say("reserve items=a:2")
    shop.hold = shop.say("reserve user=bob items=c:2")["hold"]

    def refused(items):
        refusal = shop.attempt(f"reserve user=cyd items={items}")[1]
        assert refusal.name == "sold_out"
        return refusal.details

    assert refused("c:1") == {"final": False, "free": 0, "item": "c"}
    assert refused("a:1+c:1") == {"final": False, "free": 0, "item": "c"}
    assert refused("a:9") == {"final": False, "free": 8, "item": "a"}
    shop.say("confirm")
    assert refused("c:1") == {"final": True, "free": 0, "item": "c"}
    assert refused("a:1+c:1") == {"final": True, "free": 0, "item": "c"}
    shop.say("refund items=c:1")
    assert refused("c:2") == {"final": True, "free": 1, "item": "c"}
    shop.settle()


def test_a_refusal_that_is_prepared_keeps_nobody_who_heard_it():
    shop = Shop(items={"c": 1})
    shop.say("reserve items=c:1")
    for user in ("bob", "cyd"):
        assert shop.attempt("reserve items=c:1", "user", user)[1].name == "sold_out"
    refusal = shop.world.store.sales.find("s").book.items.get("c").refusal
    assert refusal is not None
    assert refusal.__traceback__ is None, "its frames hold the connection, and the sale itself"


def test_holds_are_told_newest_first_also_where_an_older_one_got_another_basket():
    shop = Shop(per_user=0)
    first, second = (shop.say("reserve items=a:1")["hold"] for _ in range(2))
    shop.say(f"reserve items=a:2 hold={first}")
    told = [hold["hold"] for hold in shop.say("place")["holds"]]
    assert told == [second, first]
    restored = shop.world.restored().sales.find("s")
    assert [hold["hold"] for hold in possessions(restored, shop.world.now, "ann")["holds"]] == told


@pytest.mark.parametrize("late", [True, False])
def test_a_hold_that_expired_before_a_release_stays_expired(late):
    """Whether or not its timer had fired: she may have paid, and can buy what is free still."""
    shop = Shop()
    shop.hold = shop.say("reserve items=a:2")["hold"]
    shop.world.timers_per_turn = 0 if late else 1_000
    shop.say(f"wait {HOLD_MS}")
    other = shop.say("reserve items=a:1 user=bob")["hold"]
    shop.say("close release=true")
    shop.world.timers_per_turn = 1_000
    assert shop.say("get")["state"] == "expired"
    assert shop.say(f"get hold={other}")["state"] == "cancelled"
    assert shop.say("confirm late=retake")["items"] == {"a": 2}
    shop.settle()


def test_an_order_is_refunded_in_so_many_parts_and_no_more(monkeypatch):
    monkeypatch.setattr(buying, "REFUNDS_PER_ORDER_MAX", 2)
    shop = Shop()
    shop.hold = shop.say("reserve items=a:4")["hold"]
    shop.say("confirm")
    for _ in range(2):
        shop.say("refund items=a:1")
    assert shop.attempt("refund items=a:1")[1].name == "limit_reached"
    assert shop.say("refund")["items"] == {"a": 2}, "the rest may always go back"
    shop.settle()


# --- stock ---

# What was done: what the staff asks, the error, or of `a`: stock, free, held and sold.
STOCK = """
-:
  restock items=a:5              15 15 0 0
  restock items=a:-10            0 0 0 0
  restock items=a:-11            out_of_range
  restock items=a:-1+c:-5        out_of_range
  restock items=a:1+new:-1       out_of_range
  restock items=a:0              10 10 0 0
  restock items=a:1099511627766  1099511627776 1099511627776 0 0
  restock items=a:1099511627767  out_of_range
reserve items=a:4:
  restock items=a:-6             4 0 4 0
  restock items=a:-7             out_of_range
  restock items=a:1099511627766  1099511627776 1099511627772 4 0
  restock items=a:1099511627767  out_of_range
reserve items=a:4, confirm:
  restock items=a:-6             4 0 0 4
  restock items=a:-7             out_of_range
  restock items=a:3              13 9 0 4
reserve items=a:4, confirm, refund restock=false:
  restock items=a:-6             0 0 0 0
  restock items=a:4              10 10 0 0
"""


@pytest.mark.parametrize(("did", "call", "gives"), rows_of(STOCK))
def test_stock(did, call, gives):
    shop = Shop()
    for step in did.split(", "):
        if step != "-":
            shop.hold = shop.say(step).get("hold", shop.hold)
    reply, refusal = shop.attempt(call)
    if refusal is not None:
        assert refusal.name == gives, refusal
    else:
        balances = shop.balances()
        row = balances["a"]
        assert " ".join(str(row[of]) for of in ("stock", "free", "held", "sold")) == gives
        assert reply["items"] == {sku: balances[sku] for sku in reply["items"]}
    shop.settle()


def test_restock_takes_the_terms_of_new_items_only():
    shop = Shop()
    seat = {"stock": 1, "zone": "z", "row": "r1", "seat": 1}
    shop.ask("sale.restock", name="s", items={"n": {"stock": 4, "per_user": 2}, "r1-1": seat})
    assert shop.attempt("reserve items=n:3")[1].name == "limit_reached"
    assert shop.say("best_available zone=z")["items"] == {"r1-1": 1}
    balances = shop.balances()
    for items, error in [
        ({"r1-1": 1}, "out_of_range"),  # a seat is one
        ({"r1-1": {**seat, "seat": 2}}, "conflict"),
        ({"n": {"stock": 1, "per_user": 3}}, "conflict"),
        ({"n": {"stock": 1, "zone": "z"}}, "conflict"),
        ({"x": 1, "n": {"stock": 1, "per_user": 3}}, "conflict"),
    ]:
        with pytest.raises(Refused, match=error):
            shop.ask("sale.restock", name="s", items=items)
        assert shop.balances() == balances
    shop.ask("sale.restock", name="s", items={"n": {"stock": 1, "per_user": 2}})
    assert shop.balances()["n"] == {"stock": 5, "free": 5, "held": 0, "sold": 0}
    shop.ask("sale.restock", name="s", items={"r1-1": -1})
    with pytest.raises(Refused, match="sold_out"):
        shop.ask("sale.best_available", name="s", zone="z")
    shop.ask("sale.restock", name="s", items={"r1-1": 1})
    assert shop.say("best_available zone=z")["items"] == {"r1-1": 1}
    shop.settle()


# --- creating again ---

MADE = {"items": ITEMS, "per_user": 6, "hold_ms": HOLD_MS}

# What was done meanwhile: it is the same declaration still.
SAME = ["restock items=a:5", "restock items=d:5", "reserve items=a:2", "pause", "close"]

# What differs in the declaration: it means something else.
OTHERS = [
    {"hold_ms": 1_000},
    {"per_user": 7},
    {"items": {**ITEMS, "a": 11}},
    {"items": {**ITEMS, "a": {"stock": 10, "zone": "z"}}},
    {"items": {**ITEMS, "b": {"stock": 5, "per_user": 4}}},
    {"queue": QUEUE},
    {"opens_at": 2**45},
    {"closes_at": 2**45},
]


@pytest.mark.parametrize("did", ["", *SAME])
@pytest.mark.parametrize("spelled", [ITEMS, {**ITEMS, "a": {"stock": 10}}, {"a": 10}], ids=str)
def test_creating_the_same_again(did, spelled):
    """Compared is what was declared, not what became of it; items may have been added since."""
    shop = Shop()
    if did:
        shop.say(did)
    before, records = shop.balances(), len(shop.world.records())
    reply = shop.ask("sale.create", name="s", **{**MADE, "items": spelled})
    assert reply == {"created": False, "seed_sha256": shop.made["seed_sha256"]}
    assert len(shop.world.records()) == records
    assert shop.balances() == before
    shop.settle()


@pytest.mark.parametrize("differs", OTHERS, ids=str)
def test_creating_another_under_the_name(differs):
    shop = Shop()
    before, records = shop.balances(), len(shop.world.records())
    with pytest.raises(Refused, match="conflict"):
        shop.ask("sale.create", name="s", **{**MADE, **differs})
    assert len(shop.world.records()) == records
    assert shop.balances() == before
    shop.settle()


@pytest.mark.parametrize("did", [[], ["reserve items=a:2", "pause"]])
def test_more_items_in_a_declaration_are_added(did):
    """An additive change of a declaration is applied."""
    shop = Shop()
    for step in did:
        shop.say(step)
    before = shop.balances()
    again = {**MADE, "items": {**ITEMS, "d": {"stock": 7, "per_user": 1}}}
    assert shop.ask("sale.create", name="s", **again)["created"] is False
    assert shop.balances() == {**before, "d": {"stock": 7, "free": 7, "held": 0, "sold": 0}}
    records = len(shop.world.records())
    assert shop.ask("sale.create", name="s", **again)["created"] is False
    assert len(shop.world.records()) == records
    shop.settle()


# --- keys ---


def test_the_same_key_never_buys_twice():
    shop = Shop()
    key = {"idempotency_key": "k"}

    def reserve(items):
        return shop.ask("sale.reserve", name="s", user="ann", items=items, options=key)

    first = reserve({"a": 2})
    assert reserve({"a": 2}) == first
    with pytest.raises(Refused, match="key_reused"):
        reserve({"a": 1})
    assert shop.balances()["a"] == {"stock": 10, "free": 8, "held": 2, "sold": 0}
    shop.say(f"wait {7 * 24 * HOUR_MS}")  # for life
    assert reserve({"a": 2}) == first
    assert shop.balances()["a"] == {"stock": 10, "free": 10, "held": 0, "sold": 0}
    shop.settle()


def test_a_refused_call_leaves_its_key_free():
    shop = Shop()
    shop.hold = shop.say("reserve user=bob items=c:4")["hold"]
    key = {"idempotency_key": "k"}
    with pytest.raises(Refused, match="sold_out"):
        shop.ask("sale.reserve", name="s", user="ann", items={"c": 1}, options=key)
    shop.say("cancel")
    assert shop.ask("sale.reserve", name="s", user="ann", items={"c": 1}, options=key)["hold"]
    shop.settle()
