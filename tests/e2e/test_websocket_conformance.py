"""The sections of the Autobahn suite in spirit, over a real socket: the echo server that the suite
itself can be pointed at (tests/e2e/echo.py), and a client that can also say what it must not.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawWebSocket,
    client_frame,
    close_payload,
    message,
)

ROOT = Path(__file__).parents[2]
GOODBYE = client_frame(CLOSE, close_payload(1000))
BYE = (CLOSE, close_payload(1000))
KOSME = "κόσμε"


@pytest.fixture(scope="module")
def echo():
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.echo", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        host, port = process.stdout.readline().split()
        yield host, int(port)
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def said(*echoes):
    """A case that ends well: the echoes, then the answer to our goodbye."""
    return [*echoes, BYE]


def failed(code, *echoes):
    return [*echoes, (CLOSE, code)]


def fragmented(opcode, payload, size):
    """A message in fragments of a size."""
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    return message(opcode, *pieces)


TEN_PINGS = [client_frame(PING, b"payload-%d" % number) for number in range(10)]
TEN_PONGS = [(PONG, b"payload-%d" % number) for number in range(10)]
OPEN = client_frame(TEXT, b"fragment1", final=False)
END = client_frame(0, b"fragment2")
WHOLE = (TEXT, b"fragment1fragment2")
HELLO = client_frame(TEXT, b"Hello, world!")
ECHOED = (TEXT, b"Hello, world!")
MIB = 1 << 20

# name: (bytes, what comes back); a close code alone stands for a Close with that code.
CASES = {
    # 1: framing
    **{
        f"1.1 a text of {size}": (client_frame(TEXT, b"*" * size), said((TEXT, b"*" * size)))
        for size in (0, 125, 126, 127, 128, 65_535, 65_536)
    },
    **{
        f"1.2 a binary of {size}": (
            client_frame(BINARY, b"\xfe" * size),
            said((BINARY, b"\xfe" * size)),
        )
        for size in (0, 125, 126, 127, 128, 65_535, 65_536)
    },
    # 2: pings and pongs
    "2.1 an empty ping": (client_frame(PING), said((PONG, b""))),
    "2.2 a ping with text": (client_frame(PING, b"Hello"), said((PONG, b"Hello"))),
    "2.3 a ping with bytes": (client_frame(PING, b"\x00\xff\xfe"), said((PONG, b"\x00\xff\xfe"))),
    "2.4 a ping of 125": (client_frame(PING, b"\xfe" * 125), said((PONG, b"\xfe" * 125))),
    "2.5 a ping of 126": (client_frame(PING, b"\xfe" * 126), failed(1002)),
    "2.7 a pong nobody asked for": (client_frame(PONG), said()),
    "2.8 a pong with a payload": (client_frame(PONG, b"unsolicited"), said()),
    "2.9 a pong, then a ping": (client_frame(PONG) + client_frame(PING, b"p"), said((PONG, b"p"))),
    "2.10 ten pings": (b"".join(TEN_PINGS), said(*TEN_PONGS)),
    # 3: reserved bits
    **{
        f"3 reserved {bits}": (
            HELLO + client_frame(TEXT, b"x", reserved=bits) + client_frame(PING),
            failed(1002, ECHOED),
        )
        for bits in range(1, 8)
    },
    "3.5 reserved bits of a ping": (client_frame(PING, b"x", reserved=5), failed(1002)),
    "3.7 reserved bits of a close": (client_frame(CLOSE, reserved=7), failed(1002)),
    # 4: reserved opcodes
    **{
        f"4 opcode {opcode}": (
            HELLO + client_frame(opcode) + client_frame(PING),
            failed(1002, ECHOED),
        )
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    # 5: fragments
    "5.1 a fragmented ping": (
        client_frame(PING, b"f1", final=False) + client_frame(0, b"f2"),
        failed(1002),
    ),
    "5.2 a fragmented pong": (
        client_frame(PONG, b"f1", final=False) + client_frame(0, b"f2"),
        failed(1002),
    ),
    "5.3 a text in two": (OPEN + END, said(WHOLE)),
    "5.6 a ping in between": (OPEN + client_frame(PING, b"p") + END, said((PONG, b"p"), WHOLE)),
    "5.9 a continuation of nothing": (client_frame(0, b"x") + HELLO, failed(1002)),
    "5.12 an open continuation of nothing": (
        client_frame(0, b"x", final=False) + HELLO,
        failed(1002),
    ),
    "5.15 a continuation after the end": (
        OPEN + END + client_frame(0, b"x", final=False) + HELLO,
        failed(1002, WHOLE),
    ),
    "5.18 two begins": (OPEN + client_frame(TEXT, b"fragment2"), failed(1002)),
    "5.19 five fragments and two pings": (
        OPEN
        + client_frame(0, b"2", final=False)
        + client_frame(PING, b"1")
        + client_frame(0, b"3", final=False)
        + client_frame(0, b"4", final=False)
        + client_frame(PING, b"2")
        + client_frame(0, b"5"),
        said((PONG, b"1"), (PONG, b"2"), (TEXT, b"fragment12345")),
    ),
    # 6: text
    "6.1.1 an empty text": (client_frame(TEXT), said((TEXT, b""))),
    "6.1.2 three empty fragments": (message(TEXT, b"", b"", b""), said((TEXT, b""))),
    "6.1.3 a full one among them": (message(TEXT, b"", b"mid", b""), said((TEXT, b"mid"))),
    "6.2.1 text": (client_frame(TEXT, KOSME.encode()), said((TEXT, KOSME.encode()))),
    "6.2.3 byte by byte": (
        fragmented(TEXT, KOSME.encode(), 1),
        said((TEXT, KOSME.encode())),
    ),
    "6.3.1 bad text": (client_frame(TEXT, KOSME.encode() + b"\xed\xa0\x80edited"), failed(1007)),
    "6.3.2 bad text byte by byte": (
        fragmented(TEXT, KOSME.encode() + b"\xed\xa0\x80edited", 1),
        failed(1007),
    ),
    "6.4.1 bad text before the end": (
        client_frame(TEXT, KOSME.encode() + b"\xf4\x90\x80\x80", final=False),
        failed(1007),
    ),
    "6.4.4 bad text within a frame": (
        client_frame(TEXT, KOSME.encode() + b"\xf4\x90" + b"x" * 99)[:20],
        failed(1007),
    ),
    # 7: closing
    "7.1.1 a message, then a close": (HELLO, said(ECHOED)),
    "7.1.2 two closes": (GOODBYE, said()),
    "7.1.3 a ping after the close": (GOODBYE + client_frame(PING), said()),
    "7.1.4 a text after the close": (GOODBYE + HELLO, said()),
    "7.1.5 a close within a message": (OPEN, said()),
    "7.3.1 an empty close": (client_frame(CLOSE), [(CLOSE, b"")]),
    "7.3.2 a close of one byte": (client_frame(CLOSE, b"a"), failed(1002)),
    "7.3.4 a close with a reason": (client_frame(CLOSE, close_payload(1000, "Hello")), said()),
    "7.3.5 the longest reason": (client_frame(CLOSE, close_payload(1000, "*" * 123)), said()),
    "7.3.6 a longer one": (client_frame(CLOSE, close_payload(1000, "*" * 124)), failed(1002)),
    "7.5.1 a reason that is no text": (
        client_frame(CLOSE, close_payload(1000) + b"\xce\xba\xed\xa0\x80"),
        failed(1007),
    ),
    **{
        f"7.7 code {code}": (
            client_frame(CLOSE, close_payload(code)),
            [(CLOSE, close_payload(code))],
        )
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
    **{
        f"7.9 code {code}": (client_frame(CLOSE, close_payload(code)), failed(1002))
        for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
    # 9 and 10: size
    "9.1 a text of 1 MiB": (client_frame(TEXT, b"*" * MIB), said((TEXT, b"*" * MIB))),
    "9.2 a binary of 4 MiB": (
        client_frame(BINARY, b"*" * 4 * MIB),
        said((BINARY, b"*" * 4 * MIB)),
    ),
    "9.3 4 MiB in fragments of 4 KiB": (
        fragmented(TEXT, b"*" * 4 * MIB, 4_096),
        said((TEXT, b"*" * 4 * MIB)),
    ),
    "9.4 1 MiB in fragments of 64 bytes": (
        fragmented(BINARY, b"*" * MIB, 64),
        said((BINARY, b"*" * MIB)),
    ),
    "9.7 a thousand messages": (
        client_frame(TEXT, b"*" * 64) * 1_000,
        said(*[(TEXT, b"*" * 64)] * 1_000),
    ),
    "10.1 fragments of 1300": (
        fragmented(TEXT, b"*" * 65_536, 1_300),
        said((TEXT, b"*" * 65_536)),
    ),
}


def play(address, pieces):
    """What the server says to these bytes; a Close of its own by its code."""
    with RawWebSocket(address) as peer:
        for piece in pieces:
            peer.send(piece)
        heard = peer.read_to_end()
    return heard


def check(heard, expected):
    (opcode, payload), bare = heard[-1], expected[-1][1]
    if isinstance(bare, int):
        assert opcode == CLOSE
        assert int.from_bytes(payload[:2], "big") == bare
        assert payload[2:].decode("utf-8")  # says why
        heard, expected = heard[:-1], expected[:-1]
    assert heard == expected


@pytest.mark.parametrize("name", CASES)
def test_case(echo, name):
    data, expected = CASES[name]
    check(play(echo, [data, GOODBYE]), expected)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if len(case[0]) < 700])
def test_case_in_small_pieces(echo, name):
    data, expected = CASES[name]
    data += GOODBYE
    edges = itertools.pairwise([*range(0, len(data), 3), len(data)])
    with RawWebSocket(echo) as peer:
        try:
            for a, b in edges:
                peer.send(data[a:b])
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has closed after what was wrong
        check(peer.read_to_end(), expected)


def test_the_cases_ran_against_a_server_that_is_well(echo):
    with RawWebSocket(echo) as peer:
        peer.send(HELLO)
        assert peer.read() == ECHOED
