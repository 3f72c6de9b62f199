"""The load generator sends all there is, waits for all of it, and says when something is wrong."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from bench.load import Audience, Generator, LoadFailed, Plan, RequestFailed
from bench.peers import Canned
from bench.report import THEIRS
from bench.requests import Batch, command, frame, reply_frame
from bench.supplies import added, increments, name_of

REQUEST = frame(0, "counter.add", name_of(0))
REPLY = reply_frame(0, 7)
INCR = command("INCR", name_of(0))
ERROR = bytes.fromhex("00000013 94 01 05 94 67 a8 6e6f745f676f6f64 a2 6e6f c0 c0")

compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture(scope="module", params=["compiled", "fallback"])
def generator(request, tmp_path_factory):
    """Both promise the same of a closed loop."""
    compiled = request.param == "compiled"
    if compiled and shutil.which("cc") is None:
        pytest.skip("no C compiler")
    return Generator(None, tmp_path_factory.mktemp("load"), "cc" if compiled else None)


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    return Generator(None, tmp_path_factory.mktemp("load"))


class Peer:
    """Answers every so many bytes with one reply, in pieces if asked; may stall once."""

    def __init__(self, request_bytes, reply, piece=1 << 20, stall=(0.0, 0.0)):
        self.received = 0
        self._request_bytes = request_bytes
        self._reply = reply
        self._piece = piece
        self._stall = stall  # after so many seconds, for so many seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        owed, started = 0, time.monotonic()
        with connection:
            while data := connection.recv(1 << 16):
                after, seconds = self._stall
                if seconds and time.monotonic() - started > after:
                    self._stall = (0.0, 0.0)
                    time.sleep(seconds)
                self.received += len(data)
                complete, owed = divmod(owed + len(data), self._request_bytes)
                answer = self._reply * complete
                for at in range(0, len(answer), self._piece):
                    connection.sendall(answer[at : at + self._piece])

    def close(self):
        self._listener.close()


@contextmanager
def peer(*arguments, **named):
    made = Peer(*arguments, **named)
    yield made
    made.close()


def adds(count, depth=128):
    return partial(added, "rtserver", count, 10, depth)


def test_a_supply_is_sent_once_to_its_end(generator):
    with peer(len(REQUEST), REPLY) as sink:
        outcome = generator.run(Plan(sink.address, adds(1_000), "frames", 3, 128))
    assert outcome.replies == 1_000
    assert sink.received == 1_000 * len(REQUEST)
    assert outcome.batches == 8
    assert outcome.rate == pytest.approx(1_000 / outcome.seconds)
    assert 0 < outcome.p50_us <= outcome.p99_us <= outcome.max_us


def test_more_connections_than_batches(generator):
    with peer(len(REQUEST), REPLY) as sink:
        assert generator.run(Plan(sink.address, adds(2, 1), "frames", 5, 1)).replies == 2


def test_a_timed_round_repeats_its_supply_and_waits_for_the_rest(generator):
    supply = partial(increments, THEIRS, 1, 4)
    with peer(len(INCR), b":7\r\n") as sink:
        outcome = generator.run(Plan(sink.address, supply, "resp", 2, 4, seconds=0.2))
    assert outcome.replies > sum(batch.replies for batch in supply())
    assert outcome.replies == 4 * outcome.batches
    assert outcome.replies * len(INCR) == sink.received
    assert outcome.seconds >= 0.2


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 8, 9])
def test_replies_are_counted_however_they_are_cut(generator, piece):
    for request, reply, framing in ((REQUEST, REPLY, "frames"), (INCR, b":12345\r\n", "resp")):
        subject = "redis" if framing == "resp" else "rtserver"
        supply = partial(added, subject, 60, 10, 20)
        with peer(len(request), reply, piece) as sink:
            outcome = generator.run(Plan(sink.address, supply, framing, 1, 20))
        assert outcome.replies == 60


@pytest.mark.parametrize("piece", [1, 5, 100, 1 << 20])
@pytest.mark.parametrize(
    ("reply", "framing"),
    [
        (reply_frame(0, "x" * 3_000), "frames"),
        (b"$5\r\n1\r\n-2\r\n", "resp"),  # what looks like an error is inside
        (b"$-1\r\n", "resp"),
        (b"+OK\r\n", "resp"),
    ],
)
def test_replies_of_other_kinds(generator, reply, framing, piece):
    supply = partial(added, "rtserver", 20, 10, 10)
    with peer(len(REQUEST), reply, piece) as sink:
        assert generator.run(Plan(sink.address, supply, framing, 1, 20)).replies == 20


@pytest.mark.parametrize(
    ("reply", "framing", "told"),
    [(b"-ERR no good\r\n", "resp", "ERR no good"), (ERROR, "frames", "not_good")],
)
def test_a_refusal_fails_the_round(generator, reply, framing, told):
    assert int.from_bytes(ERROR[:4], "big") == len(ERROR) - 4
    with peer(len(REQUEST), reply) as sink, pytest.raises(RequestFailed, match=told):
        generator.run(Plan(sink.address, adds(10), framing, 1, 128))


@pytest.mark.parametrize("piece", [1, 9, 1 << 20])
@pytest.mark.parametrize(
    ("reply", "framing", "expected"),
    [(ERROR, "frames", ERROR[7:18]), (b":-1\r\n", "resp", b":-1\r")],
)
def test_refusals_that_are_expected_are_replies(generator, reply, framing, expected, piece):
    with peer(len(REQUEST), reply, piece) as sink:
        plan = Plan(sink.address, adds(100, 20), framing, 2, 20, expected=expected)
        assert generator.run(plan).replies == 100


@pytest.mark.parametrize(
    ("reply", "framing", "expected"),
    [
        (REPLY, "frames", ERROR[7:18]),
        (ERROR.replace(b"not_good", b"not_nice"), "frames", ERROR[7:18]),
        (b":-2\r\n", "resp", b":-1\r"),
        (b":-12\r\n", "resp", b":-1\r"),
        (b"-ERR\r\n", "resp", b":-1\r"),
    ],
)
def test_any_other_reply_than_the_expected_fails_the_round(generator, reply, framing, expected):
    with peer(len(REQUEST), reply) as sink, pytest.raises(RequestFailed):
        generator.run(Plan(sink.address, adds(10), framing, 1, 128, expected=expected))


def test_a_peer_that_closes_fails_the_round(generator):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.close()

    threading.Thread(target=serve, daemon=True).start()
    with pytest.raises(LoadFailed):
        generator.run(Plan(listener.getsockname(), adds(10, 1), "frames", 1, 1))
    listener.close()


def test_nobody_there_fails_the_round(generator):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(LoadFailed):
        generator.run(Plan(address, adds(10), "frames", 1, 128))


@compiler
def test_the_window_holds_several_batches(fast):
    """A peer that answers only whole windows shows that all of one was sent."""
    with peer(4 * len(REQUEST), 4 * REPLY) as sink:
        assert fast.run(Plan(sink.address, adds(40, 1), "frames", 1, 4)).replies == 40


@compiler
def test_canned_replies(fast):
    with Canned(fast, len(REQUEST), REPLY, None) as sink:
        plan = Plan(sink.address, adds(1_000), "frames", 4, 128, seconds=0.1)
        assert fast.run(plan).replies > 1_000


@compiler
def test_the_time_of_the_watched_process_is_that_of_the_round(generator, fast):
    with Canned(fast, len(REQUEST), REPLY, None) as sink:
        plan = Plan(sink.address, adds(1_000), "frames", 3, 128, seconds=0.2)
        assert generator.run(plan).peer_ran_s == 0
        outcome = generator.run(replace(plan, watched=sink.pid))
    assert 0 < outcome.peer_ran_s <= outcome.seconds * 1.1


# --- open loop ---


@compiler
def test_a_schedule_is_kept(fast):
    with peer(len(REQUEST), REPLY) as sink:
        plan = Plan(sink.address, adds(100, 1), "frames", 4, 1, seconds=0.5, rate=400)
        outcome = fast.run(plan)
    assert outcome.replies == 200
    assert outcome.p50_us < 100_000


@compiler
def test_a_stall_is_charged_to_all_that_were_due_meanwhile(fast):
    """In closed loop a stall of 0.3 s is one slow request; users would see 0.3 s of them."""
    stall_s, seconds, rate = 0.3, 1.0, 500
    closed = Plan(("", 0), adds(100, 1), "frames", 1, 1, seconds=seconds)
    opened = replace(closed, rate=rate)
    slow = {}
    for name, plan in {"closed": closed, "open": opened}.items():
        with peer(len(REQUEST), REPLY, stall=(0.2, stall_s)) as sink:
            slow[name] = fast.run(replace(plan, address=sink.address))
    assert slow["closed"].p99_us < 100_000 < slow["closed"].max_us
    assert slow["open"].replies == seconds * rate
    assert slow["open"].p90_us > 100_000, "a tenth of all waited more than a third of the stall"
    assert slow["open"].max_us > 0.9e6 * stall_s


@compiler
def test_a_round_can_be_ended_early(fast):
    with peer(len(REQUEST), REPLY) as sink:
        plan = Plan(sink.address, adds(100, 1), "frames", 1, 1, seconds=60, rate=200)
        going = fast.start(plan)
        time.sleep(0.5)
        going.stop()
        outcome = going.result()
    assert 0 < outcome.replies < 200
    assert outcome.seconds < 30


# --- subscribers ---

SUBSCRIBE = b"subscribe!"
PUSH = bytes.fromhex("0000000b 93 02 a7 6d657373616765 00")
CONFIRMED = reply_frame(0, {"offset": 0})
MESSAGE = command("message", "bench", "data")
SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$5\r\nbench\r\n:1\r\n"


class Hub(Peer):
    """Sends a push to all subscribers for each request; `lost` of them to nobody."""

    def __init__(self, confirmed, push, reply, lost=0):
        self._subscribers = []
        self._confirmed = confirmed
        self._push = push
        self._lost = lost
        super().__init__(len(REQUEST), reply)

    def _serve(self, connection):
        first = connection.recv(len(SUBSCRIBE), socket.MSG_PEEK)
        if first != SUBSCRIBE:
            with connection:
                owed = 0
                while data := connection.recv(1 << 16):
                    complete, owed = divmod(owed + len(data), len(REQUEST))
                    connection.sendall(self._reply * complete)
                    for subscriber in self._subscribers:
                        subscriber.sendall(self._push * (complete - self._lost))
                        if self._lost:
                            time.sleep(0.2)
                            subscriber.close()
        else:
            connection.recv(len(SUBSCRIBE))
            self._subscribers.append(connection)
            connection.sendall(self._confirmed)


def messages(count, depth):
    return [Batch(REQUEST * depth, depth, depth) for _ in range(count // depth)]


@compiler
@pytest.mark.parametrize("is_resp", [False, True])
def test_deliveries_are_counted_at_every_subscriber(fast, is_resp):
    framing = "resp" if is_resp else "frames"
    hub = Hub(SUBSCRIBED, MESSAGE, b":3\r\n") if is_resp else Hub(CONFIRMED, PUSH, REPLY)
    audience = Audience(3, SUBSCRIBE, len(MESSAGE) if is_resp else 0)
    supply = partial(messages, 100, 10)
    outcome = fast.run(Plan(hub.address, supply, framing, 2, 20, audience=audience))
    hub.close()
    assert outcome.replies == 100
    assert outcome.deliveries == 300


@compiler
def test_a_lost_message_is_not_passed_over(fast):
    hub = Hub(CONFIRMED, PUSH, REPLY, lost=1)
    audience = Audience(1, SUBSCRIBE)
    plan = Plan(hub.address, partial(messages, 10, 10), "frames", 1, 10, audience=audience)
    with pytest.raises(LoadFailed, match="closed"):  # it waited for the tenth until the hub left
        fast.run(plan)
    hub.close()
