"""HTTP against a real server: aiohttp and curl as clients, raw sockets for those who mean harm,
streams and polls that lose nothing while the server is killed and started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import socket
import subprocess
import threading
import time

import aiohttp
import pytest

from tests.process import ServerProcess, cli, eventually, read_all
from tests.transport.web import HOST, JSON, call, get, post, read_events, responses

TIMEOUT = aiohttp.ClientTimeout(total=30)
MIB = 1 << 20
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(autouse=True)
def nothing_is_left(server):
    yield
    eventually(lambda: quiet(server))
    assert server.process.poll() is None


def quiet(server):
    with server.client() as client:
        stats = client.call("server.stats")
        return stats["connections"] == 1 and not stats["subscriptions"]


@pytest.fixture
async def http(server):
    async with aiohttp.ClientSession(url(server), timeout=TIMEOUT) as session:
        yield session


def url(server):
    return f"http://{server.address[0]}:{server.address[1]}"


async def rpc(http, method, params=None, **headers):
    async with http.post(f"/v1/call/{method}", json=params or [], headers=headers) as response:
        return await response.json()


# --- aiohttp ---


async def test_calls(http):
    assert await rpc(http, "counter.add", ["e2e:a", 2]) == 2
    assert await rpc(http, "counter.add", {"name": "e2e:a", "ack": "synced"}) == 3
    async with http.post("/v1/call/board.rank", json=["none", "x"]) as response:
        assert response.status == 404
        assert response.content_type == "application/problem+json"
        assert (await response.json(content_type=None))["name"] == "not_found"
    async with http.head("/livez") as response:
        assert response.status == 200
        assert await response.read() == b""


async def test_many_at_a_time_on_few_connections(server):
    connector = aiohttp.TCPConnector(limit=4)
    async with aiohttp.ClientSession(url(server), connector=connector, timeout=TIMEOUT) as http:
        adds = [{"name": "e2e:many", "ack": ("synced", "logged")[n % 2]} for n in range(200)]
        values = await asyncio.gather(*[rpc(http, "counter.add", params) for params in adds])
    assert sorted(values) == [*range(1, 201)]


async def test_retries_count_once(http):
    keys = {"Idempotency-Key": "retry-1"}
    values = [await rpc(http, "counter.add", ["e2e:once"], **keys) for _ in range(3)]
    assert values == [1, 1, 1]


async def test_a_batch(http):
    calls = [["counter.add", ["e2e:b"]]] * 1_000
    async with http.post("/v1/batch", json=calls) as response:
        assert [one["result"] for one in await response.json()] == [*range(1, 1_001)]


async def test_chunked_bodies_and_waiting_for_100(http):
    async def body():
        yield b'["e2e:chunked"'
        await asyncio.sleep(0.01)
        yield b", 5]"

    headers = {"Content-Type": "application/json"}
    async with http.post("/v1/call/counter.add", data=body(), headers=headers, expect100=True) as r:
        assert (r.status, await r.json()) == (200, 5)


async def test_a_body_that_is_too_large_is_told(http):
    for size in (2 * MIB, 8 * MIB):
        async with http.post(
            "/v1/call/counter.add", data=b" " * size, headers={"Content-Type": "application/json"}
        ) as response:
            assert response.status == 413


async def test_metrics_are_prometheus_text(http):
    from prometheus_client.parser import text_string_to_metric_families

    await rpc(http, "counter.add", ["e2e:m"])
    async with http.get("/metrics") as response:
        assert response.content_type == "text/plain"
        families = {
            family.name: family for family in text_string_to_metric_families(await response.text())
        }
    assert families["rtserver_commands"].samples[0].value >= 1
    turns = {sample.name: sample.value for sample in families["rtserver_turn_seconds"].samples}
    assert turns["rtserver_turn_seconds_count"] >= 1
    assert families["process_resident_memory_bytes"].samples[0].value > MIB
    limits = {s.labels["limit"]: s.value for s in families["rtserver_limit"].samples}
    used = {s.labels["limit"]: s.value for s in families["rtserver_limit_used"].samples}
    assert limits.keys() == used.keys()
    assert used["connections_max"] >= 1
    for name, family in families.items():
        assert family.documentation, name
        assert name.startswith(("rtserver_", "process_"))


# --- event streams ---


def test_a_flood_of_scrapes_is_one_scrape_a_turn(server):
    """Each would cost half a millisecond of everybody's time."""
    found = responses(server.raw(get("/metrics") * 15))
    assert [one.status for one in found] == [200] * 15
    assert len({one.body for one in found}) <= 5  # the bytes that were sent are in it


