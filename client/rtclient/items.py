"""What a reader of a channel is handed: messages, and what stands between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rtclient.options import Position
from rtclient.results import Message

__all__ = ["Gap", "Item", "Join", "Leave", "message_of"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages are missing here. lost: how many, None where nobody can know. position: where it
    goes on."""

    channel: str
    lost: int | None
    reason: str
    position: Position


@dataclass(frozen=True, slots=True)
class Join:
    """Users came. count: how many are here now. users: their names; empty on a channel that is so
    large that only counts are told."""

    channel: str
    users: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Users went. count, users: as of `Join`."""

    channel: str
    users: tuple[str, ...]
    count: int


Item = Message | Gap | Join | Leave


def message_of(raw: Mapping[str, Any], channel: str) -> Message:
    """A push, or a message in a reply; one of a transient channel has no offset, here 0."""
    return Message(
        raw.get("offset", 0), raw["data"], raw["at"], raw.get("key"), raw.get("sender"), channel
    )
