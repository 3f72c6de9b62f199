"""The store: one of each kind of state, and what holds for all of it together.

Owns the list of events of the current turn, the totals that a rehearsed snapshot must match, and
the order of a snapshot's sections. Every mutation comes through a command.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rtserver.limits import Limits
from rtserver.state import answers, boards, channels, counters
from rtserver.state.answers import Answers
from rtserver.state.boards import Boards
from rtserver.state.channels import Channels
from rtserver.state.counters import Counters
from rtserver.state.growth import Growth
from rtserver.state.presence import LastSeen
from rtserver.state.sales import sales
from rtserver.state.sales.sales import Sales
from rtserver.state.settings import Settings
from rtserver.state.timers import Timers

__all__ = ["Store"]


class Store:
    """All durable state of a server."""

    __slots__ = (
        "answers",
        "boards",
        "channels",
        "counters",
        "events",
        "growth",
        "last_seen",
        "sales",
        "settings",
        "timers",
    )

    def __init__(self) -> None:
        self.events: list[Any] = []  # what happened this turn; the router drains it
        self.settings = Settings()
        self.timers = Timers()
        self.growth = Growth()
        self.counters = Counters(self.timers, self.growth)
        self.boards = Boards(self.timers, self.growth)
        self.channels = Channels(self.settings, self.timers, self.growth, self.events.append)
        self.sales = Sales(self.timers, self.growth, self.events.append)
        self.answers = Answers(self.settings, self.timers)
        self.last_seen = LastSeen()

    def enforce(self, limits: Limits) -> None:
        """Growth is bounded from now on. Replay runs before this: its records were accepted."""
        self.counters.count_max = limits.counters_max
        self.boards.enforce(limits.boards_max, limits.board_members_max)
        self.sales.enforce(
            limits.sales_max,
            limits.sale_items_max,
            limits.sale_holds_max,
            limits.sale_waiting_max,
        )
        self.channels.channels_max = limits.channels_max
        self.settings.configured_max = limits.namespaces_configured_max
        self.answers.keys_max = limits.idempotency_keys_max
        self.answers.owners.kept_max = limits.sale_keys_max
        self.answers.sources_max = limits.sources_max
        self.last_seen.users_max = limits.last_seen_max

    def fire_timers(self, now: int, count: int) -> None:
        """Fires the next `count` deadlines, all due at `now`, in order of (due, id)."""
        self.sales.begin_firing()
        for _, timer_id, (kind, name) in self.timers.pop_due(now, count):
            if kind == counters.TIMER_KIND:
                self.counters.expire(now, name, timer_id)
            elif kind == boards.TIMER_KIND:
                self.boards.expire(now, name, timer_id)
            elif kind == channels.TIMER_KIND:
                self.channels.fire(now, name, timer_id)
            elif kind == sales.TIMER_KIND:
                self.sales.fire(now, name, timer_id)
            elif kind == answers.TIMER_KIND:
                self.answers.fire(now, name)
            else:
                raise ValueError(f"a timer of the unknown kind {kind!r}")

    def reclaim(self, entries_max: int) -> bool:
        """Frees a slice of what was deleted; True when nothing is left to free."""
        done = self.boards.reclaim(entries_max)
        done = self.sales.reclaim(entries_max) and done
        return self.answers.owners.reclaim(entries_max) and done

    # --- snapshots ---

    def totals(self) -> dict[str, Any]:
        """Sums that are kept anyway: equal totals are strong evidence of equal state. Those of
        older logs and snapshots have no users seen and no sales, so without any there are no such
        sums."""
        return {
            **({"last_seen": len(self.last_seen)} if len(self.last_seen) else {}),
            **self.sales.totals(),
            **({"sale_keys": self.answers.owners.kept} if self.answers.owners.kept else {}),
            "counters": len(self.counters),
            "counter_total": str(self.counters.total),  # may be beyond 64 bits
            "boards": len(self.boards),
            "members": self.boards.members,
            "channels": len(self.channels),
            "messages": self.channels.messages,
            "history_bytes": self.channels.history_bytes,
            "era": self.channels.era,
            "keys": len(self.answers),
            "sources": self.answers.sources,
            "timers": len(self.timers),
            "timer_id": self.timers.last_id,
        }

    def dump(self) -> Iterator[list[Any]]:
        """The whole state as [section, value] chunks, for `load` into an empty store."""
        settings = self.settings
        yield ["settings", [settings.values, self.timers.last_id, settings.configured]]
        for rows in self.counters.dump():
            yield ["counters", rows]
        for chunk in self.boards.dump():
            yield ["boards", chunk]
        for chunk in self.channels.dump():
            yield ["channels", chunk]
        for chunk in self.answers.dump():
            yield ["answers", chunk]
        for rows in self.last_seen.dump():
            yield ["last_seen", rows]
        for chunk in self.sales.dump():
            yield ["sales", chunk]
        for rows in self.timers.dump():
            yield ["timers", rows]

    def load(self, chunk: list[Any]) -> None:
        """The next chunk of a dump, in the dump's order."""
        section, value = chunk
        if section == "settings":
            if value[0]:
                self.settings.apply(value[0])
            self.timers.last_id = value[1]
            self.settings.restore(value[2] if len(value) > 2 else {})
        elif section == "counters":
            self.counters.load(value)
        elif section == "boards":
            self.boards.load(value)
        elif section == "channels":
            self.channels.load(value)
        elif section == "answers":
            self.answers.load(value)
        elif section == "last_seen":
            self.last_seen.load(value)
        elif section == "sales":
            self.sales.load(value)
        elif section == "timers":
            self.timers.load(value)
        else:
            raise ValueError(f"a snapshot section of the unknown kind {section!r}")

    def check(self) -> None:
        """Raises where any part disagrees with itself (tests, after recovery on request)."""
        self.counters.check()
        self.boards.check()
        self.channels.check()
        self.answers.check()
        self.last_seen.check()
        self.sales.check()
        self.timers.check()
