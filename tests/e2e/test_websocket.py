"""WebSocket clients that others wrote, and peers that behave badly, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess

import aiohttp
import msgpack
import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.process import ServerProcess, cut, eventually, frame, read_all
from tests.websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawWebSocket,
    client_frame,
    close_payload,
    handshake,
    message,
    request,
)

JSON, MSGPACK = "rt1.json", "rt1.msgpack"
CONNECTIONS = 200
TIMEOUT_S = 20


def url(server):
    host, port = server.address
    return f"ws://{host}:{port}/ws"


def encoded(protocol, *bodies):
    if protocol == MSGPACK:
        return b"".join(map(frame, bodies))
    return "\n".join(json.dumps(body, ensure_ascii=False) for body in bodies)


def decoded(data):
    if isinstance(data, bytes):
        return cut(data)
    return [json.loads(line) for line in data.splitlines()]


def call(request_id, method, *params, **options):
    return [0, request_id, method, list(params), options]


@pytest.fixture(params=[JSON, MSGPACK])
def protocol(request):
    return request.param


@pytest.fixture(autouse=True)
def _nothing_is_left(server):
    """Every test leaves the server well and without its connections."""
    yield

    def alone():
        with server.client() as client:
            return client.call("server.stats")["connections"] == 1

    assert eventually(alone)


# --- the `websockets` client ---


class Library:
    """A client of the `websockets` library: frames in order, however they share messages."""

    def __init__(self, connection, protocol):
        self.connection = connection
        self.protocol = protocol
        self.frames = []

    async def say(self, *bodies):
        await self.connection.send(encoded(self.protocol, *bodies))

    async def hear(self):
        while not self.frames:
            self.frames = decoded(await asyncio.wait_for(self.connection.recv(), TIMEOUT_S))
        return self.frames.pop(0)


@contextlib.asynccontextmanager
async def library(server, protocol, **options):
    async with websockets.connect(
        url(server), subprotocols=[protocol], max_size=None, **options
    ) as connection:
        assert connection.subprotocol == protocol
        yield Library(connection, protocol)


async def test_requests_and_pushes(server, protocol):
    async with library(server, protocol) as reader, library(server, protocol) as writer:
        await reader.say(call(1, "server.hello"), call(2, "channel.subscribe", f"talk:{protocol}"))
        hello, subscribed = await reader.hear(), await reader.hear()
        assert hello[1:3] == [1, None]
        assert subscribed[3]["offset"] == 0
        for number in range(1, 51):
            await writer.say(call(number, "channel.publish", f"talk:{protocol}", {"n": number}))
        for number in range(1, 51):
            _, method, params = await reader.hear()
            assert method == "message"
            assert (params["offset"], params["data"]) == (number, {"n": number})
            assert (await writer.hear())[1] == number


async def test_the_default_sub_protocol_and_a_foreign_one(server):
    async with websockets.connect(url(server)) as connection:
        assert connection.subprotocol is None
        await connection.send('[0, 1, "server.ping", []]')
        assert json.loads(await connection.recv())[:3] == [1, 1, None]
    with pytest.raises(InvalidStatus) as refused:
        async with websockets.connect(url(server), subprotocols=["chat", "soap"]):
            pass
    assert refused.value.response.status_code == 400
    assert b"rt1.msgpack, rt1.json" in refused.value.response.body


async def test_compression_is_declined(server):
    async with websockets.connect(url(server), compression="deflate") as connection:
        assert not connection.protocol.extensions


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536, 1_000_000])
async def test_large_messages_come_back(server, protocol, size):
    text = "ä" * (size // 2)
    async with library(server, protocol) as client:
        await client.say(call(1, "channel.publish", f"large:{protocol}:{size}", text))
        await client.say(call(2, "channel.history", f"large:{protocol}:{size}"))
        assert (await client.hear())[2] is None
        messages = (await client.hear())[3]["messages"]
        if size < 200_000:  # a larger one does not fit a page
            assert messages[0]["data"] == text
        await client.say(call(3, "channel.subscribe", f"large:{protocol}:{size}", {"last": 1}))
        reply = await client.hear()
        if not reply[3]["messages"]:
            assert (await client.hear())[2]["data"] == text


async def test_fragments(server, protocol):
    data = encoded(protocol, call(1, "counter.add", "fragments"), call(2, "server.ping"))
    async with library(server, protocol) as client:
        await client.connection.send([data[at : at + 3] for at in range(0, len(data), 3)])
        assert [(await client.hear())[1] for _ in range(2)] == [1, 2]


async def test_pings_among_requests(server, protocol):
    async with library(server, protocol) as client:
        for number in range(20):
            await client.say(call(number, "server.ping"))
            await asyncio.wait_for(await client.connection.ping(), TIMEOUT_S)
            await client.connection.pong()
            assert (await client.hear())[1] == number


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_the_clients_close(server, protocol, code):
    async with library(server, protocol) as client:
        await client.say(call(1, "counter.add", "closing", ack="synced"))
        await client.connection.close(code, "bye")
        assert client.connection.close_code == code
        assert decoded(await client.connection.recv())[0][:3] == [1, 1, None]  # asked before


async def test_a_message_that_is_too_large(server, protocol):
    async with library(server, protocol) as client:
        data = encoded(protocol, call(1, "a", "x" * 1_100_000))
        with contextlib.suppress(ConnectionClosed):
            await client.connection.send(data)
        with pytest.raises(ConnectionClosed) as closed:
            await client.connection.recv()
        assert closed.value.rcvd.code == 1009
        assert "1048580" in closed.value.rcvd.reason


async def test_a_message_of_the_other_kind(server, protocol):
    async with library(server, protocol) as client:
        await client.connection.send("x" if protocol == MSGPACK else b"x")
        with pytest.raises(ConnectionClosed) as closed:
            await client.connection.recv()
        assert closed.value.rcvd.code == 1003


async def test_a_message_that_is_no_frame(server, protocol):
    async with library(server, protocol) as client:
        await client.connection.send("{" if protocol == JSON else b"\x00\x00\x00\x01\xc1")
        error, push = await client.hear(), await client.hear()
        assert error[2][1] == "protocol_error"
        assert push[2]["code"] == 4500
        with pytest.raises(ConnectionClosed) as closed:
            await client.connection.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4500, "protocol_error")
        assert closed.value.sent is not None  # the client has answered ours


async def test_many_connections(server):
    """Each gets every publication, once, in order, in its own form."""
    forms = [JSON, MSGPACK]
    async with contextlib.AsyncExitStack() as stack:
        clients = await asyncio.gather(
            *[
                stack.enter_async_context(library(server, forms[number % 2]))
                for number in range(CONNECTIONS)
            ]
        )
        for client in clients:
            await client.say(call(1, "channel.subscribe", "crowd"))
        for client in clients:
            assert (await client.hear())[2] is None
        for number in range(20):
            await clients[0].say(call(2, "channel.publish", "crowd", number))
        for client in clients:
            pushes = []
            while len(pushes) < 20:
                heard = await client.hear()
                if heard[0] == 2:
                    pushes.append(heard[2]["data"])
            assert pushes == list(range(20))


# --- aiohttp ---


async def test_aiohttp(server, protocol):
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url(server), protocols=(protocol,), compress=15) as client:
            assert client.protocol == protocol
            assert not client.compress
            send = client.send_bytes if protocol == MSGPACK else client.send_str
            await send(encoded(protocol, call(1, "counter.add", "aiohttp", 2)))
            heard = await client.receive(TIMEOUT_S)
            assert decoded(heard.data)[0][:3] == [1, 1, None]
            await client.ping(b"hello")
            await send(encoded(protocol, call(2, "channel.publish", "aiohttp", "x" * 300_000)))
            assert decoded((await client.receive(TIMEOUT_S)).data)[0][2] is None
            await client.close(code=4321)
            assert client.close_code == 4321
        async with session.get(url(server).replace("ws:", "http:")) as answer:
            assert answer.status == 426
            assert answer.headers["Upgrade"] == "websocket"


# --- node ---

NODE_CLIENT = """
const [url, lib] = process.argv.slice(1);
const WebSocket = lib ? require(lib) : globalThis.WebSocket;
const heard = [];
const ws = new WebSocket(url, ["rt1.json"]);
ws.onopen = () => {
  ws.send(JSON.stringify([0, 1, "channel.subscribe", ["node"]]));
  ws.send(JSON.stringify([0, 2, "channel.publish", ["node", "x".repeat(100000) + "\\u20ac"]]));
};
ws.onmessage = (event) => {
  heard.push(JSON.parse(event.data));
  if (heard.length === 3) {
    if (lib) { ws.on("pong", () => ws.close(4321, "bye")); ws.ping("now"); }
    else ws.close(4321, "bye");
  }
};
ws.onerror = (event) => { console.log(JSON.stringify({error: String(event.message)})); };
ws.onclose = (event) => {
  const data = heard.filter((one) => one[0] === 2).map((one) => one[2].data);
  const end = data[0] && data[0].slice(-1);
  console.log(JSON.stringify({protocol: ws.protocol, count: heard.length, end,
    length: data[0] && data[0].length, code: event.code, clean: event.wasClean}));
};
"""


def node(*arguments, **environment):
    return subprocess.run(
        ["node", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def builtin_option():
    """What makes node's own WebSocket appear; None where it has none."""
    for options in ([], ["--experimental-websocket"]):
        if node(*options, "-p", "typeof WebSocket").stdout.strip() == "function":
            return options
    return None


