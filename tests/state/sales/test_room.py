"""The waiting room against a sorted list of who waits and a dict of who shops."""

from __future__ import annotations

import hashlib
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rtserver.errors import RtError
from rtserver.limits import TIME_MAX
from rtserver.state.sales.room import WaitingRoom, start_key
from rtserver.state.sales.terms import QueueTerms
from rtserver.structs import StructureBroken
from rtserver.wire.codec import pack, unpack_trusted

SEED, SECRET = "the seed of the order", "what nobody is told"
START = 1_700_000_000_000
SLICE = 200
UNITS = 10**9  # are free: no bound

users = st.integers(0, 25).map("user{}".format) | st.sampled_from(["ä" * 127, "用户", "a:b", "x"])
addresses = st.sampled_from([None, "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::ffff", "unix"])
terms = st.builds(
    QueueTerms,
    rate_per_s=st.sampled_from([1, 3, 20, 999, 1_000_000]),
    active_max=st.sampled_from([1, 2, 5, 10**9]),
    pass_ms=st.sampled_from([1, 100, 60_000]),
    dwell_ms=st.sampled_from([0, 0, 50]),
    per_address=st.sampled_from([0, 0, 4]),
    joins_per_user=st.sampled_from([0, 0, 3]),
)
units = st.sampled_from([0, 1, 2, 5, UNITS])
waits = st.sampled_from([0, 1, 7, 49, 51, 100, 999, 1_000, 60_000, 10**12])


def fresh(given: QueueTerms, *, started: bool = False) -> WaitingRoom:
    return WaitingRoom(given, SEED, SECRET, started=started)


def dumped(room: WaitingRoom) -> list[Any]:
    return [unpack_trusted(pack(chunk)) for chunk in room.dump()]


def copy(room: WaitingRoom) -> WaitingRoom:
    made = fresh(room.terms)
    for chunk in dumped(room):
        made.load(chunk)
    return made


def refused(call: Any) -> str | None:
    """The name of the error, with how long to wait where it says so."""
    try:
        call()
    except RtError as error:
        wait = (error.details or {}).get("retry_after_ms")
        return error.kind.name if wait is None else f"{error.kind.name} {wait}"
    return None


