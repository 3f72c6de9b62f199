"""Requests from bytes: what is one, what is none and why, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.limits import Limits
from rtserver.wire.http import Phase, RequestParser
from rtserver.wire.problem import Problem

LIMITS = Limits(http_head_bytes_max=2_048, http_body_bytes_max=1_024)


def head(*lines, start="POST /v1/call/x HTTP/1.1", host="Host: a.example"):
    return "\r\n".join([start, *([host] if host else []), *lines, "", ""]).encode("latin-1")


def parse(*pieces, limits=LIMITS):
    parser = RequestParser(limits)
    for piece in pieces:
        parser.feed(piece)
    found = list(parser.ready)
    parser.release()
    return found


def test_a_request():
    (request,) = parse(
        head(
            "X-Two: 1",
            "x-two:\t 2 ",
            "Content-Length: 3",
            start="POST /v1/call/a%20b%C3%A4?x=1&y=%2C+&x=3&z HTTP/1.1",
        )
        + b"abc"
    )
    assert request.method == "POST"
    assert request.path == "/v1/call/a bä"
    assert request.query == {"x": "3", "y": ", ", "z": ""}
    assert request.headers["x-two"] == ["1", "2"]
    assert request.header("x-two") == "1, 2"
    assert request.body == b"abc"
    assert request.keep_alive
    assert request.version == "1.1"


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (head(CHUNKED) + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
        (
            head("Transfer-Encoding: CHUNKED") + b"3;x=1\r\nabc\r\n0\r\nTrailer: ignored\r\n\r\n",
            b"abc",
        ),
        (head("Content-Length: 0"), b""),
        (head(), b""),
        (head("Content-Length: 1024") + b"x" * 1_024, b"x" * 1_024),
        (head(start="GET http://A.example/p HTTP/1.1"), b""),
        (head(start="GET / HTTP/1.0", host=None), b""),
        (b"\r\n\r\n" + head(), b""),
    ],
)
def test_bodies(text, body):
    (request,) = parse(text)
    assert request.body == body
    assert "trailer" not in request.headers


# What two readers could understand differently, and what else is refused: nothing after it is read.
REFUSED = [
    (400, head("Content-Length: 3", CHUNKED) + b"0\r\n\r\n"),
    (400, head(CHUNKED, "Content-Length: 3") + b"0\r\n\r\n"),
    (400, head("Content-Length: 3", "Content-Length: 4") + b"abcd"),
    (400, head("Content-Length: 3", "Content-Length: 3") + b"abc"),
    (400, head("Content-Length: 3, 3") + b"abc"),
    (400, head("Content-Length: +3") + b"abc"),
    (400, head("Content-Length: -3") + b"abc"),
    (400, head("Content-Length: 0x3") + b"abc"),
    (400, head("Content-Length: \xb2") + b"ab"),
    (400, head("Content-Length:") + b"abc"),
    (400, head("Content-Length: 99999999999999999999999") + b"abc"),
    (400, head("Content-Length : 3") + b"abc"),
    (400, head("Transfer-Encoding : chunked") + b"0\r\n\r\n"),
    (400, head("Transfer-Encoding:\x0bchunked") + b"0\r\n\r\n"),
    (400, head(CHUNKED, CHUNKED) + b"0\r\n\r\n"),
    (501, head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
    (400, head("Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n"),
    (501, head("Transfer-Encoding: xchunked") + b"0\r\n\r\n"),
    (501, head("Transfer-Encoding: identity") + b"0\r\n\r\n"),
    (400, head(CHUNKED, start="POST / HTTP/1.0") + b"0\r\n\r\n"),
    (400, head("X: a\r\n folded: b")),
    (400, head("X: a\nY: b")),
    (400, head("X: a\rY: b")),
    (400, head("X: a\x00b")),
    (400, head("X: a\x01b")),
    (400, head("X: a\x7fb")),
    (400, head("X\x00: a")),
    (400, head("X Y: a")),
    (400, head(": a")),
    (400, head("no colon")),
    (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    (400, head(CHUNKED) + b"3\nabc\r\n0\r\n\r\n"),
    (400, head(CHUNKED) + b"0x3\r\nabc\r\n0\r\n\r\n"),
    (400, head(CHUNKED) + b"-1\r\nabc\r\n0\r\n\r\n"),
    (400, head(CHUNKED) + b"3 \r\nabc\r\n0\r\n\r\n"),
    (400, head(CHUNKED) + b"3\r\nabcd\r\n0\r\n\r\n"),
    (400, head(CHUNKED) + b"3\r\nabc0\r\n\r\n"),
    (400, head(CHUNKED) + b"fffffffffffffffff\r\nabc"),
    (400, head(CHUNKED) + b'3;a="b\nc"\r\nabc\r\n0\r\n\r\n'),
    (400, head(CHUNKED) + b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n"),
    (400, head(host=None)),
    (400, head("Host: b.example")),
    (400, head("Host: a.example")),
    (400, head(host="Host:")),
    (400, head(host="Host: user@a")),
    (400, head(host="Host: a, b")),
    (400, head(host="Host: a/b")),
    (400, head(host="Host: [::1")),
    (400, head("Host: b", start="GET / HTTP/1.0")),
    (400, head(start="GET http://b.example/ HTTP/1.1")),
    (400, head(start="GET http://a.example@b.example/ HTTP/1.1")),
    (400, head(start="GET ftp://a.example/ HTTP/1.1")),
    (400, head(start="GET /a#b HTTP/1.1")),
    (400, head(start="GET /\x80 HTTP/1.1")),
    (400, head(start="GET /%ff HTTP/1.1")),
    (400, head(start="GET /?a=%ff HTTP/1.1")),
    (400, head(start="GET /a b HTTP/1.1")),
    (400, head(start="GET a HTTP/1.1")),
    (400, head(start="CONNECT a:1 HTTP/1.1")),
    (400, head(start="OPTIONS * HTTP/1.1")),
    (400, head(start="GET /?" + "&".join(f"a{n}=" for n in range(65)) + " HTTP/1.1")),
    (400, b"get / HTTP/1.1\r\n\r\n"),
    (400, b"GET / WHAT\r\n\r\n"),
    (505, head(start="GET / HTTP/2.0")),
    (505, b"GET /\r\n\r\n"),
    (413, head("Content-Length: 1025")),
    (413, head(CHUNKED) + b"400\r\n" + b"x" * 1_024 + b"\r\n1\r\nx\r\n"),
    (400, head("Connection: upgrade", "Upgrade: websocket", "Content-Length: 2") + b"ab"),
    (400, head("Connection: upgrade", "Upgrade: websocket", CHUNKED) + b"0\r\n\r\n"),
    (417, head("Expect: wonders")),
    (431, head(f"X: {'y' * 2_048}")),
    (431, head(*[f"X-{n}: {'y' * 90}" for n in range(22)])),
    (431, head(start=f"GET /{'y' * 2_048} HTTP/1.1")),
]


def cut(text, size):
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize(("status", "text"), REFUSED, ids=lambda value: repr(value)[:60])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_what_is_refused(status, text, size):
    """However the bytes are cut: a good request before it is read, none after it is."""
    (before, refused) = parse(*cut(head() + text + head(), size))
    assert before.method == "POST"
    assert isinstance(refused, Problem), refused
    assert refused.status == status
    assert refused.detail


@pytest.mark.parametrize(
    "text",
    [
        b"GET /" + b"a" * 100_000,
        head("X: " + "y" * 100_000),
        b"GET / HTTP/1.1\r\n" + b"a" * 100_000,
        head(CHUNKED) + b"3;" + b"x" * 100_000,
        head(CHUNKED) + b"3\r\nabc\r\n0\r\nTrailer: " + b"x" * 100_000,
    ],
    ids=lambda text: repr(text)[:60],
)
def test_what_never_ends_holds_little(text):
    parser = RequestParser(LIMITS)
    fed = 0
    for piece in cut(text, 512):
        if parser.closed:
            break
        parser.feed(piece)
        fed += len(piece)
    (refused,) = parser.ready
    parser.release()
    assert refused.status == 431
    assert fed < 3 * LIMITS.http_head_bytes_max


def test_many_trailers_are_too_many():
    text = head(CHUNKED) + b"0\r\n" + b"A: b\r\n" * 1_000 + b"\r\n"
    (refused,) = parse(*cut(text, 512))
    assert refused.status == 431


def test_after_a_request_that_closes_nothing_is_read():
    (request,) = parse(head("Connection: close") + head())
    assert not request.keep_alive
    (request,) = parse(head(start="GET / HTTP/1.0"), head())
    assert not request.keep_alive


def test_what_follows_an_upgrade_is_kept_as_it_is():
    parser = RequestParser(LIMITS)
    asked = ("Connection: Upgrade", "Upgrade: h2c, WebSocket")
    parser.feed(head(*asked, start="GET / HTTP/1.1") + b"\x81\x00GET")
    (request,) = parser.ready
    assert parser.rest == b"\x81\x00GET"
    assert parser.closed
    assert not request.keep_alive
    parser.release()


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_client_that_offers_another_protocol_is_read_on(size):
    """As Java's HttpClient and `curl --http2` do; a body is the request's and no request."""
    inner = head()
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA")
    texts = [
        head(*offer, f"Content-Length: {len(inner)}") + inner,
        head(*offer, CHUNKED) + b"%x\r\n" % len(inner) + inner + b"\r\n0\r\nA: b\r\n\r\n",
        head(*offer, "Content-Length: 0"),
        head(*offer),
        head("Content-Length: 1") + b"1",
    ]
    found = parse(*cut(b"".join(texts), size))
    assert [request.body for request in found] == [inner, inner, b"", b"", b"1"]
    assert all(request.keep_alive for request in found)
    assert "upgrade" in found[1].headers


def test_who_waits_for_a_word_gets_it_once():
    parser = RequestParser(LIMITS)
    text = head("Expect: 100-Continue", "Content-Length: 2")
    parser.feed(text[:-1])
    assert not parser.wants_continue()
    parser.feed(text[-1:])
    assert parser.phase is Phase.BODY
    assert parser.wants_continue()
    assert not parser.wants_continue()
    parser.feed(b"ab")
    assert parser.phase is Phase.NOTHING
    parser.feed(text + b"ab")
    assert not parser.wants_continue()
    parser.release()


TEXTS = [
    head("Content-Length: 5") + b"[1,2]",
    head(CHUNKED) + b"2\r\n[1\r\n3\r\n,2]\r\n0\r\nA: b\r\n\r\n",
    head(start="GET /livez?x=y HTTP/1.1"),
    b"\r\n" + head(start="HEAD / HTTP/1.1"),
    head("Expect: 100-continue", "Content-Length: 1") + b"1",
]


@given(
    st.lists(st.sampled_from(TEXTS), max_size=6),
    st.sampled_from([b"", REFUSED[0][1], head("Connection: close"), head()[:-3]]),
    st.data(),
)
def test_any_cut_gives_the_same_requests(texts, end, data):
    text = b"".join([*texts, end])
    whole = parse(text)
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=12).map(sorted))
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    found = parse(*pieces)
    assert [repr(one) for one in found] == [repr(one) for one in whole]
    assert len(whole) >= len(texts)
