"""The states of a hold and of its order: one row a case, readable as the specification.

The sale `s` has 10 of `a`, 5 of `b` (at most 3 a user) and 4 of `c`; at most 6 units a user; holds
last a minute. Ann holds two of `a` and one of `b`, and the rows speak of that hold. After every row
the balances, the ledger, the audit, the log and a snapshot must agree, and what was refused must
have changed nothing.
"""

from __future__ import annotations

import pytest

from tests.sales import HOLD_MS, Shop, amounts, moved, rows_of

# How Ann's hold comes to be in a state.
GIVEN = {
    "held": [],
    "held, paused": ["pause"],
    "held, closed": ["close"],
    "extended to its end": ["extend ms=240000"],
    "late": ["late"],  # past its deadline, and its timer has not fired yet
    "late, closed": ["late", "close"],
    "expired": ["wait 60000"],
    "expired, one a left": ["wait 60000", "reserve user=bo items=a:6", "reserve user=cy items=a:3"],
    "expired, no a left": ["wait 60000", "reserve user=bo items=a:6", "reserve user=cy items=a:4"],
    "expired, she has 4 c": ["wait 60000", "reserve items=c:4"],
    "expired, she has 3 b": ["wait 60000", "reserve items=b:3"],
    "expired, paused": ["wait 60000", "pause"],
    "expired, closed": ["wait 60000", "close"],
    "cancelled": ["cancel"],
    "released": ["close release=true"],
    "sold": ["confirm"],
    "sold as r": ["confirm reference=r"],
    "sold as r, closed": ["confirm reference=r", "close"],
    "sold as r long ago": ["confirm reference=r", "wait 31536000000"],
    "sold in part as r": ["confirm reference=r items=a:1"],
    "retaken as r": ["wait 60000", "confirm reference=r late=retake"],
    "partly refunded as f": ["confirm reference=r", "refund items=a:1 reference=f"],
    "refunded as f": ["confirm reference=r", "refund reference=f"],
    "refunded in two parts": ["confirm", "refund items=a:1", "refund items=a:1+b:1"],
    "withdrawn": ["confirm", "refund restock=false"],
}

# What each step of the ledger moves, whatever command it comes from.
MOVES = {
    "reserved": "free>held",
    "confirmed": "held>sold",
    "retaken": "free>sold",
    "cancelled": "held>free",
    "expired": "held>free",
    "released": "held>free",
    "replaced": "held>free",
    "freed": "held>free",
    "refunded": "sold>free",
    "withdrawn": "sold>out",
    "extended": "",
}

