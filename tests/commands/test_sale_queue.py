"""The waiting room as buyers see it: order, admissions, passes, limits, challenges, restarts."""

from __future__ import annotations

import base64
import hashlib
import json

import jwt
import pytest

from rtserver.config import SalesConfig
from rtserver.limits import Limits
from tests.sales import HOLD_MS, Shop
from tests.world import Refused, World

HOUR_MS = 3_600_000
KEY = b"k" * 32


def queue(**terms):
    return {"rate_per_s": 1_000, "active_max": 100, "pass_ms": 600_000, **terms}


def names(first, count):
    return [f"u{number:02}" for number in range(first, first + count)]


def join(shop, *users):
    return [shop.say(f"join user={user}") for user in users]


def states(shop, *users):
    return [shop.say(f"place user={user}")["state"] for user in users]


def shopping(shop):
    """Who is admitted or holds something, in no order."""
    users = {step["user"] for step in shop.steps() if step["step"] == "joined"}
    found = {user: shop.say(f"place user={user}")["state"] for user in users}
    return sorted(user for user, state in found.items() if state in ("admitted", "holding"))


def admissions(shop):
    return [step["user"] for step in shop.steps() if step["step"] == "admitted"]


def by_seed(seed, users):
    return sorted(users, key=lambda user: hashlib.sha256(f"{seed}:{user}".encode()).hexdigest())


def reserve(shop, user, items="a:1"):
    """With the pass that her place tells; the hold is what commands are about from then on."""
    pass_id = shop.say(f"place user={user}")["pass_id"]
    shop.hold = shop.say(f"reserve user={user} items={items} pass_id={pass_id}")["hold"]
    return shop.hold


# --- order ---


def test_who_joins_before_the_opening_stands_where_the_seed_says():
    shop = Shop(queue=queue(rate_per_s=10), opens_in=HOUR_MS)
    early = names(0, 12)
    places = join(shop, *early)
    assert all(place["eta_ms"] is None and place["pass_id"] is None for place in places)
    status = shop.say("status")
    assert (status["seed"], status["waiting"]) == (None, 12)
    shop.say("leave user=u05")
    shop.say(f"wait {HOUR_MS}")
    seed = shop.say("status")["seed"]
    assert hashlib.sha256(seed.encode()).hexdigest() == shop.made["seed_sha256"]
    late = names(20, 5)
    join(shop, "u05", *late)
    expected = [*by_seed(seed, set(early) - {"u05"}), "u05", *late]
    for place, user in enumerate(expected[1:], 1):
        assert shop.say(f"place user={user}")["position"] == place
    for _ in range(20):
        shop.say("wait 100")
    assert admissions(shop) == expected
    shop.settle()


def test_one_who_joins_again_from_another_device_has_the_same_place():
    shop = Shop(queue=queue(active_max=1))
    join(shop, "u00")
    first = shop.ask("sale.join", "user", "u01", name="s")
    records = len(shop.world.records())
    assert shop.ask("sale.join", "user", "u01", name="s") == first
    assert shop.say("join user=u01") == first
    assert len(shop.world.records()) == records
    shop.settle()


def test_a_place_that_a_back_end_took_is_hers_once_she_joins_herself():
    shop = Shop(queue=queue(active_max=1))
    join(shop, "u00", "u01", "u02", "u02")
    room = shop.world.store.sales.find("s").room
    assert not room.is_tied("u02"), "however often the back end asks"
    records = len(shop.world.records())
    found = shop.ask("sale.join", "user", "u02", name="s")
    assert (found["state"], found["position"]) == ("waiting", 2)
    assert room.is_tied("u02")
    assert not room.is_tied("u01")
    assert len(shop.world.records()) == records + 1
    assert shop.world.replayed().sales.find("s").room.is_tied("u02")
    shop.settle()


# --- admissions ---


def test_admissions_follow_the_rate():
    shop = Shop(queue=queue(rate_per_s=4))
    join(shop, *names(0, 10))
    counts = []
    for _ in range(9):
        counts.append(len(admissions(shop)))
        shop.say("wait 250")
    assert counts == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    shop.settle()


def test_no_more_shop_at_a_time_than_there_is_room_for():
    shop = Shop(queue=queue(active_max=3), items={"a": 100})
    join(shop, *names(0, 9))
    shop.say("wait 1000")
    assert shopping(shop) == names(0, 3)
    assert shop.say("status")["active"] == 3
    shop.say("leave user=u01")
    assert shopping(shop) == ["u00", "u02", "u03"]
    reserve(shop, "u00")
    assert states(shop, "u00") == ["holding"]
    shop.say("wait 1000")
    assert shop.say("status")["active"] == 3, "one who holds is a shopper too"
    shop.say("confirm")
    assert states(shop, "u00", "u04") == ["done", "admitted"]
    assert shop.say("status")["waiting"] == 4
    shop.settle()


