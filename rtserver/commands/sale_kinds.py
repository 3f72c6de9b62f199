"""Kinds of parameters of sales: declared items, baskets, seats, the waiting room.

What they give is what the log keeps: plain rows in the order of state/sales/terms.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from rtserver.commands.kinds import NAME, Kind
from rtserver.errors import shown
from rtserver.limits import (
    BASKET_MAX,
    BEST_SEATS_MAX,
    NAME_BYTES_MAX,
    STOCK_MAX,
    TIME_MAX,
    VECTOR_MAX,
)

__all__ = ["AMOUNTS", "BASKET", "BEST", "DURATION", "ITEMS", "POINT", "QUEUE", "REFERENCE"]

T = TypeVar("T")

_UNITS_MAX = 1_000_000  # of one item in one basket
_RATE_MAX = 1_000_000


def _whole(what: str, value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(
            f"expected {what} to be an integer from {least} to {most}, not {shown(value)}"
        )
    return value


def _known(what: str, value: Any, fields: dict[str, Any]) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValueError(f"expected {what} to be a map of {', '.join(fields)}")
    for name in value:
        if name not in fields:
            raise ValueError(f"expected {what} with {', '.join(fields)}, not {str(name)[:80]!r}")
    return value


def _named(value: Any, most: int) -> dict[str, Any]:
    if type(value) is not dict or not 1 <= len(value) <= most:
        raise ValueError(f"expected a map of 1 to {most} item names")
    for name in value:
        _of_item(name, NAME.check, name)
    return value


def _of_item(name: Any, check: Callable[[Any], T], value: Any) -> T:
    """What a check gives; where it refuses, the item is named."""
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{error} (item {shown(name)})") from None


# --- items ---

_ITEM_FIELDS = {"stock": None, "per_user": 0, "zone": None, "row": None, "seat": None}


def _declared(least: int) -> Any:
    """{sku: stock | {stock, per_user?, zone?, row?, seat?}} to {sku: row of ItemTerms}."""

    def item(value: Any) -> list[Any]:
        if type(value) is int:
            return [_whole("the stock", value, least, STOCK_MAX), 0, None, None, None]
        fields = _known("an item", value, _ITEM_FIELDS)
        stock, per_user, zone, row, seat = (
            fields.get(name, default) for name, default in _ITEM_FIELDS.items()
        )
        stock = _whole("stock", stock, least, STOCK_MAX)
        _whole("per_user", per_user, 0, STOCK_MAX)
        for part in (zone, row):
            if part is not None:
                NAME.check(part)
        if seat is not None:
            _whole("seat", seat, 0, TIME_MAX)
            if row is None or stock > 1:
                raise ValueError("expected a seat to have a row and a stock of 1")
        return [stock, per_user, zone, row, seat]

    def check(value: Any) -> dict[str, list[Any]]:
        items = _named(value, VECTOR_MAX).items()
        return {name: _of_item(name, item, one) for name, one in items}

    return check


def _basket(value: Any) -> dict[str, int]:
    basket = _named(value, BASKET_MAX)
    for name, amount in basket.items():
        _of_item(name, _amount, amount)
    return basket


def _amount(value: Any) -> int:
    return _whole("the amount", value, 1, _UNITS_MAX)


def _best(value: Any) -> list[Any]:
    """{zone?, count} to [zone, count]."""
    fields = _known("best", value, {"zone": None, "count": None})
    zone = fields.get("zone")
    return [
        None if zone is None else NAME.check(zone),
        _whole("count", fields.get("count"), 1, BEST_SEATS_MAX),
    ]


# --- the waiting room ---

_QUEUE_FIELDS: dict[str, tuple[int, int]] = {
    "rate_per_s": (1, _RATE_MAX),
    "active_max": (1, STOCK_MAX),
    "pass_ms": (1, TIME_MAX),
    "grace_ms": (0, TIME_MAX),
    "dwell_ms": (0, TIME_MAX),
    "per_address": (0, STOCK_MAX),
    "joins_per_user": (0, STOCK_MAX),
}


def _queue(value: Any) -> dict[str, Any]:
    fields = _known("queue", value, {**_QUEUE_FIELDS, "challenge": None})
    for name, one in fields.items():
        if name == "challenge":
            if type(one) is not bool:
                raise ValueError("expected challenge to be true or false")
        else:
            _whole(name, one, *_QUEUE_FIELDS[name])
    return fields


def _reference(value: Any) -> str:
    if type(value) is not str or not 1 <= len(value.encode("utf-8", "replace")) <= NAME_BYTES_MAX:
        raise ValueError(f"expected text of 1 to {NAME_BYTES_MAX} bytes")
    if not value.isprintable():
        raise ValueError("expected text without control characters")
    return value


def _at_least(least: int) -> Any:
    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= TIME_MAX:
            raise ValueError(f"expected an integer from {least} to {TIME_MAX}")
        return value

    return check


ITEMS = Kind(
    "map of item to stock or {stock, per_user?, zone?, row?, seat?}",
    "Mapping[str, Any]",
    _declared(0),
)
AMOUNTS = Kind(
    "map of item to units more, or to {stock, ...} of a new one",
    "Mapping[str, Any]",
    _declared(-STOCK_MAX),
)
BASKET = Kind(f"map of up to {BASKET_MAX} items to units", "Mapping[str, int]", _basket)
BEST = Kind("{zone?, count}", "Mapping[str, Any]", _best)
QUEUE = Kind(
    "{rate_per_s, active_max, pass_ms?, grace_ms?, dwell_ms?, per_address?, joins_per_user?,"
    " challenge?}",
    "Mapping[str, Any]",
    _queue,
)
REFERENCE = Kind(f"text of at most {NAME_BYTES_MAX} bytes", "str", _reference)
POINT = Kind("ms since 1970", "int", _at_least(0))
DURATION = Kind("int >= 1", "int", _at_least(1))
