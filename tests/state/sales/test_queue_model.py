"""A sale with a waiting room, told by its ledger: every admission is that of the one who is next.

The machine joins, leaves, buys, cancels, lets passes and holds run out, pauses and restocks. After
each step the new rows of the ledger are replayed on a line and a few sets that stand here: who is
admitted must be the first in line while there is room, and what a user is told must follow from
the rows. Who could come in must not wait: nothing blocks the line.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.sales import Shop
from tests.world import Refused, World

USERS = [f"u{number}" for number in range(8)]
HOLD_MS, PASS_MS, GRACE_MS = 1_000, 3_000, 500
OPENS_MS = 2_000
PER_USER = 3
SOON_MS = 100  # with this rate nobody waits longer for the allowance

users = st.sampled_from(USERS)
units = st.integers(1, 2)


class QueueMachine(RuleBasedStateMachine):
    @initialize(active_max=st.integers(1, 3), stock=st.integers(1, 5), scheduled=st.booleans())
    def create(self, active_max: int, stock: int, scheduled: bool) -> None:
        self.active_max = active_max
        queue = {"rate_per_s": 1_000, "active_max": active_max, "pass_ms": PASS_MS}
        when = {"opens_in": OPENS_MS} if scheduled else {}
        world = World()
        self.shop = Shop(
            world,
            items={"a": stock},
            per_user=PER_USER,
            hold_ms=HOLD_MS,
            queue={**queue, "grace_ms": GRACE_MS},
            **when,
        )
        self.read = 0  # rows of the ledger
        self.opened = self.open = False
        self.line: list[str] = []  # who waits; before the opening in the order of their arrival
        self.visits: dict[str, int] = {}  # {user: when her pass ends}
        self.done: set[str] = set()
        self.free = 0
        self.held: dict[str, tuple[str, int]] = {}  # {hold: (user, units)} of the open ones
        self.bought: dict[str, int] = {}  # {user: units}

    # --- rules ---

    @rule(user=users, herself=st.booleans())
    def join(self, user: str, herself: bool) -> None:
        self.attempt(f"join user={user}", user if herself else None)

    @rule(user=users)
    def leave(self, user: str) -> None:
        known = user in self.line or (user in self.visits and not self.holds_of(user))
        reply, _ = self.attempt(f"leave user={user}")
        assert reply == {"left": known}

    @rule(user=users, count=units, honest=st.integers(0, 3))
    def reserve(self, user: str, count: int, honest: int) -> None:
        place = self.shop.say(f"place user={user}")
        words = f"reserve user={user} items=a:{count}"
        if place["pass_id"]:
            words += f" pass_id={place['pass_id'] if honest else 'p0'}"
        self.follow()
        expected = self.expected(user, count, honest > 0)
        _, error = self.attempt(words)
        assert error == expected, words

    def expected(self, user: str, count: int, honest: bool) -> str | None:
        if not self.open:
            return "not_open"
        if count > self.free:
            return "sold_out"
        if not honest or self.now >= self.visits.get(user, 0):
            return "no_pass"
        has = self.bought.get(user, 0) + sum(n for who, n in self.held.values() if who == user)
        return "limit_reached" if has + count > PER_USER else None

    @precondition(lambda self: self.held)
    @rule(place=st.integers(0, 9), part=st.booleans())
    def confirm(self, place: int, part: bool) -> None:
        self.end("confirm items=a:1" if part else "confirm", place)

    @precondition(lambda self: self.held)
    @rule(place=st.integers(0, 9))
    def cancel(self, place: int) -> None:
        self.end("cancel", place)

    @precondition(lambda self: self.held)
    @rule(place=st.integers(0, 9))
    def extend(self, place: int) -> None:
        self.end("extend ms=500", place)

    def end(self, words: str, place: int) -> None:
        self.shop.hold = sorted(self.held)[place % len(self.held)]
        _, error = self.attempt(words)
        assert error in (None, "expired", "out_of_range")

    @precondition(lambda self: self.shop.hold)
    @rule()
    def refund(self) -> None:
        self.attempt("refund items=a:1")

    @rule(ms=st.sampled_from([1, 50, 400, HOLD_MS, PASS_MS]))
    def wait(self, ms: int) -> None:
        self.shop.say(f"wait {ms}")

    @rule(count=st.integers(-1, 2))
    def restock(self, count: int) -> None:
        self.attempt(f"restock items=a:{count}")

    @rule(words=st.sampled_from(["pause", "open", "open"]))
    def manage(self, words: str) -> None:
        self.attempt(words)

    @rule(most=st.integers(1, 3))
    def configure(self, most: int) -> None:
        self.shop.ask("sale.configure", name="s", queue={"active_max": most})
        self.active_max = most

    @rule(gone=st.sets(users))
    def abandon(self, gone: set[str]) -> None:
        """Their connections have been away too long; only who waits for herself minds."""
        world = self.shop.world
        world.open_turn()
        world.dispatcher.issue("sale.abandon", ["s", sorted(gone)])
        world.end_turn()

    def attempt(self, words: str, caller: str | None = None) -> tuple[Any, str | None]:
        role = "admin" if caller is None else "user"
        try:
            return self.shop.say(words, role, caller), None
        except Refused as refusal:
            return None, refusal.name

    # --- the ledger ---

    @property
    def now(self) -> int:
        return self.shop.world.now

    def holds_of(self, user: str) -> list[str]:
        return [hold for hold, (who, _) in self.held.items() if who == user]

    def follow(self) -> None:
        page = self.shop.ask("sale.ledger", name="s", after=self.read, limit=1_000)
        for row in page["items"]:
            self.read += 1
            self.step(row)

    def step(self, row: dict[str, Any]) -> None:
        step, user, hold = row["step"], row["user"], row["hold"]
        count = (row["items"] or {}).get("a", 0)
        if step == "joined":
            assert user not in {*self.line, *self.visits}
            self.line.append(user)
        elif step in ("left", "abandoned"):
            assert not self.holds_of(user)
            if user in self.line:
                self.line.remove(user)
            else:
                assert step == "left"
                del self.visits[user]
        elif step == "admitted":
            self.admitted(user, row["at"])
        elif step == "pass_expired":
            assert self.visits.pop(user) <= row["at"]
            assert not self.holds_of(user)
        elif step in ("opened", "paused"):
            self.open = step == "opened"
            if self.open and not self.opened:
                self.opened = True
                self.line = by_seed(self.shop.say("status")["seed"], self.line)
        elif step in ("created", "restocked"):
            self.free += count
        elif step == "refunded":
            self.free += count
            self.bought[user] -= count
        elif hold is not None:
            self.buying(step, user, hold, count, row["at"])

    def admitted(self, user: str, at: int) -> None:
        assert self.open
        assert self.line.pop(0) == user, "the first in line comes in"
        assert len(self.visits) < self.active_max
        looking = sum(not self.holds_of(one) for one in self.visits)
        assert looking < self.free, "who comes in finds something"
        self.visits[user] = at + PASS_MS

    def buying(self, step: str, user: str, hold: str, count: int, at: int) -> None:
        if step == "reserved":
            assert at < self.visits[user]
            self.held[hold] = user, count
            self.free -= count
        elif step == "freed":
            self.held[hold] = user, self.held[hold][1] - count
            self.free += count
        elif step == "confirmed":
            assert self.held.pop(hold) == (user, count)
            self.bought[user] = self.bought.get(user, 0) + count
            if not self.holds_of(user):
                self.visits.pop(user, None)
                self.done.add(user)
        elif step in ("cancelled", "expired"):
            assert self.held.pop(hold) == (user, count)
            self.free += count
            over = step == "expired" or self.visits.get(user, 0) <= at
            if over and not self.holds_of(user):
                self.visits.pop(user, None)
        else:
            assert step == "extended"

    # --- what always holds ---

    @invariant()
    def agrees(self) -> None:
        self.follow()
        status = self.shop.say("status")
        assert (status["waiting"], status["active"]) == (len(self.line), len(self.visits))
        assert status["items"]["a"]["free"] == self.free
        assert status["items"]["a"]["held"] == sum(count for _, count in self.held.values())
        for user in USERS:
            self.compare_place(user)

    def compare_place(self, user: str) -> None:
        place = self.shop.say(f"place user={user}")
        assert sorted(hold["hold"] for hold in place["holds"]) == sorted(self.holds_of(user))
        if user in self.visits:
            assert place["state"] == ("holding" if self.holds_of(user) else "admitted")
            assert place["pass_expires_at"] == self.visits[user]
        elif user in self.line and self.opened and not self.free and not self.held:
            assert place["state"] == "sold_out"
        elif user in self.line:
            assert place["state"] == "waiting"
            if self.opened:
                assert place["position"] == self.line.index(user) + 1
        else:
            assert place["state"] == ("done" if user in self.done else "none")

    @invariant()
    def nobody_blocks(self) -> None:
        """Once time has passed, nobody waits who could come in."""
        if self.open and len(self.line) and self.may_come_in():
            self.shop.say(f"wait {SOON_MS}")
            self.follow()
            assert not (self.open and self.line and self.may_come_in())

    def may_come_in(self) -> bool:
        looking = sum(not self.holds_of(user) for user in self.visits)
        return len(self.visits) < self.active_max and looking < self.free

    def teardown(self) -> None:
        if hasattr(self, "shop"):
            self.agrees()
            self.shop.settle()


def by_seed(seed: str, users: list[str]) -> list[str]:
    return sorted(users, key=lambda user: hashlib.sha256(f"{seed}:{user}".encode()).digest())


QueueMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("SALE_MODEL_EXAMPLES", "100")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestQueue = QueueMachine.TestCase
