"""Watched things: channels whose messages are derived from the state, not published.

`$counter:likes` is a name, `Subjects` turn it into a subject: something with a marker that differs
whenever the state that is shown may differ, and with that state itself. A watch is looked at once
an interval, after the block of its turn is written, however many subscribe to it and however often
its subject changed; what changed leaves as one message. So commands neither know nor pay for who
watches. Costs: a marker a watch and interval, and a state where that is another, in slices a turn.
Nothing is kept of a watch that nobody subscribes to.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import unquote

from rtserver.errors import INVALID_PARAMS, LIMIT_REACHED, NOT_FOUND, RtError
from rtserver.limits import Limits
from rtserver.state.channels import Message
from rtserver.structs.recency import RecencyList
from rtserver.wire.codec import pack

__all__ = ["Subject", "SubjectKind", "Watch", "Watches", "parts_of"]

_only_spelling = re.compile(r"(?:[^%]|%25|%3A)*+").fullmatch


class Subject(Protocol):
    """What a watch shows."""

    def marker(self, now: int, /) -> Any:
        """Equal markers: the same state. Cheap."""

    def state(self, now: int, /) -> dict[str, Any]:
        """All of it, with `full` true."""

    def difference(self, old: dict[str, Any], new: dict[str, Any], /) -> dict[str, Any]:
        """What leads from one state to the next, or the next where that is smaller."""


SubjectKind = Callable[[list[str]], Subject]


class Watch:
    """One watched thing: what its subscribers were told last, the version of that, and what
    they were told before, because the last change may be held back for a while."""

    __slots__ = (
        "_at",
        "_before",
        "_marker",
        "_state",
        "_subject",
        "name",
        "touched_after",
        "touched_before",
        "version",
    )

    def __init__(self, name: str, subject: Subject, version: int, now: int) -> None:
        self.name = name
        self.version = version
        self.touched_before: Watch | None = None  # these two belong to the RecencyList
        self.touched_after: Watch | None = None
        self._subject = subject
        self._marker = subject.marker(now)
        self._state = self._before = subject.state(now)
        self._at = now

    def told(self, *, held: bool) -> tuple[int, dict[str, Any]]:
        """(version, state) that may be shown; `held`: the last change must not yet."""
        return (self.version - 1, self._before) if held else (self.version, self._state)

    def message(self, *, held: bool) -> Message:
        """The same as a message for whoever lost track."""
        version, state = self.told(held=held)
        return Message(self.name, version, self._at, pack(state), None, None)

    @property
    def weight(self) -> int:
        """About how many looks it costs to make its state."""
        return len(self._state.get("entries", ()))

    def may_differ(self, now: int) -> bool:
        """Whether its state may be another one than at the last call. Cheap."""
        before, self._marker = self._marker, self._subject.marker(now)
        return bool(self._marker != before)

    def change(self, now: int) -> Message | None:
        """What changed since the last call."""
        state = self._subject.state(now)
        if state == self._state:
            return None
        self._before, self._state = self._state, state
        self._at = now
        self.version += 1
        change = pack(self._subject.difference(self._before, state))
        return Message(self.name, self.version, now, change, None, None)


class Watches:
    """All watches of the process."""

    __slots__ = (
        "_kinds",
        "_left",
        "_limits",
        "_next_at",
        "_queue",
        "_stale",
        "_versions",
        "_watches",
        "epoch",
    )

    def __init__(self, kinds: Mapping[str, SubjectKind], limits: Limits) -> None:
        self._kinds = kinds
        self._limits = limits
        self._watches: dict[str, Watch] = {}
        self._queue: RecencyList[Watch] = RecencyList()  # looked at longest ago: first
        self._left = 0  # of the present round
        self._stale = False  # something may have changed since the last round began
        self._next_at = 0
        self._versions = 0  # the highest of a closed watch: one that begins anew goes on above it
        self.epoch = f"w{secrets.token_hex(4)}"  # versions belong to one start of the server

    def __len__(self) -> int:
        return len(self._watches)

    def get(self, name: str) -> Watch | None:
        return self._watches.get(name)

    def open(self, name: str, now: int) -> Watch:
        """The watch of a name. Raises RtError where there is no such thing to watch."""
        watch = self._watches.get(name)
        if watch is None:
            subject = self._subject(name)
            if len(self._watches) >= self._limits.watches_max:
                raise RtError(
                    LIMIT_REACHED,
                    f"{len(self._watches)} things are watched, the most (limits.watches_max)",
                )
            watch = self._watches[name] = Watch(name, subject, self._versions + 1, now)
            self._queue.touch(watch)
        return watch

    def _subject(self, name: str) -> Subject:
        """What a name stands for. One thing has one name: a block or a watch of another spelling
        would not be found."""
        if not _only_spelling(name):
            raise RtError(
                INVALID_PARAMS,
                f"{name!r} is spelled in another way than expected: in names % is %25 and : is %3A,"
                " nothing else is encoded",
            )
        kind, *parts = parts_of(name)
        make = self._kinds.get(kind)
        if make is None or not parts:
            kinds = ", ".join(f"${kind}:..." for kind in sorted(self._kinds))
            raise RtError(NOT_FOUND, f"{name!r} is nothing to watch; there are {kinds}")
        return make(parts)

    def close(self, name: str) -> None:
        """Nobody subscribes any more."""
        watch = self._watches.pop(name, None)
        if watch is not None:
            self._queue.remove(watch)
            self._versions = max(self._versions, watch.version)

    # --- looking ---

    def touch(self) -> None:
        """Something may have changed."""
        self._stale = True

    def due_in(self, monotonic_ms: int) -> int | None:
        """How long until the next look; None where nothing is to be seen."""
        if self._left:
            return 0
        if not self._stale or not self._watches:
            return None
        return max(0, self._next_at - monotonic_ms)

    def look(self, monotonic_ms: int, now: int, held: Callable[[str], bool]) -> list[Message]:
        """What changed, of a slice of the watches. One whose last change is still held back is
        looked at in the next round."""
        if not self._left:
            if self.due_in(monotonic_ms) != 0:
                return []
            self._stale = False
            self._next_at = monotonic_ms + self._limits.watch_interval_ms
            self._left = len(self._queue)
        changes = []
        share = self._limits.watches_per_turn
        while self._left and share > 0:
            watch = self._queue.oldest()
            if watch is None:
                self._left = 0
                break
            self._left -= 1
            share -= 1
            self._queue.touch(watch)
            if held(watch.name):
                self._stale = True
            elif watch.may_differ(now):
                change = watch.change(now)
                share -= watch.weight
                if change is not None:
                    changes.append(change)
        return changes


def parts_of(name: str) -> list[str]:
    """The parts of `$kind:part:part`, decoded (`%3A` is a colon, `%25` a percent sign)."""
    return [unquote(part) for part in name[1:].split(":")]
