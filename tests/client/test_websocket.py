"""The client's WebSocket framing: cut anywhere, broken in every way, and against `websockets`."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

import rtclient
from rtclient.websocket import Tunnel

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode, payload=b"", *, fin=True):
    return Frame(opcode, payload, fin).serialize(mask=False)


def answer(tunnel, status="101 Switching Protocols", **other):
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", tunnel.request)[1]
    headers = {
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Accept": base64.b64encode(hashlib.sha1(key + GUID).digest()).decode(),
        "Sec-WebSocket-Protocol": "rt1.msgpack",
        **{name.replace("_", "-"): value for name, value in other.items()},
    }
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def accepted(tunnel):
    """The server of another implementation, and what it answers to the handshake."""
    server = ServerProtocol(subprotocols=["rt1.msgpack"])
    server.receive_data(tunnel.request)
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    return server, b"".join(server.data_to_send())


def opened():
    tunnel = Tunnel("host:1", "/ws", {})
    assert tunnel.receive(answer(tunnel)) == b""
    assert tunnel.is_open
    return tunnel


def test_the_handshake_asks_for_what_it_needs():
    tunnel = Tunnel("host:80", "/ws?a=1", {"Authorization": "Bearer x"})
    assert tunnel.request.startswith(b"GET /ws?a=1 HTTP/1.1\r\nHost: host:80\r\n")
    assert b"Authorization: Bearer x\r\n" in tunnel.request
    assert tunnel.request != Tunnel("host:80", "/ws?a=1", {"Authorization": "Bearer x"}).request


@pytest.mark.parametrize("name", ["Host", "sec-websocket-key", "Connection", "Upgrade"])
def test_headers_of_the_handshake_are_its_own(name):
    with pytest.raises(ValueError, match="own"):
        Tunnel("host", "/", {name: "x"})


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\0"])
def test_headers_cannot_smuggle(value):
    with pytest.raises(ValueError, match="control characters"):
        Tunnel("host", "/", {"a": value})


@given(st.data())
def test_what_is_carried_does_not_depend_on_where_the_bytes_are_cut(data):
    tunnel = Tunnel("host:1", "/ws", {})
    payloads = data.draw(st.lists(st.binary(max_size=400), max_size=5))
    server, wire = accepted(tunnel)
    pings = 0
    for payload in payloads:
        parts = data.draw(st.integers(1, 3))
        size = len(payload) // parts + 1
        pieces = [payload[n * size : (n + 1) * size] for n in range(parts)]
        for n, piece in enumerate(pieces):
            opcode = Opcode.CONT if n else Opcode.BINARY
            wire += frame(opcode, piece, fin=n == parts - 1)
            if data.draw(st.booleans()):
                wire += frame(Opcode.PING, b"p" * pings)
                pings += 1
    wire += frame(Opcode.PONG) + frame(Opcode.CLOSE, b"\x0f\xa0later") + b"ignored"
    carried = b""
    while wire:
        count = data.draw(st.integers(1, len(wire)))
        carried += tunnel.receive(wire[:count])
        wire = wire[count:]
    assert carried == b"".join(payloads)
    assert (tunnel.close_code, tunnel.close_reason) == (4000, "later")
    assert tunnel.is_closed
    server.receive_data(tunnel.take_answers())
    *pongs, close = server.events_received()
    assert [pong.data for pong in pongs] == [b"p" * n for n in range(pings)]
    assert Close.parse(close.data).code == 4000
    assert tunnel.close() == tunnel.take_answers() == b""


@given(
    st.lists(
        st.builds(bytes.__mul__, st.binary(max_size=3), st.sampled_from([0, 1, 125, 30_000])),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_sent_is_what_another_implementation_reads(payloads):
    tunnel = Tunnel("host:1", "/ws", {})
    server, head = accepted(tunnel)
    tunnel.receive(head)
    assert tunnel.is_open
    for payload in payloads:
        server.receive_data(tunnel.message(payload))
    assert [event.data for event in server.events_received()] == payloads
    server.receive_data(tunnel.close())
    tunnel.receive(b"".join(server.data_to_send()))
    assert server.close_rcvd.code == 1000
    assert tunnel.take_answers() == b""


def test_every_frame_has_its_own_key():
    tunnel = opened()
    keys = {tunnel.message(b"same")[2:6] for _ in range(20)}
    assert len(keys) == 20


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (b"\xc2\x00", "reserved"),
        (b"\x82\x80\0\0\0\0", "masked"),
        (b"\x83\x00", "opcode 3"),
        (b"\x81\x00", "opcode 1"),
        (b"\x8b\x00", "unknown opcode"),
        (b"\x09\x00", "control"),
        (b"\x89\x7e\x00\x7e" + b"x" * 126, "control"),
        (b"\x80\x00", "goes on wrongly"),
        (b"\x02\x00\x82\x00", "goes on wrongly"),
        (b"\x82\x7e\x00\x7d", "length 125 in 2"),
        (b"\x82\x7f" + (65_535).to_bytes(8, "big"), "in 8 bytes"),
        (b"\x82\x7f\xff" + bytes(7), "in 8 bytes"),
        (b"\x88\x01x", "half a code"),
    ],
)
def test_a_violation_ends_it(bad, complaint):
    with pytest.raises(ValueError, match=complaint):
        opened().receive(bad)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"Upgrade": None}, "upgrade: ''"),
        ({"Upgrade": "h2c"}, "upgrade: 'h2c'"),
        ({"Connection": "close"}, "connection"),
        ({"Sec_WebSocket_Accept": "x"}, "accept"),
        ({"Sec_WebSocket_Protocol": "rt1.json"}, "protocol"),
        ({"Sec_WebSocket_Protocol": None}, "protocol"),
        ({"Sec_WebSocket_Extensions": "permessage-deflate"}, "extension"),
    ],
)
def test_a_wrong_handshake_says_what_was_expected(changed, complaint):
    tunnel = Tunnel("host", "/ws", {})
    changed = {name.replace("_", "-"): value for name, value in changed.items()}
    with pytest.raises(ValueError, match=complaint):
        tunnel.receive(answer(tunnel, **changed))


@pytest.mark.parametrize(
    ("status", "retryable"),
    [("404 Not Found", False), ("403 Forbidden", False), ("503 Busy", True), ("429 Slow", True)],
)
def test_a_refusal_says_its_status_and_whether_to_come_back(status, retryable):
    tunnel = Tunnel("host", "/ws", {})
    with pytest.raises(rtclient.ConnectionLost, match="not here") as caught:
        tunnel.receive(f"HTTP/1.1 {status}\r\nA: b\r\n\r\nnot here".encode())
    assert caught.value.retryable is retryable
    assert caught.value.details == {"status": int(status[:3])}


@pytest.mark.parametrize("bad", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 x\r\n\r\n", b"a" * 70_000])
def test_what_is_no_http_is_refused(bad):
    with pytest.raises(ValueError, match="handshake"):
        Tunnel("host", "/ws", {}).receive(bad)
