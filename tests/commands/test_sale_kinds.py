"""Values that no parameter of a sale takes: each refusal names the parameter and what was wrong."""

from __future__ import annotations

import re

import pytest

from rtserver.limits import BASKET_MAX, BEST_SEATS_MAX, INT64_MAX, STOCK_MAX, TIME_MAX, VECTOR_MAX
from tests.sales import Shop
from tests.world import Refused

HOLD = "h1-1-0000000000000000"
NO_NAMES = ["", "a b", "a,b", "a\nb", "\x00", "a\u00a0b", "\u2028", "n" * 256, "\u00e9" * 128]
NO_NUMBERS = ["1", 1.0, 1.5, True, [1], {"n": 1}, b"1"]
ITEMS = {"a": 1}
QUEUE = {"rate_per_s": 1, "active_max": 1}
SEAT = {"stock": 1, "row": "r", "seat": 1}


def cases():
    """(command, parameters, the parameter that is wrong, words of the message)"""
    for name in NO_NAMES:
        yield "create", {"name": name, "items": ITEMS}, "name", "1 to 255 bytes"
        yield "create", {"name": "t", "items": {name: 1}}, "items", "1 to 255 bytes"
        yield "restock", {"name": "s", "items": {name: 1}}, "items", "1 to 255 bytes"
        yield "reserve", {"name": "s", "user": name, "items": ITEMS}, "user", "1 to 255 bytes"
        yield "reserve", {"name": "s", "user": "u", "items": {name: 1}}, "items", "1 to 255 bytes"
        yield "reserve", {"name": "s", "items": ITEMS, "pass_id": name}, "pass_id", "1 to 255 bytes"
        yield "reserve", {"name": "s", "items": ITEMS, "hold": name}, "hold", "1 to 255 bytes"
        yield "confirm", {"hold": name}, "hold", "1 to 255 bytes"
        yield "refund", {"order": name}, "order", "1 to 255 bytes"
        yield "best_available", {"name": "s", "zone": name}, "zone", "1 to 255 bytes"
        for part in ("zone", "row"):
            items = {"a": {**SEAT, part: name}}
            yield "create", {"name": "t", "items": items}, "items", "1 to 255 bytes"
    for name in (1, True, ["s"], {"s": 1}, b"s", 1.5):
        yield "status", {"name": name}, "name", "expected text"
        yield "reserve", {"name": "s", "user": name, "items": ITEMS}, "user", "expected text"
    yield from items_cases()
    yield from basket_cases()
    yield from queue_cases()
    yield from number_cases()


def items_cases():
    for items in ([], ["a"], "a", 1, {}, {f"i{n}": 1 for n in range(VECTOR_MAX + 1)}):
        yield "create", {"name": "t", "items": items}, "items", "a map of 1 to 1000 item names"
        yield "restock", {"name": "s", "items": items}, "items", "a map of 1 to 1000 item names"
    for key in (1, True, None, 1.5):
        yield "create", {"name": "t", "items": {key: 1}}, "items", "with keys of type"
    for stock in [-1, STOCK_MAX + 1, 2**63, -(2**63), 2**64 - 1]:
        yield (
            "create",
            {"name": "t", "items": {"a": stock}},
            "items",
            "stock to be an integer from 0",
        )
        given = {"a": {"stock": stock}}
        yield "create", {"name": "t", "items": given}, "items", "stock to be an integer from 0"
    for stock in [-STOCK_MAX - 1, STOCK_MAX + 1, 2**63, -(2**63)]:
        yield (
            "restock",
            {"name": "s", "items": {"a": stock}},
            "items",
            "stock to be an integer from -",
        )
    for value in [*NO_NUMBERS, None]:
        if type(value) is not dict:
            given = {"a": value}
            yield "create", {"name": "t", "items": given}, "items", "an item to be a map of stock"
        for field in ("stock", "per_user"):
            if value is None and field == "per_user":
                continue
            given = {"a": {"stock": 1, field: value}}
            yield "create", {"name": "t", "items": given}, "items", f"{field} to be an integer"
    for value in [*NO_NUMBERS, -1, TIME_MAX + 1]:
        given = {"a": {**SEAT, "seat": value}}
        yield "create", {"name": "t", "items": given}, "items", "seat to be an integer"
    for given in ({"stock": 1, "seat": 1}, {"stock": 2, "row": "r", "seat": 1}):
        yield "create", {"name": "t", "items": {"a": given}}, "items", "a seat to have a row and"
    for given in ({"stock": 1, "price": 3}, {"stock": 1, "Stock": 1}):
        yield (
            "create",
            {"name": "t", "items": {"a": given}},
            "items",
            "an item with stock, per_user",
        )
    yield "create", {"name": "t", "items": {"a": {}}}, "items", "stock to be an integer"
    yield (
        "create",
        {"name": "t", "items": {"a": {"per_user": 1}}},
        "items",
        "stock to be an integer",
    )
    yield "create", {"name": "t", "items": {"a": {"stock": 1, "per_user": -1}}}, "items", "per_user"


