"""Where a subscriber begins, and how a subscribe reply says that."""

from __future__ import annotations

from typing import Any

from rtserver.config import ChannelKind
from rtserver.session.tails import Stream

__all__ = ["reply_of", "start_of"]


def reply_of(
    kind: ChannelKind,
    epoch: str,
    offset: int,
    *,
    recovered: bool = False,
    messages: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    return {
        "class": kind,
        "epoch": epoch,
        "offset": offset,
        "recovered": recovered,
        "messages": [] if messages is None else messages,
    }


def start_of(since: Any, epoch: str, stream: Stream, released: int) -> tuple[int, bool]:
    """(the position to read on from, whether nothing is missing since the one asked for)."""
    first_offset = stream.history.first_offset
    anew = first_offset - 1 if stream.latest else released  # `latest`: with the current values
    if since is None:
        return anew, False
    if isinstance(since, dict):
        return max(first_offset - 1, released - since["last"]), False
    asked_epoch, asked = since
    if asked_epoch != epoch or asked > released:
        return anew, False
    if asked + 1 < first_offset:
        return first_offset - 1, False
    return asked, True
