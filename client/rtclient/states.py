"""States of watched things: their channels' names, how differences are applied, and their types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from rtclient.decode import many
from rtclient.results import Entry, to_entry

__all__ = [
    "BoardState",
    "CounterState",
    "applied",
    "to_board_state",
    "to_counter_state",
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


def to_counter_state(raw: Mapping[str, Any]) -> CounterState:
    return CounterState(raw["value"])


def to_board_state(raw: Mapping[str, Any]) -> BoardState:
    return BoardState(many(raw["entries"], to_entry), raw["count"])


def watch_name(kind: str, *parts: str) -> str:
    """The channel of a watched thing: `$counter:likes%3A42`."""
    quoted = (part.replace("%", "%25").replace(":", "%3A") for part in parts)
    return f"${kind}:" + ":".join(quoted)


def applied(state: Mapping[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The state after a change, which is a whole state itself or a board's difference. Nothing
    that was handed out before is changed."""
    if change.get("full"):
        return change
    entries = {entry["member"]: entry for entry in state["entries"]}
    for member in change["leave"]:
        entries.pop(member, None)
    for entry in (*change["enter"], *change["move"]):
        entries[entry["member"]] = entry
    ranked = sorted(entries.values(), key=itemgetter("rank"))
    return {**state, "entries": ranked, "count": change["count"]}