def basket_cases():
    for method, rest in (
        ("reserve", {"name": "s", "user": "u"}),
        ("confirm", {"hold": HOLD}),
        ("refund", {"order": HOLD}),
    ):
        for items in ([], ["a"], "a", 1, True, {}, {f"i{n}": 1 for n in range(BASKET_MAX + 1)}):
            yield method, {**rest, "items": items}, "items", "a map of 1 to 100 item names"
        for amount in [*NO_NUMBERS, None, 0, -1, 1_000_001, 2**40, 2**63, -(2**63)]:
            yield (
                method,
                {**rest, "items": {"a": amount}},
                "items",
                "amount to be an integer from 1",
            )
        if method != "reserve":
            for reference in (
                "",
                "r" * 256,
                "a\nb",
                "\x7f",
                "\x00",
                "\u202e",
                1,
                True,
                ["r"],
                b"r",
            ):
                given = {**rest, "reference": reference}
                yield method, given, "reference", "expected text"
    for best in ([], "z", 1, [None, 1]):
        yield "reserve", {"name": "s", "user": "u", "best": best}, "best", "best to be a map"
    for best in ({}, {"count": 0}, {"count": BEST_SEATS_MAX + 1}, {"count": "2"}, {"count": True}):
        yield "reserve", {"name": "s", "user": "u", "best": best}, "best", "count to be an integer"
    for best in ({"zone": "", "count": 1}, {"zone": "a b", "count": 1}, {"zone": 1, "count": 1}):
        yield "reserve", {"name": "s", "user": "u", "best": best}, "best", "expected"
    yield "reserve", {"name": "s", "user": "u", "best": {"count": 1, "row": 1}}, "best", "not 'row'"
    both = {"items": ITEMS, "best": {"count": 1}}
    yield "reserve", {"name": "s", "user": "u", **both}, "items", "either items or best"
    yield "reserve", {"name": "s", "user": "u"}, "items", "either items or best"
    for late in ("", "Retake", "refused", 1, True):
        yield "confirm", {"hold": HOLD, "late": late}, "late", "expected refuse or retake"


def queue_cases():
    base = {"name": "t", "items": ITEMS}
    for queue in ([], "q", 1, True, [1, 1]):
        yield "create", {**base, "queue": queue}, "queue", "queue to be a map of rate_per_s"
        yield "configure", {"name": "s", "queue": queue}, "queue", "queue to be a map of rate_per_s"
    for missing in ("rate_per_s", "active_max"):
        queue = {key: value for key, value in QUEUE.items() if key != missing}
        yield "create", {**base, "queue": queue}, "queue", f"no {missing}"
        yield "configure", {"name": "s", "queue": queue}, "queue", f"no {missing}"
    for field, least in (
        ("rate_per_s", 1),
        ("active_max", 1),
        ("pass_ms", 1),
        ("grace_ms", 0),
        ("dwell_ms", 0),
        ("per_address", 0),
        ("joins_per_user", 0),
    ):
        for value in [*NO_NUMBERS, None, least - 1, 2**62, 2**63]:
            queue = {**QUEUE, field: value}
            words = f"{field} to be an integer from {least}"
            yield "create", {**base, "queue": queue}, "queue", words
    for value in (0, 1, None, "true"):
        yield "create", {**base, "queue": {**QUEUE, "challenge": value}}, "queue", "true or false"
    yield "create", {**base, "queue": {**QUEUE, "rate": 1}}, "queue", "not 'rate'"


