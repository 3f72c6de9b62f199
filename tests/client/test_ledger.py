"""The ledger against a server that remembers keys as the real one does, over bad connections.

The model server applies whatever bytes of a connection reached it, also late ones of a connection
that the client has given up, and answers any part of it. However that goes: a write under a key
is applied once, an increment at most once, and nobody hears of a result that did not happen.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools

import msgpack
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import rtclient
from rtclient import ledger as ledger_module
from rtclient import table, wire
from rtclient.command import Command, Effect, packed
from rtclient.ledger import Ledger
from rtserver.commands.options import parse_options
from rtserver.errors import DUPLICATE, RtError

READ = Command("test.read", Effect.READ)
WRITE = Command("test.write", Effect.WRITE)
DELTA = Command("test.add", Effect.DELTA, None, ("name", "delta", "ttl_ms"), 2)
SESSION = Command("test.session", Effect.SESSION)


class FakeLoop:
    """Time that moves by hand."""

    def __init__(self):
        self.now = 1_000.0
        self._timers = []
        self._order = itertools.count()

    def time(self):
        return self.now

    def call_later(self, delay, callback, *args):
        handle = FakeTimer(callback, args)
        heapq.heappush(self._timers, (self.now + delay, next(self._order), handle))
        return handle

    @property
    def timers(self):
        return sum(handle.callback is not None for _, _, handle in self._timers)

    def advance(self, seconds):
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, handle = heapq.heappop(self._timers)
            handle.run()
        self.now = end


class FakeTimer:
    def __init__(self, callback, args):
        self.callback, self.args = callback, args

    def cancel(self):
        self.callback = None

    def run(self):
        if self.callback is not None:
            self.callback(*self.args)


class Outcome:
    """A promise that must be kept once."""

    def __init__(self, what=None):
        self.what = what
        self.result = None
        self.error = None
        self.is_done = False
        self.given_up = False

    def done(self):
        return self.is_done

    def set_result(self, result):
        assert not self.is_done, "an outcome came twice"
        self.is_done, self.result = True, result

    def set_exception(self, exception):
        assert not self.is_done, "an outcome came twice"
        self.is_done, self.error = True, exception

    def cancel(self):
        self.is_done = self.given_up = True


def make(**changes):
    loop = FakeLoop()
    wakes = []
    settings_ = {"timeout_s": 30.0, "retry_writes": True, **changes}
    ledger = Ledger(loop, "me", lambda: wakes.append(loop.now), **settings_)
    return ledger, loop, wakes


def start(ledger, command, *params, **options):
    promise = Outcome()
    ledger.start(command, packed(ledger.pack_params, command, params), options, promise)
    return promise


def taken(ledger):
    """The requests that leave now."""
    return wire.Frames().cut(ledger.take(10**9))[0]


# --- what a request looks like ---


def test_a_plain_call_is_four_values_and_leaves_defaults_to_the_server():
    ledger, _, _ = make()
    start(ledger, DELTA, "likes", 1, None)
    start(ledger, READ, None, None)
    start(ledger, READ, None, 0)
    assert taken(ledger) == [
        [0, 1, "test.add", ["likes", 1]],
        [0, 2, "test.read", []],
        [0, 3, "test.read", [None, 0]],
    ]


def test_a_write_has_a_key_and_a_plain_increment_has_none():
    ledger, _, _ = make()
    start(ledger, WRITE, "x")
    start(ledger, DELTA, "x", 1, 60_000)
    start(ledger, DELTA, "x", 1, None, ack="synced")
    start(ledger, DELTA, "x", 1, timeout=2.0)
    start(ledger, WRITE, "x", idempotency_key="mine", timeout=0.0001)
    assert [request[4:] for request in taken(ledger)] == [
        [{"idempotency_key": ["me", 1, 0]}],
        [{"idempotency_key": ["me", 2, 0]}],
        [{"ack": "synced", "idempotency_key": ["me", 3, 0]}],
        [{"timeout_ms": 2_000}],
        [{"idempotency_key": "mine", "timeout_ms": 1}],
    ]


def test_done_is_the_last_number_before_the_first_unanswered_one():
    ledger, _, _ = make()
    for _ in range(4):
        start(ledger, WRITE)
    taken(ledger)
    for call_id in (1, 2, 4):
        ledger.reply(call_id, None, None)
    start(ledger, WRITE)
    assert taken(ledger)[0][4] == {"idempotency_key": ["me", 5, 2]}
    ledger.reply(3, None, None)
    start(ledger, WRITE)
    assert taken(ledger)[0][4] == {"idempotency_key": ["me", 6, 4]}


def test_the_server_understands_every_option():
    ledger, _, _ = make()
    start(ledger, WRITE, ack="logged", source=("topic", 0, 5), as_user="bob", address="::1")
    options = parse_options(taken(ledger)[0][4])
    assert options.source == ["topic", 0, 5]
    assert (options.ack, options.as_user, options.address) == ("logged", "bob", "::1")
    assert options.idempotency_key == ["me", 1, 0]


def test_without_retries_nothing_has_a_key():
    ledger, _, _ = make(retry_writes=False)
    promise = start(ledger, WRITE, "x")
    assert taken(ledger) == [[0, 1, "test.write", ["x"]]]
    ledger.lost("cut")
    assert isinstance(promise.error, rtclient.OutcomeUnknown)


def test_arguments_are_taken_as_they_are_at_the_call():
    ledger, _, _ = make()
    data = [1]
    start(ledger, WRITE, data)
    data.append(2)
    assert taken(ledger)[0][3] == [[1]]


def test_a_misspelt_option_is_a_type_error_and_costs_no_number():
    ledger, _, _ = make()
    with pytest.raises(TypeError, match=r"test\.write has no parameter and no option named acks"):
        start(ledger, WRITE, acks="synced")
    start(ledger, WRITE)
    assert taken(ledger)[0][4] == {"idempotency_key": ["me", 1, 0]}


# --- bounds ---


def test_a_frame_above_the_servers_limit_is_refused_here():
    ledger, _, _ = make()
    ledger.frame_bytes_max = 1_000
    with pytest.raises(rtclient.FrameTooLarge, match="at most 1000"):
        start(ledger, WRITE, "x" * 1_000)
    assert not len(ledger)


def test_what_is_not_answered_is_bounded_in_bytes():
    ledger, _, _ = make(bytes_max=2_000)
    first = start(ledger, WRITE, "x" * 900)
    start(ledger, WRITE, "x" * 900)
    with pytest.raises(rtclient.Overloaded, match="2 calls with"):
        start(ledger, WRITE, "x" * 900)
    taken(ledger)
    ledger.reply(1, None, None)
    assert first.done()
    start(ledger, WRITE, "x" * 900)


def test_at_most_a_window_of_keyed_writes_is_under_way(monkeypatch):
    monkeypatch.setattr(ledger_module, "WINDOW", 3)
    ledger, _, _ = make()
    for _ in range(5):
        start(ledger, WRITE)
    start(ledger, READ)
    assert [request[1] for request in taken(ledger)] == [1, 2, 3]
    assert ledger.has_more
    ledger.reply(2, None, None)
    assert taken(ledger) == []
    ledger.reply(1, None, None)
    assert [request[1] for request in taken(ledger)] == [4, 5, 6]


def test_it_wakes_its_owner_once_until_everything_is_taken():
    ledger, _, wakes = make()
    for _ in range(10):
        start(ledger, READ)
    assert len(wakes) == 1
    ledger.idle = True
    start(ledger, READ)
    assert len(wakes) == 2


# --- giving up ---


def test_a_call_given_up_before_it_was_sent_is_never_sent():
    ledger, _, _ = make()
    promises = [start(ledger, WRITE, n) for n in range(3)]
    promises[1].cancel()
    assert [request[3] for request in taken(ledger)] == [[0], [2]]
    start(ledger, WRITE, 3)
    ledger.reply(1, None, None)
    start(ledger, WRITE, 4)
    assert [request[4]["idempotency_key"][2] for request in taken(ledger)] == [2, 2]


def test_a_late_reply_is_dropped_by_its_number():
    ledger, _, _ = make()
    given_up, other = start(ledger, WRITE), start(ledger, READ)
    taken(ledger)
    given_up.cancel()
    ledger.reply(1, None, "late")
    ledger.reply(1, None, "twice")
    ledger.reply(77, None, "whose?")
    ledger.reply(2, None, "mine")
    assert other.result == "mine"
    assert not len(ledger)


@pytest.mark.parametrize(
    ("command", "options", "sent", "error"),
    [
        (WRITE, {}, False, rtclient.Timeout),
        (WRITE, {}, True, rtclient.OutcomeUnknown),
        (DELTA, {}, True, rtclient.OutcomeUnknown),
        (WRITE, {"idempotency_key": "mine"}, True, rtclient.Timeout),
        (WRITE, {"source": ("s", 0, 1)}, True, rtclient.Timeout),
        (READ, {}, True, rtclient.Timeout),
        (SESSION, {}, True, rtclient.Timeout),
    ],
)
@pytest.mark.parametrize("own", [None, 2.0])
def test_a_timeout_says_what_is_known(command, options, sent, error, own):
    ledger, loop, _ = make()
    asked = options if own is None else {**options, "timeout": own}
    promise = start(ledger, command, "x", **asked)
    if sent:
        taken(ledger)
    loop.advance((own or 30.0) - 0.1)
    assert not promise.done()
    loop.advance(3.0)
    assert type(promise.error) is error
    assert promise.error.retryable is (error is rtclient.Timeout)
    assert f"within {own or 30:g} s" in promise.error.message
    assert taken(ledger) == []
    ledger.reply(1, None, "late")
    assert not len(ledger)


def test_an_answered_call_leaves_no_timer():
    ledger, loop, _ = make()
    before = loop.timers
    start(ledger, WRITE, timeout=5)
    assert loop.timers == before + 1
    ledger.reply(1, None, None)
    assert loop.timers == before


@pytest.mark.parametrize("timeout", [0, 0.0, -1])
def test_no_time_at_all_is_a_timeout_and_nothing_is_sent(timeout):
    ledger, loop, _ = make()
    before = loop.timers
    promise = start(ledger, DELTA, "x", 1, timeout=timeout)
    assert isinstance(promise.error, rtclient.Timeout)
    assert "nothing was done" in promise.error.message
    assert taken(ledger) == []
    assert not len(ledger)
    assert loop.timers == before


def test_timeout_none_waits_for_ever_and_holds_nobody_up():
    ledger, loop, _ = make()
    patient = start(ledger, READ, timeout=None)
    other = start(ledger, READ)
    taken(ledger)
    loop.advance(100_000)
    assert not patient.done()
    assert isinstance(other.error, rtclient.Timeout)


def test_a_client_without_a_timeout_lets_go_of_what_was_given_up_in_the_queue():
    ledger, loop, _ = make(timeout_s=None)
    for _ in range(5):
        start(ledger, WRITE).cancel()
    kept = start(ledger, WRITE)
    loop.advance(1_000)
    assert len(ledger) == 1
    assert not kept.done()


# --- a lost connection ---


def test_what_may_be_sent_again_is_sent_again_in_the_old_order():
    ledger, _, _ = make()
    promises = [
        start(ledger, WRITE, 1),
        start(ledger, DELTA, "x", 1),
        start(ledger, READ, 3),
        start(ledger, DELTA, "x", 1, idempotency_key="mine"),
        start(ledger, SESSION),
    ]
    taken(ledger)
    waiting = start(ledger, DELTA, "not sent", 1)
    ledger.lost("the wire was cut")
    errors = [type(promise.error) for promise in promises]
    none = type(None)
    assert errors == [none, rtclient.OutcomeUnknown, none, none, rtclient.ConnectionLost]
    assert "the wire was cut" in promises[1].error.message
    assert promises[1].error.retryable is False
    assert not waiting.done()
    assert [request[1] for request in taken(ledger)] == [1, 3, 4, 6]


def test_a_write_is_not_sent_again_when_the_server_may_have_forgotten_its_key():
    ledger, loop, _ = make(timeout_s=None)
    write, read = start(ledger, WRITE), start(ledger, READ)
    taken(ledger)
    ledger.lost("cut")
    loop.advance(601)
    assert [request[1] for request in taken(ledger)] == [2]
    assert isinstance(write.error, rtclient.OutcomeUnknown)
    assert not read.done()


def test_a_key_whose_answer_is_forgotten_is_no_success_and_a_source_is_a_duplicate():
    ledger, _, _ = make()
    write, sourced = start(ledger, WRITE), start(ledger, WRITE, source=("s", 0, 1))
    refusal = [106, "duplicate", "was reported done", None]
    ledger.reply(1, refusal, None)
    ledger.reply(2, refusal, None)
    assert isinstance(write.error, rtclient.OutcomeUnknown)
    assert write.error.retryable is False
    assert isinstance(sourced.error, rtclient.Duplicate)


def test_the_servers_own_outcome_unknown_can_be_retried_under_a_key_of_ones_own_only():
    ledger, _, _ = make()
    ours, mine = start(ledger, WRITE), start(ledger, WRITE, idempotency_key="mine")
    for call_id in (1, 2):
        ledger.reply(call_id, [501, "outcome_unknown", "not synced", None], None)
    assert (ours.error.retryable, mine.error.retryable) == (False, True)


def test_at_the_end_everyone_hears_what_is_known():
    ledger, _, _ = make()
    sent, read = start(ledger, WRITE), start(ledger, READ)
    taken(ledger)
    unsent = start(ledger, WRITE)
    ledger.end(rtclient.Closed("the client was closed"))
    assert isinstance(sent.error, rtclient.OutcomeUnknown)
    assert isinstance(read.error, rtclient.Closed)
    assert isinstance(unsent.error, rtclient.Closed)
    with pytest.raises(rtclient.Closed):
        start(ledger, READ)


def test_a_reply_that_cannot_be_decoded_is_an_error_of_its_call_alone():
    ledger, _, _ = make()
    promise = start(ledger, table.BOARD_RANK, "weekly", "ann")
    ledger.reply(1, None, {"unexpected": 1})
    assert isinstance(promise.error, rtclient.Error)
    assert "board.rank" in promise.error.message


async def test_the_wrong_loop_is_named():
    ledger = Ledger(
        asyncio.get_running_loop(), "me", lambda: None, timeout_s=None, retry_writes=True
    )

    async def call():
        ledger.call(READ, (), {})

    with pytest.raises(RuntimeError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, call())
    ledger.end(rtclient.Closed("over"))


# --- the model ---


class Server:
    """Keys as rtserver.state.answers keeps them; a write answers its own number."""

    def __init__(self):
        self.done = 0
        self.answers = {}
        self.applied = []

    def run(self, request):
        _, call_id, method, params, *rest = request
        key = rest[0].get("idempotency_key") if rest else None
        if method == "test.read":
            return [1, call_id, None, "read"]
        if key is not None:
            _, number, done = key
            assert done < number
            if number <= self.done:
                error = RtError(DUPLICATE, f"{number} is at or below {self.done}")
                return [1, call_id, error.as_wire(), None]
            if number in self.answers:
                return [1, call_id, None, self.answers[number]]
            assert len(self.answers) < 10, "the server refuses so many unheard answers"
        self.applied.append(params[0])
        result = len(self.applied)
        if key is not None:
            self.done = max(self.done, done)
            self.answers = {n: a for n, a in self.answers.items() if n > self.done}
            self.answers[number] = result
        return [1, call_id, None, result]


class Lives(RuleBasedStateMachine):
    """Calls, cancellations, partial delivery both ways, cuts, late bytes of dead connections."""

    def __init__(self):
        super().__init__()
        self.window, ledger_module.WINDOW = ledger_module.WINDOW, 5
        self.ledger, self.loop, _ = make()
        self.server = Server()
        self.wire = []  # requests on their way to the server
        self.late = []  # those of connections that the client has given up
        self.replies = []  # on their way to the client
        self.outcomes = []
        self.highest = 0  # call id sent on this connection

    def teardown(self):
        for _ in range(100):
            self.send()
            self.arrive(len(self.wire))
            self.answer(len(self.replies))
        ledger_module.WINDOW = self.window
        assert all(outcome.done() for outcome in self.outcomes)
        assert not len(self.ledger)
        assert self.ledger._bytes == 0

    @rule(kind=st.sampled_from([WRITE, WRITE, DELTA, READ]))
    def call(self, kind):
        outcome = Outcome((kind, len(self.outcomes)))
        params = self.ledger.pack((len(self.outcomes),))
        self.ledger.start(kind, params, {}, outcome)
        self.outcomes.append(outcome)

    @precondition(lambda self: self.outcomes)
    @rule(data=st.data())
    def cancel(self, data):
        outcome = data.draw(st.sampled_from(self.outcomes))
        if not outcome.done():
            outcome.cancel()

    @rule(size=st.integers(1, 200))
    def send(self, size=10**6):
        for request in wire.Frames().cut(self.ledger.take(size))[0]:
            assert request[1] > self.highest, "calls overtook each other"
            self.highest = request[1]
            self.wire.append(request)

    @rule(count=st.integers(1, 4))
    def arrive(self, count):
        for request in self.wire[:count]:
            self.replies.append(self.server.run(request))
        del self.wire[:count]

    @rule(count=st.integers(1, 4))
    def answer(self, count):
        for _, call_id, error, result in self.replies[:count]:
            self.ledger.reply(call_id, error, result)
        del self.replies[:count]

    @rule(seconds=st.sampled_from([0.5, 20.0]))
    def time(self, seconds):
        self.loop.advance(seconds)

    @rule()
    def cut(self):
        self.ledger.lost("cut")
        self.late += self.wire
        self.wire, self.replies, self.highest = [], [], 0

    @rule(count=st.integers(1, 4))
    def arrive_late(self, count):
        for request in self.late[:count]:
            self.server.run(request)
        del self.late[:count]

    @invariant()
    def every_outcome_is_true(self):
        counts = {}
        for index in self.server.applied:
            counts[index] = counts.get(index, 0) + 1
        assert all(count == 1 for count in counts.values()), "a write was applied twice"
        for index, outcome in enumerate(self.outcomes):
            kind, _ = outcome.what
            if kind is READ or not outcome.done() or outcome.given_up:
                continue
            if outcome.error is None:
                assert self.server.applied[outcome.result - 1] == index
            elif isinstance(outcome.error, rtclient.Timeout):
                assert index not in counts
            else:
                assert type(outcome.error) is rtclient.OutcomeUnknown


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_the_model_is_the_wire_format():
    ledger, _, _ = make()
    start(ledger, WRITE, "x")
    data = ledger.take(10**6)
    body = msgpack.packb([0, 1, "test.write", ["x"], {"idempotency_key": ["me", 1, 0]}])
    assert data == len(body).to_bytes(4, "big") + body