def test_a_pass_that_runs_out_makes_room():
    shop = Shop(queue=queue(active_max=1, pass_ms=5_000))
    join(shop, "u00", "u01")
    told = shop.say("place user=u00")
    assert told["pass_expires_at"] == shop.world.now + 5_000
    shop.say("wait 4999")
    assert states(shop, "u00", "u01") == ["admitted", "waiting"]
    shop.say("wait 1")
    assert states(shop, "u00", "u01") == ["none", "admitted"]
    assert [step["step"] for step in shop.steps()[-2:]] == ["pass_expired", "admitted"]
    refusal = shop.attempt(f"reserve user=u00 items=a:1 pass_id={told['pass_id']}")[1]
    assert refusal.name == "no_pass"
    shop.settle()


def test_nobody_comes_in_while_nothing_is_free_and_the_next_one_at_once_when_something_is():
    shop = Shop(queue=queue(), items={"a": 2}, per_user=2)
    join(shop, "u00")
    reserve(shop, "u00", "a:2")
    join(shop, "u01")
    shop.say("wait 10000")
    assert states(shop, "u01") == ["waiting"]
    shop.say("confirm items=a:1")
    assert states(shop, "u01") == ["admitted"], "at once"
    reserve(shop, "u01")
    join(shop, "u02")
    shop.say("wait 10000")
    assert states(shop, "u02") == ["waiting"]
    shop.settle()


def test_a_unit_that_comes_back_goes_to_the_next_in_line_and_not_to_a_crowd():
    shop = Shop(queue=queue(), items={"a": 2}, per_user=2)
    join(shop, "u00")
    reserve(shop, "u00", "a:2")
    join(shop, "u01", "u02", "u03")
    shop.say("wait 10000")
    shop.say("confirm items=a:1")
    shop.say("wait 10000")
    assert states(shop, "u01", "u02", "u03") == ["admitted", "waiting", "waiting"]
    shop.say("leave user=u01")
    assert states(shop, "u02", "u03") == ["admitted", "waiting"]
    reserve(shop, "u02")
    shop.say("wait 10000")
    assert states(shop, "u03") == ["waiting"]
    shop.say("cancel")
    assert states(shop, "u02", "u03") == ["admitted", "waiting"], "it is hers while her pass lasts"
    shop.say("restock items=a:1")
    assert states(shop, "u03") == ["admitted"]
    shop.settle()


def test_an_expired_hold_ends_the_visit_and_its_units_go_to_the_next():
    shop = Shop(queue=queue(active_max=1), items={"a": 1})
    join(shop, "u00", "u01")
    reserve(shop, "u00")
    shop.say(f"wait {HOLD_MS}")
    assert states(shop, "u00", "u01") == ["none", "admitted"]
    assert [step["step"] for step in shop.steps()[-2:]] == ["expired", "admitted"]
    assert join(shop, "u00")[0]["position"] == 1, "behind all others"
    shop.settle()


def test_a_cancelled_hold_leaves_the_pass_as_long_as_it_lasts():
    shop = Shop(queue=queue(pass_ms=5_000), items={"a": 1})
    join(shop, "u00")
    before = shop.say("place user=u00")
    reserve(shop, "u00")
    shop.say("cancel")
    after = shop.say("place user=u00")
    assert (after["state"], after["pass_id"]) == ("admitted", before["pass_id"])
    reserve(shop, "u00")
    shop.say("wait 5000")
    assert states(shop, "u00") == ["holding"]
    shop.say("cancel")
    assert states(shop, "u00") == ["none"]
    shop.settle()


def test_who_bought_is_done_also_when_another_hold_of_hers_expired():
    shop = Shop(queue=queue(), per_user=2)
    join(shop, "ann")
    shop.say("wait 1000")
    reserve(shop, "ann")
    first = shop.hold
    reserve(shop, "ann")
    shop.say(f"confirm hold={first}")
    assert states(shop, "ann") == ["holding"]
    shop.say(f"wait {HOLD_MS}")
    assert states(shop, "ann") == ["done"]
    shop.settle()


def test_a_pause_stops_admissions_and_not_joins():
    shop = Shop(queue=queue(active_max=1))
    join(shop, "u00", "u01")
    shop.say("pause")
    shop.say("leave user=u00")
    join(shop, "u02")
    shop.say("wait 10000")
    assert states(shop, "u01", "u02") == ["waiting", "waiting"]
    shop.say("open")
    assert states(shop, "u01", "u02") == ["admitted", "waiting"]
    shop.settle()