def number_cases():
    base = {"name": "t", "items": ITEMS}
    for value in [*NO_NUMBERS, -1, TIME_MAX + 1, 2**63]:
        yield "create", {**base, "opens_at": value}, "opens_at", "an integer from 0"
        yield "create", {**base, "closes_at": value}, "closes_at", "an integer from 0"
    for value in [*NO_NUMBERS, 0, -1, TIME_MAX + 1, 2**63]:
        yield "create", {**base, "hold_ms": value}, "hold_ms", "an integer from 1"
        yield "configure", {"name": "s", "hold_ms": value}, "hold_ms", "an integer from 1"
        yield "extend", {"hold": HOLD, "ms": value}, "ms", "an integer from 1"
    for value in [*NO_NUMBERS, -1, INT64_MAX + 1]:
        yield "create", {**base, "per_user": value}, "per_user", "an integer of 0 or more"
        yield "configure", {"name": "s", "per_user": value}, "per_user", "an integer of 0 or more"
        yield "orders", {"name": "s", "after": value}, "after", "an integer of 0 or more"
        yield "ledger", {"name": "s", "after": value}, "after", "an integer of 0 or more"
    for value in [*NO_NUMBERS, 0, -1, 1_001]:
        for method in ("status", "orders", "ledger"):
            yield method, {"name": "s", "limit": value}, "limit", "an integer from 1 to 1000"
        yield "list", {"limit": value}, "limit", "an integer from 1 to 1000"
    for value in [*NO_NUMBERS, 0, -1, BEST_SEATS_MAX + 1]:
        yield "best_available", {"name": "s", "count": value}, "count", "an integer from 1 to 32"
    for value in ("yes", 1, 0, [True]):
        yield "close", {"name": "s", "release": value}, "release", "expected true or false"
        yield "refund", {"order": HOLD, "restock": value}, "restock", "expected true or false"
    for value in ("held", "", 1):
        yield "orders", {"name": "s", "state": value}, "state", "expected sold or refunded"
    yield "join", {"name": "s", "user": "u", "challenge": 1}, "challenge", "expected text"
    yield "join", {"name": "s", "user": "u", "challenge": "c" * 5_000}, "challenge", "at most"
    at = {"opens_at": 2**45, "closes_at": 2**45}
    yield "create", {**base, **at}, "closes_at", "a time after opens_at"


def test_what_no_parameter_takes_is_refused_by_name():
    shop = Shop()
    records = len(shop.world.records())
    count = 0
    for method, named, param, words in cases():
        count += 1
        with pytest.raises(Refused) as refused:
            shop.ask(f"sale.{method}", **named)
        refusal = refused.value
        told = f"{method} {str(named)[:200]}: {refusal}"
        assert refusal.name == "invalid_params", told
        assert refusal.details == {"param": param}, told
        assert words in refusal.message, told
        assert len(refusal.message) < 600, told
    assert count > 500
    assert len(shop.world.records()) == records
    assert shop.ask("sale.list") == {"items": ["s"], "next": None}
    shop.settle()


@pytest.mark.parametrize(
    ("method", "bad", "words"),
    [
        ("restock", 2**50, f"not {2**50} (item 'i70')"),
        ("restock", {"stock": 1, "per_user": -1}, "not -1 (item 'i70')"),
        ("restock", {"stock": 1, "zone": "a b"}, "(item 'i70')"),
        ("restock", {"stock": 1, "seat": 7}, "(item 'i70')"),
        ("reserve", 0, "not 0 (item 'i70')"),
    ],
)
def test_the_one_wrong_item_among_many_is_named(method, bad, words):
    shop = Shop()
    items = {f"i{number}": 1 for number in range(100)} | {"i70": bad}
    with pytest.raises(Refused, match=re.escape(words)):
        shop.ask(f"sale.{method}", name="s", items=items)
    del items["i70"]
    with pytest.raises(Refused, match=re.escape("(item 'i 70')")):
        shop.ask(f"sale.{method}", name="s", items={**items, "i 70": 1})


@pytest.mark.parametrize("method", ["create", "restock", "reserve", "confirm", "extend", "refund"])
def test_what_is_missing_is_named(method):
    shop = Shop()
    row = shop.world.table[f"sale.{method}"]
    with pytest.raises(Refused, match=f"{row.params[0].name} is missing"):
        shop.ask(f"sale.{method}")
    with pytest.raises(Refused, match="parameters, expected at most"):
        shop.world.call(f"sale.{method}", *([None] * (len(row.params) + 1)))


NAMES = [
    "a",
    "x:y",
    "a%3A",
    "\u00e9\u4e2d\U0001f600",
    "n" * 255,
    "-",
    "h1-1-x",
    "$sale:s",
    "None",
    "0",
]


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_a_name_may_name_anything(name):
    shop = Shop(name=name, items={name: {"stock": 1, "zone": name, "row": name, "seat": 0}})
    best = {"zone": name, "count": 1}
    hold = shop.ask("sale.reserve", name=name, user=name, best=best)["hold"]
    told = shop.ask("sale.confirm", hold=hold, reference=f"{name[:200]} / 1")
    assert told["items"] == {name: 1}
    purchase = shop.ask("sale.get", "user", name, hold=told["order"])
    assert (purchase["sale"], purchase["user"]) == (name, name)
    assert shop.ask("sale.orders", name=name, user=name)["orders"][0]["reference"].endswith(" / 1")
    assert shop.ask("sale.list", prefix=name)["items"] == [name]
    shop.world.assert_same()
