"""Buyers confirm what they were told that they hold; none comes twice; what is wrong is said."""

from __future__ import annotations

import shutil
import socket
import threading
from contextlib import contextmanager
from copy import copy

import msgpack
import pytest

from bench.buyers import HOLD, NUMBER, Buyers, Visit
from bench.contest import Shape
from bench.load import LoadFailed, RequestFailed
from bench.requests import command, frame, reply_frame

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

FRAMES = Visit(
    "frames",
    frame(0, "sale.reserve", "s", f"u:{NUMBER}", {"x": 1}, ack="logged"),
    frame(1, "sale.confirm", HOLD, ack="logged"),
)
RESP = Visit(
    "resp",
    command("EVALSHA", "reserve", f"u:{NUMBER}", f"token:{NUMBER}"),
    command("EVALSHA", "confirm", f"u:{NUMBER}", f"token:{NUMBER}"),
)
ERROR = bytes.fromhex("00000013 94 01 00 94 67 a8 6e6f745f676f6f64 a2 6e6f c0 c0")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return Buyers(None, tmp_path_factory.mktemp("program"))


@pytest.fixture
def buyers(compiled):
    """Nobody came yet."""
    return copy(compiled)


class Shop:
    """Takes requests apart, keeps what they say, and answers with what `answer` makes of each."""

    def __init__(self, split, answer, piece):
        self.requests = []
        self._split = split
        self._answer = answer
        self._piece = piece
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
        rest = b""
        with connection:
            while data := connection.recv(1 << 16):
                requests, rest = self._split(rest + data)
                self.requests += requests
                answers = b"".join(map(self._answer, requests))
                for at in range(0, len(answers), self._piece):
                    connection.sendall(answers[at : at + self._piece])

    def close(self):
        self._listener.close()


def split_frames(data):
    bodies = []
    while len(data) >= 4 and len(data) >= (whole := 4 + int.from_bytes(data[:4], "big")):
        bodies.append(msgpack.unpackb(data[4:whole]))
        data = data[whole:]
    return bodies, data


def split_commands(data):
    """Commands of four words here."""
    *lines, rest = data.split(b"\r\n")
    whole = len(lines) // 9 * 9
    commands = [[line.decode() for line in lines[at + 2 : at + 9 : 2]] for at in range(0, whole, 9)]
    return commands, b"\r\n".join([*lines[whole:], rest])


@contextmanager
def shop(split, answer, piece=1 << 20):
    made = Shop(split, answer, piece)
    yield made
    made.close()


def hold_of(user, bytes_):
    return f"h7-{user}-".ljust(bytes_, "x")


def selling(bytes_):
    """Answers of a shop whose holds are texts of so many bytes."""

    def answer(body):
        _, number, method, params, *_ = body
        if method == "sale.reserve":
            hold = hold_of(params[1], bytes_)
            return reply_frame(number, {"hold": hold, "items": params[2], "expires_at": 1})
        return reply_frame(number, {"order": "o" + params[0][1:], "items": {}, "already": False})

    return answer


@pytest.mark.parametrize(("piece", "bytes_"), [(1, 31), (7, 32), (13, 255), (1 << 20, 20)])
def test_each_confirms_what_she_was_told(buyers, piece, bytes_):
    with shop(split_frames, selling(bytes_), piece) as peer:
        outcome = buyers.run(peer.address, FRAMES, Shape(3, 5), 0.05)
    reserves = [body[3] for body in peer.requests if body[2] == "sale.reserve"]
    confirms = [body[3][0] for body in peer.requests if body[2] == "sale.confirm"]
    users = [user for _, user, _ in reserves]
    assert sorted(users) == [f"u:{number:08}" for number in range(outcome.batches)]
    assert len(users) >= 15
    assert sorted(confirms) == sorted(hold_of(user, bytes_) for user in users)
    assert outcome.replies == 2 * outcome.batches == len(peer.requests)
    assert {tuple(body[4].items()) for body in peer.requests} == {(("ack", "logged"),)}
    assert outcome.seconds >= 0.05
    assert 0 < outcome.p50_us <= outcome.p99_us <= outcome.max_us


@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_each_confirms_her_token(buyers, piece):
    with shop(split_commands, lambda _: b":12\r\n", piece) as peer:
        outcome = buyers.run(peer.address, RESP, Shape(2, 4), 0.05)
    expected = {
        ("EVALSHA", what, f"u:{number:08}", f"token:{number:08}")
        for what in ("reserve", "confirm")
        for number in range(outcome.batches)
    }
    assert {tuple(words) for words in peer.requests} == expected
    assert len(peer.requests) == len(expected) == outcome.replies


def test_nobody_comes_twice_in_later_rounds(buyers):
    visit = Visit(FRAMES.framing, FRAMES.reserve)
    counts = []
    with shop(split_frames, selling(20)) as peer:
        for _ in range(3):
            counts.append(buyers.run(peer.address, visit, Shape(2, 3), 0.02).batches)
    users = [body[3][1] for body in peer.requests]
    assert len(users) == len(set(users)) == sum(counts)
    assert {body[2] for body in peer.requests} == {"sale.reserve"}


def test_the_window_is_the_number_of_buyers(buyers):
    """A peer that answers only when three have asked shows that three ask at a time."""
    waiting = []

    def answer(body):
        waiting.append(selling(20)(body))
        answers = b"".join(waiting) if len(waiting) == 3 else b""
        if answers:
            waiting.clear()
        return answers

    with shop(split_frames, answer) as peer:
        assert buyers.run(peer.address, FRAMES, Shape(1, 3), 0).batches == 3


@pytest.mark.parametrize(
    ("visit", "split", "reply", "told"),
    [
        (FRAMES, split_frames, ERROR, "not_good"),
        (FRAMES, split_frames, reply_frame(0, {"order": "o7", "items": {}}), "order"),
        (FRAMES, split_frames, reply_frame(0, {"hold": 7, "items": {}}), "hold"),
        (RESP, split_commands, b":-2\r\n", ":-2"),
        (RESP, split_commands, b"-NOSCRIPT No matching script\r\n", "NOSCRIPT"),
    ],
)
def test_a_refusal_fails_the_round(buyers, visit, split, reply, told):
    with shop(split, lambda _: reply) as peer, pytest.raises(RequestFailed, match=told):
        buyers.run(peer.address, visit, Shape(1, 1), 0.05)


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (reply_frame(1, {"hold": "h", "items": {}}), "out of order"),
        (2 * reply_frame(0, {"hold": "h", "items": {}}), "out of order|more replies"),
    ],
)
def test_replies_that_nobody_asked_for_fail_the_round(buyers, reply, told):
    with shop(split_frames, lambda _: reply) as peer, pytest.raises(LoadFailed, match=told):
        buyers.run(peer.address, FRAMES, Shape(1, 1), 0.05)


def test_a_confirm_without_a_place_for_the_hold_is_refused(buyers):
    visit = Visit("frames", FRAMES.reserve, frame(1, "sale.confirm", "h"))
    with pytest.raises(LoadFailed, match="no place for a hold"):
        buyers.run(("127.0.0.1", 1), visit, Shape(1, 1), 0.05)


def test_without_a_compiler_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LoadFailed, match="no C compiler"):
        Buyers(None, tmp_path)