class RoomMachine(RuleBasedStateMachine):
    """The oracle knows: a list of (order, user, tied), dicts of visits, sets, and Fractions."""

    @initialize(given=terms, started=st.booleans())
    def build(self, given: QueueTerms, started: bool) -> None:
        self.now = START
        self.started = started
        self.room = fresh(given, started=started)
        self.arrivals = 0
        self.line: list[tuple[tuple[int, Any, int], str]] = []
        self.tied: set[str] = set()
        self.visits: dict[str, dict[str, Any]] = {}
        self.taken: dict[str, int] = {}
        self.credit = Fraction(1)
        self.credit_at: int | None = None

    def known(self, user: str) -> bool:
        return user in self.visits or any(user == other for _, other in self.line)

    # --- the line ---

    @rule(user=users, tied=st.booleans(), address=addresses)
    def join(self, user: str, tied: bool, address: str | None) -> None:
        if self.known(user):
            return
        given = self.room.terms
        network = "net" if address and ":" in address else address
        limits = [(f"user {user}", given.joins_per_user)]
        if address is not None:
            limits.append((f"address {network}", given.per_address))
        error = refused(lambda: self.room.join(self.now, user, tied=tied, address=address))
        if any(most and self.taken.get(what, 0) >= most for what, most in limits):
            assert error == "limit_reached"
            return
        assert error is None
        for what, most in limits:
            if most:
                self.taken[what] = self.taken.get(what, 0) + 1
        self.arrivals += 1
        digest = hashlib.sha256(f"{SEED}:{user}".encode()).hexdigest()
        order = (1, 0, self.arrivals) if self.started else (0, digest, self.arrivals)
        self.line = sorted([*self.line, (order, user)])
        self.tied.discard(user)
        if tied:
            self.tied.add(user)

    @rule(first=st.integers(0, 20), count=st.integers(1, 6))
    def join_some(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.join(f"user{number}", True, None)

    def drop(self, user: str) -> bool:
        """From the line."""
        before = len(self.line)
        self.line = [row for row in self.line if row[1] != user]
        return len(self.line) < before

    @rule(user=users)
    def leave(self, user: str) -> None:
        visit = self.visits.get(user)
        if visit is not None and not visit["holding"]:
            del self.visits[user]
            assert self.room.leave(user)
        else:
            assert self.room.leave(user) == self.drop(user)

    @rule(user=users)
    def abandon(self, user: str) -> None:
        assert self.room.abandon(user) == (user in self.tied and self.drop(user))

    @rule(user=users)
    def tie(self, user: str) -> None:
        waits = any(user == other for _, other in self.line)
        assert self.room.tie(user) == (waits and user not in self.tied)
        self.tied.add(user)

    # --- admission ---

    @precondition(lambda self: not self.started)
    @rule()
    def start(self) -> None:
        self.room.start(self.now)
        self.started = True
        self.credit_at = self.now

    @rule(ms=waits)
    def advance(self, ms: int) -> None:
        self.now += ms

    @rule(ms=waits)
    def turn(self, ms: int) -> None:
        self.now += ms
        self.expire()
        self.admit(UNITS)

    @rule(given=terms)
    def configure(self, given: QueueTerms) -> None:
        self.room.terms = given

    @rule(units=units)
    def admit(self, units: int) -> None:
        admitted = self.room.admit(self.now, units)
        given = self.room.terms
        looking = sum(not visit["holding"] for visit in self.visits.values())
        room = min(len(self.line), given.active_max - len(self.visits), units - looking, SLICE)
        if not self.started or room <= 0:
            assert admitted == []
            return
        credit = self.credit
        if self.credit_at is not None:
            most = max(Fraction(1), Fraction(given.rate_per_s, 10))
            grown = credit + Fraction(given.rate_per_s * (self.now - self.credit_at), 1_000)
            credit = min(most, grown)
        expected = [user for _, user in self.line[: min(int(credit), room)]]
        assert admitted == expected
        if expected:
            self.credit, self.credit_at = credit - len(expected), self.now
        for user in expected:
            self.drop(user)
            ready_at = self.now + given.dwell_ms
            self.visits[user] = {
                "ends_at": self.now + given.pass_ms,
                "holding": False,
                "ready_at": ready_at,
            }

    @rule()
    def expire(self) -> None:
        over = {
            user
            for user, visit in self.visits.items()
            if not visit["holding"] and visit["ends_at"] <= self.now
        }
        expired = self.room.expire(self.now)
        assert sorted(expired) == sorted(over)
        for user in over:
            del self.visits[user]

    @rule(units=units)
    def something_is_due_when_it_says(self, units: int) -> None:
        due = self.room.next_due(self.now, units)
        again = copy(self.room)
        if due is None:
            later = self.now + 10**13
            assert not again.admit(later, units)
            assert not again.expire(later)
        else:
            assert due >= self.now
            assert again.admit(due, units) or again.expire(due)

    # --- visits ---

    @rule(user=users, wrong=st.sampled_from([None, None, None, "p0", "", "π"]))
    def reserve(self, user: str, wrong: str | None) -> None:
        pass_id = self.room.place(self.now, user)["pass_id"] if wrong is None else wrong
        error = refused(lambda: self.room.check_pass(self.now, user, pass_id))
        visit = self.visits.get(user)
        if visit is None or wrong is not None or self.now >= visit["ends_at"]:
            assert error == "no_pass"
        elif self.now < visit["ready_at"]:
            assert error == f"rate_limited {visit['ready_at'] - self.now}"
        else:
            assert error is None
            self.room.reserved(user)
            visit["holding"] = True
            visit["ready_at"] = 0

    @rule(user=users, expired=st.booleans())
    def emptied(self, user: str, expired: bool) -> None:
        visit = self.visits.get(user)
        holding = visit is not None and visit["holding"]
        ends = holding and (expired or self.now >= self.visits[user]["ends_at"])
        assert self.room.emptied(self.now, user, expired=expired) == ends
        if ends:
            del self.visits[user]
        elif holding:
            self.visits[user]["holding"] = False

    @rule(user=users)
    def finished(self, user: str) -> None:
        assert self.room.finished(user) == (self.visits.pop(user, None) is not None)

    # --- always ---

    @rule()
    def restart(self) -> None:
        again = copy(self.room)
        assert dumped(again) == dumped(self.room)
        self.room = again

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "room"):
            return
        room = self.room
        room.check()
        assert len(room) == len(self.line)
        assert room.active == len(self.visits)
        listed = room.page(None, 1_000)
        assert [user for user, _ in listed] == [user for _, user in self.line]
        for number, (user, key) in enumerate(listed):
            place = room.place(self.now, user)
            assert (place["state"], place["position"]) == ("waiting", number + 1)
            assert (place["eta_ms"] is None) == (not self.started)
            assert room.is_tied(user) == (user in self.tied)
            assert room.page(key, 2) == listed[number + 1 : number + 3]
        for user, visit in self.visits.items():
            place = room.place(self.now, user)
            assert place["state"] == ("holding" if visit["holding"] else "admitted")
            assert place["pass_expires_at"] == visit["ends_at"]
            assert not room.is_tied(user)
        assert room.place(self.now, "nobody")["state"] == "none"


