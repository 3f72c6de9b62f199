"""The load generator sends all there is, waits for all of it, and says when something is wrong."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from bench import contest
from bench.load import Generator, Plan
from bench.peers import Canned
from bench.report import OURS, THEIRS
from bench.requests import RequestFailed, command, count_frames, count_lines, frame, reply_frame
from bench.supplies import added, increments, name_of

REQUEST = frame(0, "counter.add", name_of(0))


@pytest.fixture(scope="module")
def generator():
    with Generator(None) as made:
        yield made


def test_a_supply_is_sent_once_to_its_end(generator):
    with Canned(len(REQUEST), reply_frame(0, 7), None) as sink:
        plan = Plan(sink.address, partial(added, 1_000, 10, 128), count_frames, connections=3)
        outcome = generator.run(plan)
    assert outcome.replies == 1_000
    assert outcome.rate == pytest.approx(1_000 / outcome.seconds)
    assert 0 < outcome.p50_us <= outcome.p99_us


def test_more_connections_than_batches(generator):
    with Canned(len(REQUEST), reply_frame(0, 7), None) as sink:
        plan = Plan(sink.address, partial(added, 2, 10, 1), count_frames, connections=5)
        assert generator.run(plan).replies == 2


def test_a_timed_round_repeats_its_supply_and_waits_for_the_rest(generator):
    request = command("INCR", name_of(0))
    supply = partial(increments, THEIRS, 1, 4)
    with Canned(len(request), b":7\r\n", None) as sink:
        outcome = generator.run(Plan(sink.address, supply, count_lines, 2, seconds=0.2))
    assert outcome.replies > sum(replies for _, replies in supply())
    assert outcome.seconds >= 0.2


def test_a_refusal_fails_the_round(generator):
    request = command("INCR", name_of(0))
    supply = partial(increments, THEIRS, 10, 4)
    with (
        Canned(len(request), b"-ERR no\r\n", None) as sink,
        pytest.raises(RequestFailed),
    ):
        generator.run(Plan(sink.address, supply, count_lines, 1, seconds=0.2))


def test_a_peer_that_closes_fails_the_round(generator, closing):
    plan = Plan(closing, partial(added, 10, 10, 1), count_frames, 1)
    with pytest.raises(ConnectionError):
        generator.run(plan)


@pytest.fixture
def closing():
    """The address of a peer that takes a request and hangs up."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()
    thread.join(10)
    listener.close()


class Liar:
    """A server whose counters hold another sum than it acknowledged."""

    def __init__(self, total="10", counters=3, errors=None):
        self.stats = {
            "state": {"counter_total": total, "counters": counters},
            "errors": errors or {},
        }

    def ask(self, line):
        assert line == "server.stats"
        return self.stats


def test_a_round_counts_only_when_the_state_agrees():
    contest._verify(Liar(), 10, 3)
    for liar in (Liar(total="9"), Liar(errors={"overloaded": 1}), Liar(counters=4)):
        with pytest.raises(contest.WrongState):
            contest._verify(liar, 10, 3)


def test_the_sample_that_canned_replies_answer_has_the_size_of_every_request():
    for subject in (OURS, THEIRS):
        size = len(contest._SAMPLE[subject][0])
        assert all(len(data) == size * n for data, n in increments(subject, 200, 128))
