"""What tests of HTTP share: requests as bytes, responses as values, events of a stream."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tests.transport.rig import FakeTransport, Rig

HOST = "Host: localhost"
JSON = "Content-Type: application/json"


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def get(path: str, *headers: str, method: str = "GET", host: str | None = HOST) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *([host] if host else []), *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(path: str, value: Any = None, *headers: str, kind: str | None = JSON) -> bytes:
    body = b"" if value is None else value if type(value) is bytes else json.dumps(value).encode()
    head = get(
        path, *([kind] if kind else []), f"Content-Length: {len(body)}", *headers, method="POST"
    )
    return head + body


def call(method: str, params: Any = None, *headers: str) -> bytes:
    return post(f"/v1/call/{method}", params, *headers)


def responses(data: bytes, *, bodiless: bool = False) -> list[Response]:
    """Every whole response in the bytes; fails where something else is."""
    found = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, f"half a head: {head!r}"
        line, *fields = head.decode("latin-1").split("\r\n")
        assert line.startswith("HTTP/1.1 "), line
        headers = dict(field.split(": ", 1) for field in fields)
        assert len(headers) == len(fields), f"a header came twice: {fields}"
        status = int(line.split()[1])
        length = int(headers.get("Content-Length", "0"))
        if bodiless or status in (100, 101, 204):
            length = 0
        assert len(data) >= length, "half a body"
        found.append(Response(status, headers, data[:length]))
        data = data[length:]
    return found


def events(data: bytes) -> list[tuple[Any, str]]:
    """(push array, id) of each event of a stream, comments left out."""
    found = []
    for block in data.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if "data" in fields:
            found.append((json.loads(fields["data"]), fields["id"]))
    return found


async def read_events(response: Any, number: int) -> list[tuple[Any, str]]:
    """(push, id) of the next events of an aiohttp response, as the standard says to read them."""
    found: list[tuple[Any, str]] = []
    fields: dict[str, str] = {}
    while len(found) < number:
        line = (await response.content.readline()).decode()
        assert line, "the stream ended"
        line = line.rstrip("\n")
        if not line:
            if "data" in fields:
                found.append((json.loads(fields["data"]), fields["id"]))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
    return found


async def say(rig: Rig, client: FakeTransport, text: bytes = b"") -> bytes:
    """What the server has written to a client, once it heard a text."""
    if text:
        client.protocol.data_received(text)
    await rig.settle()
    return client.bytes()


async def publish(rig: Rig, channel: str, *data: Any) -> None:
    for item in data:
        await say(rig, rig.connect(), call("channel.publish", [channel, item]))