TestRoom = RoomMachine.TestCase
TestRoom.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# --- what is promised ---


def test_an_expected_wait_is_a_time_that_every_client_can_read() -> None:
    room = fresh(QueueTerms(1, 1, pass_ms=TIME_MAX), started=True)
    assert room.eta(START, 1) == 1_000
    assert room.eta(START, 5_000_000) == TIME_MAX


# --- order ---


def test_the_key_is_the_beginning_of_the_hash() -> None:
    digest = hashlib.sha256(b"seed:user").digest()
    assert start_key("seed", "user") == int(bin(int.from_bytes(digest, "big") | 1 << 256)[3:66], 2)
    assert 0 <= start_key("seed", "user") < 2**63


def test_who_leaves_and_joins_again_before_the_start_has_the_same_place() -> None:
    room = fresh(QueueTerms(1, 1))
    for number in range(20):
        room.join(START, str(number), tied=True, address=None)
    before = room.page(None, 100)
    assert room.leave("7")
    room.join(START, "7", tied=True, address=None)
    assert room.page(None, 100) == before
    room.start(START)
    assert room.leave("7")
    room.join(START, "7", tied=True, address=None)
    assert room.place(START, "7")["position"] == 20


def test_a_page_goes_on_where_it_was_whoever_leaves_meanwhile() -> None:
    room = fresh(QueueTerms(1, 1), started=True)
    for number in range(10):
        room.join(START, str(number), tied=True, address=None)
    first = room.page(None, 4)
    assert [user for user, _ in first] == ["0", "1", "2", "3"]
    for user in "0358":
        assert room.leave(user)
    assert [user for user, _ in room.page(first[-1][1], 4)] == ["4", "6", "7", "9"]


# --- passes ---


def admitted(given: QueueTerms, *names: str) -> WaitingRoom:
    room = fresh(given, started=True)
    now = START
    for name in names:
        room.join(now, name, tied=True, address=None)
        now += 10_000
        assert room.admit(now, UNITS) == [name]
    return room


def test_a_pass_is_of_one_user_and_one_admission() -> None:
    room = admitted(QueueTerms(1, 9, pass_ms=50_000), "ann", "bob")
    passes = [room.place(START, user)["pass_id"] for user in ("ann", "bob")]
    assert passes[0] != passes[1]
    assert all(len(one) == 17 and one[0] == "p" for one in passes)
    room.check_pass(START + 20_000, "ann", passes[0])
    with pytest.raises(RtError, match=r"not the pass of 'ann'"):
        room.check_pass(START + 20_000, "ann", passes[1])
    with pytest.raises(RtError, match=r"pass_id is missing"):
        room.check_pass(START + 20_000, "ann", None)
    with pytest.raises(RtError, match=r"ended 0 ms ago"):
        room.check_pass(START + 60_000, "ann", passes[0])
    room.leave("ann")
    room.join(START + 70_000, "ann", tied=True, address=None)
    with pytest.raises(RtError, match=r"waits at position 1") as refusal:
        room.check_pass(START + 70_000, "ann", passes[0])
    assert refusal.value.details == {"state": "waiting", "position": 1}
    assert room.admit(START + 70_000, UNITS) == ["ann"]
    with pytest.raises(RtError, match=r"not the pass"):
        room.check_pass(START + 70_000, "ann", passes[0])


