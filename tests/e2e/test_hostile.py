"""Peers that send garbage, stop reading, vanish or flood: each gets its documented end, everybody
else is served, and the server keeps no byte, socket or object of theirs.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import threading
import time

import pytest

from tests.process import ServerProcess, cut, eventually, frame, read_all

MIB = 1 << 20


class Witness:
    """A well-behaved client: it calls all the time, while others misbehave."""

    def __init__(self, server):
        self.client = server.client()
        self.calls = 0
        self.failure = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            while not self._stopping.is_set():
                self.calls += 1
                assert self.client.call("counter.add", "witness") > 0
                time.sleep(0.01)
        except Exception as error:
            self.failure = error

    def stop(self):
        self._stopping.set()
        self._thread.join(30)
        self.client.close()
        assert self.failure is None, f"the well-behaved client was hurt: {self.failure!r}"
        assert self.calls


@pytest.fixture(autouse=True)
def others_are_served_and_nothing_leaks(server):
    descriptors = eventually(lambda: alone(server))
    witness = Witness(server)
    yield
    witness.stop()
    assert eventually(lambda: alone(server)) <= descriptors
    assert server.process.poll() is None


def alone(server, others=0):
    """The descriptors of the server, once nobody but the asker and so many are connected."""
    with server.client() as client:
        stats = client.call("server.stats")
        quiet = stats["connections"] == 1 + others and not stats["subscriptions"]
        return server.descriptors() if quiet else 0


def stats(server):
    with server.client() as client:
        return client.call("server.stats")


# --- the first bytes ---


@pytest.mark.parametrize("first", [b"\x02", b"\x80\x00\x00\x00", b"\xff" * 100])
def test_unknown_first_bytes_close(server, first):
    assert server.raw(first) == b""


def test_tls_is_told_so(server):
    assert b"no TLS" in server.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")


def test_line_ends_before_anything(server):
    assert server.raw(b"\r\n\r\nserver.ping\r\n").startswith(b'{"now"')
    assert server.raw(b"\n" + frame([0, 1, "counter.get", ["none"]])) == frame([1, 1, None, 0])


def test_a_connection_that_says_nothing_costs_nothing(server):
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(server.connect()) for _ in range(50)]
        for connection in silent[::2]:
            connection.sendall(b"\r\n")
        assert server.inline("counter.get none") == ["0"]


# --- frames ---


@pytest.mark.parametrize("size", [3, 100_000, 3 * MIB])
def test_garbage_after_a_good_header(server, size):
    """However much follows: the error and the close arrive, although the rest is not read."""
    with server.client() as client:
        with contextlib.suppress(ConnectionError):
            client.socket.sendall(b"\x00\x00\x00\x03\xc1\xc1\xc1" + b"\xc1" * size)
        error, close = client.read_to_end()
    assert error[2][1] == "protocol_error"
    assert close[2]["code"] == 4500


def test_a_frame_that_never_ends_holds_only_what_was_sent(server):
    before = server.rss_bytes()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(server.client())
            client.socket.sendall(struct.pack(">I", MIB) + b"\x94")
        assert server.inline("counter.get none") == ["0"]
        assert server.rss_bytes() - before < 10 * MIB


def test_small_frames_that_announce_gigabytes_allocate_nothing(server):
    before = server.rss_bytes()
    for body in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"):
        with server.client() as client:
            client.socket.sendall(struct.pack(">I", len(body)) + body)
            error, _close = client.read_to_end()
            assert error[2][1] == "protocol_error"
    assert server.rss_bytes() - before < 20 * MIB


def test_nested_as_deep_as_a_frame_allows(server):
    body = b"\x94\x00\x01\xa1m" + b"\x91" * 1_000_000
    with server.client() as client:
        client.socket.sendall(struct.pack(">I", len(body)) + body)
        error, _close = client.read_to_end()
    assert error[2][1] == "protocol_error"


def test_a_map_of_colliding_keys_stalls_nobody(server):
    from tests.wire.test_codec import colliding_timestamps

    keys = b"\x01".join(colliding_timestamps(8_000)) + b"\x01"
    body = b"\x94\x00\x01\xafchannel.publish\x92\xa1c\xde" + struct.pack(">H", 8_000) + keys
    with server.client() as client:
        client.socket.sendall(struct.pack(">I", len(body)) + body)
        assert client.read()[2][1] == "invalid_params"
    assert stats(server)["turns"]["max_us"] < 5_000_000


def test_values_that_cost_more_than_they_weigh(server):
    """A megabyte of empty maps would be 64 MB of dicts: it is refused before they are made."""
    before = server.rss_bytes()
    body = b"\x94\x00\x01\xafchannel.publish\x92\xa1c\xdd\x00\x0f\x00\x00" + b"\x80" * 0xF0000
    for _ in range(3):
        with server.client() as client:
            client.socket.sendall(struct.pack(">I", len(body)) + body)
            reply = client.read()
            assert reply[:2] == [1, None]
            assert reply[2][1] == "protocol_error"
    assert server.rss_bytes() - before < 30 * MIB


def test_ids_may_be_reused_and_replies_unread(server):
    with server.client() as client:
        for _ in range(1_000):
            client.send_body([0, 7, "counter.get", ["none"]])
        assert [client.read() for _ in range(1_000)] == [[1, 7, None, 0]] * 1_000


def test_notifications_that_fail_are_counted(server):
    before = stats(server)["notification_errors"]
    with server.client() as client:
        for body in ([2, "nope", []], [2, "counter.add", [5]], [2, "counter.add", None]):
            client.send_body(body)
        client.call("server.ping")
    assert stats(server)["notification_errors"] - before >= 2


# --- inline ---


def test_lines_that_are_not_text(server):
    error, pong = server.raw(b"counter.add \xff\xfe\nserver.ping\n").decode().splitlines()
    assert json.loads(error[1:])[1] == "invalid_params"
    assert "now" in pong


@pytest.mark.parametrize("chunk", [1 << 16, 100])
def test_an_endless_line(server, chunk):
    with server.connect() as connection:
        with contextlib.suppress(ConnectionError):
            for _ in range(200_000 // chunk):
                connection.sendall(b"a" * chunk)
        error, close = read_all(connection).decode().splitlines()
    assert json.loads(error[1:])[1] == "frame_too_large"
    assert json.loads(close[1:])[2]["code"] == 4501


@pytest.mark.parametrize("method", [b"BREW", b"patch", b"counter.add"])
def test_a_page_cannot_send_lines_in_the_body_of_a_request(server, method):
    """Of its own origin, by DNS rebinding, it may choose any method."""
    head = b" /a HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 19\r\n\r\n"
    answer = server.raw(method + head + b"counter.add pwned 1\r\n")
    error, close = answer.decode().splitlines()
    assert json.loads(error[1:])[1] == "protocol_error"
    assert json.loads(close[1:])[2]["code"] == 4500
    assert server.inline("counter.get pwned") == ["0"]


def test_a_long_script_piped_in(server):
    lines = [f"counter.add piped:{number % 7}" for number in range(5_000)]
    names = json.dumps([f"piped:{number}" for number in range(7)])
    answers = server.inline(*lines, f"counter.get_many {names}")
    assert len(answers) == 5_001
    assert sum(json.loads(answers[-1])["values"]) == 5_000


# --- HTTP ---


def test_probes(server):
    for path in ("livez", "readyz"):
        answer = server.raw(f"GET /{path} HTTP/1.1\r\nHost: {server.address[0]}\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_http_in_pieces(server):
    with server.connect() as connection:
        for byte in b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":
            connection.sendall(bytes([byte]))
            time.sleep(0.001)
        assert read_all(connection).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_giant_head(server):
    with server.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /livez HTTP/1.1\r\n" + b"X: " + b"y" * MIB)
        assert read_all(connection).startswith(b"HTTP/1.1 431 ")


def test_a_slow_head_is_cut(server):
    with server.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")


def test_pipelined_probes_that_are_never_read(server):
    before = server.rss_bytes()
    with server.connect() as connection:
        connection.setblocking(False)
        end = time.monotonic() + 2
        sent = 0
        while time.monotonic() < end:
            try:
                sent += connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
            except BlockingIOError:
                select.select([], [connection], [], 0.1)
            except ConnectionError:
                break
        assert sent
        assert server.rss_bytes() - before < 20 * MIB


# --- half-closed, vanished ---


def test_a_half_closed_connection_gets_its_replies(server):
    requests = [[0, n, "counter.add", ["half"], {"ack": "synced"}] for n in range(100)]
    with server.connect() as connection:
        connection.sendall(b"".join(map(frame, requests)))
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    replies = cut(answer)
    assert sorted(reply[1] for reply in replies) == [*range(100)]


def test_a_half_closed_subscriber_gets_its_pushes(server):
    with server.client() as reader, server.client() as writer:
        reader.call("channel.subscribe", "half")
        reader.socket.shutdown(socket.SHUT_WR)
        writer.call("channel.publish", "half", 1)
        writer.call("channel.publish", "half", 2, ack="synced")
        assert [reader.push()[1]["data"] for _ in range(2)] == [1, 2]
        reader.close()
        for _ in range(2):  # the first push to the closed end tells the server
            writer.call("channel.publish", "half", 3)
            time.sleep(0.05)


@pytest.mark.torture
def test_a_half_closed_subscriber_that_vanishes_is_found(server):
    """Without a push only keepalive tells, when the other kernel has forgotten the socket."""
    with server.client() as reader:
        reader.call("channel.subscribe", "nothing:comes")
        reader.socket.shutdown(socket.SHUT_WR)
    eventually(lambda: not stats(server)["subscriptions"], timeout_s=150)


def test_peers_that_vanish_in_the_middle_of_everything(server):
    """Resets with half a frame sent, with replies unread, with a sync awaited, while subscribed."""
    for number in range(60):
        client = server.client()
        client.send("channel.subscribe", f"gone:{number % 3}")
        client.send("channel.publish", f"gone:{number % 3}", "x" * 10_000, ack="synced")
        client.send("channel.history", f"gone:{number % 3}")
        client.socket.sendall(b"\x00\x00\x10\x00\x94"[: number % 6])
        if number % 2:
            client.read()
        client.reset()


def test_thousands_of_connections_come_and_go(server):
    before = 0
    for round_number in range(4):
        with contextlib.ExitStack() as stack:
            connections = []
            for number in range(500):
                connection = stack.enter_context(server.connect())
                connection.sendall(
                    (b"", b"\r\n", b"G", b"GET /", b"server.ping\n")[number % 5]
                    or frame([0, 1, "channel.subscribe", ["many"]])
                )
                connections.append(connection)
            with server.client() as client:
                client.call("channel.publish", "many", round_number)
        assert eventually(lambda: alone(server, others=1))
        if round_number == 0:
            before = server.rss_bytes()
    assert server.rss_bytes() - before < 8 * MIB


# --- peers that do not read ---


def flood(connection, data, seconds):
    """Sends as long as the server takes it; True when the connection ended."""
    connection.setblocking(False)
    view = memoryview(data)
    end = time.monotonic() + seconds
    position = 0
    while time.monotonic() < end:
        _, writable, _ = select.select([], [connection], [], 0.2)
        if not writable:
            continue
        try:
            position = (position + connection.send(view[position:])) % len(data)
        except BlockingIOError:
            continue
        except ConnectionError:
            return True
    return False


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """A server that waits only two seconds for a peer to take a byte."""
    folder = tmp_path_factory.mktemp("impatient")
    (folder / "config.toml").write_text("[limits]\noutbox_stuck_ms = 2000\n")
    with ServerProcess(folder / "data", "--config", str(folder / "config.toml")) as process:
        yield process


def test_a_client_that_sends_and_never_reads(impatient):
    server = impatient
    with server.client() as client:
        client.call("channel.publish_many", [["big", "x" * 20_000]] * 20)
    before = server.rss_bytes()
    requests = b"".join(frame([0, n, "channel.history", ["big"]]) for n in range(500))
    with server.client() as client:
        flood(client.socket, requests, 1.5)
        assert server.rss_bytes() - before < 25 * MIB
        eventually(lambda: stats(server)["closes"].get("slow_consumer"))
    assert eventually(lambda: stats(server)["connections"] == 1)


def test_a_subscriber_that_never_reads(impatient):
    server = impatient
    closes = stats(server)["closes"].get("slow_consumer", 0)
    before = server.rss_bytes()
    with server.client() as reader, server.client() as writer, server.client() as good:
        reader.call("channel.subscribe", "news")
        good.call("channel.subscribe", "news")
        for number in range(60):
            writer.call("channel.publish_many", [["news", "x" * 100_000]] * 5)
            for _ in range(5):
                good.push()
            if number % 10 == 0:
                assert server.rss_bytes() - before < 40 * MIB
        writer.call("channel.publish_many", [["news", "x" * 1_000]] * 1_000)
        eventually(lambda: stats(server)["closes"].get("slow_consumer", 0) > closes)
        frames = reader.read_to_end()
    offsets = [message[2]["offset"] for message in frames if message[1] == "message"]
    assert offsets == [*range(1, len(offsets) + 1)]
    assert eventually(lambda: stats(server)["connections"] == 1)


def test_a_slow_reader_comes_back_for_the_rest(impatient):
    server = impatient
    with server.client() as writer:
        writer.call("channel.publish", "back", 0)
        with server.client() as reader:
            first = reader.call("channel.subscribe", "back", {"last": 1})
            position = [first["epoch"], first["offset"]]
            reader.reset()
        writer.call("channel.publish_many", [["back", n] for n in range(1, 901)])
        with server.client() as reader:
            reader.send_body([0, 99, "server.hello", {"positions": {"back": position}}])
            hello = reader.read()[3]["channels"]["back"]
            assert hello["recovered"]
            got = [message["data"] for message in hello["messages"]]
            while len(got) < 900:
                got.append(reader.push()[1]["data"])
    assert got == [*range(1, 901)]


def test_a_flood_of_requests_leaves_room_for_others(server):
    """Two connections flood; a third gets its answers meanwhile."""
    requests = b"".join(frame([0, n, "counter.add", ["flood"]]) for n in range(2_000))
    stop = threading.Event()

    def pour():
        with server.connect() as connection:
            reader = threading.Thread(target=read_all, args=(connection,), daemon=True)
            reader.start()
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    connection.sendall(requests)
                connection.shutdown(socket.SHUT_WR)
            reader.join(20)

    floods = [threading.Thread(target=pour) for _ in range(2)]
    for thread in floods:
        thread.start()
    with server.client() as client:
        for _ in range(20):
            client.call("counter.add", "calm", ack="synced")
    stop.set()
    for thread in floods:
        thread.join(30)
    assert server.inline("counter.get calm") == ["20"]


def test_memory_does_not_grow_with_connections_and_errors(server):
    """The collector is off: cycles in connections or errors would show as a slope."""

    def misbehave():
        for number in range(300):
            with contextlib.suppress(ConnectionError):
                if number % 3 == 0:
                    server.raw(b"\x00\x00\x00\x01\xc1")
                elif number % 3 == 1:
                    server.raw(b"nope 1\ncounter.add\n")
                else:
                    server.raw(b"GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n")

    misbehave()
    eventually(lambda: alone(server, others=1))
    before = server.rss_bytes()
    for _ in range(3):
        misbehave()
    eventually(lambda: alone(server, others=1))
    assert server.rss_bytes() - before < 3 * MIB