async def test_a_stream(http):
    async with http.get("/v1/stream", params={"channels": "sse:a,sse:b"}) as response:
        assert response.content_type == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        ((first, _),) = await read_events(response, 1)
        assert set(first[2]["channels"]) == {"sse:a", "sse:b"}
        await rpc(http, "channel.publish", ["sse:a", "ä\n\n"])
        ((push, _),) = await read_events(response, 1)
        assert push[2]["data"] == "ä\n\n"


async def test_a_stream_goes_on_after_a_restart_of_the_server(tmp_path):
    """Killed and stopped while somebody publishes: by the last id everything comes, once, in
    order."""
    found = {"r:a": [], "r:b": []}
    sent = []
    cursor = None
    for resumed, number in ((False, 20), (True, 15), (True, 10)):
        with ServerProcess(tmp_path / "data") as server:
            async with aiohttp.ClientSession(url(server), timeout=TIMEOUT) as http:
                params = {"channels": "r:a,r:b"}
                headers = {"Last-Event-ID": cursor} if cursor else {}
                async with http.get("/v1/stream", params=params, headers=headers) as response:
                    ((first, cursor),) = await read_events(response, 1)
                    for channel, reply in first[2]["channels"].items():
                        assert reply["recovered"] is resumed
                        found[channel] += [message["data"] for message in reply["messages"]]
                    for _ in range(20):
                        sent.append(len(sent))
                        await rpc(http, "channel.publish", [f"r:{'ab'[sent[-1] % 2]}", sent[-1]])
                    read = await read_events(response, number)
                    cursor = read[-1][1]
                    for push, _ in read:
                        found[push[2]["channel"]].append(push[2]["data"])
            if number == 15:
                assert server.stop() == 0
    assert found == {"r:a": [*range(0, 50, 2)], "r:b": [*range(1, 50, 2)]}


@needs_curl
def test_curl_follows_and_calls(server):
    stream = subprocess.Popen(
        ["curl", "-sN", "--max-time", "20", f"{url(server)}/v1/stream?channels=curl:a"],
        stdout=subprocess.PIPE,
    )
    try:
        assert stream.stdout.readline().startswith(b"retry: ")
        assert b"subscribed" in stream.stdout.readline()
        done = subprocess.run(
            [
                *("curl", "-s", "--http2", "-H", JSON, "-d", '["curl:a", {"x": 1}]'),
                f"{url(server)}/v1/call/channel.publish",
            ],
            capture_output=True,
            timeout=20,
            check=True,
        )
        assert json.loads(done.stdout)["offset"] == 1
        lines = [stream.stdout.readline() for _ in range(4)]
        assert json.loads(lines[2].removeprefix(b"data: "))[2]["data"] == {"x": 1}
    finally:
        stream.kill()
        stream.wait(10)


async def test_many_streams_hear_one_publication(http):
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(http._base_url, connector=connector, timeout=TIMEOUT) as readers,
        contextlib.AsyncExitStack() as stack,
    ):
        streams = [
            await stack.enter_async_context(readers.get("/v1/stream", params={"channels": "fan"}))
            for _ in range(200)
        ]
        for stream in streams:
            await read_events(stream, 1)
        for number in range(5):
            await rpc(http, "channel.publish", ["fan", number])
        for stream in streams:
            found = await read_events(stream, 5)
            assert [push[2]["data"] for push, _ in found] == [*range(5)]
            assert len({cursor for _, cursor in found}) == 5


# --- long polls ---


