"""The first byte decides; inline text."""

from __future__ import annotations

import asyncio
import json

import pytest

from rtserver.transport.http import HttpStream
from rtserver.transport.inline import InlineStream
from tests.transport.rig import Rig, request


@pytest.fixture
async def rig():
    rig = Rig()
    await rig.settle()
    rig.hub.health = lambda path: (True, {"status": "live"}) if path == "/livez" else None
    return rig


async def say(rig, client, *pieces):
    for piece in pieces:
        client.protocol.data_received(piece)
        await asyncio.sleep(0)
    await rig.settle()
    return client.bytes()


def split(text):
    return [bytes([byte]) for byte in text]


@pytest.mark.parametrize("first", [0x02, 0x08, 0x1B, 0x7F, 0x80, 0xFE, 0xFF])
async def test_other_bytes_close(rig, first):
    client = rig.connect()
    assert await say(rig, client, bytes([first])) == b""
    assert client.closing


async def test_tls_gets_a_line(rig):
    client = rig.connect()
    answer = await say(rig, client, b"\x16\x03\x01\x02\x00")
    assert b"no TLS" in answer
    assert client.closing


async def test_line_ends_first_are_skipped(rig):
    assert await say(rig, rig.connect(), b"\r\n", b"\n", b"counter.add a 2\r\n") == b"2\n"
    assert await say(rig, rig.connect(), b"\n" + request(1, "counter.get", "a"))
    client = rig.connect()
    assert await say(rig, client, b"\r\n") == b""
    assert not client.closing


@pytest.mark.parametrize(
    "text",
    [
        b"GET /livez HTTP/1.1\r\nHost: [::1]\r\n\r\n",
        b"\nHEAD /livez HTTP/1.1\r\nHost: [::1]\r\n\r\n",
    ],
)
async def test_http_in_pieces(rig, text):
    client = rig.connect()
    answer = await say(rig, client, *split(text))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert type(client.protocol) is HttpStream


@pytest.mark.parametrize("text", [b"GET\n", b"GETX /\n", b"GET a\n", b"PUT\n", b"D\n"])
async def test_what_only_begins_like_a_method_is_inline(rig, text):
    client = rig.connect()
    answer = await say(rig, client, *split(text))
    assert b"unknown_method" in answer
    assert type(client.protocol) is InlineStream


# --- inline ---


async def test_lines_are_answered_in_order_and_wait_for_syncs(rig):
    client = rig.connect()
    answer = await say(rig, client, b"counter.add a ack=synced\ncounter.get a\n")
    assert answer == b""
    rig.sync()
    await rig.settle()
    assert client.bytes() == b"1\n1\n"


async def test_lines_in_pieces(rig):
    text = b'channel.publish c {"a": "\xc3\xa4"} key=k\r\n\r\ncounter.add a\n'
    answer = await say(rig, rig.connect(), *split(text))
    assert answer == b'{"offset":1,"epoch":"era.1"}\n1\n'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"counter.add a b=1", "b is not a parameter"),
        (b"counter.add a delat=1", "did you mean delta?"),
        (b"counter.add a 1 delta=1", "given twice"),
        (b"counter.add \xff\xfe", "not valid UTF-8"),
        (b'counter.add "open', "check its quotes"),
        (b"counter.ad a", "did you mean counter.add?"),
        (b"counter.add a ack=never", "expected memory, logged or synced"),
        (b"counter.add a NaN", "delta"),
        (b"channel.publish c " + b"[" * 40 + b"]" * 40, "nested"),
        (b"channel.publish c " + b"[" * 20_000, "check its quotes"),
    ],
)
async def test_lines_that_are_wrong(rig, line, said):
    client = rig.connect()
    answer = (await say(rig, client, line + b"\nserver.ping\n")).decode()
    error, pong = answer.splitlines()
    assert error.startswith("![")
    assert said in error
    assert json.loads(pong)["now"]
    assert not client.closing


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_an_endless_line_is_too_large(rig, end):
    client = rig.connect()
    answer = await say(rig, client, b"a" * 40_000, b"a" * 40_000 + end)
    error, close = answer.decode().splitlines()
    assert json.loads(error[1:])[1] == "frame_too_large"
    assert json.loads(close[1:])[2]["code"] == 4501
    assert client.closing


async def test_help(rig):
    answer = await say(rig, rig.connect(), b"help\nhelp board\nhelp board.top\nhelp nothing\n")
    assert b"counter.add" in answer
    assert b"offset" in answer


async def test_pushes_on_a_text_connection(rig):
    reader, writer = rig.connect(), rig.connect()
    await say(rig, reader, b"channel.subscribe c\n")
    await say(rig, writer, b"channel.publish c hello\n")
    assert json.loads(reader.bytes()[1:])[2]["data"] == "hello"


async def test_many_short_lines_are_spread_over_turns(rig):
    client = rig.connect()
    line = b"counter.get a\n"
    client.protocol.data_received(line * 15_000)
    await asyncio.sleep(0)
    assert not client.reading
    while not client.reading:
        await asyncio.sleep(0)
    await rig.settle()
    assert client.bytes().count(b"\n") == 15_000
