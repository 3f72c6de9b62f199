"""A server on several listeners: TLS, unix sockets, admin listeners; real clients of each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import time

import aiohttp
import pytest
import trustme
import websockets.sync.client

from rtserver.session.auth import secret_hash
from tests.process import (
    ANSWER_TIMEOUT_S,
    ErrorReply,
    ServerProcess,
    WireClient,
    cli,
    eventually,
    frame,
    read_all,
)

OK, NOT_STARTED, CONFIG = 0, 3, 4


class Site:
    """A server with one listener of each kind; certificates of a throwaway authority."""

    def __init__(self, folder):
        self.folder = folder
        self.authority = trustme.CA()
        self.certificate = folder / "cert.pem"
        self.key = folder / "key.pem"
        self.unix = folder / "rt.sock"
        self.issue()
        config = folder / "rt.toml"
        config.write_text(
            f"""
[[listeners]]
listen = "127.0.0.1:0"
tls = {{ certificate = "{self.certificate}", key = "{self.key}" }}

[[listeners]]
listen = "unix:{self.unix}"

[[listeners]]
listen = "127.0.0.1:0"
admin = true

[limits]
drain_ms = 0
"""
        )
        self.server = ServerProcess(folder / "data", "--config", config)

    def issue(self):
        """A fresh certificate, in the files."""
        made = self.authority.issue_cert("localhost", "127.0.0.1")
        made.private_key_pem.write_to_path(self.key)
        made.cert_chain_pems[0].write_to_path(self.certificate)

    def start(self):
        self.server.start()
        self.secure_port = int(self.server.says(r"listening on rts://127\.0\.0\.1:(\d+)")[1])
        self.admin_port = int(self.server.says(r"listening on rt://\S+:(\d+) \(admin\)")[1])

    def context(self):
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context

    def connect(self, context=None):
        plain = socket.create_connection(("127.0.0.1", self.secure_port), timeout=ANSWER_TIMEOUT_S)
        return (context or self.context()).wrap_socket(plain, server_hostname="localhost")

    def serial(self):
        """Which certificate a new connection is shown."""
        with self.connect() as secure:
            return secure.getpeercert()["serialNumber"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site"))
    site.start()
    yield site
    site.server.kill()


def http_status(connection, path="/livez"):
    with connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return int(connection.recv(1 << 16).split()[1])


# --- TLS ---


def test_frames_over_tls(site):
    with WireClient(site.connect()) as client:
        assert client.call("counter.add", "tls", 2) == 2
        assert client.call("counter.add", "tls", 1, ack="synced") == 3


def test_inline_over_tls(site):
    with site.connect() as secure:
        secure.sendall(b"counter.add inline 5\n")
        assert secure.recv(100) == b"5\n"


async def test_https_and_wss(site):
    url = f"https://localhost:{site.secure_port}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/livez", ssl=site.context()) as response:
            assert response.status == 200
        async with session.post(
            f"{url}/v1/call/counter.add", json=["https", 4], ssl=site.context()
        ) as response:
            assert await response.json() == 4


def test_wss(site):
    with websockets.sync.client.connect(
        f"wss://localhost:{site.secure_port}/ws", ssl=site.context(), subprotocols=["rt1.json"]
    ) as connection:
        connection.send(json.dumps([0, 1, "counter.add", ["wss", 7]]))
        assert json.loads(connection.recv(timeout=ANSWER_TIMEOUT_S)) == [1, 1, None, 7]


def test_versions_and_alpn(site):
    context = site.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with site.connect(context) as secure:
        assert secure.version() == "TLSv1.3"
        assert secure.selected_alpn_protocol() == "http/1.1"
    context = site.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with WireClient(site.connect(context)) as client:
        assert client.call("server.ping")["now"]
    old = subprocess.run(
        ["openssl", "s_client", "-tls1_1", "-connect", f"127.0.0.1:{site.secure_port}"],
        capture_output=True,
        timeout=ANSWER_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert old.returncode != 0


def test_what_is_large_comes_whole_in_both_directions(site):
    with WireClient(site.connect()) as client:
        text = "x" * 900_000
        client.call("channel.publish", "large", text)
        pages = client.call("channel.history", "large")
        assert pages["messages"][0]["data"] == text


def test_many_requests_in_small_records_are_answered_in_order(site):
    with site.connect() as secure:
        for number in range(300):
            for byte in f"counter.add records {number}\n".encode():
                secure.sendall(bytes([byte]))
        answers = b""
        while answers.count(b"\n") < 300:
            answers += secure.recv(1 << 16)
        assert answers.splitlines()[-1] == str(sum(range(300))).encode()


def test_a_closed_sending_half_is_answered(site):
    """As over plain TCP: close_notify ends one direction (RFC 8446 section 6.1)."""
    context = site.context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", site.secure_port), timeout=20) as plain:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(1 << 16))
        tls.write(b"counter.add half 1 ack=synced\n")
        with pytest.raises(ssl.SSLError):
            tls.unwrap()  # says close_notify, and finds no answer yet
        plain.sendall(outgoing.read())
        plain.shutdown(socket.SHUT_WR)
        incoming.write(read_all(plain))
        incoming.write_eof()
    assert tls.read(1_000) == b"1\n"
    with pytest.raises(ssl.SSLZeroReturnError):
        tls.read(1_000)  # the server says its end too


def test_a_slow_reader_over_tls_is_closed_and_costs_bounded_memory(site):
    with WireClient(site.connect()) as client:
        for _ in range(5):
            client.call("channel.publish", "slow", "x" * 200_000)
        before = site.server.rss_bytes()
        for _ in range(100):
            client.send("channel.history", "slow")
        with site.server.client() as other:
            eventually(lambda: "slow_consumer" in other.call("server.stats")["closes"])
        assert site.server.rss_bytes() - before < 64 << 20


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\xff\xff" + b"\x00" * 1000,
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(4096),
        b"\x16\x03\x01\x00\x05hello",
    ],
)
def test_garbage_instead_of_a_handshake_disturbs_nobody(site, garbage):
    with socket.create_connection(("127.0.0.1", site.secure_port), timeout=20) as plain:
        plain.sendall(garbage)
        plain.shutdown(socket.SHUT_WR)
        read_all(plain)
    with WireClient(site.connect()) as client:
        assert client.call("server.ping")["now"]


def test_garbage_after_the_handshake_ends_that_connection_only(site):
    context = site.context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", site.secure_port), timeout=20) as plain:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(1 << 16))
        plain.sendall(outgoing.read() + b"\x17\x03\x03\x00\x20" + b"forged" * 10)
        read_all(plain)
    with WireClient(site.connect()) as client:
        assert client.call("server.ping")["now"]


def test_a_tls_hello_on_the_plain_port_gets_a_line(site):
    assert b"no TLS" in site.server.raw(b"\x16\x03\x01\x02\x00")


# --- certificates that change ---


def test_sighup_takes_a_new_certificate_for_new_connections(site):
    before = site.serial()
    with WireClient(site.connect()) as older:
        site.issue()
        site.server.process.send_signal(signal.SIGHUP)
        eventually(lambda: site.serial() != before)
        site.server.says("reloaded the certificate")
        assert older.call("server.ping")["now"]


def test_a_bad_file_keeps_the_certificate_and_is_told(site):
    before = site.serial()
    kept = site.key.read_bytes()
    other = trustme.CA().issue_cert("localhost")
    other.private_key_pem.write_to_path(site.key)  # of another certificate
    site.server.process.send_signal(signal.SIGHUP)
    site.server.says(rf"not reloaded: {site.certificate}: .*{site.key}")
    assert site.serial() == before
    site.key.unlink()
    site.server.process.send_signal(signal.SIGHUP)
    site.server.says(rf"not reloaded: {site.key}: cannot be read")
    assert site.serial() == before
    site.key.write_bytes(kept)


@pytest.mark.parametrize("fault", ["certificate missing", "key missing", "no PEM", "other key"])
def test_a_certificate_that_cannot_be_used_is_told_at_the_start(tmp_path, fault):
    site = Site(tmp_path)
    guilty = site.certificate
    if fault == "certificate missing":
        site.certificate.unlink()
    elif fault == "key missing":
        site.key.unlink()
        guilty = site.key
    elif fault == "no PEM":
        site.certificate.write_text("hello")
    else:
        trustme.CA().issue_cert("x").private_key_pem.write_to_path(site.key)
    done = cli(
        "serve", "--dev", "--config", tmp_path / "rt.toml",
        "--listen", "127.0.0.1:0", "--data", tmp_path / "data",
    )  # fmt: skip
    assert done.returncode == CONFIG
    assert str(guilty) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_an_encrypted_key_is_not_asked_for_at_the_terminal(tmp_path):
    site = Site(tmp_path)
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", site.key, "-out", tmp_path / "locked.pem",
         "-passout", "pass:secret"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    (tmp_path / "locked.pem").replace(site.key)
    done = cli(
        "serve", "--dev", "--config", tmp_path / "rt.toml",
        "--listen", "127.0.0.1:0", "--data", tmp_path / "data",
    )  # fmt: skip
    assert done.returncode == CONFIG
    assert f"{site.key}: is encrypted" in done.stderr


# --- unix sockets ---


def unix(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(ANSWER_TIMEOUT_S)
    connection.connect(str(path))
    return connection


def test_frames_http_and_lines_over_a_unix_socket(site):
    with WireClient(unix(site.unix)) as client:
        assert client.call("counter.add", "unix", 3) == 3
    assert http_status(unix(site.unix)) == 200
    with unix(site.unix) as connection:
        connection.sendall(b"counter.add unix-line ack=synced\n")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b"1\n"


def test_only_its_user_may_use_it(site):
    found = os.lstat(site.unix)
    assert stat.S_IMODE(found.st_mode) == 0o600


def test_a_subscriber_that_vanishes_half_closed_is_noticed(site):
    with site.server.client() as other:
        connection = unix(site.unix)
        connection.sendall(b"channel.subscribe c\n")
        connection.recv(1_000)
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.1)
        connection.close()
        other.call("channel.publish", "c", 1)
        eventually(lambda: other.call("server.stats")["subscriptions"] == 0)


def test_the_file_is_gone_after_a_stop_and_a_stale_one_gives_way(tmp_path):
    site = Site(tmp_path)
    site.start()
    site.server.kill()
    assert site.unix.exists()
    site.start()
    with WireClient(unix(site.unix)) as client:
        assert client.call("server.ping")["now"]
    assert site.server.stop() == OK
    assert not site.unix.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "in use"])
def test_what_is_not_a_stale_socket_is_left_alone(tmp_path, kind):
    site = Site(tmp_path)
    if kind == "file":
        site.unix.write_text("precious")
    elif kind == "folder":
        site.unix.mkdir()
    else:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(site.unix))
        listening.listen()
    done = cli(
        "serve", "--dev", "--config", tmp_path / "rt.toml",
        "--listen", "127.0.0.1:0", "--data", tmp_path / "data",
    )  # fmt: skip
    assert done.returncode == NOT_STARTED
    assert str(site.unix) in done.stderr
    assert "Traceback" not in done.stderr
    assert site.unix.exists()


# --- admin ---


def test_metrics_are_on_the_admin_listener_only(site):
    plain = socket.create_connection(site.server.address, timeout=ANSWER_TIMEOUT_S)
    assert http_status(plain, "/metrics") == 404
    assert http_status(site.connect(), "/metrics") == 404
    assert http_status(unix(site.unix), "/metrics") == 404
    admin = socket.create_connection(("127.0.0.1", site.admin_port), timeout=ANSWER_TIMEOUT_S)
    assert http_status(admin, "/metrics") == 200


def test_without_an_admin_listener_metrics_are_everywhere(tmp_path):
    with ServerProcess(tmp_path / "data") as server:
        assert http_status(server.connect(), "/metrics") == 200


# --- access ---


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:0", "example.com:0"])
def test_dev_is_for_local_listeners_only(tmp_path, address):
    config = tmp_path / "rt.toml"
    config.write_text(f'[[listeners]]\nlisten = "{address}"\n')
    done = cli("serve", "--dev", "--config", config, "--data", tmp_path / "data")
    assert done.returncode == CONFIG
    assert address in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('listen = "unix:relative"', "expected unix:/PATH"),
        (f'listen = "unix:/{"x" * 200}"', "at most 103 bytes"),
        ('listen = "localhost"', "expected HOST:PORT"),
        ("listen = 5", "listeners[0].listen is 5, expected str"),
        ('listen = "unix:/x"\nadmn = true', "did you mean listeners[0].admin?"),
        ('listen = "unix:/x"\ntls = {certificate = "a"}', "listeners[0].tls.key is missing"),
    ],
)
def test_mistakes_are_explained(tmp_path, text, said):
    config = tmp_path / "rt.toml"
    config.write_text(f"[[listeners]]\n{text}\n")
    done = cli("serve", "--dev", "--config", config, "--data", tmp_path / "data")
    assert done.returncode == CONFIG
    assert said in done.stderr


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = tmp_path / "rt.toml"
        config.write_text(f'[[listeners]]\nlisten = "{address}"\n')
        done = cli(
            "serve", "--dev", "--config", config,
            "--data", tmp_path / "data", "--listen", "127.0.0.1:0",
        )  # fmt: skip
    assert done.returncode == NOT_STARTED
    assert address in done.stderr


# --- who is there ---

SECRET = "sesame"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server that wants to know who is there, behind proxies."""
    folder = tmp_path_factory.mktemp("guarded")
    config = folder / "rt.toml"
    config.write_text(
        f"""
[auth.services.shop]
hash = "{secret_hash(SECRET)}"

[web]
trusted_proxies = ["127.0.0.0/8", "10.0.0.0/8", "unix"]

[[listeners]]
listen = "unix:{folder}/rt.sock"

[limits]
unauthenticated_ms_max = 400
unauthenticated_bytes_max = 10_000
drain_ms = 0
"""
    )
    with ServerProcess(folder / "data", "--config", config, dev=False) as server:
        yield server


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
        ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 203.0.113.9, 10.0.0.3\r\n", "203.0.113.9"),
        ("X-Forwarded-For: rubbish\r\n", "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("through", ["tcp", "unix"])
def test_the_address_behind_trusted_proxies_is_logged(guarded, header, address, through):
    if through == "unix":
        connection = unix(guarded.data.parent / "rt.sock")
        address = None if address == "127.0.0.1" else address
    else:
        connection = guarded.connect()
    name = os.urandom(8).hex()
    body = json.dumps([name, "ann", 1])
    with connection:
        connection.sendall(
            (
                "POST /v1/call/board.submit HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer key:shop:{SECRET}\r\nIdempotency-Key: {name}\r\n{header}"
                "Content-Type: application/json\r\nConnection: close\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode()
        )
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")
    records = map(json.loads, cli("log", "dump", guarded.data).stdout.splitlines())
    (record,) = [record for record in records if name in json.dumps(record)]
    assert ("203.0.113.9" in json.dumps(record)) == (address == "203.0.113.9")
    assert ("127.0.0.1" in json.dumps(record)) == (address == "127.0.0.1")
    assert "6.6.6.6" not in json.dumps(record)


def test_silence_and_secrecy_end(guarded):
    with guarded.connect() as silent, guarded.client() as nobody, guarded.client() as shop:
        shop.call("server.hello", None, None, f"key:shop:{SECRET}")
        with pytest.raises(ErrorReply, match=r"forbidden|unauthenticated"):
            nobody.call("counter.get", "a")
        assert read_all(silent) == b""
        assert nobody.read_to_end()[-1][2]["name"] == "unauthenticated"
        assert shop.call("server.ping")["now"]


def test_a_flood_from_nobody_ends(guarded):
    with guarded.client() as nobody:
        with contextlib.suppress(ConnectionError):
            nobody.socket.sendall(frame([2, "server.ping", []]) * 20_000)
        with contextlib.suppress(ConnectionError):
            assert nobody.read_to_end()[-1][2]["name"] == "unauthenticated"
    with guarded.client() as shop:
        assert shop.call("server.hello", None, None, f"key:shop:{SECRET}")["session"]


def test_a_tls_handshake_that_never_ends(tmp_path):
    site = Site(tmp_path)
    config = tmp_path / "rt.toml"
    config.write_text(config.read_text() + "silent_ms_max = 300\n")
    site.start()
    with socket.create_connection(("127.0.0.1", site.secure_port), timeout=20) as half:
        half.sendall(b"\x16\x03\x01\x02")
        assert read_all(half) == b""
    assert site.server.stop() == OK


# --- memory ---


def test_a_server_above_its_memory_says_so(tmp_path):
    config = tmp_path / "rt.toml"
    config.write_text("[limits]\nmemory_max = 1_000_000\n")
    with ServerProcess(tmp_path / "data", "--config", config) as server, server.client() as client:
        assert http_status(server.connect(), "/livez") == 200
        assert eventually(lambda: http_status(server.connect(), "/readyz") == 503)
        assert b"memory_full" in server.raw(
            b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        metrics = server.raw(
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert b"rtserver_memory_full 1.0" in metrics
        assert b'rtserver_limit{limit="memory_max"} 1e+06' in metrics
        with pytest.raises(ErrorReply, match=r"limits\.memory_max") as refused:
            client.call("counter.add", "new")
        assert refused.value.name == "memory_full"
        assert client.call("server.stats")["memory"]["full"]