def check_node(server, *arguments):
    done = node(*arguments)
    assert json.loads(done.stdout) == {
        "protocol": "rt1.json",
        "count": 3,
        "end": "€",
        "length": 100_001,
        "code": 4321,
        "clean": True,
    }, done.stderr


def test_the_websocket_of_node(server):
    if shutil.which("node") is None or (options := builtin_option()) is None:
        pytest.skip("no node with a WebSocket of its own (22 or newer)")
    check_node(server, *options, "-e", NODE_CLIENT, url(server))


def test_npm_ws(server):
    """The package is looked for where node, Debian (node-ws) and `npm --global` put it."""
    if shutil.which("node") is None:
        pytest.skip("no node")
    places = ["ws", "/usr/share/nodejs/ws", "/usr/lib/node_modules/ws"]
    places.append("/usr/local/lib/node_modules/ws")
    found = [place for place in places if node("-e", f"require('{place}')").returncode == 0]
    if not found:
        pytest.skip("no npm package ws (apt install node-ws, or npm install --global ws)")
    check_node(server, "-e", NODE_CLIENT, url(server), found[0])


# --- handshakes ---


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (426, {"Upgrade": ""}),
        (426, {"Connection": "keep-alive"}),
        (426, {"Sec_WebSocket_Version": "8"}),
        (426, {"Sec_WebSocket_Version": ""}),
        (400, {"Sec_WebSocket_Key": ""}),
        (400, {"Sec_WebSocket_Key": "c2hvcnQ="}),
        (400, {"Sec_WebSocket_Protocol": "chat"}),
    ],
)
def test_handshakes_that_are_refused(server, status, changes):
    answer = server.raw(handshake(**changes))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"application/problem+json" in answer
    if "Sec_WebSocket_Version" in changes:
        assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer


