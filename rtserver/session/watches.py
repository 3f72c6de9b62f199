"""Watched things: channels whose messages are derived from the state, not published.

`$counter:likes` is a name, `Subjects` turn it into a subject: something with a marker that differs
whenever the state that is shown may differ, and with that state itself. A watch is looked at once
an interval, after the block of its turn is written, however many subscribe to it and however often
its subject changed; what changed leaves as one message. So commands neither know nor pay for who
watches. Costs: a marker a watch and interval, and a state where that is another, in slices a turn.
Nothing is kept of a watch that nobody subscribes to.

What need not be looked at so often rests: its state says for how long, and those that rest equally
long lie in the order in which that ends, so that they cost nothing until then. An event of the
state wakes one by its name (`wake`): it is looked at in the same turn, whatever its marker, before
all others, however many there are. Lists that the state keeps in full (session.tails) are looked
at here too; what is new of them is for the router to read.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import unquote

from rtserver.errors import INVALID_PARAMS, LIMIT_REACHED, NOT_FOUND, RtError
from rtserver.limits import Limits
from rtserver.session.tails import OpenTail, Tail
from rtserver.state.channels import Message
from rtserver.structs.recency import RecencyList
from rtserver.wire.codec import pack

__all__ = ["Subject", "SubjectKind", "Watch", "Watched", "Watches", "malformed", "parts_of"]

_PART_LOOKS = 2  # that a list or a map of a state costs, beside its entries
_only_spelling = re.compile(r"(?:[^%]|%25|%3A)*+").fullmatch


class Subject(Protocol):
    """What a watch shows."""

    def marker(self, now: int, /) -> Any:
        """Equal markers: the same state. Cheap."""

    def state(self, now: int, /) -> dict[str, Any]:
        """All of it, with `full` true."""

    def difference(self, old: dict[str, Any], new: dict[str, Any], /) -> dict[str, Any]:
        """What leads from one state to the next, or the next where that is smaller."""

    def rest_ms(self, state: dict[str, Any], /) -> int:
        """How long it need not be looked at while this is its state; 0: look at every interval.
        The answers are few different ones."""


SubjectKind = Callable[[list[str]], Subject | Tail]


class Watch:
    """One watched thing: what its subscribers were told last, the version of that, and what
    they were told before, because the last change may be held back for a while."""

    __slots__ = (
        "_at",
        "_before",
        "_marker",
        "_state",
        "_subject",
        "looked_ms",
        "name",
        "queue",
        "rest_ms",
        "seen",
        "touched_after",
        "touched_before",
        "version",
    )

    def __init__(self, name: str, subject: Subject, version: int, now: int) -> None:
        self.name = name
        self.version = version
        self.looked_ms = self.seen = 0  # these and the next belong to Watches
        self.queue: RecencyList[Any] | None = None
        self.touched_before: Watch | None = None  # these two belong to the RecencyList
        self.touched_after: Watch | None = None
        self._subject = subject
        self._marker = subject.marker(now)
        self._state = self._before = subject.state(now)
        self.rest_ms = subject.rest_ms(self._state)
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
        parts = [part for part in self._state.values() if isinstance(part, list | dict)]
        return sum(map(len, parts), _PART_LOOKS * len(parts))

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
        self.rest_ms = self._subject.rest_ms(state)
        self._at = now
        self.version += 1
        change = pack(self._subject.difference(self._before, state))
        return Message(self.name, self.version, now, change, None, None)


Watched = Watch | OpenTail


class Watches:
    """All watches of the process."""

    __slots__ = (
        "_again",
        "_always",
        "_awake",
        "_kinds",
        "_left",
        "_left_parked",
        "_limits",
        "_looked_ms",
        "_next_at",
        "_parked",
        "_resting",
        "_round_ms",
        "_seen",
        "_touches",
        "_versions",
        "_watches",
        "epoch",
    )

    def __init__(self, kinds: Mapping[str, SubjectKind], limits: Limits) -> None:
        self._kinds = kinds
        self._limits = limits
        self._watches: dict[str, Watched] = {}
        # Each watch is in one of these; the one looked at longest ago is the first.
        self._always: RecencyList[Watched] = RecencyList()  # these never rest
        self._resting: dict[int, RecencyList[Watched]] = {}  # by how long
        self._awake: RecencyList[Watched] = RecencyList()  # these were woken
        self._parked: RecencyList[Watched] = RecencyList()  # and of these a change is held back
        self._touches = 0  # how often something may have changed
        self._seen = 0  # of these, before the last round began
        self._again = False  # one that never rests was held back in the last round
        self._round_ms: int | None = None  # when the round began that is not done
        self._left = 0  # of it, of those that never rest
        self._left_parked = 0
        self._next_at = 0
        self._looked_ms = 0
        self._versions = 0  # the highest of a closed watch: one that begins anew goes on above it
        self.epoch = f"w{secrets.token_hex(4)}"  # versions belong to one start of the server

    def __len__(self) -> int:
        return len(self._watches)

    def get(self, name: str) -> Watched | None:
        return self._watches.get(name)

    def open(self, name: str, now: int, *, settled: bool = True) -> Watched:
        """What is watched under a name. `settled`: see `OpenTail`. Raises RtError where there is
        no such thing to watch."""
        watched = self._watches.get(name)
        if watched is None:
            made = self._made(name)
            if len(self._watches) >= self._limits.watches_max:
                raise RtError(
                    LIMIT_REACHED,
                    f"{len(self._watches)} things are watched, the most (limits.watches_max)",
                )
            if isinstance(made, Tail):
                watched = OpenTail(name, made, settled=settled)
            else:
                watched = Watch(name, made, self._versions + 1, now)
            self._watches[name] = watched
            watched.looked_ms = self._looked_ms
            watched.seen = self._touches
            _place(watched, self._queue_of(watched))
        return watched

    def _made(self, name: str) -> Subject | Tail:
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
        watched = self._watches.pop(name, None)
        if watched is not None:
            assert watched.queue is not None, "each watch is in a queue"
            watched.queue.remove(watched)
            watched.queue = None
            if isinstance(watched, Watch):
                self._versions = max(self._versions, watched.version)

    # --- when to look ---

    def touch(self) -> None:
        """Something may have changed."""
        self._touches += 1

    def wake(self, name: str) -> None:
        """What is watched under this name changed, and that shall not wait: it is looked at at
        the end of this turn."""
        watched = self._watches.get(name)
        if watched is not None:
            _place(watched, self._awake)

    def due_in(self, monotonic_ms: int) -> int | None:
        """How long until the next look; None where nothing is to be seen."""
        if self._round_ms is not None or len(self._awake):
            return 0
        next_at = self._next_at
        due = next_at if len(self._parked) or (self._is_stale and len(self._always)) else None
        for rest_ms, queue in self._resting.items():
            first = queue.oldest()
            if first is not None and first.seen != self._touches:
                rested = max(next_at, first.looked_ms + rest_ms)
                due = rested if due is None else min(due, rested)
        return None if due is None else max(0, due - monotonic_ms)

    @property
    def _is_stale(self) -> bool:
        """What never rests may be another than in the last round."""
        return self._again or self._seen != self._touches

    def _queue_of(self, watched: Watched) -> RecencyList[Watched]:
        """Where it waits for its next look."""
        rest_ms = watched.rest_ms
        return self._resting.setdefault(rest_ms, RecencyList()) if rest_ms else self._always

    # --- looking ---

    def look(
        self, monotonic_ms: int, now: int, held: Callable[[str], bool]
    ) -> list[Message | OpenTail]:
        """What changed, of a slice of the watches: of those that were woken, then, once an
        interval, of those that never rest and those that have rested. One whose last change is
        still held back is looked at in the next round."""
        self._looked_ms = monotonic_ms
        if self._round_ms is None and not len(self._awake) and not self._begins(monotonic_ms):
            return []
        part = _Slice(self._limits.watches_per_turn, now, held)
        self._look_at(self._awake, len(self._awake), part)
        if self._round_ms is not None or self._begins(monotonic_ms):
            self._left_parked = self._look_at(self._parked, self._left_parked, part)
            self._look_at_always(part)
            if self._look_at_rested(part):
                self._round_ms = None
        return part.changes

    def _begins(self, monotonic_ms: int) -> bool:
        """Begins a round, if it is time for one."""
        if len(self._awake) or self.due_in(monotonic_ms) != 0:
            return False  # those that were woken are more than a slice, or it is not time
        self._left_parked = len(self._parked)
        self._left = len(self._always) if self._is_stale else 0
        self._again = False
        self._seen = self._touches
        self._next_at = monotonic_ms + self._limits.watch_interval_ms
        self._round_ms = monotonic_ms
        return True

    def _look_at(self, queue: RecencyList[Watched], count: int, part: _Slice) -> int:
        """At the first so many of a queue; how many are left."""
        while count > 0 and part.share > 0:
            watched = queue.oldest()
            if watched is None:
                return 0
            count -= 1
            self._look_at_one(watched, part)
        return count

    def _look_at_always(self, part: _Slice) -> None:
        """At those that never rest; most often nothing of them changed."""
        queue, held, now = self._always, part.held, part.now
        while self._left and part.share > 0:
            watched = queue.oldest()
            if watched is None:
                self._left = 0
                return
            self._left -= 1
            part.share -= 1
            queue.touch(watched)
            if held(watched.name):
                self._again = True
            elif watched.may_differ(now):
                self._tell(watched, part)

    def _look_at_rested(self, part: _Slice) -> bool:
        """At those that had rested when the round began; whether the round is done."""
        assert self._round_ms is not None, "there is a round"
        for rest_ms, queue in list(self._resting.items()):
            rested_ms = self._round_ms - rest_ms
            while (watched := queue.oldest()) is not None:
                if watched.looked_ms > rested_ms or watched.seen == self._touches:
                    break
                if part.share <= 0:
                    return False
                self._look_at_one(watched, part)
        return not (self._left or self._left_parked)

    def _look_at_one(self, watched: Watched, part: _Slice) -> None:
        """At one that rests, or was woken: then whatever its marker says."""
        part.share -= 1
        if part.held(watched.name):
            self._note_look(watched, self._parked)
            return
        was_woken = watched.queue is self._awake or watched.queue is self._parked
        if watched.may_differ(part.now) or was_woken:
            self._tell(watched, part)
        else:
            self._note_look(watched, self._queue_of(watched))

    def _tell(self, watched: Watched, part: _Slice) -> None:
        change = watched.change(part.now)
        part.share -= watched.weight
        if change is not None:
            part.changes.append(change)
        self._note_look(watched, self._queue_of(watched))

    def _note_look(self, watched: Watched, queue: RecencyList[Watched]) -> None:
        watched.looked_ms = self._looked_ms
        watched.seen = self._touches
        _place(watched, queue)


class _Slice:
    """One call of `look`: what it may still cost, and what it found."""

    __slots__ = ("changes", "held", "now", "share")

    def __init__(self, share: int, now: int, held: Callable[[str], bool]) -> None:
        self.share = share
        self.now = now
        self.held = held
        self.changes: list[Message | OpenTail] = []


def _place(watched: Watched, queue: RecencyList[Watched]) -> None:
    """Makes it the last of a queue."""
    if watched.queue is not queue:
        if watched.queue is not None:
            watched.queue.remove(watched)
        watched.queue = queue
    queue.touch(watched)


def parts_of(name: str) -> list[str]:
    """The parts of `$kind:part:part`, decoded (`%3A` is a colon, `%25` a percent sign)."""
    return [unquote(part) for part in name[1:].split(":")]


def malformed(expected: str) -> RtError:
    """The refusal of a name that no kind of watch has."""
    return RtError(
        INVALID_PARAMS,
        f"this is nothing to watch, expected {expected}; % and : in names are percent-encoded",
    )
