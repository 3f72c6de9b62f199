"""vectors.json, read by the server's wire, by a running server and by the SDK's codec.

Client authors may use the file too: `exact` frames decode and encode as written; `decoded` ones
only decode; `refused` ones are protocol errors that close; `answered` ones get an error reply;
`lines` are inline text.
"""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path

import pytest

from rtserver.wire import frames, inline
from rtserver.wire.codec import pack, unpack
from rtserver.wire.jsonform import from_json_value, to_json
from tests.process import read_all
from tests.wire.values import same

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text("utf-8"))
needs_sdk = pytest.mark.skipif(
    importlib.util.find_spec("rtclient.wire") is None, reason="the SDK has no codec yet"
)


def vectors(*sections):
    rows = [row for section in sections for row in VECTORS[section]]
    return pytest.mark.parametrize("row", rows, ids=lambda row: row["name"].replace(" ", "-"))


def value_of(row):
    return from_json_value(row["value"])


# --- the server's wire ---


@vectors("exact", "decoded")
def test_decoding(row):
    data = bytes.fromhex(row["hex"])
    assert same(unpack(data[4:]), value_of(row))
    assert len(data) == 4 + struct.unpack_from(">I", data)[0]


@vectors("exact")
def test_encoding(row):
    assert frames.frame(pack(value_of(row))).hex() == row["hex"]


@vectors("exact")
def test_replies_and_pushes_are_made_so(row):
    value = value_of(row)
    if value[0] == frames.REPLY:
        encode = frames.encode_reply if value[2] is None else frames.encode_error
        assert encode(value[1], value[3] if value[2] is None else value[2]).hex() == row["hex"]
    elif value[0] == frames.NOTIFICATION:
        assert frames.encode_push(value[1], value[2]).hex() == row["hex"]


@vectors("exact", "decoded")
def test_the_json_form(row):
    assert json.loads(to_json(value_of(row))) == row["value"]


@vectors("lines")
def test_lines(row):
    assert same(list(inline.parse_line(row["line"])), value_of(row))


# --- a running server ---


@vectors("refused")
def test_refused_frames_close(server, row):
    with server.client() as client:
        client.socket.sendall(bytes.fromhex(row["hex"]))
        error, close = client.read_to_end()
    assert error[:2] == [1, None]
    assert error[2][1] == row["error"]
    assert close[2]["name"] == row["error"]
    assert server.inline("counter.get well") == ["0"]


@vectors("answered")
def test_answered_errors_leave_the_connection_open(server, row):
    with server.client() as client:
        client.socket.sendall(bytes.fromhex(row["hex"]))
        reply = client.read()
        assert reply[:2] == [1, 1]
        assert reply[2][1] == row["error"]
        assert client.call("server.ping")["now"]


@vectors("lines_refused")
def test_refused_lines(server, row):
    error, pong = server.inline(row["line"], "server.ping")
    assert json.loads(error.removeprefix("!"))[1] == row["error"]
    assert "now" in pong


def test_all_refused_frames_one_byte_at_a_time(server):
    for row in VECTORS["refused"][:12]:
        with server.connect() as connection:
            for byte in bytes.fromhex(row["hex"]):
                connection.sendall(bytes([byte]))
            assert row["error"].encode() in read_all(connection)


# --- the SDK ---


@needs_sdk
@vectors("exact", "decoded")
def test_the_sdk_decodes_the_same(row):
    from rtclient.wire import HEADER_BYTES, Frames

    data = bytes.fromhex(row["hex"])
    ((value,), (size,)) = Frames().cut(data)
    assert size == len(data) - HEADER_BYTES
    assert same(value, value_of(row))
    piecewise = Frames()
    cut = [value for byte in data for value in piecewise.cut(bytes([byte]))[0]]
    assert same(cut, [value])


@needs_sdk
@vectors("exact")
def test_the_sdk_encodes_the_same(row):
    from rtclient.wire import Packer, header

    body = Packer().pack(value_of(row))
    assert (header(len(body)) + body).hex() == row["hex"]