# A state: then for each call the error or what is answered (items; `again` items where the reply
# says already; `until` ms after the reservation), the state it leads to, the steps it writes.
HOLDS = """
held:
  confirm                            a:2+b:1            sold       confirmed a:2+b:1
  confirm reference=r                a:2+b:1            sold       confirmed a:2+b:1
  confirm late=retake                a:2+b:1            sold       confirmed a:2+b:1
  confirm items=a:2+b:1              a:2+b:1            sold       confirmed a:2+b:1
  confirm items=a:2                  a:2                sold       freed b:1, confirmed a:2
  confirm items=a:1 reference=r      a:1                sold       freed a:1+b:1, confirmed a:1
  confirm items=a:3                  out_of_range       held       -
  confirm items=c:1                  out_of_range       held       -
  confirm items=a:1+zzz:1            out_of_range       held       -
  cancel                             a:2+b:1            cancelled  cancelled a:2+b:1
  extend ms=1                        until 60001        held       extended
  extend ms=240000                   until 300000       held       extended
  extend ms=240001                   out_of_range       held       -
  extend ms=9007199254740992         out_of_range       held       -
  reserve hold=HOLD items=c:4        c:4                held       replaced a:2+b:1, reserved c:4
  reserve hold=HOLD items=a:1        a:1                held       replaced a:2+b:1, reserved a:1
  reserve hold=HOLD items=a:6        a:6                held       replaced a:2+b:1, reserved a:6
  reserve hold=HOLD items=b:3        b:3                held       replaced a:2+b:1, reserved b:3
  reserve hold=HOLD items=a:7        limit_reached      held       -
  reserve hold=HOLD items=b:4        limit_reached      held       -
  reserve hold=HOLD items=c:5        sold_out           held       -
  reserve hold=HOLD items=a:1+zzz:1  not_found          held       -
  reserve items=a:3                  a:3                held       reserved a:3
  reserve items=a:4                  limit_reached      held       -
  refund                             not_found          held       -
  get                                a:2+b:1            held       -

held, paused:
  confirm                            a:2+b:1            sold       confirmed a:2+b:1
  cancel                             a:2+b:1            cancelled  cancelled a:2+b:1
  extend ms=5                        until 60005        held       extended
  reserve hold=HOLD items=a:1        not_open           held       -

held, closed:
  confirm                            a:2+b:1            sold       confirmed a:2+b:1
  confirm items=a:2                  a:2                sold       freed b:1, confirmed a:2
  cancel                             a:2+b:1            cancelled  cancelled a:2+b:1
  extend ms=5                        until 60005        held       extended
  reserve hold=HOLD items=a:1        not_open           held       -
  close release=true                 -                  cancelled  released a:2+b:1

extended to its end:
  extend ms=1                        out_of_range       held       -
  confirm                            a:2+b:1            sold       confirmed a:2+b:1

late:
  confirm                            expired            expired    -
  confirm reference=r                expired            expired    -
  confirm late=retake                a:2+b:1            sold       expired a:2+b:1, retaken a:2+b:1
  confirm late=retake items=a:1      a:1                sold       expired a:2+b:1, retaken a:1
  confirm late=retake items=a:3      out_of_range       expired    -
  cancel                             expired            expired    -
  extend ms=1000                     expired            expired    -
  reserve hold=HOLD items=a:1        expired            expired    -
  refund                             not_found          expired    -
  get                                a:2+b:1            expired    -

late, closed:
  confirm                            expired            expired    -
  close release=true                 -                  expired    expired a:2+b:1

expired:
  confirm                            expired            expired    -
  confirm reference=r                expired            expired    -
  confirm late=refuse                expired            expired    -
  confirm late=retake                a:2+b:1            sold       retaken a:2+b:1
  confirm late=retake items=a:1      a:1                sold       retaken a:1
  confirm late=retake items=a:3      out_of_range       expired    -
  cancel                             expired            expired    -
  extend ms=1000                     expired            expired    -
  reserve hold=HOLD items=a:1        expired            expired    -
  reserve items=a:6                  a:6                expired    reserved a:6
  refund                             not_found          expired    -
  get                                a:2+b:1            expired    -

expired, paused:
  confirm late=retake                a:2+b:1            sold       retaken a:2+b:1

expired, closed:
  confirm late=retake                a:2+b:1            sold       retaken a:2+b:1

expired, one a left:
  confirm late=retake                sold_out           expired    -
  confirm late=retake items=a:1+b:1  a:1+b:1            sold       retaken a:1+b:1

expired, no a left:
  confirm late=retake                sold_out           expired    -
  confirm late=retake items=b:1      b:1                sold       retaken b:1

expired, she has 4 c:
  confirm late=retake                limit_reached      expired    -
  confirm late=retake items=a:2      a:2                sold       retaken a:2

expired, she has 3 b:
  confirm late=retake                limit_reached      expired    -
  confirm late=retake items=a:2      a:2                sold       retaken a:2

cancelled:
  confirm                            already_cancelled  cancelled  -
  confirm late=retake                already_cancelled  cancelled  -
  cancel                             already_cancelled  cancelled  -
  extend ms=1000                     already_cancelled  cancelled  -
  reserve hold=HOLD items=a:1        already_cancelled  cancelled  -
  refund                             not_found          cancelled  -
  get                                a:2+b:1            cancelled  -

released:
  confirm                            already_cancelled  cancelled  -
  confirm late=retake                already_cancelled  cancelled  -
  cancel                             already_cancelled  cancelled  -
  extend ms=1000                     already_cancelled  cancelled  -
  get                                a:2+b:1            cancelled  -

sold:
  confirm                            again a:2+b:1      sold       -
  confirm late=retake                again a:2+b:1      sold       -
  confirm reference=r                already_confirmed  sold       -
  refund                             a:2+b:1            refunded   refunded a:2+b:1
  refund reference=f                 a:2+b:1            refunded   refunded a:2+b:1
  refund items=a:2+b:1               a:2+b:1            refunded   refunded a:2+b:1
  refund items=a:1                   a:1                sold       refunded a:1
  refund restock=false               a:2+b:1            refunded   withdrawn a:2+b:1
  refund restock=false items=b:1     b:1                sold       withdrawn b:1
  refund items=a:3                   out_of_range       sold       -
  refund items=a:2+c:1               out_of_range       sold       -
  get                                a:2+b:1            sold       -

sold as r:
  confirm reference=r                again a:2+b:1      sold       -
  confirm                            already_confirmed  sold       -
  confirm reference=q                already_confirmed  sold       -
  confirm reference=q late=retake    already_confirmed  sold       -
  cancel                             already_confirmed  sold       -
  extend ms=1000                     already_confirmed  sold       -
  reserve hold=HOLD items=a:1        already_confirmed  sold       -
  reserve items=a:4                  limit_reached      sold       -

sold as r, closed:
  confirm reference=r                again a:2+b:1      sold       -
  refund                             a:2+b:1            refunded   refunded a:2+b:1

sold as r long ago:
  confirm reference=r                again a:2+b:1      sold       -
  confirm reference=q                already_confirmed  sold       -

sold in part as r:
  confirm reference=r                again a:1          sold       -
  confirm reference=r items=a:1      again a:1          sold       -
  confirm reference=q items=b:1      already_confirmed  sold       -
  cancel                             already_confirmed  sold       -
  refund                             a:1                refunded   refunded a:1
  refund items=b:1                   out_of_range       sold       -
  get                                a:1                sold       -

retaken as r:
  confirm reference=r                again a:2+b:1      sold       -
  confirm reference=q                already_confirmed  sold       -
  refund                             a:2+b:1            refunded   refunded a:2+b:1

partly refunded as f:
  confirm reference=r                again a:2+b:1      sold       -
  refund reference=f items=a:1       again a:1          sold       -
  refund reference=f                 again a:1          sold       -
  refund reference=f items=b:1       conflict           sold       -
  refund reference=g items=a:1       a:1                sold       refunded a:1
  refund items=a:1                   a:1                sold       refunded a:1
  refund                             a:1+b:1            refunded   refunded a:1+b:1
  refund items=a:1+b:1               a:1+b:1            refunded   refunded a:1+b:1
  refund items=a:2                   out_of_range       sold       -
  get                                a:2+b:1            sold       -

refunded as f:
  confirm reference=r                again a:2+b:1      refunded   -
  confirm reference=q                already_confirmed  refunded   -
  cancel                             already_confirmed  refunded   -
  extend ms=1000                     already_confirmed  refunded   -
  reserve hold=HOLD items=a:1        already_confirmed  refunded   -
  reserve items=a:6                  a:6                refunded   reserved a:6
  refund reference=f                 again a:2+b:1      refunded   -
  refund reference=g                 already_refunded   refunded   -
  refund                             already_refunded   refunded   -
  refund items=a:1                   already_refunded   refunded   -
  get                                a:2+b:1            refunded   -

refunded in two parts:
  refund                             already_refunded   refunded   -
  get                                a:2+b:1            refunded   -

withdrawn:
  refund                             already_refunded   refunded   -
  reserve items=a:6                  a:6                refunded   reserved a:6
  get                                a:2+b:1            refunded   -
"""