async def test_a_loop_of_polls_misses_nothing_while_others_publish(http):
    total = 600
    found = {"poll:a": [], "poll:b": []}

    async def read():
        params = {"channels": "poll:a,poll:b", "timeout_ms": "5000"}
        async with http.get("/v1/poll", params=params) as response:
            params["cursor"] = (await response.json())["cursor"]
        ready.set()
        while sum(map(len, found.values())) < total:
            async with http.get("/v1/poll", params=params) as response:
                answer = await response.json()
            for _, method, push in answer["messages"]:
                assert method == "message"
                found[push["channel"]].append(push["data"])
            params["cursor"] = answer["cursor"]

    async def publish(channel, start):
        for number in range(start, start + total // 4):
            ack = "synced" if number % 7 == 0 else "logged"
            await rpc(http, "channel.publish", {"channel": channel, "data": number, "ack": ack})

    ready = asyncio.Event()
    reader = asyncio.create_task(read())
    await ready.wait()
    await asyncio.gather(
        publish("poll:a", 0),
        publish("poll:a", 1_000),
        publish("poll:b", 0),
        publish("poll:b", 1_000),
    )
    await asyncio.wait_for(reader, 30)
    for numbers in found.values():
        assert sorted(numbers) == [*range(150), *range(1_000, 1_150)]
        for start in (0, 1_000):
            part = [number for number in numbers if start <= number < start + 150]
            assert part == sorted(part)


async def test_a_poll_goes_on_after_a_kill(tmp_path):
    data = tmp_path / "data"
    with ServerProcess(data) as server:
        async with aiohttp.ClientSession(url(server), timeout=TIMEOUT) as http:
            async with http.get("/v1/poll", params={"channels": "k"}) as response:
                cursor = (await response.json())["cursor"]
            for number in range(5):
                await rpc(http, "channel.publish", ["k", number])
        server.kill()
    with ServerProcess(data) as server:
        async with (
            aiohttp.ClientSession(url(server), timeout=TIMEOUT) as http,
            http.get("/v1/poll", params={"channels": "k", "cursor": cursor}) as response,
        ):
            answer = await response.json()
    assert [push[2]["data"] for push in answer["messages"]] == [*range(5)]


# --- who means harm ---


SMUGGLED = call("counter.add", ["smuggled"])


@pytest.mark.parametrize(
    "head",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Content-Length: 5", "Content-Length: 0"],
        ["Content-Length: 0", "Content-Length: 5"],
        ["Content-Length: 0, 5"],
        ["Content-Length: +0"],
        ["Content-Length : 5"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding : chunked"],
        ["Transfer-Encoding:\x0bchunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["Transfer-Encoding: identity", "Content-Length: 0"],
        ["X: a\r\n Content-Length: 5"],
        ["X: a\nContent-Length: 5"],
        ["X: a\rContent-Length: 5"],
        ["X: \x00", "Content-Length: 0"],
        ["Host: other", "Content-Length: 0"],
        ["Connection: Upgrade", "Upgrade: websocket", "Content-Length: 5"],
    ],
    ids=repr,
)
def test_nothing_is_smuggled(server, head):
    """Whichever way another reader would see it: what may be hidden in a body is not run."""
    text = get("/v1/call/server.ping", JSON, *head, method="POST") + b"0\r\n\r\n" + SMUGGLED
    (refused,) = responses(server.raw(text))
    assert refused.status in (400, 501)
    assert server.inline("counter.get smuggled") == ["0"]


def test_a_form_of_a_foreign_page_cannot_call(server):
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain"):
        text = post(
            "/v1/call/counter.add", b'["csrf"]', "Connection: close", kind=f"Content-Type: {kind}"
        )
        assert responses(server.raw(text))[0].status == 415
        foreign = post("/v1/call/counter.add", ["csrf"], "Origin: https://evil.example")
        assert responses(server.raw(foreign))[0].status == 403
    for headers in (["Origin: https://evil.example"], ["Sec-Fetch-Site: cross-site"]):
        for path in ("/v1/stream?channels=csrf", "/v1/poll?channels=csrf"):
            assert responses(server.raw(get(path, *headers)))[0].status == 403
    rebound = call("counter.add", ["csrf"]).replace(HOST.encode(), b"Host: evil.example")
    assert responses(server.raw(rebound))[0].status == 403
    assert server.inline("counter.get csrf") == ["0"]


def test_slow_requests_are_cut_and_hurt_nobody(server):
    """A byte now and then keeps nobody's place for longer than a request may take."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(60)]
        texts = [
            get("/livez", "X: ")[:-4],
            call("counter.add", ["slow"])[:-2],
            b"GET /",
            b"POST /v1",
        ]
        for place, connection in enumerate(slow):
            connection.sendall(texts[place % len(texts)])
        open_ones = set(slow)
        while open_ones and time.monotonic() - started < 20:
            for connection in list(open_ones):
                with contextlib.suppress(OSError):
                    connection.sendall(b" " if connection in slow[1::4] else b"y")
                connection.setblocking(False)
                try:
                    if b"408" in (data := connection.recv(4_096)) or not data:
                        open_ones.discard(connection)
                except BlockingIOError:
                    pass
                except OSError:
                    open_ones.discard(connection)
                connection.setblocking(True)
            assert server.inline("counter.get slow") == ["0"]
            time.sleep(0.2)
    assert not open_ones
    assert time.monotonic() - started < 18


def test_endless_trailers_and_chunks_hold_little(server):
    before = server.rss_bytes()
    chunked = get("/v1/batch", JSON, "Transfer-Encoding: chunked", method="POST")
    for start in (chunked + b"0\r\nTrailer: ", chunked + b"1;", chunked):
        with server.connect() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(start)
                for _ in range(64):
                    piece = b"1\r\n \r\n" * 20_000 if start is chunked else b"x" * MIB
                    connection.sendall(piece)
            answer = read_all(connection)
        assert not answer or responses(answer)[0].status in (400, 413, 431)
    assert server.rss_bytes() - before < 20 * MIB


def test_streams_that_are_never_read_hold_little(server):
    before = server.rss_bytes()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(server.connect())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.sendall(get("/v1/stream?channels=deaf"))
        with server.client() as writer:
            for number in range(300):
                writer.call("channel.publish", "deaf", str(number) + "x" * 20_000)
        assert server.rss_bytes() - before < 40 * MIB


def test_answers_that_are_never_read_hold_little(server):
    with server.client() as writer:
        for number in range(12):
            writer.call("channel.publish", "unread", str(number) + "x" * 20_000)
    before = server.rss_bytes()
    asked = call("channel.history", ["unread"]) * 200
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(server.connect())
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.send(asked)
        time.sleep(1)
        assert server.inline("counter.get none") == ["0"]
        assert server.rss_bytes() - before < 40 * MIB


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_after_a_good_beginning(server, seed):
    chance = random.Random(seed)
    good = [
        get("/livez"),
        call("server.ping"),
        get("/v1/poll?channels=r"),
        post("/v1/batch", [["server.ping", []]]),
    ]
    for _ in range(50):
        text = bytearray(b"".join(chance.choices(good, k=3)))
        for _ in range(chance.randrange(1, 6)):
            text[chance.randrange(5, len(text))] = chance.randrange(256)
        server.raw(bytes(text))
    assert server.process.poll() is None


def test_readers_come_and_go_while_others_call(server):
    stopping = threading.Event()

    def come_and_go():
        while not stopping.is_set():
            with contextlib.suppress(OSError), server.connect() as connection:
                connection.sendall(get("/v1/stream?channels=go,come") + b"x" * 100)
                connection.recv(100)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        with server.client() as client:
            for number in range(200):
                client.call("channel.publish", "go", number)
    finally:
        stopping.set()
        for thread in threads:
            thread.join(10)


# --- pages ---


def test_pages_of_development(tmp_path):
    (tmp_path / "pages" / "js").mkdir(parents=True)
    (tmp_path / "pages" / "index.html").write_text("<p>hello")
    (tmp_path / "pages" / "js" / "a.mjs").write_text("1")
    (tmp_path / "secret").write_text("s")
    with ServerProcess(tmp_path / "data", "--pages", tmp_path / "pages") as server:
        for path, status, body in (
            ("/", 200, b"<p>hello"),
            ("/index.html?x", 200, b"<p>hello"),
            ("/js/a.mjs", 200, b"1"),
            ("/js/", 404, None),
            ("/../secret", 404, None),
            ("/%2e%2e/secret", 404, None),
            ("//etc/passwd", 404, None),
        ):
            (response,) = responses(server.raw(get(path)))
            assert response.status == status
            assert body is None or response.body == body
        assert b"text/javascript" in server.raw(get("/js/a.mjs"))
        assert b"text/html" in server.raw(get("/"))


def test_pages_are_for_development_only(tmp_path):
    done = cli("serve", "--pages", tmp_path, "--data", tmp_path / "data")
    assert done.returncode == 4
    done = cli("serve", "--dev", "--pages", tmp_path / "none", "--data", tmp_path / "data")
    assert done.returncode == 4
    assert "expected a directory" in done.stderr
