"""RFC 6455 without I/O: every way to cut valid bytes gives the same messages, and every violation
the close code that the standard names, as early as it can be seen."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.wire import websocket
from rtserver.wire.request import Request
from rtserver.wire.websocket import HandshakeRefused, Parser, Violation, accept
from tests.websocket import (
    ACCEPT,
    BINARY,
    CLOSE,
    KEY,
    PING,
    PONG,
    TEXT,
    client_frame,
    close_payload,
    cut,
    message,
)

PROTOCOLS = ("rt1.msgpack", "rt1.json")


# --- handshake ---


def request(method="GET", version="1.1", body=b"", **changes):
    headers = {
        "upgrade": ["websocket"],
        "connection": ["keep-alive, Upgrade"],
        "sec-websocket-key": [KEY],
        "sec-websocket-version": ["13"],
    }
    for name, values in changes.items():
        headers[name.replace("_", "-")] = values
    return Request(method, "/ws", {}, headers, body, None, True, version)


def test_the_example_of_the_standard():
    response, protocol = accept(request(), PROTOCOLS)
    assert protocol is None
    head = response.decode().split("\r\n")
    assert head[0] == "HTTP/1.1 101 Switching Protocols"
    assert set(head[1:]) == {
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {ACCEPT}",
        "",
    }
    assert response.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (["rt1.json"], "rt1.json"),
        (["rt1.msgpack, rt1.json"], "rt1.msgpack"),
        (["rt1.json,rt1.msgpack"], "rt1.json"),
        (["other, rt1.msgpack"], "rt1.msgpack"),
        (["other", "rt1.json"], "rt1.json"),
        ([" , ,"], None),
    ],
)
def test_the_first_sub_protocol_that_we_have(asked, chosen):
    response, protocol = accept(request(sec_websocket_protocol=asked), PROTOCOLS)
    assert protocol == chosen
    assert (f"\r\nSec-WebSocket-Protocol: {chosen}\r\n".encode() in response) == bool(chosen)


@pytest.mark.parametrize(
    "good",
    [
        {"upgrade": ["WebSocket"]},
        {"upgrade": ["h2c, websocket"]},
        {"connection": ["upgrade"]},
        {"connection": ["keep-alive", "UPGRADE"]},
        {"sec_websocket_extensions": ["permessage-deflate; client_max_window_bits"]},
    ],
)
def test_handshakes_that_are_good(good):
    response, _ = accept(request(**good), PROTOCOLS)
    assert b"Extensions" not in response


@pytest.mark.parametrize(
    ("status", "said", "bad"),
    [
        (405, "POST", {"method": "POST"}),
        (405, "HEAD", {"method": "HEAD"}),
        (400, "1.0", {"version": "1.0"}),
        (400, "body", {"body": b"x"}),
        (426, "Upgrade", {"upgrade": []}),
        (426, "h2c", {"upgrade": ["h2c"]}),
        (426, "websockets", {"upgrade": ["websockets"]}),
        (426, "keep-alive", {"connection": ["keep-alive"]}),
        (426, "Version", {"sec_websocket_version": []}),
        (426, "'8'", {"sec_websocket_version": ["8"]}),
        (426, "13, 13", {"sec_websocket_version": ["13", "13"]}),
        (400, "Key", {"sec_websocket_key": []}),
        (400, "Key", {"sec_websocket_key": [""]}),
        (400, "Key", {"sec_websocket_key": [KEY, KEY]}),
        (400, "Key", {"sec_websocket_key": [KEY[:-4]]}),
        (400, "Key", {"sec_websocket_key": ["AAAA" + KEY]}),
        (400, "Key", {"sec_websocket_key": [KEY.replace("d", "!")]}),
        (400, "Key", {"sec_websocket_key": ["é" + KEY[1:]]}),
        (400, "rt1.msgpack, rt1.json", {"sec_websocket_protocol": ["chat, RT1.JSON"]}),
    ],
)
def test_handshakes_that_are_refused(status, said, bad):
    with pytest.raises(HandshakeRefused) as refused:
        accept(request(**bad), PROTOCOLS)
    assert refused.value.status == status
    assert said in refused.value.detail
    if status == 426:
        assert refused.value.headers["Upgrade"] == "websocket"
    if "sec_websocket_version" in bad:
        assert refused.value.headers["Sec-WebSocket-Version"] == "13"
    if status == 405:
        assert refused.value.headers["Allow"] == "GET"


# --- valid streams, cut anywhere ---


def parse(pieces, parser=None):
    """(messages and control frames, the close code of a violation)"""
    parser = parser or Parser(1 << 20, 64)
    found = []
    try:
        for piece in pieces:
            parser.receive(piece)
            while (one := parser.next()) is not None:
                found.append(one)
    except Violation as violation:
        assert parser.ended
        assert parser.next() is None
        return found, violation.code
    return found, None


def bytewise(data):
    return [data[at : at + 1] for at in range(len(data))]


fragments = st.lists(st.binary(max_size=200), min_size=1, max_size=5)
texts = st.text(max_size=40).map(str.encode)
controls = st.lists(st.tuples(st.sampled_from((PING, PONG)), st.binary(max_size=125)), max_size=2)
masks = st.binary(min_size=4, max_size=4)


@st.composite
def streams(draw):
    """(bytes, what they say): messages in fragments, with control frames in between."""
    data, said = b"", []
    for _ in range(draw(st.integers(1, 6))):
        opcode = draw(st.sampled_from((TEXT, BINARY)))
        if opcode == TEXT:
            text = draw(texts)
            edges = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
            parts = [text[a:b] for a, b in itertools.pairwise([0, *edges, len(text)])]
        else:
            parts = draw(fragments)
        for place, part in enumerate(parts):
            final = place == len(parts) - 1
            code = opcode if place == 0 else 0
            data += client_frame(code, part, final=final, mask=draw(masks))
            if final:
                said.append((opcode, b"".join(parts)))
            for control, payload in draw(controls):
                data += client_frame(control, payload, mask=draw(masks))
                said.append((control, payload))
    if draw(st.booleans()):
        payload = draw(st.sampled_from((b"", close_payload(1000), close_payload(4999, "bye"))))
        data += client_frame(CLOSE, payload, mask=draw(masks))
        data += draw(st.binary(max_size=20))  # after a Close nothing is read
        said.append((CLOSE, payload))
    return data, said


@given(streams(), st.lists(st.integers(0, 2_000), max_size=12))
def test_any_cut_gives_the_same(stream, cuts):
    data, said = stream
    edges = sorted({0, len(data), *(at for at in cuts if at < len(data))})
    assert parse([data[a:b] for a, b in itertools.pairwise(edges)]) == (said, None)
    assert parse(bytewise(data)) == (said, None)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_001])
def test_every_kind_of_length(size):
    payload = bytes(place % 251 for place in range(size))
    data = client_frame(BINARY, payload)
    assert parse([data]) == ([(BINARY, payload)], None)
    pieces = [data[at : at + 999] for at in range(0, len(data), 999)]
    assert parse(pieces) == ([(BINARY, payload)], None)


@given(st.binary(max_size=300), st.sampled_from((0, 1, 2, 3)))
def test_random_bytes_are_messages_or_a_violation(data, start):
    """Nothing else may come out, and not more than went in."""
    opcode = bytes(((0x81, 0x82, 0x01, 0x89)[start], 0x80 | len(data) % 126))
    found, _ = parse([opcode + data])
    assert sum(len(payload) for _, payload in found) <= len(data)


def test_an_idle_parser_holds_nothing():
    parser = Parser(1 << 20, 64)
    parse([client_frame(TEXT, b"x" * 50_000), client_frame(TEXT, b"y") * 100], parser)
    held = [getattr(parser, name) for name in Parser.__slots__]
    assert not [value for value in held if isinstance(value, bytes) and len(value) > 4]
    assert not [value for value in held if isinstance(value, bytearray)]


def test_a_large_frame_in_pieces_is_held_once():
    parser = Parser(1 << 20, 64)
    data = client_frame(BINARY, b"x" * 500_000)
    for at in range(0, 400_000, 1_000):
        parser.receive(data[at : at + 1_000])
        assert parser.next() is None
    held = [getattr(parser, name) for name in Parser.__slots__]
    assert sum(len(value) for value in held if isinstance(value, bytes | bytearray)) < 401_000


# --- violations ---

GOOD = client_frame(TEXT, b"good")
OPEN = client_frame(TEXT, b"begin", final=False)

BROKEN_FRAMES = {
    "unmasked text": (client_frame(TEXT, b"x", mask=None), 1002),
    "unmasked ping": (client_frame(PING, b"x", mask=None), 1002),
    "unmasked close": (client_frame(CLOSE, mask=None), 1002),
    **{
        f"reserved bits {bits}": (client_frame(TEXT, b"x", reserved=bits), 1002)
        for bits in (1, 2, 4, 7)
    },
    "reserved bit of a ping": (client_frame(PING, reserved=4), 1002),
    **{f"opcode {opcode:#x}": (client_frame(opcode, b"x"), 1002) for opcode in (3, 4, 5, 6, 7)},
    **{f"opcode {opcode:#x}": (client_frame(opcode), 1002) for opcode in range(0xB, 0x10)},
    "a reserved opcode within a message": (OPEN + client_frame(3, b"x"), 1002),
    "a long ping": (client_frame(PING, b"x" * 126), 1002),
    "a long pong": (client_frame(PONG, b"x" * 126), 1002),
    "a long close": (client_frame(CLOSE, close_payload(1000) + b"x" * 124), 1002),
    "a ping of another length": (client_frame(PING, b"x", length_bytes=2), 1002),
    "a fragmented ping": (client_frame(PING, b"x", final=False), 1002),
    "a fragmented close": (client_frame(CLOSE, final=False), 1002),
    "a continuation of nothing": (client_frame(0, b"x"), 1002),
    "an open continuation of nothing": (client_frame(0, b"x", final=False), 1002),
    "a continuation after the end": (message(TEXT, b"a", b"b") + client_frame(0, b"c"), 1002),
    "a text within a text": (OPEN + client_frame(TEXT, b"x"), 1002),
    "a binary within a text": (OPEN + client_frame(BINARY, b"x"), 1002),
    "125 in two bytes": (client_frame(TEXT, b"x" * 125, length_bytes=2), 1002),
    "0 in two bytes": (client_frame(TEXT, length_bytes=2), 1002),
    "65535 in eight bytes": (client_frame(TEXT, b"x" * 65_535, length_bytes=8), 1002),
    "5 in eight bytes": (client_frame(TEXT, b"xxxxx", length_bytes=8), 1002),
    "the highest bit of a length": (client_frame(TEXT, declared=1 << 63, length_bytes=8), 1002),
    "a huge length": (client_frame(TEXT, declared=(1 << 63) - 1, length_bytes=8), 1009),
    "one byte too many": (client_frame(BINARY, declared=(1 << 20) + 1), 1009),
    "too many over fragments": (
        client_frame(BINARY, b"x" * 10, final=False) + client_frame(0, declared=(1 << 20) - 9),
        1009,
    ),
    "65 fragments": (message(BINARY, *[b"x"] * 65), 1009),
    "65 empty fragments": (message(TEXT, *[b""] * 65), 1009),
    "bad UTF-8": (client_frame(TEXT, b"a\xffb"), 1007),
    "half a character": (client_frame(TEXT, b"\xce\xba\xe1\xbd"), 1007),
    "half a character in the last fragment": (message(TEXT, b"\xce", b"\xba", b"\xe1"), 1007),
    "half a character before an empty fragment": (message(TEXT, b"\xce", b""), 1007),
    "bad UTF-8 in a first fragment": (client_frame(TEXT, b"\xff", final=False), 1007),
    "a close of one byte": (client_frame(CLOSE, b"\x03"), 1002),
    "bad UTF-8 in a close": (client_frame(CLOSE, close_payload(1000) + b"\xff"), 1007),
    "half a character in a close": (client_frame(CLOSE, close_payload(1000) + b"\xce"), 1007),
    **{
        f"close code {code}": (client_frame(CLOSE, close_payload(code)), 1002)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
}


@pytest.mark.parametrize("name", BROKEN_FRAMES)
@pytest.mark.parametrize("pieces", [lambda data: [data], bytewise], ids=["whole", "bytewise"])
def test_a_violation_has_its_code_and_ends_everything(name, pieces):
    data, code = BROKEN_FRAMES[name]
    found, violated = parse(pieces(GOOD + data + GOOD))
    assert violated == code
    assert found[0] == (TEXT, b"good")
    assert len(found) == 1 or name == "a continuation after the end"


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4001, 4999]
)
def test_close_codes_that_may_be_sent(code):
    payload = close_payload(code, "grüße")
    assert parse([client_frame(CLOSE, payload) + GOOD]) == ([(CLOSE, payload)], None)
    assert websocket.close_code(payload) == code


def test_a_close_without_a_code():
    assert parse([client_frame(CLOSE)]) == ([(CLOSE, b"")], None)
    assert websocket.close_code(b"") == 1005
    assert websocket.close_frame(1005) == b"\x88\x00"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (client_frame(TEXT, declared=(1 << 20) + 1)[:10], 1009),
        (client_frame(TEXT, declared=1 << 63, length_bytes=8)[:10], 1002),
        (client_frame(TEXT, b"x", mask=None)[:2], 1002),
        (client_frame(3)[:2], 1002),
        (client_frame(PING, b"x" * 126)[:2], 1002),
        (message(TEXT, *[b""] * 64, b"x" * 200)[: 64 * 6 + 4], 1009),
        (client_frame(TEXT, b"\xf4\x90" + b"x" * 500)[: 8 + 2], 1007),
        (client_frame(TEXT, b"ab\xed\xa0\x80" + b"x" * 500)[: 8 + 5], 1007),
        (client_frame(TEXT, b"ab", final=False) + client_frame(0, b"\xc0" + b"x" * 90)[:7], 1007),
    ],
)
def test_it_is_seen_as_early_as_it_can_be(data, code):
    """The last byte of the data is the one that decides."""
    assert parse([data]) == ([], code)
    assert parse([data[:-1]]) == ([], None)


def test_a_kind_of_message_that_is_not_accepted():
    parser = Parser(100, 4, (BINARY,))
    assert parse([client_frame(BINARY, b"x") + client_frame(TEXT, b"x")[:2]], parser) == (
        [(BINARY, b"x")],
        1003,
    )


# --- limits ---


def test_the_largest_message():
    for parts in ([b"x" * 1_000], [b"x" * 999, b"x"], [b"", b"x" * 1_000, b""]):
        assert parse([message(BINARY, *parts)], Parser(1_000, 3)) == (
            [(BINARY, b"x" * 1_000)],
            None,
        )
    assert parse([message(BINARY, b"x" * 999, b"xx")], Parser(1_000, 3)) == ([], 1009)
    assert parse([message(BINARY, b"x" * 1_001)], Parser(1_000, 3)) == ([], 1009)


def test_the_most_fragments():
    """Control frames between them are not counted, and each message counts anew."""
    data = b"".join(
        client_frame(0 if place else BINARY, b"", final=place == 2) + client_frame(PING)
        for place in range(3)
    )
    found, code = parse([data * 3], Parser(1_000, 3))
    assert code is None
    assert [opcode for opcode, _ in found] == [PING, PING, BINARY, PING] * 3
    assert parse([message(BINARY, b"", b"", b"", b"")], Parser(1_000, 3)) == ([], 1009)


# --- text ---

CHARACTERS = [
    "κόσμε", "\u0000", "\u007f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000",
    "\ufffd", "\ufffe", "\uffff", "\U00010000", "\U0001fffe", "\U0010ffff",
]  # fmt: skip
NOT_CHARACTERS = [
    b"\x80", b"\xbf\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf",
    b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff",
    b"\xc2", b"\xe0\xa0", b"\xf0\x90\x80", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80edited",
]  # fmt: skip


@pytest.mark.parametrize("text", CHARACTERS)
def test_characters_cut_into_fragments_and_pieces(text):
    data = f"<{text}>".encode()
    for at in range(len(data) + 1):
        stream = message(TEXT, data[:at], data[at:])
        assert parse([stream]) == ([(TEXT, data)], None)
        assert parse(bytewise(stream)) == ([(TEXT, data)], None)


@pytest.mark.parametrize("bad", NOT_CHARACTERS)
@pytest.mark.parametrize("after", [b"", b"."])
def test_what_is_no_character_cut_into_fragments_and_pieces(bad, after):
    data = b"<" + bad + after
    for at in range(len(data) + 1):
        stream = message(TEXT, data[:at], data[at:])
        assert parse([stream]) == ([], 1007)
        assert parse(bytewise(stream)) == ([], 1007)
    assert parse([client_frame(BINARY, data)]) == ([(BINARY, data)], None)


# --- what we send ---


@given(st.sampled_from((TEXT, BINARY)), st.integers(0, 70_000))
def test_frames_of_the_server(opcode, size):
    payload = b"x" * size
    data = websocket.frame(opcode, payload)
    assert cut(data) == ([(opcode, payload)], b"")
    extra = 0 if size < 126 else 2 if size < 65_536 else 8
    assert len(data) == 2 + extra + size


@given(st.integers(3_000, 4_999), st.text(max_size=200))
def test_close_frames_of_the_server(code, reason):
    (((opcode, payload),), rest) = cut(websocket.close_frame(code, reason))
    assert (opcode, rest) == (CLOSE, b"")
    assert len(payload) <= 125
    assert payload[:2] == code.to_bytes(2, "big")
    kept = payload[2:].decode("utf-8")
    assert reason.startswith(kept)
    assert len(reason.encode()) > 123 - 4 or kept == reason
