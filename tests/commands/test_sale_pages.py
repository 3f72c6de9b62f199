"""Large sales page by page, replies within their bounds, and values that no command should take."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rtserver.limits import (
    BASKET_MAX,
    INT64_MAX,
    REPLY_BYTES_MAX,
    STOCK_MAX,
    TIME_MAX,
)
from rtserver.wire.codec import pack
from tests.sales import HOLD_MS, Shop
from tests.world import Refused

HOUR_MS = 3_600_000
SLACK = 1_024  # of a reply beside its list


def pages(shop, method, what, **named):
    """All that a list holds, page by page; each page keeps to the bound of a reply, unless it is
    of one row."""
    found, after = [], None
    while True:
        page = shop.ask(method, after=after, **named)
        rows = page[what]
        assert len(pack(page)) <= REPLY_BYTES_MAX + SLACK or len(rows) == 1
        assert len(rows) <= named["limit"]
        found += rows.items() if isinstance(rows, dict) else rows
        if page["next"] is None:
            return found
        assert rows or named.get("state"), "a page that has a next one has something on it"
        after = page["next"]


# --- a hall of 80,000 seats ---


def seats(first, count):
    """Numbered from 0 on: rows of 100 seats, 200 rows a zone."""
    return {
        f"seat:{number:05}": {
            "stock": 1,
            "zone": f"zone{number // 20_000}",
            "row": f"row{number // 100 % 200}",
            "seat": number % 100 + 1,
        }
        for number in range(first, first + count)
    }


def test_a_hall_of_80_000_seats_is_loaded_in_pages():
    shop = Shop(items=seats(0, 1_000), opens_in=HOUR_MS, per_user=0)
    for first in range(1_000, 80_000, 1_000):
        shop.ask("sale.restock", name="s", items=seats(first, 1_000))
    total = shop.say("status")["total"]
    assert total == {"stock": 80_000, "free": 80_000, "held": 0, "sold": 0}
    with pytest.raises(Refused, match="not_open"):
        shop.say("reserve items=seat:00000:1")
    shop.say("open")
    for zone in range(4):
        found = shop.say(f"best_available zone=zone{zone} count=3")
        expected = [f"seat:{20_000 * zone + place:05}" for place in range(3)]
        assert list(found["items"]) == expected
        assert (found["zone"], found["row"]) == (f"zone{zone}", "row0")
    best = {"zone": "zone3", "count": 32}
    sold = [shop.ask("sale.reserve", name="s", user=f"u{n}", best=best)["items"] for n in range(20)]
    assert len({sku for basket in sold for sku in basket}) == 640
    rows = pages(shop, "sale.status", "items", name="s", limit=1_000)
    assert [sku for sku, _ in rows] == [f"seat:{number:05}" for number in range(80_000)]
    assert sum(row["held"] for _, row in rows) == 640
    steps = pages(shop, "sale.ledger", "items", name="s", limit=1_000)
    assert [row["seq"] for row in steps] == list(range(1, len(steps) + 1))
    assert (
        sum(len(row["items"]) for row in steps if row["step"] in ("created", "restocked")) == 80_000
    )
    assert shop.say("audit")["ok"]
    shop.world.store.check()
    restored = shop.world.restored()
    assert restored.totals() == shop.world.store.totals()
    hall, again = shop.world.store.sales.find("s").hall, restored.sales.find("s").hall
    for zone in range(4):
        assert again.best(f"zone{zone}", 5) == hall.best(f"zone{zone}", 5)


# --- pages ---


def test_orders_are_paged_with_and_without_filters():
    shop = Shop(items={"a": 10_000}, per_user=0)
    sold = []
    for number in range(1_205):
        shop.hold = shop.say(f"reserve items=a:1 user=u{number % 3}")["hold"]
        sold.append(shop.say(f"confirm reference=r{number}")["order"])
        if number % 10 == 0:
            shop.say("refund")
    for limit in (7, 100, 1_000):
        found = pages(shop, "sale.orders", "orders", name="s", limit=limit)
        assert [row["order"] for row in found] == sold
    found = pages(shop, "sale.orders", "orders", name="s", limit=100, state="refunded")
    assert [row["order"] for row in found] == sold[::10]
    found = pages(shop, "sale.orders", "orders", name="s", limit=100, user="u1")
    assert [row["order"] for row in found] == sold[1::3]
    found = pages(shop, "sale.orders", "orders", name="s", limit=10, user="u0", state="sold")
    assert [row["order"] for row in found] == [
        order for place, order in enumerate(sold) if place % 3 == 0 and place % 10
    ]
    assert shop.ask("sale.orders", name="s", user="nobody") == {"orders": [], "next": None}
    for after in (1_205, 1_206, 10**6, INT64_MAX):
        assert shop.ask("sale.orders", name="s", after=after) == {"orders": [], "next": None}
        steps = shop.ask("sale.ledger", name="s", after=max(after, 10_000))
        assert steps == {"items": [], "next": None}
    place = shop.say("place user=u0")
    assert [row["order"] for row in place["orders"]] == sold[::-3][:100] or len(
        place["orders"]
    ) >= 100
    shop.settle()


def test_sales_are_listed_by_name():
    shop = Shop()
    names = sorted(f"{letter}{number:03}" for letter in "xy" for number in range(60))
    for name in names:
        Shop(shop.world, name=name)
    assert pages(shop, "sale.list", "items", limit=1_000) == sorted(["s", *names])
    assert pages(shop, "sale.list", "items", prefix="x", limit=7) == names[:60]
    assert shop.ask("sale.list", prefix="z") == {"items": [], "next": None}
    assert shop.ask("sale.list", after="y059") == {"items": [], "next": None}
    shop.say("close")
    shop.say("delete")
    assert pages(shop, "sale.list", "items", limit=7) == names
    shop.world.assert_same()


def test_replies_end_at_a_bound_of_bytes():
    """With the longest names, the largest baskets and the most of everything."""
    names = [f"{number:04}".ljust(255, "x") for number in range(1_000)]
    shop = Shop(items=dict.fromkeys(names, STOCK_MAX), per_user=0)
    assert len(pages(shop, "sale.status", "items", name="s", limit=1_000)) == 1_000
    user = "u" * 255
    basket = dict.fromkeys(names[:BASKET_MAX], 1_000_000)
    for number in range(40):
        reply = shop.ask("sale.reserve", name="s", user=user, items=basket)
        shop.hold = reply["hold"]
        assert len(pack(reply)) < REPLY_BYTES_MAX
        if number % 2:
            shop.ask("sale.confirm", hold=shop.hold, reference="r" * 255)
            shop.say("refund")
    assert len(pages(shop, "sale.orders", "orders", name="s", limit=1_000)) == 20
    steps = pages(shop, "sale.ledger", "items", name="s", limit=1_000)
    assert [row["seq"] for row in steps] == list(range(1, len(steps) + 1))
    assert len(steps) == 2 + 40 + 20 + 20
    place = shop.ask("sale.place", name="s", user=user)
    assert len(pack(place)) <= REPLY_BYTES_MAX + SLACK
    assert place["holds"]
    assert place["holds"][0]["hold"] == shop.say(f"place user={user}")["holds"][0]["hold"]
    shop.settle()


# --- slices ---


@pytest.mark.parametrize(("size", "at_most"), [(1, 200), (100, 4)])
@pytest.mark.parametrize("way", ["expire", "release"])
def test_what_ends_together_ends_in_slices(way, size, at_most):
    """However many holds end at once and however large they are, one turn moves a few hundred."""
    shop = Shop(items={f"i{number}": 10_000 for number in range(size)}, per_user=0)
    basket = {f"i{number}": 1 for number in range(size)}
    count = 10 * at_most
    for number in range(count):
        shop.ask("sale.reserve", name="s", user=f"u{number % 30}", items=basket)
    book = shop.world.store.sales.find("s").book
    if way == "release":
        shop.say("close release=true")
        assert count - book.holds == 5 * at_most  # the first slice is a larger one
    else:
        shop.world.timers_per_turn = 0
        shop.say(f"wait {HOLD_MS}")
        shop.world.timers_per_turn = 1_000
    ended = []
    while book.holds:
        before = book.holds
        shop.say("wait 0")
        ended.append(before - book.holds)
    assert set(ended) == {at_most}
    shop.settle()


def test_a_deleted_sale_is_freed_in_slices():
    shop = Shop(items={f"i{number}": 10**6 for number in range(1_000)}, per_user=0)
    for number in range(300):
        shop.hold = shop.say(f"reserve user=u{number} items=i{number}:1+i{number + 1}:2")["hold"]
        shop.say(["confirm reference=r", "cancel", "extend ms=1"][number % 3])
    shop.say("close release=true")
    shop.say("delete")
    sales = shop.world.store.sales
    turns = 0
    while not sales.reclaim(20):
        turns += 1
    assert 10 < turns < 200
    assert not sales._grave
    shop.world.assert_same()


# --- amounts ---


def test_a_basket_has_a_hundred_items_at_most():
    shop = Shop(items={f"i{number}": 5 for number in range(150)}, per_user=0)
    whole = {f"i{number}": 1 for number in range(100)}
    reply = shop.ask("sale.reserve", name="s", user="ann", items=whole)
    assert reply["items"] == whole
    with pytest.raises(Refused, match="1 to 100 item names"):
        shop.ask("sale.reserve", name="s", user="ann", items={**whole, "i100": 1})
    part = {f"i{number}": 1 for number in range(0, 100, 7)}
    assert shop.ask("sale.confirm", hold=reply["hold"], items=part)["items"] == part
    assert shop.say("status")["total"]["sold"] == len(part)
    assert shop.say("status")["total"]["held"] == 0
    shop.settle()


def test_stock_up_to_its_bound_is_exact():
    shop = Shop(items={"a": STOCK_MAX, "b": STOCK_MAX, "c": 0}, per_user=0)
    shop.hold = shop.say("reserve items=a:1000000+b:1000000")["hold"]
    assert shop.balances()["a"] == {
        "stock": STOCK_MAX,
        "free": STOCK_MAX - 10**6,
        "held": 10**6,
        "sold": 0,
    }
    shop.say("confirm")
    shop.say("refund items=a:999999 restock=false")
    shop.say("restock items=a:999999")
    assert shop.attempt("restock items=a:1")[1].name == "out_of_range"
    shop.say(f"restock items=a:{-(STOCK_MAX - 1)}")
    assert shop.balances()["a"] == {"stock": 1, "free": 0, "held": 0, "sold": 1}
    assert shop.say("status")["total"]["stock"] == STOCK_MAX + 1
    assert shop.attempt("reserve items=c:1")[1].details["final"] is True
    shop.settle()


def test_limits_of_one_user_hold_for_large_numbers():
    shop = Shop(items={"a": {"stock": STOCK_MAX, "per_user": 1_500_000}}, per_user=INT64_MAX)
    shop.say("reserve items=a:1000000")
    assert shop.attempt("reserve items=a:500001")[1].name == "limit_reached"
    shop.say("reserve items=a:500000")
    shop.settle()


def test_deadlines_far_away():
    shop = Shop(hold_ms=TIME_MAX)
    shop.hold = shop.say("reserve items=a:1")["hold"]
    assert shop.say("get")["expires_at"] == shop.world.now + TIME_MAX
    reply = shop.say(f"extend ms={TIME_MAX}")
    assert reply["expires_at"] == shop.world.now + 2 * TIME_MAX
    shop.settle()


# --- seats ---


def hall(*rows):
    """`AAA.A` is a row of four seats, one of which stands alone."""
    return {
        f"{name}{number}": {"stock": 1, "zone": "z", "row": name, "seat": number}
        for name, row in rows
        for number, seat in enumerate(row, 1)
        if seat != "."
    }


def best(shop, count, zone="z"):
    return "+".join(shop.say(f"best_available zone={zone} count={count}")["items"])


def baskets(shop, count):
    """Holds of a hundred seats each."""
    for first in range(0, 100 * count, 100):
        shop.ask(
            "sale.reserve", name="s", user=f"u{first}", items=dict.fromkeys(seats(first, 100), 1)
        )


@pytest.mark.parametrize("release", [True, False])
def test_large_baskets_go_back_a_slice_a_turn(release):
    shop = Shop(items=seats(0, 1_000), per_user=0)
    for first in range(1_000, 4_000, 1_000):
        shop.ask("sale.restock", name="s", items=seats(first, 1_000))
    baskets(shop, 40)
    hold = shop.ask("sale.place", name="s", user="u3900")["holds"][0]["hold"]
    if release:
        shop.say("close release=true")
    else:
        shop.say("wait 60000")
    held = [shop.say("status")["total"]["held"]]
    while held[-1]:
        assert shop.ask("sale.get", hold=hold)["state"] == ("cancelled" if release else "expired")
        shop.say("wait 1")
        held.append(shop.say("status")["total"]["held"])
    assert held[0] >= 1_500
    assert all(before - after <= 1_200 for before, after in pairwise(held))  # in three turns
    shop.settle()


def test_best_available_leaves_no_seat_alone():
    shop = Shop(items={**hall(("a", "XXX"), ("b", "XXXX.XX")), "plain": 5}, per_user=0)
    assert best(shop, 1) == "a1"
    assert best(shop, 2) == "b6+b7"  # in a there would be one left that nobody wants
    assert best(shop, 3) == "a1+a2+a3"
    assert best(shop, 4) == "b1+b2+b3+b4"
    assert shop.attempt("best_available zone=z count=5")[1].name == "sold_out"
    assert shop.attempt("best_available zone=nowhere count=1")[1].name == "not_found"
    pair = {"zone": "z", "count": 2}
    assert shop.ask("sale.reserve", name="s", user="ann", best=pair)["items"] == {"b6": 1, "b7": 1}
    assert best(shop, 2) == "b1+b2"
    shop.say("reserve items=b2:1+plain:1")
    assert best(shop, 2) == "b3+b4"
    shop.say("reserve items=b4:1")
    assert best(shop, 2) == "a1+a2"  # where it cannot be helped
    shop.say("wait 60000")
    assert best(shop, 2) == "b6+b7"
    shop.settle()


def test_best_available_follows_every_way_that_seats_move():
    shop = Shop(items=hall(("a", "XX")), per_user=0)
    everything = "a1+a2"

    def taken():
        return shop.attempt("best_available zone=z count=1")[1] is not None

    reserve = "reserve items=a1:1+a2:1"
    shop.hold = shop.say(reserve)["hold"]
    assert taken()
    shop.say("cancel")
    assert best(shop, 2) == everything
    shop.hold = shop.say(reserve)["hold"]
    shop.say("wait 60000")
    assert best(shop, 2) == everything
    shop.say("confirm late=retake items=a2:1")
    assert best(shop, 1) == "a1"
    shop.say("refund")
    assert best(shop, 2) == everything
    shop.hold = shop.say(reserve)["hold"]
    shop.say("reserve items=a2:1 hold=HOLD")
    assert best(shop, 1) == "a1"
    shop.say("reserve items=a1:1 hold=HOLD")
    assert best(shop, 1) == "a2"
    shop.say("reserve items=a1:1+a2:1 hold=HOLD")
    assert taken()
    shop.say("confirm items=a1:1")
    assert best(shop, 1) == "a2"
    shop.say("refund restock=false")
    assert best(shop, 1) == "a2"
    shop.say("restock items=a2:-1")
    assert taken()
    shop.say("restock items=a1:1+a2:1")
    assert best(shop, 2) == everything
    shop.hold = shop.say(reserve)["hold"]
    shop.say("close release=true")
    assert best(shop, 2) == everything
    shop.settle()


def test_the_best_seats_are_the_same_ones_to_the_same_key():
    shop = Shop(items=hall(("a", "XXXXXX")), per_user=0)

    def reserve(key, **rest):
        call = {"name": "s", "user": "ann", "best": {"zone": "z", "count": 2}, **rest}
        return shop.ask("sale.reserve", **call, options={"idempotency_key": key})

    first = reserve("k")
    assert list(first["items"]) == ["a1", "a2"]
    assert list(reserve("l")["items"]) == ["a3", "a4"]
    assert reserve("k") == first
    assert list(reserve("m", hold=first["hold"])["items"]) == ["a5", "a6"]
    assert reserve("k") == first
    assert shop.ask("sale.get", hold=first["hold"])["items"] == {"a5": 1, "a6": 1}
    assert best(shop, 2) == "a1+a2"
    shop.settle()


def test_two_items_cannot_have_one_seat():
    shop = Shop(items=hall(("a", "XX")))
    records = len(shop.world.records())
    seat = {"stock": 1, "zone": "z", "row": "a"}
    for items, word in [
        ({"x": {**seat, "seat": 2}}, "a2"),
        ({"x": {**seat, "seat": 3}, "y": {**seat, "seat": 3}}, "seat 3"),
        ({"x": {**seat, "seat": 100_000}}, "100000"),
    ]:
        with pytest.raises(Refused, match=word):
            shop.ask("sale.restock", name="s", items=items)
        with pytest.raises(Refused, match=word):
            shop.ask("sale.create", name="t", items={**hall(("a", "XX")), **items})
    assert len(shop.world.records()) == records
    assert shop.ask("sale.list")["items"] == ["s"]
    shop.settle()
