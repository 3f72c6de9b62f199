"""The sockets of the bench count every message once, and say when something is wrong."""

from __future__ import annotations

import shutil
import socket
import threading
import time

import pytest
from websockets.server import ServerProtocol
from websockets.sync.server import serve

from bench.load import LoadFailed, RequestFailed
from bench.nchan import Nchan, post
from bench.peers import Rtserver
from bench.requests import Batch, frame, reply_frame
from bench.sockets import Bare, Publisher, Sockets
from bench.websockets import (
    ACCEPT,
    Canned,
    bodies,
    capture,
    door,
    masked,
    messages,
    subscriber,
)

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

OPENED = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
).encode()
PUBLISH = frame(0, "channel.publish", "bench", "x")
REPLY = reply_frame(0, {"offset": 1})
PUSH_FRAME = bytes.fromhex("0000000b 93 02 a7 6d657373616765 00")
GAP_FRAME = bytes.fromhex("00000007 93 02 a3 676170 00")
ERROR_FRAME = bytes.fromhex("00000013 94 01 00 94 67 a8 6e6f745f676f6f64 a2 6e6f c0 c0")


def message(payload, opcode=2, fin=0x80):
    size = len(payload)
    if size < 126:
        return bytes((fin | opcode, size)) + payload
    if size < 1 << 16:
        return bytes((fin | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((fin | opcode, 127)) + size.to_bytes(8, "big") + payload


HELLO = message(REPLY)
PUSH = message(PUSH_FRAME)


class Hub:
    """Takes sockets by canned answers; each publish is `push` to all, in pieces, so many times."""

    def __init__(self, opened=OPENED, hello=HELLO, push=PUSH, reply=REPLY, piece=1 << 20):
        self.heard = []  # of subscribers, after their hello
        self._canned = opened, hello, push, reply
        self._piece = piece
        self._subscribers = []
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
        opened, hello, _, _ = self._canned
        try:
            with connection:
                first = connection.recv(1 << 16)
                if not first.startswith(b"GET "):
                    return self._publish(connection, len(first))
                self._send(connection, opened)
                if connection.recv(1 << 16):
                    self._subscribers.append(connection)
                    self._send(connection, hello)
                    while data := connection.recv(1 << 16):
                        self.heard.append(data)
        except OSError:
            pass

    def _publish(self, connection, got):
        _, _, push, reply = self._canned
        while got:
            for _ in range(got // len(PUBLISH)):
                for one in self._subscribers:
                    self._send(one, push)
                connection.sendall(reply)
            if not push:  # it loses all of them, and leaves after some time
                time.sleep(0.3)
                return self._subscribers[0].close()
            got = len(connection.recv(1 << 16))

    def _send(self, connection, data):
        for at in range(0, len(data), self._piece):
            connection.sendall(data[at : at + self._piece])

    def close(self):
        self._listener.close()


@pytest.fixture
def hub():
    made = []

    def make(**named):
        made.append(Hub(**named))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def sockets(tmp_path_factory):
    return Sockets(None, tmp_path_factory.mktemp("sockets"))


LISTENER = subscriber("bench")


def publisher(publishes=1, window=1, seconds=0.1, **named):
    return Publisher([Batch(PUBLISH * publishes, publishes, publishes)], window, seconds, **named)


# --- what the peer gets ---


def test_a_websocket_library_understands_what_is_sent(sockets):
    got = []

    def handler(connection):
        got.append(connection.recv())
        connection.send(REPLY)
        connection.ping().wait(5)
        got.append("pong")
        is_over.wait(10)

    is_over = threading.Event()
    with serve(handler, "127.0.0.1", 0, subprotocols=["rt1.msgpack"]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = server.socket.getsockname()
        with sockets.held(address, LISTENER, 1):
            deadline = time.monotonic() + 5
            while len(got) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
        is_over.set()
    assert got == [frame(0, "channel.subscribe", "bench"), "pong"]


@pytest.mark.parametrize("size", [0, 1, 3, 125, 126, 1_000, 65_535])
def test_masked_messages(size):
    payload = bytes(number % 251 for number in range(size))
    protocol = ServerProtocol(max_size=None)
    protocol.state = protocol.state.OPEN
    protocol.parser = protocol.parse()
    next(protocol.parser)
    protocol.receive_data(masked(payload))
    (received,) = protocol.events_received()
    assert received.data == payload


# --- what is counted ---


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 11, 1 << 20])
def test_every_message_is_counted_however_it_is_cut(sockets, hub, piece):
    at = hub(piece=piece).address
    outcome = sockets.fan_out(at, LISTENER, 3, publisher())
    assert outcome.deliveries == 3 * outcome.publishes > 0
    assert 0 < outcome.p50_us <= outcome.p99_us <= outcome.max_us


@pytest.mark.parametrize("size", [1, 200, 70_000])
@pytest.mark.parametrize("piece", [5, 1 << 20])
def test_frames_of_all_sizes(sockets, hub, size, piece):
    inner = (7 + 3 + size).to_bytes(4, "big") + bytes.fromhex("93 02 a7 6d657373616765")
    push = message(inner + bytes(size))
    if size > 200 and piece == 5:
        piece = 997
    outcome = sockets.fan_out(hub(push=push, piece=piece).address, LISTENER, 1, publisher())
    assert outcome.deliveries == outcome.publishes > 0


def test_frames_that_share_a_message_count_each(sockets, hub):
    at = hub(push=message(PUSH_FRAME * 2)).address
    with pytest.raises(LoadFailed, match="more messages than"):
        sockets.fan_out(at, LISTENER, 1, publisher(seconds=0.05))


def test_whole_messages_count_where_nothing_is_inside(sockets, hub):
    split = message(b"ab", 1, 0) + message(b"", 9) + message(b"c", 0, 0) + message(b"d", 0)
    listener = LISTENER._replace(whole=True)
    peer = hub(hello=message(b"welcome", 1), push=split)
    outcome = sockets.fan_out(peer.address, listener, 2, publisher())
    assert outcome.deliveries == 2 * outcome.publishes > 0
    assert peer.heard[0].startswith(b"\x8a\x80"), "the ping inside is answered"


def test_several_messages_on_their_way(sockets, hub):
    outcome = sockets.fan_out(hub().address, LISTENER, 2, publisher(4, 8))
    assert outcome.publishes % 4 == 0
    assert outcome.deliveries == 2 * outcome.publishes > 8


def test_what_comes_until_ready_is_kept(sockets, hub):
    opened, answers = sockets.open(hub(hello=HELLO + PUSH, piece=3).address, LISTENER, 5)
    assert len(answers) == 5
    for answer in answers:
        assert next(bodies(answer)) == [1, 0, None, {"offset": 1}]
    assert opened.p50_us <= opened.max_us <= opened.seconds * 1e6


def test_each_may_say_its_own(sockets, hub):
    said = [masked(frame(0, "server.hello", str(number))) for number in range(4)]
    opened, _ = sockets.open(hub().address, LISTENER, 4, said, at_once=4)
    assert opened.seconds > 0
    with pytest.raises(LoadFailed, match="3 records for 4 sockets"):
        sockets.open(hub().address, LISTENER, 4, said[:3])


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("named", "kind", "told"),
    [
        ({"opened": b"HTTP/1.1 403 Forbidden\r\n\r\n"}, RequestFailed, "403 Forbidden"),
        ({"opened": OPENED.replace(ACCEPT.encode(), b"x" * 28)}, LoadFailed, "is without"),
        ({"opened": b"x" * 5_000}, LoadFailed, "without an end"),
        ({"hello": message(ERROR_FRAME)}, RequestFailed, "not_good"),
        ({"hello": message(b"\x10\x00going away", 8)}, RequestFailed, "going away"),
        ({"push": message(GAP_FRAME)}, RequestFailed, "gap"),
        ({"push": b"\x82\x8b" + PUSH[2:]}, LoadFailed, "masks"),
        ({"push": b""}, LoadFailed, "closed"),  # lost: it waits until the peer leaves
        ({"reply": ERROR_FRAME}, RequestFailed, "not_good"),
    ],
)
def test_a_peer_that_is_wrong_fails_the_round(sockets, hub, named, kind, told):
    peer = hub(**named)
    with pytest.raises(kind, match=told) as caught:
        sockets.fan_out(peer.address, LISTENER, 1, publisher())
    assert type(caught.value) is kind


def test_a_peer_that_cuts_fails_the_round(sockets):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_one():
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.close()

        threading.Thread(target=serve_one, daemon=True).start()
        with pytest.raises(LoadFailed, match=r"closed|reset"):
            sockets.open(listener.getsockname(), LISTENER, 1)


def test_nobody_there_fails_the_round(sockets):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(LoadFailed, match="refused"):
        sockets.open(address, LISTENER, 3)


# --- the servers ---


def test_the_bare_loop_sends_what_was_captured(sockets, tmp_path):
    with Rtserver(tmp_path, None) as server:
        canned = capture(server.address, LISTENER, PUBLISH)
        ours = sockets.fan_out(server.address, LISTENER, 5, publisher(), server.pid)
    assert canned.opened.startswith(b"HTTP/1.1 101")
    assert [next(bodies(data))[:2] for data in (canned.hello, canned.push)] == [
        [1, 0],
        [2, "message"],
    ]
    with Bare(sockets, len(PUBLISH), canned, None) as bare:
        theirs = sockets.fan_out(bare.address, LISTENER, 5, publisher(), bare.pid)
    for outcome in (ours, theirs):
        assert outcome.deliveries == 5 * outcome.publishes > 0
        assert outcome.peer_ran_s > 0


def test_the_bare_loop_ends_with_its_sockets(sockets):
    bare = Bare(sockets, len(PUBLISH), Canned(OPENED, HELLO, PUSH, REPLY), None)
    with bare:
        assert sockets.fan_out(bare.address, LISTENER, 2, publisher()).deliveries
        assert bare.ended_within(10)


@pytest.mark.skipif(Nchan.version() is None, reason="no nginx with nchan")
def test_nchan_delivers_what_is_posted(sockets, tmp_path):
    batches = [Batch(post(b"x" * 128) * 4, 4, 4)]
    with Nchan(tmp_path, None) as server:
        outcome = sockets.fan_out(
            server.address, door("/subscribe"), 5, Publisher(batches, 8, 0.2, http=True), server.pid
        )
    assert outcome.deliveries == 5 * outcome.publishes > 0


def test_messages_end_where_the_data_does():
    data = message(b"a") + message(b"b" * 300) + message(b"c" * 10)
    assert [payload[:1] for _, payload in messages(data[:-1])] == [b"a", b"b"]
