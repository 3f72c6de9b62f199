"""One client over every kind of connection; what differs is known to no other test."""

from __future__ import annotations

import asyncio
import ssl

import pytest
import trustme

import rtclient
import rtclient.sync
from rtclient import link as link_module
from tests.client.fake import FakeServer, FakeWebServer, WebPeer, in_thread, until


class FragmentingServer(FakeWebServer):
    """Sends everything in three frames, one of them empty."""

    def __init__(self, answer=None, channels=None):
        super().__init__(answer, channels, fragments=True)


class UnixServer(FakeServer):
    """At the path of a socket."""

    path = ""

    async def listen(self, port=0):
        loop = asyncio.get_running_loop()
        self.listener = await loop.create_unix_server(lambda: self.new_peer(), self.path)
        self.port = 0

    @property
    def url(self):
        return f"rt+unix://{self.path}"


@pytest.fixture(params=[FakeServer, FakeWebServer, FragmentingServer, UnixServer])
def kind(request, tmp_path):
    UnixServer.path = str(tmp_path / "s")
    return request.param


def silent(peer, request):
    """Answers nothing."""


async def test_calls_of_one_turn_leave_in_one_message(kind):
    async with kind() as server, rtclient.connect(server.url) as rt:
        results = await asyncio.gather(*(rt.counter.get(str(n)) for n in range(100)))
        assert results == [[str(n)] for n in range(100)]
        assert server.peer.reads == [1, 100]


async def test_large_frames_go_both_ways(kind):
    async with kind() as server, rtclient.connect(server.url) as rt:
        data = b"x" * 900_000
        assert await rt.call("echo", data) == [data]
        assert await asyncio.gather(*(rt.call("echo", n, data) for n in range(3))) == [
            [n, data] for n in range(3)
        ]


async def test_it_reconnects_and_resumes(kind):
    def subscribed(peer, request):
        peer.reply(request, {"epoch": "e", "offset": 0, "recovered": False, "messages": []})

    message = {"offset": 1, "data": "x", "at": 0}
    resumed = {"epoch": "e", "offset": 1, "recovered": True, "messages": [message]}
    async with kind(subscribed, {"c": resumed}) as server, rtclient.connect(server.url) as rt:
        async with rt.channel.subscribe("c") as messages:
            server.answer = silent
            write = rt.counter.set("x", 1)
            await until(lambda: len(server.requests) == 2)
            server.answer = lambda peer, request: peer.reply(request, {"ok": True})
            server.peer.cut()
            assert await write == {"ok": True}
            assert (await anext(messages)).data == "x"
        assert server.hellos[1]["positions"] == {"c": ["e", 0]}
        assert server.hellos[1]["session"] == "s"


async def test_the_first_connection_fails_fast(kind):
    async with kind() as server:
        url = server.url
    with pytest.raises(rtclient.ConnectionLost, match=r"cannot connect to \w+"):
        await rtclient.connect(url)


@pytest.mark.parametrize(("code", "comes_back"), [(4000, True), (4501, False)])
async def test_a_close_of_the_server_says_whether_to_come_back(kind, code, comes_back):
    async with kind() as server:
        rt = await rtclient.connect(server.url)
        server.peer.close(code)
        if comes_back:
            await server.next_peer(2)
            assert await rt.call("echo", 1) == [1]
        else:
            await until(lambda: not rt.connected)
            with pytest.raises(rtclient.ConnectionLost, match="because"):
                rt.counter.get("x")
        await rt.close()


async def test_what_is_no_frame_ends_the_connection_not_the_client(kind):
    async with kind() as server, rtclient.connect(server.url) as rt:
        server.peer.transport.write(b"\xff" * 100)
        await server.next_peer(2)
        assert await rt.call("echo", 1) == [1]


# --- WebSocket ---


async def test_closing_says_goodbye():
    async with FakeWebServer() as server:
        rt = await rtclient.connect(server.url)
        socket = server.peer.socket
        await rt.close()
        await asyncio.wait_for(socket.wait_closed(), 10)
        assert socket.close_code == 1000


async def test_it_says_who_it_is_in_the_handshake():
    async with FakeWebServer() as server:
        headers = {"Authorization": "Bearer t", "X-Shop": "1"}
        async with rtclient.connect(server.url + "/live?a=1", headers=headers):
            head = server.heads[0]
        assert head.path == "/live?a=1"
        assert head.headers["Authorization"] == "Bearer t"
        assert "Origin" not in head.headers