def test_the_seed_alone_tells_no_pass() -> None:
    given = QueueTerms(1, 1)
    rooms = [WaitingRoom(given, SEED, secret, started=True) for secret in ("one", "other")]
    for room in rooms:
        room.join(START, "ann", tied=True, address=None)
        room.admit(START, UNITS)
    one, other = (room.place(START, "ann")["pass_id"] for room in rooms)
    assert one != other


def test_a_pass_keeps_the_time_it_was_given_for() -> None:
    room = admitted(QueueTerms(1, 9, pass_ms=50_000), "ann")
    told = room.place(START, "ann")
    room.terms = room.terms._replace(pass_ms=1)
    assert room.place(START, "ann") == told
    assert room.expire(START + 59_999) == []
    assert room.expire(START + 60_000) == ["ann"]


def test_one_who_holds_outlives_her_pass_but_reserves_no_more() -> None:
    room = admitted(QueueTerms(1, 9, pass_ms=1_000), "ann")
    room.reserved("ann")
    later = START + 11_000
    assert room.expire(later) == []
    assert room.place(later, "ann")["state"] == "holding"
    with pytest.raises(RtError, match=r"ended"):
        room.check_pass(later, "ann", room.place(later, "ann")["pass_id"])
    assert room.emptied(later, "ann", expired=False)
    assert room.place(later, "ann")["state"] == "none"


def test_one_without_a_visit_may_hold() -> None:
    """A queue can be added to a sale in which something is held already."""
    room = fresh(QueueTerms(1, 1), started=True)
    room.join(START, "ann", tied=True, address=None)
    room.reserved("ann")
    assert not room.emptied(START, "ann", expired=True)
    assert not room.finished("ann")
    assert room.place(START, "ann")["state"] == "waiting"


# --- limits ---


def test_limits_name_the_values() -> None:
    room = fresh(QueueTerms(1, 9, per_address=2, joins_per_user=1))
    room.join(START, "ann", tied=True, address="2001:db8:0:1::7")
    room.leave("ann")
    with pytest.raises(RtError, match=r"'ann' took 1 places.*at most 1 .*joins_per_user"):
        room.join(START, "ann", tied=True, address=None)
    room.join(START, "bob", tied=True, address="2001:db8:0:1:ffff::")
    with pytest.raises(RtError, match=r"'2001:db8:0:1::/64' took 2 places.*per_address") as refusal:
        room.join(START, "eve", tied=True, address="2001:db8:0:1::1")
    assert refusal.value.details == {"per_address": 2, "taken": 2}
    room.join(START, "eve", tied=True, address="::ffff:10.0.0.1")
    room.join(START, "joe", tied=True, address="10.0.0.1")
    with pytest.raises(RtError, match=r"'10.0.0.1' took 2 places"):
        room.join(START, "kim", tied=True, address="10.0.0.1")
    with pytest.raises(RtError, match=r"3 users wait, at most 3 \(limits.sale_waiting_max\)"):
        room.join(START, "kim", tied=True, address=None, waiting_max=3)
    room.check()


# --- pace ---


def queued(given: QueueTerms, count: int) -> WaitingRoom:
    room = fresh(given, started=True)
    for number in range(count):
        room.join(START, str(number), tied=True, address=None)
    return room


def test_admissions_follow_the_rate_in_steps() -> None:
    room, times, now = queued(QueueTerms(1_000, 10**6), 2_000), [], START
    while True:
        due = room.next_due(now, UNITS if len(room) else 0)
        if due is None or due > START + 200_000:
            break
        times.append(due - now)
        now = due
        room.admit(now, UNITS)
    assert 1_900 <= now - START <= 2_000, "2,000 at 1,000 a second"
    assert len(times) < 50, "not one by one"


def test_an_idle_queue_saves_up_a_tenth_of_a_second() -> None:
    room = queued(QueueTerms(1_000, 10**6), 300)
    assert len(room.admit(START, UNITS)) == 1, "it starts with one"
    assert len(room.admit(START + 3_600_000, UNITS)) == 100
    assert len(room.admit(START + 3_600_001, UNITS)) == 1
    slow = queued(QueueTerms(1, 10**6), 9)
    assert [len(slow.admit(START + ms, UNITS)) for ms in (0, 999, 1_000, 99_000, 99_001)] == [
        1,
        0,
        1,
        1,
        0,
    ]


