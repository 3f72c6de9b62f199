"""The options of calls, as keyword arguments of every method, and positions in channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, TypedDict

__all__ = ["WRITE_OPTIONS", "Ack", "Position", "ReadOptions", "Since", "WriteOptions"]

Ack = Literal["memory", "logged", "synced"]


class ReadOptions(TypedDict, total=False):
    """timeout: seconds that the call may take in all, reconnecting included; None: for ever."""

    timeout: float | None


class WriteOptions(ReadOptions, total=False):
    """What a write may ask beside its parameters.

    idempotency_key: the same call under the same key is applied once and answered the same, also
    from another process. ack: how safe it must be before the answer. source: [name, partition,
    offset]; at or below the stored offset nothing is done and `Duplicate` is raised. as_user,
    address: for whom and from where this service acts.
    """

    idempotency_key: str
    ack: Ack
    source: tuple[str, int, int]
    as_user: str
    address: str


WRITE_OPTIONS: Final = WriteOptions.__optional_keys__


class Position(NamedTuple):
    """A place in a channel: which life of it, and the last offset that was read there."""

    epoch: str
    offset: int


Since = tuple[str, int] | Mapping[str, int]
"""Where to begin: a position, or {"last": n} for the newest n messages."""