def test_all_who_wait_hear_that_everything_is_sold():
    shop = Shop(queue=queue(active_max=1), items={"a": 1})
    join(shop, "u00", "u01")
    reserve(shop, "u00")
    assert states(shop, "u01") == ["waiting"]
    shop.say("confirm")
    assert states(shop, "u00", "u01") == ["done", "sold_out"]
    shop.say("wait 1")
    shop.say("refund")
    assert states(shop, "u01") == ["admitted"]
    shop.settle()


def test_the_expected_wait_follows_what_really_happens():
    shop = Shop(queue=queue(rate_per_s=100, active_max=2), items={"a": 1_000})
    join(shop, *names(0, 90))
    assert shop.say("place user=u89")["eta_ms"] == 88 * 600_000 // 2, "as the terms promise"
    for user in names(0, 30):  # two of them buy every four seconds
        reserve(shop, user)
        shop.say("confirm")
        shop.say("wait 2000")
    found = shop.say("place user=u89")
    assert found["position"] == 58
    assert found["eta_ms"] == pytest.approx(58 * 2_000, rel=0.15)
    shop.settle()


def test_joins_behind_a_full_shop_change_nothing_but_the_line():
    """Some of them take a short way that does not ask who may come in; the log does ask."""
    shop = Shop(queue=queue(rate_per_s=10, active_max=1))
    for user in names(0, 5):
        join(shop, user)
        shop.say("wait 137")
    shop.settle()
    shop.ask("sale.configure", name="s", queue={"rate_per_s": 1_000, "active_max": 3})
    shop.settle()


# --- passes ---


def test_a_reserve_wants_the_pass_of_her_who_reserves():
    shop = Shop(queue=queue(active_max=2))
    join(shop, "u00", "u01", "u02")
    shop.say("wait 1000")
    other = shop.say("place user=u01")["pass_id"]
    for words, says in (
        ("user=u00", "pass_id is missing"),
        (f"user=u00 pass_id={other}", "not the pass of 'u00'"),
        (f"user=u02 pass_id={other}", "waits at position 1"),
        ("user=stranger", "has no place in the queue"),
    ):
        refusal = shop.attempt(f"reserve items=a:1 {words}")[1]
        assert refusal.name == "no_pass"
        assert says in refusal.message
    assert shop.say("status")["refused"] == {"no_pass": 4}
    shop.settle()


# --- limits ---


def test_an_address_takes_so_many_places_and_no_more():
    shop = Shop(queue=queue(active_max=1, per_address=2))

    def join_from(user, address):
        return shop.ask("sale.join", name="s", user=user, options={"address": address})

    join_from("u00", "10.0.0.1")
    join_from("u01", "10.0.0.1")
    join_from("u01", "10.0.0.1")
    shop.say("leave user=u01")
    with pytest.raises(Refused, match=r"'10.0.0.1' took 2 places in this queue, at most 2"):
        join_from("u02", "10.0.0.1")
    join_from("u02", "10.0.0.2")
    join(shop, "u03", "u04", "u05")
    assert shop.say("status")["refused"] == {"limit_reached": 1}
    shop.settle()
    replayed = shop.world.replayed().sales.find("s").room
    with pytest.raises(Exception, match=r"took 2 places"):
        replayed.join(0, "u06", tied=True, address="10.0.0.1")


def test_a_queue_has_an_end():
    shop = Shop(World(Limits(sale_waiting_max=2)), queue=queue(active_max=1))
    join(shop, "u00", "u01", "u02")
    refusal = shop.attempt("join user=u03")[1]
    assert refusal.name == "limit_reached"
    assert "2 users wait, at most 2 (limits.sale_waiting_max)" in refusal.message
    shop.settle()


def test_a_user_takes_so_many_places_one_after_the_other():
    shop = Shop(queue=queue(joins_per_user=2))
    for _ in range(2):
        join(shop, "u00", "u00")
        shop.say("leave user=u00")
    refusal = shop.attempt("join user=u00")[1]
    assert refusal.name == "limit_reached"
    assert refusal.details == {"joins_per_user": 2, "taken": 2}
    shop.settle()