def prepared(given):
    """A shop in which Ann's hold is in this state."""
    shop = Shop()
    shop.hold = shop.say("reserve items=a:2+b:1")["hold"]
    for step in GIVEN[given]:
        if step == "late":
            shop.world.timers_per_turn = 0
            shop.say(f"wait {HOLD_MS}")
        else:
            shop.say(step)
    return shop


def movement(steps):
    """What the balances of these steps change: {item: {free: -1, held: 1}}."""
    found = {}
    for step, items in steps:
        if not items:
            continue
        old, new = MOVES[step].split(">")
        for sku, units in items.items():
            row = found.setdefault(sku, {"stock": 0, "free": 0, "held": 0, "sold": 0})
            row[old] -= units
            row["stock" if new == "out" else new] += -units if new == "out" else units
    changes = {sku: {of: by for of, by in row.items() if by} for sku, row in found.items()}
    return {sku: row for sku, row in changes.items() if row}


def stepped(text):
    """`freed b:1, confirmed a:2` as [(step, items)]."""
    pairs = (part.partition(" ") for part in text.split(", ") if part != "-")
    return [(step, amounts(basket) or None) for step, _, basket in pairs]


def answered(call, reply, reserved_at):
    """A reply in the words of the table."""
    if call.startswith("extend"):
        return f"until {reply['expires_at'] - reserved_at}"
    if "items" not in reply:
        return "-"
    items = "+".join(f"{sku}:{units}" for sku, units in sorted(reply["items"].items()))
    return f"again {items}" if reply.get("already") else items