def test_other_methods_and_older_http(server):
    for changed in (b"POST /ws HTTP/1.1", b"GET /ws HTTP/1.0"):
        answer = server.raw(handshake().replace(b"GET /ws HTTP/1.1", changed))
        assert answer.startswith(b"HTTP/1.1 40")


def test_requests_right_behind_the_handshake(server):
    """A client may send before it has read the response, in whatever pieces."""
    data = handshake(protocol=MSGPACK) + request(1, "server.ping") + client_frame(CLOSE)
    with server.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), 11):
            connection.sendall(data[at : at + 11])
        answer = read_all(connection)
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert rest.endswith(b"\x88\x00")
    assert cut(rest[2:-2])[0][:3] == [1, 1, None]


# --- peers that behave badly ---


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (client_frame(TEXT, b"x", mask=None), 1002),
        (client_frame(TEXT, b"x", reserved=4), 1002),
        (client_frame(0, b"x"), 1002),
        (client_frame(TEXT, declared=1 << 62, length_bytes=8), 1009),
        (client_frame(TEXT, declared=1 << 63, length_bytes=8), 1002),
        (message(TEXT, *[b""] * 65), 1009),
        (client_frame(TEXT, b"\xff"), 1007),
        (b"\x00" * 1_000, 1002),
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
    ],
)
def test_violations(server, data, code):
    """The peer learns the code even while it goes on sending."""
    with RawWebSocket(server.address) as peer:
        peer.send(client_frame(TEXT, b'[0,1,"server.ping",[]]'))
        with contextlib.suppress(ConnectionError):
            peer.send(data, b"x" * 300_000)
        peer.socket.shutdown(socket.SHUT_WR)
        pong, (opcode, payload) = peer.read_to_end()
        assert json.loads(pong[1])[1] == 1
        assert opcode == CLOSE
        assert int.from_bytes(payload[:2], "big") == code


