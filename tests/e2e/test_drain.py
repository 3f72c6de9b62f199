"""SIGTERM under load: what was answered holds, everybody is told, and nobody comes back at once."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time

import pytest

from tests.process import ErrorReply, ServerProcess, eventually, read_all

OK = 0
WINDOW_MS = 3_000


@pytest.fixture
def server(tmp_path):
    config = tmp_path / "rt.toml"
    config.write_text(f"[limits]\ndrain_ms = {WINDOW_MS}\n")
    with ServerProcess(tmp_path / "data", "--config", config) as server:
        yield server


def terminate(server):
    server.process.send_signal(signal.SIGTERM)


def pushes_until_the_end(client):
    return [frame[1:] for frame in client.read_to_end() if frame[0] == 2]


def assert_spread(delays, window_ms=WINDOW_MS):
    """Even shares of the window: with 60 of them, chance fails this once in 10**7 runs."""
    assert all(0 <= delay <= window_ms for delay in delays)
    assert len(set(delays)) > len(delays) * 0.8
    halves = sum(delay < window_ms / 2 for delay in delays)
    assert 0.15 < halves / len(delays) < 0.85


def test_sessions_are_told_and_have_time(server):
    clients = [server.client() for _ in range(60)]
    for client in clients:
        client.call("server.hello")
        client.call("channel.subscribe", "c")
    terminate(server)
    drains = [client.push() for client in clients]
    assert {method for method, _ in drains} == {"drain"}
    assert_spread([params["retry_after_ms"] for _, params in drains])
    # They are served meanwhile: replies, syncs and pushes.
    assert clients[0].call("counter.add", "a", ack="synced") == 1
    clients[1].call("channel.publish", "c", "late")
    assert clients[2].push()[1]["data"] == "late"
    closes = [pushes_until_the_end(client)[-1] for client in clients]
    assert {(method, params["name"]) for method, params in closes} == {("close", "drain")}
    assert_spread([params.get("retry_after_ms", 0) for _, params in closes])
    assert server.process.wait(30) == OK
    server.start()
    assert server.inline("counter.get a") == ["1"]


def test_who_has_no_session_goes_at_once(server):
    with server.client() as told, server.client() as raw:
        told.call("server.hello")
        raw.call("channel.subscribe", "c")
        terminate(server)
        assert pushes_until_the_end(raw)[-1][0] == "close"
        assert told.push()[0] == "drain"
        assert told.call("server.ping")["now"], "the one with a session is still served"


def test_it_ends_when_all_have_left(server):
    clients = [server.client() for _ in range(5)]
    for client in clients:
        client.call("server.hello")
    terminate(server)
    for client in clients:
        assert client.push()[0] == "drain"
        client.close()
    assert server.process.wait(30) == OK


def test_a_second_signal_ends_the_waiting(tmp_path):
    config = tmp_path / "rt.toml"
    config.write_text("[limits]\ndrain_ms = 3600000\n")
    with ServerProcess(tmp_path / "data", "--config", config) as server:
        with server.client() as client:
            client.call("server.hello")
            client.call("counter.add", "a", 5)
            terminate(server)
            assert client.push()[0] == "drain"
            terminate(server)
            assert server.process.wait(30) == OK
        server.start()
        assert server.inline("counter.get a") == ["5"]


@pytest.mark.parametrize("with_client", [False, True])
def test_without_a_window_or_a_client_it_stops_at_once(tmp_path, with_client):
    config = tmp_path / "rt.toml"
    config.write_text(f"[limits]\ndrain_ms = {0 if with_client else 3_600_000}\n")
    with ServerProcess(tmp_path / "data", "--config", config) as server:
        if with_client:
            client = server.client()
            client.call("server.hello")
        assert server.stop() == OK
        if with_client:
            ((method, params),) = pushes_until_the_end(client)
            assert method == "close"
            assert "retry_after_ms" not in params


# --- under load ---


class Writer(threading.Thread):
    """Adds one and waits for the reply, again and again, until the server closes."""

    def __init__(self, server, name, *, ack, hello):
        super().__init__()
        self.client = server.client()
        if hello:
            self.client.call("server.hello")
        self.counter = name
        self.ack = ack
        self.acknowledged = 0
        self.under_way = threading.Event()

    def run(self):
        try:
            while True:
                value = self.client.call("counter.add", self.counter, ack=self.ack)
                assert value == self.acknowledged + 1
                self.acknowledged = value
                self.under_way.set()
        except (EOFError, ConnectionError):
            pass


@pytest.mark.parametrize("hello", [True, False])
def test_what_was_acknowledged_under_load_is_there_after(tmp_path, hello):
    config = tmp_path / "rt.toml"
    config.write_text("[limits]\ndrain_ms = 500\n")
    with ServerProcess(tmp_path / "data", "--config", config) as server:
        writers = [
            Writer(server, f"w{number}", ack="synced" if number % 2 else "logged", hello=hello)
            for number in range(8)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            assert writer.under_way.wait(20)
        terminate(server)
        assert server.process.wait(30) == OK
        for writer in writers:
            writer.join(20)
            assert not writer.is_alive()
        server.start()
        for writer in writers:
            # A reply that left was for something applied and logged; each was waited for, and a
            # connection is closed only when no reply is due, so nothing was applied in silence.
            (value,) = server.inline(f"counter.get {writer.counter}")
            assert int(value) == writer.acknowledged
            assert any(push[0] == "close" for push in writer.client.pushes)


def test_many_connections_are_drained(server):
    clients = [server.client() for _ in range(700)]
    ids = [client.send("server.hello") for client in clients]
    for client, request_id in zip(clients, ids, strict=True):
        client.reply(request_id)
    terminate(server)
    assert_spread([client.push()[1]["retry_after_ms"] for client in clients])
    for client in clients:
        client.close()
    assert server.process.wait(30) == OK


# --- HTTP ---


def get(connection, path):
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def post(connection, path, value):
    body = json.dumps(value)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )


def test_http_is_told_to_come_back_later(server):
    """On connections that are kept alive; new ones are not accepted any more."""
    probe, caller, socket_asker = (server.connect() for _ in range(3))
    for connection in (probe, caller, socket_asker):
        get(connection, "/livez")
        assert b" 200 " in connection.recv(1 << 16)
    with server.client() as client:
        client.call("server.hello")
        terminate(server)
        assert client.push()[0] == "drain"
        get(probe, "/readyz")
        answer = read_all(probe)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"stopping" in answer
        post(caller, "/v1/call/counter.add", ["a"])
        answer = read_all(caller)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 4\r\n" in answer
        assert b"\r\nConnection: close\r\n" in answer
        get(socket_asker, "/ws")
        assert read_all(socket_asker).startswith(b"HTTP/1.1 503 ")
        with pytest.raises(ConnectionError):
            socket.create_connection(server.address, timeout=5)


def test_streams_and_polls_are_told(server):
    stream, poll = server.connect(), server.connect()
    get(stream, "/v1/stream?channels=c")
    told = b""
    while b"subscribed" not in told:
        told += stream.recv(1 << 16)
    get(poll, "/v1/poll?channels=c")
    cursor = json.loads(poll.recv(1 << 16).partition(b"\r\n\r\n")[2])["cursor"]
    get(poll, f"/v1/poll?channels=c&cursor={cursor}")
    with server.client() as client:
        eventually(lambda: client.call("server.stats")["subscriptions"] >= 2)
    terminate(server)
    answer = read_all(poll).partition(b"\r\n\r\n")[2]
    assert json.loads(answer)["messages"][0][1] == "drain"
    while b"retry_after_ms" not in told:
        told += stream.recv(1 << 16)
    assert b'"drain"' in told
    told += read_all(stream)
    assert b'"close"' in told
    assert server.process.wait(30) == OK


def test_a_call_that_waits_for_its_sync_is_answered(server):
    connections = [server.connect() for _ in range(20)]
    for connection in connections:
        post(connection, "/v1/call/counter.add", ["a"])
        connection.recv(1 << 16)
    for connection in connections:
        body = json.dumps(["a"])
        connection.sendall(
            "POST /v1/call/counter.add?ack=synced HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
    terminate(server)
    statuses = [read_all(connection).split()[1] for connection in connections]
    assert set(statuses) <= {b"200", b"503"}
    assert server.process.wait(30) == OK
    server.start()
    (value,) = server.inline("counter.get a")
    assert int(value) == 20 + statuses.count(b"200")


def test_a_snapshot_that_is_being_made_does_not_keep_it(server):
    with server.client() as client:
        client.call("server.hello")
        client.send("server.snapshot")
        terminate(server)
        started = time.monotonic()
        assert server.process.wait(60) == OK
        assert time.monotonic() - started < 60
        with pytest.raises((ErrorReply, EOFError, ConnectionError)):
            client.call("server.ping")
