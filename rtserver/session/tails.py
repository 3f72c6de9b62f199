"""Tails: channels of the class `must` whose messages the state keeps itself, in full.

A ledger, an inbox, a room's messages are lists that only grow at one end. Subscribed to, such a
list is a channel like any other: an epoch that survives restarts, offsets, a first page in the
reply, cursors for slow readers. But nothing is published and nothing is kept twice: what a reader
gets is read from the state when it is sent. That there is more is noticed as with every watched
thing, by a look after the turn's block (session.watches); what a look finds is shown when it is
synced, if a reply waits for that sync (session.router). Costs: two comparisons a look, and the
reading of what is sent.
"""

from __future__ import annotations

from typing import Any

from rtserver.state.channels import Channel, Message
from rtserver.structs.recency import RecencyList

__all__ = ["OpenTail", "Stream", "Tail"]


class Tail:
    """A list of the state, as messages with ascending offsets. Subclasses find it by its name at
    each question, so that nobody keeps alive what was deleted."""

    __slots__ = ()

    rest_ms = 0  # how long it need not be looked at, because events of the state tell of news

    @property
    def epoch(self) -> str | None:
        """Of this life of the list, `era.number` as of all channels (session.cursor knows the
        form). Another one: the list that was opened is no more; None: there is none."""
        raise NotImplementedError

    @property
    def first_offset(self) -> int:
        """Nothing is missing at and above it."""
        return 1

    @property
    def top(self) -> int:
        """The last offset that was given; `first_offset - 1` before any."""
        raise NotImplementedError

    def read(self, after: int, limit: int, upto: int) -> list[Message]:
        """At most `limit` messages at offsets above `after` and not above `upto`."""
        raise NotImplementedError


class OpenTail:
    """A tail that somebody subscribes to. `released`: the last offset that may be shown."""

    __slots__ = (
        "epoch",
        "history",
        "looked_ms",
        "name",
        "queue",
        "released",
        "rest_ms",
        "seen",
        "touched_after",
        "touched_before",
    )

    latest = False

    def __init__(self, name: str, tail: Tail, *, settled: bool) -> None:
        """Not `settled`: a reply waits for a sync, so what the state has may not be shown yet.
        How much of it may is not known; the first look that finds it synced shows it."""
        epoch = tail.epoch
        assert epoch is not None, "what is no more is not opened"
        self.name = name
        self.epoch = epoch
        self.history = tail
        self.released = tail.top if settled else tail.first_offset - 1
        self.rest_ms = tail.rest_ms
        self.looked_ms = self.seen = 0  # these and the next belong to Watches
        self.queue: RecencyList[Any] | None = None
        self.touched_before: OpenTail | None = None  # these two belong to the RecencyList
        self.touched_after: OpenTail | None = None

    @property
    def is_over(self) -> bool:
        """What it was opened for is no more."""
        return self.history.epoch != self.epoch

    @property
    def may_show_more(self) -> bool:
        """Whether there is what was not released yet, or it is over."""
        return self.is_over or self.history.top != self.released

    # --- as Watches look at it ---

    weight = 0

    def may_differ(self, _now: int) -> bool:
        return self.may_show_more

    def change(self, _now: int) -> OpenTail | None:
        """What is new is read by whoever tells it."""
        return self if self.may_show_more else None


Stream = Channel | OpenTail
