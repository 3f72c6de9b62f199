"""Connections of buyers and back ends, over every transport, for tests that cut and kill.

A line carries operations: `run` sends all of them at once and settles each as its answer comes.
When the line is cut, those without an answer stay open, and whoever asked may send them again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct

import msgpack

from tests.process import frame
from tests.websocket import BINARY, CLOSE, TEXT, client_frame, cut, handshake

ANSWER_TIMEOUT_S = 30

OPEN, OK, REFUSED = "open", "ok", "refused"


class Cut(Exception):
    """The connection is gone; what is not answered may have happened or not."""


class Operation:
    """One call, what it was told, and how often it was sent. `told` is the result, or
    [code, name, message, details]."""

    __slots__ = ("method", "options", "params", "sent", "state", "told")

    def __init__(self, method, params, **options):
        self.method = method
        self.params = params
        self.options = options
        self.state = OPEN
        self.told = None
        self.sent = 0

    def __repr__(self):
        said = f"{self.state} {self.told!r} after {self.sent}"
        return f"<{self.method} {self.params!r} {self.options!r}: {said}>"

    @property
    def key(self):
        return self.options.get("idempotency_key")

    @property
    def error(self):
        """The name of its refusal, or None."""
        return self.told[1] if self.state == REFUSED else None

    def settle(self, error, result):
        self.state = OK if error is None else REFUSED
        self.told = result if error is None else error

    def again(self):
        """The same call once more, for itself."""
        return Operation(self.method, self.params, **self.options)


class _Line:
    """`proof`: a token or the secret of a back end."""

    watches = False  # whether it can be told of changes

    def __init__(self, address, proof):
        self.address = address
        self.proof = proof
        self.pushes = []  # [method, params]
        self._reader = self._writer = None

    async def open(self):
        self._reader, self._writer = await asyncio.open_connection(*self.address)
        await self.begin()
        return self

    async def __aenter__(self):
        with _cuts():
            return await asyncio.wait_for(self.open(), ANSWER_TIMEOUT_S)

    async def __aexit__(self, *_):
        self.abort()

    def abort(self):
        if self._writer is not None:
            self._writer.transport.abort()

    async def run(self, operations, *, cut=False, timeout_s=ANSWER_TIMEOUT_S):
        """Settles all of them. `cut`: goes away without having heard. Raises Cut."""
        for one in operations:
            one.sent += 1
        with _cuts():
            self._writer.write(self.encode(operations))
            await self._writer.drain()
            if cut:
                await asyncio.sleep(0)
                self.abort()
                raise Cut
            await asyncio.wait_for(self.answers(operations), timeout_s)

    async def call(self, method, *, timeout_s=ANSWER_TIMEOUT_S, **params):
        """One read, or one write by staff; an error is one of the test."""
        one = Operation(method, params)
        await self.run([one], timeout_s=timeout_s)
        assert one.state == OK, one
        return one.told

    def pushed(self):
        """Messages that came since the last call, as (channel, offset, data)."""
        found = [(one["channel"], one["offset"], one["data"]) for _, one in self.pushes]
        self.pushes.clear()
        return found


@contextlib.contextmanager
def _cuts():
    """Whatever tells of a connection that is gone is a Cut; a server that says nothing is not."""
    try:
        yield
    except (OSError, EOFError) as error:
        if isinstance(error, TimeoutError):
            raise AssertionError("no answer in time") from None
        raise Cut from None


class RtLine(_Line):
    """Binary frames over TCP."""

    watches = True

    async def begin(self):
        self._last_id = 0
        proved = Operation("server.auth", {"token": self.proof})
        self._writer.write(self.encode([proved]))
        await self.answers([proved])
        assert proved.state == OK, proved

    def encode(self, operations):
        return b"".join(self.wrap(self.bodies(operations)))

    def bodies(self, operations):
        self._open = {}
        for one in operations:
            self._last_id += 1
            self._open[self._last_id] = one
            yield [0, self._last_id, one.method, one.params, one.options]

    def wrap(self, bodies):
        return map(frame, bodies)

    async def answers(self, _operations):
        while self._open:
            self.take(await self.read())

    def take(self, bodies):
        for body in bodies:
            if body[0] == 1:
                self._open.pop(body[1]).settle(body[2], body[3])
            else:
                self.pushes.append(body[1:])

    async def read(self):
        (length,) = struct.unpack(">I", await self._reader.readexactly(4))
        return [msgpack.unpackb(await self._reader.readexactly(length), strict_map_key=False)]


class WsLine(RtLine):
    """The same frames in messages of a WebSocket."""

    protocol = "rt1.msgpack"

    async def begin(self):
        self._writer.write(handshake(protocol=self.protocol))
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        self._rest = b""
        await super().begin()

    def wrap(self, bodies):
        yield client_frame(BINARY, b"".join(map(frame, bodies)))

    async def read(self):
        while True:
            frames, self._rest = cut(self._rest)
            if frames:
                break
            data = await self._reader.read(1 << 16)
            if not data:
                raise EOFError
            self._rest += data
        return [body for code, data in frames for body in self.decode(code, data)]

    def decode(self, code, data):
        if code == CLOSE:
            raise EOFError
        unpacker = msgpack.Unpacker(strict_map_key=False)
        while data:
            (length,) = struct.unpack_from(">I", data)
            unpacker.feed(data[4 : 4 + length])
            data = data[4 + length :]
        return list(unpacker)


class JsonLine(WsLine):
    """Arrays as JSON in messages of a WebSocket."""

    protocol = "rt1.json"

    def wrap(self, bodies):
        yield client_frame(TEXT, "\n".join(map(json.dumps, bodies)).encode())

    def decode(self, code, data):
        if code == CLOSE:
            raise EOFError
        return [json.loads(line) for line in data.splitlines()]


class HttpLine(_Line):
    """One request a call, all of them before the first response is read."""

    async def begin(self):
        pass

    def encode(self, operations):
        return b"".join(map(self.request, operations))

    def request(self, one):
        body = {**one.params, **one.options}
        key = body.pop("idempotency_key", None)
        headers = [] if key is None else [f"Idempotency-Key: {json.dumps(key)}"]
        return self.post(f"/v1/call/{one.method}", body, *headers)

    def post(self, path, body, *headers):
        data = json.dumps(body).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
            f"Authorization: Bearer {self.proof}",
            *headers,
        ]
        return "\r\n".join([*lines, "", ""]).encode() + data

    async def answers(self, operations):
        for one in operations:
            status, body = await self.response()
            if status == 200:
                one.settle(None, body)
            else:
                told = [body["code"], body["name"], body["detail"], body.get("details")]
                one.settle(told, None)

    async def response(self):
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        status = int(head.split(" ", 2)[1])
        return status, json.loads(await self._reader.readexactly(length))


class BatchLine(HttpLine):
    """All calls in the body of one request."""

    def encode(self, operations):
        return self.post("/v1/batch", [[o.method, o.params, o.options] for o in operations])

    async def answers(self, operations):
        status, body = await self.response()
        assert status == 200, body
        for one, answer in zip(operations, body, strict=True):
            one.settle(answer.get("error"), answer.get("result"))


LINES = (RtLine, WsLine, JsonLine, HttpLine, BatchLine)
