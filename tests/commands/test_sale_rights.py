"""Whose holds and orders they are, what staff may do, and how much one user may have."""

from __future__ import annotations

import pytest

from tests.sales import Shop, rows_of
from tests.world import Refused

# Who calls, while Ann holds something: what, and the error or -.
ROLES = """
ann:
  reserve items=a:1                     -
  reserve items=a:1 user=ann            -
  reserve items=a:1 user=bob            forbidden
  reserve items=a:1 as_user=bob         forbidden
  reserve items=a:1 hold=HOLD           -
  join                                  -
  leave                                 -
  place                                 -
  confirm                               -
  cancel                                -
  extend ms=1                           -
  get                                   -
  status                                -
  refund                                forbidden
  restock items=a:1                     forbidden
  configure per_user=100                forbidden
  open                                  forbidden
  pause                                 forbidden
  close                                 forbidden
  delete                                forbidden
  orders                                forbidden
  orders user=ann                       forbidden
  ledger                                forbidden
  audit                                 forbidden
  list prefix=s                         forbidden
bob:
  reserve items=a:1 hold=HOLD           forbidden
  confirm                               forbidden
  confirm late=retake                   forbidden
  cancel                                forbidden
  extend ms=1                           forbidden
  get                                   forbidden
  place user=ann                        forbidden
  join user=ann                         forbidden
  leave user=ann                        forbidden
anonymous:
  reserve items=a:1                     forbidden
  reserve items=a:1 user=ann            forbidden
  join user=ann                         forbidden
  place user=ann                        forbidden
  confirm                               forbidden
  get                                   forbidden
  status                                forbidden
service:
  reserve items=a:1                     invalid_params
  reserve items=a:1 user=bob            -
  reserve items=a:1 as_user=bob         -
  reserve items=a:1 user=ann hold=HOLD  -
  reserve items=a:1 user=bob hold=HOLD  not_found
  join                                  invalid_params
  place                                 invalid_params
  confirm                               -
  cancel                                -
  get                                   -
  orders                                -
  ledger                                -
  audit                                 -
  list prefix=s                         -
  restock items=a:1                     -
  pause                                 -
"""


@pytest.mark.parametrize(("who", "call", "error"), rows_of(ROLES))
def test_roles(who, call, error):
    shop = Shop()
    shop.hold = shop.say("reserve items=a:2+b:1")["hold"]
    role = who if who in ("anonymous", "service") else "user"
    _, refusal = shop.attempt(call, role, who if role == "user" else None)
    assert (refusal.name if refusal else "-") == error, refusal
    shop.settle()


def test_what_a_back_end_does_for_a_user_is_hers():
    shop = Shop()
    shop.hold = shop.say("reserve items=a:1 as_user=bob", "service")["hold"]
    assert shop.say("get", "user", "bob")["user"] == "bob"
    assert shop.say("place", "user", "bob")["holds"] == [
        {"hold": shop.hold, "items": {"a": 1}, "expires_at": shop.say("get")["expires_at"]}
    ]
    shop.say("confirm", "user", "bob")
    shop.settle()


@pytest.mark.parametrize("call", ["get", "confirm", "cancel", "extend ms=1", "refund"])
def test_an_id_is_found_only_as_it_was_given(call):
    """Nobody gets anywhere by guessing, and nobody learns from it whether there is such a hold."""
    shop = Shop()
    shop.hold = real = shop.say("reserve items=a:2")["hold"]
    if call == "refund":
        shop.say("confirm")
    sale, number, tag = real.split("-")
    assert (sale, number) == ("h1", "1")
    for other in (
        f"{sale}-{number}-{'0' * len(tag)}",
        f"{sale}-{number}-{tag[:-1]}",
        f"{sale}-{number}-{tag}0",
        f"{sale}-{number}-{tag}-",
        f"{sale}-0{number}-{tag}",
        f"{sale}-+{number}-{tag}",
        f"{sale}--{number}-{tag}",
        f"{sale}-{number}_0-{tag}",
        f"{sale}-0-{tag}",
        f"{sale}--1-{tag}",
        f"{sale}-2-{tag}",
        f"{sale}-{10**30}-{tag}",
        f"{sale}-{'9' * 200}-{tag[:40]}",
        f"{sale}-{number}",
        f"{sale}-x-{tag}",
        f"h999-{number}-{tag}",
        f"h01-{number}-{tag}",
        f"h-1-{number}-{tag}",
        f"x1-{number}-{tag}",
        f"H1-{number}-{tag}",
        "h\u0661-\u0661-" + tag,
        "h1-\u00b9-" + tag,
        "h",
        "o",
        "h--",
        "h1-1-",
        "s",
    ):
        shop.hold = other
        assert shop.attempt(call)[1].name == "not_found", other
        if call != "refund":
            assert shop.attempt(call, "user", "bob")[1].name == "not_found", other
    shop.hold = real
    assert shop.attempt(call)[1] is None
    shop.settle()


