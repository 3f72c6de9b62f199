"""An echo server on the server's own WebSocket streams, for conformance suites:

    python -m tests.e2e.echo PORT

speaks at ws://127.0.0.1:PORT/ws; every message comes back as it was sent. Handshake, parser,
control frames, closing and flow control are those of rtserver.transport.websocket; only what a
message means is another thing. Port 0 takes a free one; the first line of output names it.
"""

from __future__ import annotations

import asyncio
import sys

from rtserver.limits import FRAME_BYTES_CEILING, Limits
from rtserver.transport import websocket
from rtserver.transport.engine import Progress
from rtserver.transport.listener import FirstBytes
from rtserver.wire.websocket import BINARY, TEXT, Parser, frame
from rtserver.wire.wsforms import JSON
from tests.transport.rig import Rig

LIMITS = Limits(
    frame_bytes_max=FRAME_BYTES_CEILING,
    ws_fragments_max=1 << 20,  # suites cut 4 MiB into fragments of 64 bytes
    http_request_ms_max=10_000,
)


class EchoParser(Parser):
    """Says before each message what kind it is."""

    __slots__ = ()

    def next(self):
        found = super().next()
        if found is None or found[0] not in (TEXT, BINARY):
            return found
        opcode, payload = found
        return opcode, bytes((opcode,)) + payload


class Echo:
    """The requests of a connection: messages that want to go back."""

    def __init__(self, _engine, connection):
        self.connection = connection
        self.messages = []

    def receive(self, messages):
        self.messages += messages

    def run(self):
        while self.messages:
            if self.connection.congested:
                return Progress.BLOCKED
            message = self.messages.pop(0)
            self.connection.send(frame(message[0], message[1:]))
        return Progress.IDLE


async def serve(port):
    websocket.Parser = EchoParser
    websocket._PROTOCOLS = {"rt1.json": websocket.SubProtocol(JSON, (TEXT, BINARY), Echo)}
    rig = Rig(LIMITS)
    server = await asyncio.get_running_loop().create_server(
        lambda: FirstBytes(rig.hub), "127.0.0.1", port
    )
    host, number = server.sockets[0].getsockname()
    sys.stdout.write(f"{host} {number}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
