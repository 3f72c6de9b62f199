"""WebSocket streams in a real turn: requests, control frames, and every way to part."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import weakref

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.errors import CLOSE_KICKED, UNAUTHENTICATED, RtError
from rtserver.limits import Limits
from rtserver.transport import websocket
from rtserver.transport.listener import FirstBytes
from rtserver.transport.websocket import HandshakeRefused, upgrade
from rtserver.wire.request import Request
from tests import websocket as ws
from tests.process import cut, frame
from tests.transport.rig import FakeTransport, Rig
from tests.websocket import BINARY, CLOSE, KEY, PING, PONG, TEXT, client_frame, close_payload

JSON, MSGPACK = "rt1.json", "rt1.msgpack"
FORMS = [JSON, MSGPACK]


class Peer:
    """A client of one sub-protocol on a fake socket."""

    def __init__(self, rig, protocol=JSON):
        self.protocol = protocol
        self.transport = FakeTransport(rig)
        newcomer = FirstBytes(rig.hub)
        assert rig.hub.accept(newcomer)
        rig.hub.known(newcomer)
        upgrade(rig.hub, self.transport, handshake(protocol))
        self.stream = self.transport.protocol
        self._data = b""
        self._is_open = False

    def say(self, *data):
        self.stream.data_received(b"".join(data))

    def message(self, *bodies):
        """Requests in one message."""
        if self.protocol == MSGPACK:
            return client_frame(BINARY, b"".join(map(frame, bodies)))
        return client_frame(TEXT, "\n".join(map(json.dumps, bodies)).encode())

    def ask(self, request_id, method, *params, **options):
        return self.message([0, request_id, method, list(params), options])

    def frames(self):
        self._data += self.transport.bytes()
        if not self._is_open and self._data:
            head, _, self._data = self._data.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            self._is_open = True
        found, self._data = ws.cut(self._data)
        return found

    def heard(self):
        """What the server said: bodies of messages, and (opcode, payload) of control frames."""
        bodies = []
        for opcode, payload in self.frames():
            if opcode >= CLOSE:
                bodies.append((opcode, payload))
            elif opcode == BINARY:
                assert self.protocol == MSGPACK
                bodies += cut(payload)
            else:
                assert self.protocol == JSON
                bodies += map(json.loads, payload.decode().splitlines())
        return bodies


def handshake(protocol=JSON, **headers):
    values = {
        "upgrade": ["websocket"],
        "connection": ["Upgrade"],
        "sec-websocket-key": [KEY],
        "sec-websocket-version": ["13"],
        "sec-websocket-protocol": [protocol],
        **headers,
    }
    return Request("GET", "/ws", {}, values, b"", "127.0.0.1", True)


def closed(code, reason=""):
    return (CLOSE, close_payload(code, reason))


@pytest.fixture(params=FORMS)
def protocol(request):
    return request.param


# --- requests ---


def stream_of(peer):
    return b"".join(
        [
            peer.ask(1, "counter.add", "a", 2),
            client_frame(PING, b"p"),
            peer.message([0, 2, "counter.add", ["x" * 300]], [0, 3, "server.nothing", []]),
            ws.message(
                BINARY if peer.protocol == MSGPACK else TEXT,
                *split(peer.message([0, 4, "channel.publish", ["c", {"text": "ä" * 100}]]), 7),
            ),
            peer.ask(5, "counter.get", "a"),
            client_frame(CLOSE, close_payload(1000)),
        ]
    )


def split(message, pieces):
    """The payload of a masked message in pieces."""
    found, code = [], message[1] & 0x7F
    size = 2 if code < 126 else 4
    mask, masked = message[size : size + 4], message[size + 4 :]
    payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(masked))
    for place in range(pieces):
        found.append(payload[len(payload) * place // pieces : len(payload) * (place + 1) // pieces])
    return found


async def answers(protocol, cuts, limits=None):
    rig = Rig(limits)
    peer = Peer(rig, protocol)
    data = stream_of(peer)
    edges = [0, *sorted({at % len(data) for at in cuts} - {0}), len(data)]
    for a, b in itertools.pairwise(edges):
        peer.say(data[a:b])
        await asyncio.sleep(0)
    await rig.settle()
    assert peer.transport.closing
    heard = peer.heard()
    pongs = [one for one in heard if one == (PONG, b"p")]
    assert len(pongs) == 1
    return [one for one in heard if one != (PONG, b"p")]


def check_answers(heard):
    assert [one[1] for one in heard[:-1]] == [1, 2, 3, 4, 5]
    assert [one[2] and one[2][1] for one in heard[:-1]] == [
        None,
        "invalid_params",
        "unknown_method",
        None,
        None,
    ]
    assert heard[-1] == closed(1000)


def test_whole(protocol):
    check_answers(asyncio.run(answers(protocol, [])))


def test_byte_by_byte(protocol):
    check_answers(asyncio.run(answers(protocol, range(2_000))))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FORMS),
    st.lists(st.integers(1, 2_000), max_size=8),
    st.integers(1, 4),
    st.integers(1_100, 5_000),
)
def test_cut_often_with_little_budget(protocol, cuts, cost, outbox):
    limits = Limits(connection_cost_per_turn=cost, outbox_soft_bytes=outbox)
    check_answers(asyncio.run(answers(protocol, cuts, limits)))


async def test_many_small_messages_at_once_are_answered_in_order(protocol):
    rig = Rig()
    peer = Peer(rig, protocol)
    peer.say(*[peer.ask(number, "counter.add", "a") for number in range(1, 2_001)])
    await rig.settle()
    assert [one[3] for one in peer.heard()] == list(range(1, 2_001))


async def test_fragments_count_as_the_frames_they_are():
    """Else sixty times as many would be taken apart in one go."""
    rig = Rig(Limits(turn_ms_max=60_000))
    peer = Peer(rig)
    text = [b"[0,1,", *[b""] * 58, b'"server.ping",[]]']
    peer.say(ws.message(TEXT, *text) * 100)
    assert 512 <= peer.stream._parser.frames < 2_000
    await rig.settle()
    assert len(peer.heard()) == 100


async def test_many_frames_in_one_message(protocol):
    rig = Rig()
    peer = Peer(rig, protocol)
    peer.say(peer.message(*[[0, number, "counter.add", ["a"]] for number in range(3_000)]))
    await rig.settle()
    assert [one[1] for one in peer.heard()] == list(range(3_000))


async def test_values_that_json_lacks():
    rig = Rig()
    peer = Peer(rig)
    peer.say(
        peer.ask(1, "channel.publish", "c", {"$b64": "aGk="}),
        peer.ask(2, "channel.history", "c"),
        peer.ask({"$i64": str(2**63)}, "counter.set", "a", {"$i64": str(2**63 - 1)}),
    )
    await rig.settle()
    _, history, reply = peer.heard()
    assert history[3]["messages"][0]["data"] == {"$b64": "aGk="}
    assert reply == [1, {"$i64": str(2**63)}, None, {"$i64": str(2**63 - 1)}]


async def test_blank_lines_and_empty_messages_are_nothing():
    rig = Rig()
    peers = [Peer(rig), Peer(rig, MSGPACK)]
    peers[0].say(client_frame(TEXT, b'\n \r\n\n[0,1,"server.ping",[]]\n\n'), client_frame(TEXT))
    peers[1].say(client_frame(BINARY), peers[1].ask(1, "server.ping"))
    await rig.settle()
    assert [[one[:3] for one in peer.heard()] for peer in peers] == [[[1, 1, None]]] * 2


async def test_a_large_line_of_numbers_fits_the_log():
    rig = Rig()
    peer = Peer(rig)
    peer.say(peer.ask(1, "channel.publish", "c", [0.5] * 16_000))
    await rig.settle()
    assert [one[2] for one in peer.heard()] == [None]


async def test_large_lines_that_fit_a_turn_are_not_refused():
    """What they become in the log is less than short lines are reckoned to."""
    rig = Rig(Limits(connection_cost_per_turn=100_000, turn_cost_max=100_000, turn_ms_max=60_000))
    peer = Peer(rig)
    peer.say(*[peer.ask(n, "channel.publish", "c", "x" * 1_000_000) for n in range(4)])
    await rig.settle()
    assert [one[2] for one in peer.heard()] == [None] * 4


async def test_one_message_has_its_share_of_a_turn(protocol):
    rig = Rig(Limits(connection_cost_per_turn=5))
    peer = Peer(rig, protocol)
    peer.say(peer.message(*[[0, number, "counter.add", ["a"]] for number in range(100)]))
    await rig.settle()
    assert len(peer.heard()) == 100
    assert sum(event[0] == "append" for event in rig.events) >= 20


async def test_a_reply_that_waits_for_a_sync(protocol):
    rig = Rig()
    peer = Peer(rig, protocol)
    peer.say(peer.ask(1, "counter.add", "a", ack="synced"), peer.ask(2, "counter.get", "a"))
    await rig.settle()
    assert peer.heard() == [[1, 2, None, 1]]
    rig.sync()
    await rig.settle()
    assert peer.heard() == [[1, 1, None, 1]]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 1_500), min_size=1, max_size=5),
    st.integers(0, 3),
    st.sampled_from((7, 1_000, 100_000)),
)
def test_frames_in_messages_of_any_number(counts, torn, cost):
    """Of many frames only so many as run are looked at, and all are run."""

    async def answered():
        rig = Rig(Limits(connection_cost_per_turn=cost, turn_cost_max=100_000))
        peer = Peer(rig, MSGPACK)
        number = 0
        data = []
        for count in counts:
            bodies = [[0, number + place, "server.time", []] for place in range(count)]
            number += count
            data.append(peer.message(*bodies))
        if torn:
            data.append(client_frame(BINARY, frame([0, number, "server.time", []])[:-torn]))
        peer.say(*data)
        for _ in range(40):
            await rig.settle()
        heard = [one[1] for one in peer.heard() if one[0] != CLOSE]
        assert heard == [*range(number), *([None, "close"] if torn else [])]

    asyncio.run(answered())


# --- messages that are none of ours ---


@pytest.mark.parametrize(
    ("protocol", "payload", "said"),
    [
        (MSGPACK, b"\x00\x00\x00\x05\x94", "middle of a frame"),
        (MSGPACK, b"\x00\x00", "middle of a frame"),
        (MSGPACK, b"\x00\x00\x00\x01\xc1", "msgpack"),
        (MSGPACK, frame([7]), "a frame is"),
        (MSGPACK, frame([0, 7, "server.ping", []]) + b"\x00\x00\x00\x01", "middle of a frame"),
        (JSON, b"{", "JSON"),
        (JSON, b"7", "a frame is"),
        (JSON, b'[0,1,"counter.add",[NaN]]', "JSON"),
        (JSON, b'[0,-1,"counter.add",[]]', "a frame is"),
        (JSON, b"[0,1,\n2]", "JSON"),
        (JSON, b'[0,7,"server.ping",[]]\n[[', "JSON"),
        (JSON, b"[0,1,2," + b"[" * 40 + b"]" * 40 + b"]", "nested"),
    ],
)
async def test_they_are_said_in_the_words_of_the_protocol(protocol, payload, said):
    """What came before is answered, what comes after is not read."""
    rig = Rig()
    peer = Peer(rig, protocol)
    opcode = BINARY if protocol == MSGPACK else TEXT
    peer.say(
        peer.ask(1, "counter.add", "a"),
        client_frame(opcode, payload),
        peer.ask(2, "counter.add", "a"),
    )
    await rig.settle()
    first, *others, error, push, goodbye = peer.heard()
    assert first == [1, 1, None, 1]
    assert [one[1] for one in others] == ([7] if b"server.ping" in payload else [])
    assert error[:2] == [1, None]
    assert error[2][:2] == [100, "protocol_error"]
    assert said in error[2][2]
    assert push[:2] == [2, "close"]
    assert (push[2]["code"], push[2]["name"]) == (4500, "protocol_error")
    assert goodbye == closed(4500, "protocol_error")
    assert rig.store.counters.get(rig.now, "a") == 1
    assert not peer.transport.closing
    peer.say(client_frame(CLOSE, close_payload(4500)))
    assert peer.transport.closing
    assert rig.metrics.errors == {"protocol_error": 1}


@pytest.mark.parametrize(
    ("protocol", "opcode", "said"), [(JSON, BINARY, "text"), (MSGPACK, TEXT, "binary")]
)
async def test_a_message_of_the_other_kind(protocol, opcode, said):
    rig = Rig()
    peer = Peer(rig, protocol)
    peer.say(peer.ask(1, "counter.add", "a"), client_frame(opcode, b"x"))
    await rig.settle()
    assert peer.heard() == [
        [1, 1, None, 1],
        closed(1003, f"this sub-protocol takes {said} messages"),
    ]


# --- violations ---


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (client_frame(TEXT, b"x", mask=None), 1002),
        (client_frame(3), 1002),
        (client_frame(TEXT, b"\xff"), 1007),
        (client_frame(TEXT, declared=2 << 20), 1009),
        (b"".join(client_frame(0 if n else TEXT, final=False) for n in range(65)), 1009),
    ],
)
async def test_a_violation_gets_its_close_code_after_the_answers(bad, code):
    rig = Rig()
    peer = Peer(rig)
    peer.say(peer.ask(1, "counter.add", "a"), bad, peer.ask(2, "counter.add", "a"))
    await rig.settle()
    first, (opcode, payload) = peer.heard()
    assert first == [1, 1, None, 1]
    assert (opcode, payload[:2]) == (CLOSE, code.to_bytes(2, "big"))
    assert len(payload) > 10
    # The peer learns of it before it meets a closed socket, whatever it is still sending.
    assert peer.transport.eof
    assert not peer.transport.closing
    peer.say(b"x" * 100_000)
    await rig.settle()
    assert peer.stream.eof_received()
    assert peer.transport.closing
    await rig.settle()
    assert rig.metrics.closes == {"frame_too_large" if code == 1009 else "protocol_error": 1}


async def test_the_limits_are_the_configured_ones():
    rig = Rig(Limits(frame_bytes_max=2_000, ws_fragments_max=2))
    good, large, torn = Peer(rig), Peer(rig), Peer(rig)
    good.say(ws.message(TEXT, b'[0,1,"server.ping",', b"[]]" + b" " * 1_982))
    large.say(client_frame(TEXT, declared=2_005))
    torn.say(ws.message(TEXT, b"a", b"b", b"c"))
    await rig.settle()
    assert good.heard()[0][:2] == [1, 1]
    assert large.heard()[0][1][:2] == torn.heard()[0][1][:2] == (1009).to_bytes(2, "big")


async def test_the_largest_frame_of_tcp_fits_a_message():
    rig = Rig(Limits(frame_bytes_max=2_000))
    peer = Peer(rig, MSGPACK)
    body = [0, 1, "channel.publish", ["c", b""]]
    room = 2_000 - len(msgpack.packb(body)) - 1  # the longer bytes header
    body[3][1] = b"x" * room
    assert len(frame(body)) == 2_004
    peer.say(peer.message(body))
    await rig.settle()
    assert peer.heard()[0][2] is None


# --- ping ---


async def test_pings_are_answered_in_order(protocol):
    rig = Rig()
    peer = Peer(rig, protocol)
    peer.say(*[client_frame(PING, b"%d" % number) for number in range(3_000)], client_frame(PONG))
    await rig.settle()
    assert peer.heard() == [(PONG, b"%d" % number) for number in range(3_000)]


async def test_pings_of_a_peer_that_does_not_read_cost_bounded_memory():
    rig = Rig(Limits(outbox_soft_bytes=1_000))
    peer = Peer(rig)
    peer.transport.takes = 0
    said = 0
    while peer.transport.reading:
        peer.say(*[client_frame(PING, b"ping")] * 100)
        await rig.settle()
        said += 100
    assert not peer.transport.reading
    assert len(peer.transport.stuck) < 1_200
    while peer.transport.stuck:
        peer.transport.take_stuck()
        await rig.settle()
    assert peer.transport.reading
    assert peer.heard() == [(PONG, b"ping")] * said


# --- parting ---


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (b"", b""),
        (close_payload(1000), close_payload(1000)),
        (close_payload(1001, "going away"), close_payload(1001)),
        (close_payload(4321, "mine"), close_payload(4321)),
    ],
)
async def test_the_peers_close_is_answered_and_the_socket_closed(payload, answer):
    rig = Rig()
    peer = Peer(rig)
    peer.say(client_frame(CLOSE, payload), peer.ask(1, "counter.add", "a"))
    await rig.settle()
    assert peer.heard() == [(CLOSE, answer)]
    assert peer.transport.closing
    assert not rig.hub.parties
    assert not rig.metrics.closes
    assert not rig.store.counters.get(rig.now, "a")


async def test_a_goodbye_waits_for_what_was_asked_before(protocol):
    rig = Rig()
    peer = Peer(rig, protocol)
    peer.say(peer.ask(1, "counter.add", "a", ack="synced"), client_frame(CLOSE))
    await rig.settle()
    assert peer.heard() == []
    assert not peer.transport.closing
    rig.sync()
    await rig.settle()
    assert peer.heard() == [[1, 1, None, 1], (CLOSE, b"")]
    assert peer.transport.closing


async def test_our_close_waits_for_the_peers(protocol):
    rig = Rig()
    peer = Peer(rig, protocol)
    rig.turn.open()
    peer.stream.connection.close(CLOSE_KICKED, "enough")
    await rig.settle()
    push, goodbye = peer.heard()
    assert push == [2, "close", {"code": 4503, "name": "kicked", "message": "enough"}]
    assert goodbye == closed(4503, "kicked")
    assert not peer.transport.closing
    peer.say(peer.ask(1, "counter.add", "a"), client_frame(PING))  # it could not know yet
    await rig.settle()
    assert not peer.transport.closing
    peer.say(client_frame(CLOSE, close_payload(4503)))
    await rig.settle()
    assert peer.transport.closing
    assert peer.heard() == []
    assert not rig.store.counters.get(rig.now, "a")
    assert rig.metrics.closes == {"kicked": 1}


async def test_our_close_finds_the_peers_behind_much_else():
    rig = Rig()
    peer = Peer(rig)
    rig.turn.open()
    peer.stream.connection.close(CLOSE_KICKED, "enough")
    await rig.settle()
    peer.say(*[client_frame(PONG)] * 2_000, client_frame(CLOSE))
    await rig.settle()
    assert peer.transport.closing


async def test_a_peer_that_does_not_answer_our_close_is_cut(monkeypatch):
    monkeypatch.setattr(websocket, "END_GRACE_S", 0.01)
    rig = Rig()
    peer = Peer(rig)
    rig.turn.open()
    peer.stream.connection.close(CLOSE_KICKED, "enough")
    await rig.settle()
    assert not peer.transport.closing
    await asyncio.sleep(0.05)
    assert peer.transport.closing
    await rig.settle()
    assert not rig.hub.parties


async def test_our_close_finds_the_peers_where_nothing_was_read():
    rig = Rig(Limits(outbox_soft_bytes=1_000))
    peer = Peer(rig)
    peer.transport.takes = 0
    peer.say(*[peer.ask(number, "server.time") for number in range(50)])
    await rig.settle()
    assert not peer.transport.reading
    rig.turn.open()
    peer.stream.connection.close(CLOSE_KICKED, "enough")
    await rig.settle()
    assert peer.transport.reading
    peer.transport.take_stuck()
    assert peer.heard()[-1] == closed(4503, "kicked")
    peer.say(client_frame(CLOSE))
    await rig.settle()
    assert peer.transport.closing


async def test_both_close_at_once():
    rig = Rig()
    peer = Peer(rig)
    rig.turn.open()
    peer.stream.connection.close(CLOSE_KICKED, "enough")
    peer.say(client_frame(CLOSE, close_payload(1000)))
    await rig.settle()
    assert [one[0] for one in peer.heard()] == [2, CLOSE]
    assert peer.transport.closing


async def test_bytes_that_end_without_a_close(protocol):
    rig = Rig()
    peer = Peer(rig, protocol)
    peer.say(
        peer.ask(1, "channel.subscribe", "c"),
        peer.ask(2, "counter.add", "a", ack="synced"),
        peer.ask(3, "counter.add", "a")[:20],
    )
    assert peer.stream.eof_received()
    await rig.settle()
    assert [one[1] for one in peer.heard()] == [1]
    rig.sync()
    await rig.settle()
    reply, (opcode, payload) = peer.heard()
    assert reply == [1, 2, None, 1]
    assert (opcode, payload[:2]) == (CLOSE, (1002).to_bytes(2, "big"))
    assert peer.transport.closing
    assert rig.router.subscriptions == 0
    assert not rig.metrics.closes


async def test_a_lost_connection_leaves_nothing_behind(protocol):
    rig = Rig(Limits(turn_ms_max=60_000))  # both requests run before the loss, however busy it is
    peer = Peer(rig, protocol)
    peer.say(peer.ask(1, "channel.subscribe", "c"), peer.ask(2, "counter.add", "a", ack="synced"))
    peer.transport.abort()
    await rig.settle()
    rig.sync()
    await rig.settle()
    assert rig.hub.connections == len(rig.hub.parties) == rig.router.subscriptions == 0
    assert rig.store.counters.get(rig.now, "a") == 1


async def test_a_stream_that_is_gone_is_freed_without_a_collector(protocol):
    """Automatic collection is off: nothing may refer back to it."""
    rig = Rig()
    gone = []
    gc.disable()
    try:
        for goodbye in (client_frame(CLOSE), client_frame(3), client_frame(TEXT, b"{")[:6]):
            peer = Peer(rig, protocol)
            gone.append(weakref.ref(peer.stream))
            peer.say(peer.ask(1, "channel.subscribe", "c"), goodbye)
            await rig.settle()
            if not peer.transport.closing:
                peer.transport.abort()
            await rig.settle()
        del peer
        assert [stream() for stream in gone] == [None] * 3
    finally:
        gc.enable()


# --- once a second ---


def look(rig, after_ms):
    rig.now += after_ms
    rig.clock.advance(after_ms)
    rig.hub.look_after(rig.now)


async def test_a_quiet_peer_is_pinged_once_and_cut_after_two_intervals():
    rig = Rig(Limits(ws_ping_ms=10_000))
    peer = Peer(rig)
    look(rig, 4_000)
    await rig.settle()
    assert peer.heard() == []
    for _ in range(15):
        look(rig, 1_000)
        await rig.settle()
    assert peer.heard() == [(PING, b"")]
    look(rig, 1_100)
    await rig.settle()
    push, goodbye = peer.heard()
    assert push[2]["name"] == "idle_timeout"
    assert goodbye == closed(4002, "idle_timeout")


async def test_nobody_is_cut_without_time_to_answer():
    """However rarely it is looked at."""
    rig = Rig(Limits(ws_ping_ms=100))
    peer = Peer(rig)
    for _ in range(5):
        look(rig, 60_000)
        look(rig, 99)
        await rig.settle()
        assert peer.heard() == [(PING, b"")]
        peer.say(client_frame(PONG))
        await rig.settle()


@pytest.mark.parametrize(
    "answers",
    [
        [client_frame(PONG)] * 4,
        [client_frame(TEXT, b"\n")] * 4,
        [b"\x8a", b"\x84", ws.MASK[:2], ws.MASK[2:]],
    ],
)
async def test_any_byte_is_a_sign_of_life(answers):
    rig = Rig(Limits(ws_ping_ms=10_000))
    peer = Peer(rig)
    for answer in answers:
        look(rig, 10_001)
        await rig.settle()
        assert peer.heard() == [(PING, b"")]
        peer.say(answer)
        await rig.settle()
        peer.heard()
    assert rig.hub.parties


async def test_those_who_came_together_are_not_pinged_together():
    rig = Rig(Limits(ws_ping_ms=10_000))
    peers = [Peer(rig) for _ in range(256)]
    pinged = []
    for _ in range(11):
        look(rig, 1_000)
        await rig.settle()
        pinged.append(sum(len(peer.heard()) for peer in peers))
    assert sum(pinged) == 256
    assert max(pinged) < 80


async def test_a_peer_that_is_not_listened_to_is_not_cut():
    rig = Rig(Limits(ws_ping_ms=10_000, outbox_soft_bytes=1_000, outbox_stuck_ms=1_000_000))
    peer = Peer(rig)
    peer.transport.takes = 0
    peer.say(*[peer.ask(number, "server.time") for number in range(50)])
    await rig.settle()
    assert not peer.transport.reading
    for _ in range(50):
        look(rig, 1_000)
        await rig.settle()
    assert peer.stream.connection.is_open
    assert not peer.transport.reading
    peer.transport.take_stuck()
    for _ in range(10):
        await rig.settle()
    assert peer.transport.reading
    look(rig, 1_000)
    assert peer.stream.connection.is_open


# --- publications ---


async def test_a_publication_is_one_write_of_the_same_bytes_for_all_of_a_form(monkeypatch):
    rig = Rig()
    written = []
    peers = [Peer(rig, FORMS[number % 2]) for number in range(6)]
    for peer in peers:
        peer.say(peer.ask(1, "channel.subscribe", "c"))
    await rig.settle()
    for peer in peers:
        peer.heard()
    publisher = Peer(rig)
    streams = [peer.stream for peer in peers]

    def write(stream, data):
        if stream in streams:  # not the publisher's
            written.append(data)

    monkeypatch.setattr(type(publisher.stream), "write", write)
    publisher.say(publisher.ask(1, "channel.publish", "c", {"n": 1}, "key"))
    await rig.settle()
    assert len(written) == 6
    assert len({id(data) for data in written}) == 2
    ((_, text),), _ = ws.cut(written[0])
    ((_, packed),), _ = ws.cut(written[1])
    push = json.loads(text)
    assert push[:2] == [2, "message"]
    assert {"channel": "c", "offset": 1, "data": {"n": 1}, "key": "key"}.items() <= push[2].items()
    assert cut(packed) == [push]


async def test_a_slow_subscriber_catches_up_and_delays_nobody(protocol):
    rig = Rig(Limits(outbox_soft_bytes=2_000))
    slow, quick, publisher = (Peer(rig, protocol) for _ in range(3))
    for peer in (slow, quick):
        peer.say(peer.ask(1, "channel.subscribe", "c"))
    await rig.settle()
    slow.transport.takes = 0
    for number in range(60):
        publisher.say(publisher.ask(number, "channel.publish", "c", "x" * 200))
        await rig.settle()
        publisher.heard()
    assert len(quick.heard()) == 61
    assert len(slow.transport.stuck) < 3_000
    while slow.transport.stuck:
        slow.transport.take_stuck()
        await rig.settle()
    pushes = [one[2]["offset"] for one in slow.heard() if one[0] == 2]
    assert pushes == list(range(1, 61))


# --- upgrade ---


async def test_a_refused_upgrade_touches_nothing():
    rig = Rig()
    transport = FakeTransport(rig)
    with pytest.raises(HandshakeRefused) as refused:
        upgrade(rig.hub, transport, handshake("chat"))
    assert refused.value.status == 400
    assert transport.bytes() == b""
    assert transport.protocol is None
    assert not rig.hub.parties


async def test_who_may_not_come_in():
    rig = Rig()
    seen = []

    def identify(token, session):
        seen.append((token, session))
        raise RtError(UNAUTHENTICATED, "no")

    rig.hub.identify = identify
    transport = FakeTransport(rig)
    for headers in ({"authorization": ["Bearer t.o.k"], "rt-session": ["s1"]}, {}):
        with pytest.raises(RtError):
            upgrade(rig.hub, transport, handshake(**headers))
    assert seen == [("t.o.k", "s1"), (None, None)]
    assert transport.protocol is None


async def test_too_many_connections():
    rig = Rig(Limits(connections_max=1))
    Peer(rig)
    second = Peer(rig)
    second.say(second.ask(1, "counter.add", "a"))
    await rig.settle()
    push, goodbye = second.heard()
    assert push[2]["name"] == "too_many_connections"
    assert goodbye == closed(4003, "too_many_connections")
    assert not rig.store.counters.get(rig.now, "a")
