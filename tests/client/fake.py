"""A server that a test controls: it speaks frames, says hello, and does the rest as it is told.

`answer(peer, request)` is called for each request but hello; the default answers the parameters
back. Requests, connections and hellos are kept for inspection.
"""

from __future__ import annotations

import asyncio

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

    def __init__(self, answer=None, channels=None):
        self.answer = answer or (lambda peer, request: peer.reply(request, request[3]))
        self.channels = channels or {}  # what hello answers for positions
        self.peers = []
        self.hellos = []
        self.arrived = asyncio.Event()

    def hello(self, peer, request):
        channels = {name: self.channels[name] for name in request[3].get("positions") or {}}
        peer.reply(request, {"session": "s", "channels": channels, "limits": LIMITS})

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
        self.listener = await loop.create_server(lambda: Peer(self), "127.0.0.1", port)
        self.port = self.listener.sockets[0].getsockname()[1]

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