@pytest.mark.parametrize("data", [b"", b"\x81", client_frame(TEXT, b"x" * 50)[:30]])
@pytest.mark.parametrize("how", ["reset", "end", "half"])
def test_abrupt_ends(server, data, how):
    peer = RawWebSocket(server.address)
    peer.send(client_frame(TEXT, b'[0,1,"channel.subscribe",["abrupt"]]'), data)
    peer.read()
    if how == "reset":
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif how == "half":
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.read_to_end()[-1][1][:2] == (1002).to_bytes(2, "big")
    peer.close()


def test_a_flood_of_pings_is_answered(server):
    with RawWebSocket(server.address) as peer:
        peer.send(client_frame(PING, b"flood") * 20_000, client_frame(CLOSE))
        heard = peer.read_to_end()
    assert heard == [(PONG, b"flood")] * 20_000 + [(CLOSE, b"")]


# --- servers of their own ---


def test_a_peer_that_never_reads_is_closed_and_disturbs_nobody(tmp_path):
    config = tmp_path / "rt.toml"
    config.write_text("[limits]\noutbox_stuck_ms = 1_000\n")
    with (
        ServerProcess(tmp_path / "data", "--config", config) as process,
        RawWebSocket(process.address, MSGPACK) as slow,
        process.client() as writer,
    ):
        slow.send(request(1, "channel.subscribe", "torrent"))
        slow.read()
        before = process.rss_bytes()
        for _ in range(600):
            writer.call("channel.publish", "torrent", b"x" * 20_000)
        assert process.rss_bytes() - before < 64 << 20
        assert eventually(lambda: writer.call("server.stats")["closes"]) == {"slow_consumer": 1}


def test_a_peer_that_answers_no_ping_is_cut(tmp_path):
    config = tmp_path / "rt.toml"
    config.write_text("[limits]\nws_ping_ms = 1_000\n")
    with (
        ServerProcess(tmp_path / "data", "--config", config) as process,
        RawWebSocket(process.address) as silent,
        RawWebSocket(process.address) as alive,
    ):
        assert silent.read() == (PING, b"")
        for _ in range(2):
            assert alive.read() == (PING, b"")
            alive.send(client_frame(PONG))
        push, goodbye = silent.read_to_end()
        assert json.loads(push[1])[2]["name"] == "idle_timeout"
        assert goodbye == (CLOSE, close_payload(4002, "idle_timeout"))
        alive.send(client_frame(TEXT, b'[0,1,"server.ping",[]]'))
        while (heard := alive.read())[0] == PING:
            pass
        assert json.loads(heard[1])[1] == 1


def test_a_server_that_stops_says_goodbye(tmp_path):
    with ServerProcess(tmp_path / "data") as process:
        peers = [RawWebSocket(process.address, protocol) for protocol in (JSON, MSGPACK)]
        process.process.terminate()
        for peer in peers:
            heard = []
            while not heard or heard[-1][0] != CLOSE:
                heard.append(peer.read())
            bodies = [
                msgpack.unpackb(data[4:]) if code == BINARY else json.loads(data)
                for code, data in heard[:-1]
            ]
            assert bodies[-1][:2] == [2, "close"]
            assert bodies[-1][2]["name"] == "drain"
            assert heard[-1] == (CLOSE, close_payload(4000, "drain"))
            peer.send(client_frame(CLOSE, close_payload(4000)))
            assert peer.read_to_end() == []
            peer.close()
        assert process.stop() == 0