async def test_pings_of_the_server_are_answered():
    async with FakeWebServer() as server, rtclient.connect(server.url):
        pong = await server.peer.socket.ping(b"hello")
        await asyncio.wait_for(pong, 10)


@pytest.mark.parametrize(("code", "comes_back"), [(1001, True), (1009, False), (4503, False)])
async def test_a_bare_close_frame_counts_by_its_code(code, comes_back):
    async with FakeWebServer() as server:
        rt = await rtclient.connect(server.url)
        await server.peer.socket.close(code, "so")
        if comes_back:
            await server.next_peer(2)
        else:
            await until(lambda: not rt.connected)
            with pytest.raises(rtclient.ConnectionLost, match=f"{code}: so"):
                rt.counter.get("x")
        await rt.close()


async def test_a_text_message_ends_the_connection():
    async with FakeWebServer() as server, rtclient.connect(server.url) as rt:
        await server.peer.socket.send("text")
        await server.next_peer(2)
        assert await rt.call("echo", 1) == [1]


async def test_something_that_is_no_websocket_is_an_error_not_a_hang(monkeypatch):
    monkeypatch.setattr(link_module, "_CONNECT_S", 0.2)

    def answering(answer):
        async def handle(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)

        return asyncio.start_server(handle, "127.0.0.1", 0)

    for answer, complaint in [
        (b"HTTP/1.1 404 Not Found\r\n\r\nno such path", "404 Not Found: no such path"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "200 OK"),
        (b"SSH-2.0\r\n\r\n", "not HTTP"),
        (b"", "no answer"),
    ]:
        listener = await answering(answer)
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(rtclient.ConnectionLost, match=complaint):
            await rtclient.connect(f"ws://127.0.0.1:{port}")
        listener.close()


# --- TLS ---


@pytest.fixture
def tls():
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.mark.parametrize("kind", [FakeServer, FakeWebServer])
async def test_tls_is_checked_and_carries_everything(kind, tls):
    theirs, ours = tls
    async with kind(tls=theirs) as server:
        url = server.url.replace("rt:", "rts:").replace("ws:", "wss:")
        url = url.replace("127.0.0.1", "localhost")
        async with rtclient.connect(url, ssl=ours) as rt:
            data = b"x" * 500_000
            assert await rt.call("echo", data) == [data]
            server.peer.cut()
            assert await rt.call("echo", 1) == [1]
        with pytest.raises(rtclient.ConnectionLost, match=r"cannot connect to .*certificate"):
            await rtclient.connect(url)
        with pytest.raises(rtclient.ConnectionLost):
            await rtclient.connect(url.replace("localhost", "127.0.0.1"), ssl=ours)


@pytest.mark.parametrize(
    ("url", "options", "complaint"),
    [
        ("rt://h", {"ssl": ssl.create_default_context()}, "ssl is for rts"),
        ("rt://h", {"headers": {"a": "b"}}, "headers are for ws"),
        ("ws://h", {"headers": {"Host": "b"}}, "own"),
        ("rt://h", {"heartbeat": 0.5}, "heartbeat is 0.5"),
        ("rt://h", {"heartbeat": 4_000}, "heartbeat is 4000"),
    ],
)
async def test_options_that_mean_nothing_are_refused(url, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        await rtclient.connect(url, **options)


# --- blocking ---


@pytest.mark.parametrize("kind", [FakeWebServer, UnixServer])
def test_the_blocking_client_speaks_them_too(kind, tmp_path):
    UnixServer.path = str(tmp_path / "s")
    with in_thread(kind()) as (server, loop), rtclient.sync.connect(server.url) as rt:
        for n in range(100):
            assert rt.call("echo", n) == [n]
        loop.call_soon_threadsafe(server.peer.cut)
        for n in range(100):
            assert rt.call("echo", n) == [n]


def test_a_socket_that_is_not_plain_is_not_lent():
    with in_thread(FakeWebServer()) as (server, _), rtclient.sync.connect(server.url) as rt:
        assert rt._runner.link.connected
        assert rt._runner.link.resting is None
        assert isinstance(server.peer, WebPeer)