def test_a_dwell_is_waited_for_once_a_visit():
    shop = Shop(queue=queue(dwell_ms=1_000))
    join(shop, "u00")
    pass_id = shop.say("place user=u00")["pass_id"]
    words = f"reserve user=u00 items=a:1 pass_id={pass_id}"
    shop.say("wait 400")
    refusal = shop.attempt(words)[1]
    assert (refusal.name, refusal.details) == ("rate_limited", {"retry_after_ms": 600})
    shop.say("wait 600")
    shop.hold = shop.say(words)["hold"]
    shop.say("cancel")
    shop.say(words)
    shop.settle()


# --- challenges ---


@pytest.fixture
def guarded(tmp_path):
    path = tmp_path / "challenge.json"
    secret = base64.urlsafe_b64encode(KEY).rstrip(b"=").decode()
    path.write_text(json.dumps({"keys": [{"kty": "oct", "k": secret, "kid": "c", "alg": "HS256"}]}))
    world = World(sales=SalesConfig(challenge_keys=str(path)))
    return Shop(world, queue=queue(active_max=1, challenge=True))


def solved(shop, user, sale="s"):
    claims = {"sub": user, "sale": sale, "exp": shop.world.now // 1_000 + 60}
    return jwt.encode(claims, KEY, headers={"kid": "c", "typ": "challenge+jwt"})


def test_a_queue_with_a_challenge_lets_join_who_has_solved_it(guarded):
    refusal = guarded.attempt("join user=u00")[1]
    assert (refusal.name, refusal.details) == ("challenge_failed", {"reason": "missing"})
    refusal = guarded.attempt(f"join user=u01 challenge={solved(guarded, 'u00')}")[1]
    assert "its sub is 'u00', not 'u01'" in refusal.message
    token = solved(guarded, "u00")
    assert guarded.say(f"join user=u00 challenge={token}")["state"] == "admitted"
    assert guarded.say("join user=u00")["state"] == "admitted", "who is in needs no other"
    assert not any(token in repr(record) for record in guarded.world.records())
    assert guarded.say("status")["refused"] == {"challenge_failed": 2}
    guarded.settle()


def test_a_challenge_without_keys_says_what_to_configure():
    shop = Shop(queue=queue(challenge=True))
    refusal = shop.attempt("join user=u00 challenge=any")[1]
    assert refusal.details == {"reason": "unconfigured"}
    assert "sales.challenge_keys" in refusal.message


# --- changes while it runs ---


def test_a_queue_may_be_changed_while_it_runs():
    shop = Shop(queue=queue(rate_per_s=1, active_max=3), items={"a": 100})
    join(shop, *names(0, 30))
    told = shop.say("place user=u00")
    shop.ask("sale.configure", name="s", queue={"rate_per_s": 100, "pass_ms": 1})
    assert shop.say("place user=u00") == told, "a pass keeps the time it was given for"
    for _ in range(10):
        shop.say("wait 100")
    assert shopping(shop)[0] == "u00"
    assert "u01" not in shopping(shop), "the others' passes last a millisecond each"
    shop.ask("sale.configure", name="s", queue={"active_max": 10, "pass_ms": 600_000})
    shop.say("wait 1000")
    assert shop.say("status")["active"] == 10
    shop.ask("sale.configure", name="s", queue={"active_max": 2})
    shop.say("wait 1000")
    assert shop.say("status")["active"] == 10, "nobody is sent away"
    shop.settle()


def test_a_queue_may_be_added_to_a_sale_that_runs():
    shop = Shop()
    shop.hold = shop.say("reserve items=a:1")["hold"]
    shop.ask("sale.configure", name="s", queue=queue(active_max=1))
    assert shop.attempt("reserve user=u00 items=a:1")[1].name == "no_pass"
    join(shop, "u00", "ann")
    assert states(shop, "u00", "ann") == ["admitted", "waiting"]
    shop.say("confirm")
    assert states(shop, "ann") == ["waiting"], "what she held is older than the queue"
    shop.settle()


# --- restarts ---


def test_a_place_survives_a_restart_at_every_step():
    shop = Shop(queue=queue(rate_per_s=20, active_max=3, dwell_ms=50), opens_in=1_000)
    join(shop, *names(0, 8))
    for words in ("wait 1000", "leave user=u03", "wait 30", "wait 30", "join user=u09", "wait 100"):
        shop.say(words)
        shop.settle()
    shop.say("wait 50")
    for user in shopping(shop):
        reserve(shop, user)
    shop.settle()
    shop.say("confirm")
    shop.say(f"wait {HOLD_MS}")
    shop.settle()
    users = [*names(0, 10), "nobody"]
    here = [shop.world.store.sales.find("s").place(shop.world.now, user) for user in users]
    for store in (shop.world.replayed(), shop.world.restored()):
        assert [store.sales.find("s").place(shop.world.now, user) for user in users] == here