@pytest.mark.parametrize(("given", "call", "gives", "then", "steps"), rows_of(HOLDS))
def test_holds_and_orders(given, call, gives, then, steps):
    shop = prepared(given)
    first = shop.say("get")
    before, known, records = shop.balances(), len(shop.steps()), len(shop.world.records())
    reply, refusal = shop.attempt(call)
    changed = steps != "-" or "release" in call
    if refusal is not None:
        assert refusal.name == gives, refusal
    else:
        assert answered(call, reply, first["reserved_at"]) == gives, reply
    assert (len(shop.world.records()) > records) == changed, "what changes nothing is not logged"
    new = [(row["step"], row["items"]) for row in shop.steps()[known:]]
    expected = stepped(steps)
    assert [row for row in new if row[0] != "closed"] == expected
    assert moved(before, shop.balances()) == movement(expected)
    now = shop.say("get")
    assert now["state"] == then
    if not changed:
        assert now == first
    shop.settle()
    catch_up(shop, then)


def catch_up(shop, then):
    """When late timers fire, what is past its deadline is free; nothing else ever moves."""
    before = shop.balances()
    shop.world.timers_per_turn = 1_000
    shop.say("wait 0")
    assert shop.say("get")["state"] == then
    if then != "expired":
        assert shop.balances() == before
    sold = {sku: row["sold"] for sku, row in before.items()}
    shop.say(f"wait {5 * HOLD_MS}")
    after = shop.balances()
    assert {sku: (row["held"], row["sold"]) for sku, row in after.items()} == {
        sku: (0, units) for sku, units in sold.items()
    }
    shop.settle()


def test_what_is_remembered_of_an_order():
    shop = prepared("held")
    start = shop.world.now
    assert shop.say("get") == {
        "sale": "s",
        "state": "held",
        "hold": shop.hold,
        "order": None,
        "user": "ann",
        "items": {"a": 2, "b": 1},
        "reserved_at": start,
        "expires_at": start + HOLD_MS,
        "ended_at": None,
        "reference": None,
        "refunded": {},
    }
    shop.say("wait 1000")
    order = shop.say("confirm reference=r-1/x items=a:2")["order"]
    shop.say("wait 1000")
    shop.say("refund items=a:1 reference=f")
    expected = {
        "sale": "s",
        "state": "sold",
        "hold": shop.hold,
        "order": order,
        "user": "ann",
        "items": {"a": 2},
        "reserved_at": start,
        "expires_at": start + HOLD_MS,
        "ended_at": start + 1_000,
        "reference": "r-1/x",
        "refunded": {"a": 1},
    }
    assert shop.say("get") == shop.ask("sale.get", hold=order) == expected
    row = {
        "order": order,
        "state": "sold",
        "user": "ann",
        "items": {"a": 2},
        "at": start + 1_000,
        "reference": "r-1/x",
        "refunded": {"a": 1},
    }
    assert shop.say("orders") == {"orders": [row], "next": None}
    place = shop.say("place")
    assert place["orders"] == [row]
    assert place["holds"] == []
    shop.settle()


def test_the_ledger_tells_who_did_what_when():
    shop = prepared("held")
    start = shop.world.now
    shop.say("wait 1000")
    shop.say("confirm reference=r items=a:2", "user", "ann")
    shop.say("refund items=a:1 reference=f as_user=staff")
    assert [
        [row[field] for field in ("seq", "step", "at", "caller", "user", "items", "reference")]
        for row in shop.steps()
    ] == [
        [1, "created", start, None, None, {"a": 10, "b": 5, "c": 4}, None],
        [2, "opened", start, None, None, None, None],
        [3, "reserved", start, None, "ann", {"a": 2, "b": 1}, None],
        [4, "freed", start + 1_000, "ann", "ann", {"b": 1}, None],
        [5, "confirmed", start + 1_000, "ann", "ann", {"a": 2}, "r"],
        [6, "refunded", start + 1_000, "staff", "ann", {"a": 1}, "f"],
    ]
    assert {row["hold"] for row in shop.steps()[2:]} == {shop.hold}
    shop.settle()
