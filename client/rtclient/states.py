"""States of watched things: their channels' names, how differences are applied, and their types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from rtclient.decode import many, many_by_name
from rtclient.results import Balance, Entry, to_balance, to_entry

__all__ = [
    "BoardState",
    "CounterState",
    "SaleState",
    "applied",
    "to_board_state",
    "to_counter_state",
    "to_sale_state",
    "watch_name",
]


@dataclass(frozen=True, slots=True)
class CounterState:
    """What `rt.counter.watch` yields."""

    value: int


@dataclass(frozen=True, slots=True)
class BoardState:
    """What `rt.board.watch_top` and `watch_around` yield. count: the size of the whole board."""

    entries: list[Entry]
    count: int


@dataclass(frozen=True, slots=True)
class SaleState:
    """What `rt.sale.watch` yields.

    state: scheduled, open, paused, closed, or none where there is no such sale. total: of all items
    together. waiting, active: users in the queue, and of those who were let in; above 100 rounded
    up to two digits. items: empty where there are more than 100. opens_at, closes_at: ms since
    1970. seed: tells the order of the queue once the sale has opened; seed_sha256 was known before.
    """

    state: str
    total: Balance
    waiting: int
    active: int
    items: dict[str, Balance]
    opens_at: int | None
    closes_at: int | None
    seed_sha256: str
    seed: str | None


def to_counter_state(raw: Mapping[str, Any]) -> CounterState:
    return CounterState(raw["value"])


def to_board_state(raw: Mapping[str, Any]) -> BoardState:
    return BoardState(many(raw["entries"], to_entry), raw["count"])


def to_sale_state(raw: Mapping[str, Any]) -> SaleState:
    return SaleState(
        raw["state"],
        to_balance(raw["total"]),
        raw["waiting"],
        raw["active"],
        many_by_name(raw["items"], to_balance),
        raw.get("opens_at"),
        raw.get("closes_at"),
        raw["seed_sha256"],
        raw.get("seed"),
    )


def watch_name(kind: str, *parts: str) -> str:
    """The channel of a watched thing: `$counter:likes%3A42`."""
    quoted = (part.replace("%", "%25").replace(":", "%3A") for part in parts)
    return f"${kind}:" + ":".join(quoted)


def applied(state: Mapping[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The state after a change, which is a whole state itself or a difference. Nothing that was
    handed out before is changed."""
    if change.get("full"):
        return change
    if "leave" in change:
        return _board_applied(state, change)
    items = {"items": {**state["items"], **change["items"]}} if "items" in change else {}
    return {**state, **change, **items}


def _board_applied(state: Mapping[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    entries = {entry["member"]: entry for entry in state["entries"]}
    for member in change["leave"]:
        entries.pop(member, None)
    for entry in (*change["enter"], *change["move"]):
        entries[entry["member"]] = entry
    ranked = sorted(entries.values(), key=itemgetter("rank"))
    return {**state, "entries": ranked, "count": change["count"]}