def test_no_more_look_around_than_there_are_units() -> None:
    room = queued(QueueTerms(1_000, 100), 20)
    room.admit(START, 3)
    assert room.admit(START + 1_000, 3) == ["1", "2"]
    assert room.next_due(START + 1_000, 3) == START + 300_000, "when a pass ends"
    room.reserved("0")  # a unit less is free, and one less looks around
    assert room.admit(START + 1_000, 2) == []
    assert room.admit(START + 1_000, 3) == ["3"]
    room.leave("2")
    assert room.admit(START + 1_000, 3) == ["4"]


def test_a_large_rate_goes_in_slices() -> None:
    room = queued(QueueTerms(1_000_000, 10**6), 1_000)
    room.admit(START, UNITS)
    sizes = []
    while len(room):
        sizes.append(len(room.admit(START + 1_000, UNITS)))
        assert room.next_due(START + 1_000, UNITS) == (
            START + 1_000 if len(room) else START + 300_000
        )
    assert sizes == [SLICE] * 4 + [199]


def test_an_expected_wait_before_a_measure_is_what_the_terms_promise() -> None:
    before = fresh(QueueTerms(10, 4, pass_ms=60_000))
    before.join(START, "ann", tied=True, address=None)
    assert before.place(START, "ann")["eta_ms"] is None
    room = queued(QueueTerms(10, 4, pass_ms=60_000), 100)
    assert room.place(START, "3")["eta_ms"] == 400, "a free slot each, ten a second"
    assert room.place(START, "99")["eta_ms"] == 96 * 60_000 // 4
    room.admit(START, UNITS)
    assert room.place(START, "99")["eta_ms"] == 96 * 60_000 // 4, "one slot and one place less"


def test_an_expected_wait_follows_the_measured_pace() -> None:
    room, now = queued(QueueTerms(100, 10, pass_ms=300_000), 1_000), START
    room.admit(now, UNITS)
    for _ in range(60):  # five buy a second
        now += 1_000
        for user, _, _ in room._visits.slice(0, 5):
            room.reserved(user)
            room.finished(user)
        room.admit(now, UNITS)
    eta = room.place(now, "999")["eta_ms"]
    position = room.place(now, "999")["position"]
    assert eta == pytest.approx(position * 200, rel=0.1)


# --- memory and snapshots ---


def test_thousands_come_back_from_a_dump() -> None:
    chance = random.Random(5)
    room = fresh(QueueTerms(1_000_000, 3_000, dwell_ms=9, per_address=9, joins_per_user=9))
    for number in range(4_000):
        tied, address = chance.random() < 0.5, f"10.0.{number % 999}.1"
        room.join(START, f"early{number}", tied=tied, address=address)
    room.start(START)
    while room.active < 2_500:
        room.admit(START + 1_000, UNITS)
    for number in range(3_000):
        room.join(START, f"late{number}", tied=True, address=None)
    for user, _, _ in room._visits.slice(0, 600):
        room.reserved(user)
    for user, _, _ in room._visits.slice(1_900, 300):
        room.finished(user)
    again = copy(room)
    chunks = dumped(room)
    assert dumped(again) == chunks
    assert max(len(chunk[1]) for chunk in chunks) == 1_000
    now = START + 10_000
    for _ in range(20):
        assert again.admit(now, UNITS) == room.admit(now, UNITS)
        assert again.expire(now + 295_000) == room.expire(now + 295_000)
        assert again.next_due(now, UNITS) == room.next_due(now, UNITS)
        now += 100
    again.check()
    assert dumped(again) == dumped(room)


def test_memory_comes_back_in_slices() -> None:
    room = fresh(QueueTerms(1_000_000, 10**6, per_address=99, joins_per_user=9))
    for number in range(5_000):
        room.join(START, f"u{number}", tied=number % 2 == 0, address=f"10.0.{number % 99}.1")
    rounds = 0
    while not room.release(500):
        rounds += 1
    assert 1 <= rounds <= 50


def test_a_check_sees_a_place_that_the_seed_did_not_give() -> None:
    room = fresh(QueueTerms(1, 1))
    room.join(START, "ann", tied=True, address=None)
    room._line.move("ann", 7 - 2**63)
    with pytest.raises(StructureBroken, match="another key"):
        room.check()
