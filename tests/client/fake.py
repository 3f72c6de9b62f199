"""A server that a test controls: it speaks frames, says hello, and does the rest as it is told.

`answer(peer, request)` is called for each request but hello; the default answers the parameters
back. Requests, connections and hellos are kept for inspection.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

import websockets

from rtclient import wire

LIMITS = {"frame_bytes_max": 1_000_000, "subscriptions_max": 1_000, "outbox_hard_bytes": 1_000_000}


class Peer(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, server):
        self.server = server
        self.frames = wire.Frames()
        self.requests = []
        self.reads = []  # requests in each piece that came
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.server.peers.append(self)
        self.server.arrived.set()

    def data_received(self, data):
        values, _ = self.frames.cut(data)
        self.reads.append(len(values))
        for request in values:
            if request[2] == "server.hello":
                self.server.hellos.append(request[3])
                self.server.hello(self, request)
            else:
                self.requests.append(request)
                self.server.answer(self, request)

    def connection_lost(self, error):
        self.lost.set_result(error)

    def send(self, *values):
        pack = wire.Packer().pack
        bodies = [pack(value) for value in values]
        self.transport.write(b"".join(wire.header(len(body)) + body for body in bodies))

    def reply(self, request, result):
        self.send([1, request[1], None, result])

    def refuse(self, request, code, name, message="no"):
        self.send([1, request[1], [code, name, message, None], None])

    def push(self, method, params):
        self.send([2, method, params])

    def close(self, code, name="test", message="because", **more):
        self.push("close", {"code": code, "name": name, "message": message, **more})
        self.transport.close()

    def cut(self):
        self.transport.abort()


class FakeServer:
    """Listens on a free port; `async with FakeServer() as server`."""

    def __init__(self, answer=None, channels=None, *, tls=None):
        self.tls = tls
        self.answer = answer or (lambda peer, request: peer.reply(request, request[3]))
        self.channels = channels or {}  # what hello answers for positions
        self.says = {}  # what else hello answers
        self.peers = []
        self.hellos = []
        self.arrived = asyncio.Event()

    def hello(self, peer, request):
        channels = {name: self.channels[name] for name in request[3].get("positions") or {}}
        said = {"session": "s", "channels": channels, "limits": LIMITS, **self.says}
        peer.reply(request, said)

    @property
    def url(self):
        return f"rt://127.0.0.1:{self.port}"

    @property
    def peer(self):
        return self.peers[-1]

    @property
    def requests(self):
        """Of all connections, in order."""
        return [request for peer in self.peers for request in peer.requests]

    async def listen(self, port=0):
        loop = asyncio.get_running_loop()
        self.listener = await loop.create_server(self.new_peer, "127.0.0.1", port, ssl=self.tls)
        self.port = self.listener.sockets[0].getsockname()[1]

    def new_peer(self):
        return Peer(self)

    async def next_peer(self, count):
        """The peer number `count`, when it has come."""
        while len(self.peers) < count:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 10)
        return self.peers[count - 1]

    async def __aenter__(self):
        await self.listen()
        return self

    async def __aexit__(self, *_):
        self.listener.close()
        for peer in self.peers:
            peer.cut()
        await asyncio.sleep(0)


async def until(condition, timeout_s=10.0):
    """Waits until something is so."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come about"
        await asyncio.sleep(0.002)


class WebPeer(Peer):
    """The same over a WebSocket that the `websockets` library speaks."""

    def __init__(self, server, socket):
        super().__init__(server)
        self.socket = socket
        self.transport = self
        self.writes = asyncio.Queue()
        server.peers.append(self)
        server.arrived.set()

    async def run(self):
        writer = asyncio.create_task(self.write_all())
        try:
            async for message in self.socket:
                assert isinstance(message, bytes)
                self.data_received(message)
        finally:
            writer.cancel()
            self.lost.set_result(None)

    async def write_all(self):
        while True:
            data = await self.writes.get()
            if data is None:
                await self.socket.close(1001, "going")
            elif len(data) > 1 and self.server.fragments:
                half = len(data) // 2
                await self.socket.send([data[:half], b"", data[half:]])
            else:
                await self.socket.send(data)

    def write(self, data):
        self.writes.put_nowait(data)

    def close(self, code=None, name="test", message="because", **more):
        if code is not None:
            self.push("close", {"code": code, "name": name, "message": message, **more})
        self.writes.put_nowait(None)

    def abort(self):
        self.socket.transport.abort()

    def cut(self):
        self.abort()


class FakeWebServer(FakeServer):
    """The same over WebSocket; with `fragments`, in messages of three frames."""

    def __init__(self, answer=None, channels=None, *, tls=None, fragments=False):
        super().__init__(answer, channels, tls=tls)
        self.fragments = fragments
        self.heads = []  # of the handshakes

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}"

    async def listen(self, port=0):
        async def handle(socket):
            self.heads.append(socket.request)
            await WebPeer(self, socket).run()

        self.listener = await websockets.serve(
            handle, "127.0.0.1", port, subprotocols=["rt1.msgpack"], ssl=self.tls
        )
        self.port = self.listener.sockets[0].getsockname()[1]


@contextlib.contextmanager
def in_thread(server):
    """A fake server in a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
    try:
        yield server, loop
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