def test_every_hold_has_a_tag_of_its_own():
    shop = Shop(items={"a": 100}, per_user=0)
    ids = [shop.say("reserve items=a:1")["hold"] for _ in range(50)]
    assert [one.split("-")[:2] for one in ids] == [["h1", f"{n:x}"] for n in range(1, 51)]
    assert len({one.split("-")[2] for one in ids}) == 50
    first, second = ids[:2]
    for crossed in (
        "-".join([*first.split("-")[:2], second.split("-")[2]]),
        "-".join([*second.split("-")[:2], first.split("-")[2]]),
    ):
        shop.hold = crossed
        assert shop.attempt("get")[1].name == "not_found"


def test_get_takes_the_id_of_a_hold_and_that_of_its_order():
    shop = Shop()
    shop.hold = shop.say("reserve items=a:2")["hold"]
    order = shop.hold.replace("h", "o", 1)
    with pytest.raises(Refused, match="not_found"):
        shop.ask("sale.get", hold=order)
    assert shop.say("get")["order"] is None
    assert shop.say("confirm reference=r")["order"] == order
    whole = shop.say("get")
    assert whole == shop.ask("sale.get", hold=order)
    assert whole["order"] == order
    with pytest.raises(Refused, match="forbidden"):
        shop.ask("sale.get", "user", "bob", hold=order)
    shop.settle()


def test_a_hold_of_another_sale_is_not_replaced():
    shop = Shop()
    Shop(shop.world, name="t")
    shop.hold = shop.say("reserve name=t items=a:1")["hold"]
    assert shop.attempt("reserve items=a:1 hold=HOLD")[1].name == "not_found"
    assert shop.say("reserve name=t items=a:2 hold=HOLD")["hold"] == shop.hold
    shop.settle()


# --- how much one user may have ---

# The sale's per_user, and what Ann did: what she asks, and the error or -.
LIMITS = """
6; reserve items=a:4:
  reserve items=a:2  -
  reserve items=a:3  limit_reached
6; reserve items=a:4, confirm:
  reserve items=a:2  -
  reserve items=a:3  limit_reached
6; reserve items=a:4, confirm items=a:1:
  reserve items=a:5  -
  reserve items=a:6  limit_reached
6; reserve items=a:4, cancel:
  reserve items=a:6  -
6; reserve items=a:4, wait 60000:
  reserve items=a:6  -
6; reserve items=a:4, confirm, refund:
  reserve items=a:6  -
6; reserve items=a:4, confirm, refund items=a:1:
  reserve items=a:3  -
  reserve items=a:4  limit_reached
6; reserve items=a:4, confirm, refund items=a:1 restock=false:
  reserve items=a:3  -
  reserve items=a:4  limit_reached
6; reserve items=b:3:
  reserve items=b:1  limit_reached
  reserve items=a:3  -
  reserve items=a:4  limit_reached
6; reserve items=b:3, confirm, refund items=b:2:
  reserve items=b:2  -
  reserve items=b:3  limit_reached
6; reserve user=bob items=a:6:
  reserve items=a:4  -
0; reserve items=a:10:
  reserve items=c:4+b:3  -
  reserve items=b:4      limit_reached
6; reserve items=a:4, configure per_user=3:
  confirm            -
  extend ms=1000     -
  reserve items=a:1  limit_reached
6; reserve items=a:4, configure per_user=7:
  reserve items=a:3  -
6; reserve items=a:4, configure per_user=0:
  reserve items=a:6  -
"""


@pytest.mark.parametrize(("given", "call", "error"), rows_of(LIMITS))
def test_limits_of_one_user(given, call, error):
    per_user, did = given.split("; ")
    shop = Shop(per_user=int(per_user))
    for step in did.split(", "):
        shop.hold = (shop.say(step) or {}).get("hold", shop.hold)
    _, refusal = shop.attempt(call)
    assert (refusal.name if refusal else "-") == error, refusal
    shop.settle()


def test_open_holds_of_one_user_are_bounded():
    shop = Shop(items={"a": 1_000}, per_user=0)
    holds = [shop.say("reserve items=a:1")["hold"] for _ in range(100)]
    assert shop.attempt("reserve items=a:1")[1].name == "limit_reached"
    shop.say("reserve items=a:1 user=bob")
    shop.hold = holds[0]
    shop.say("reserve items=a:3 hold=HOLD")  # no further hold
    shop.say("confirm")
    shop.say("reserve items=a:1")
    assert shop.balances()["a"] == {"stock": 1_000, "free": 896, "held": 101, "sold": 3}
    shop.settle()
