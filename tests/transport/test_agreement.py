"""The compiled form and plain Python agree byte for byte: replies, records, state.

The same stream of frames, well-formed and not, goes through both, in the same pieces and turns.
"""

from __future__ import annotations

import asyncio
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.compiled import twin
from rtserver.errors import MEMORY_FULL, ProtocolError, RtError
from rtserver.transport.binary import new_frame_reader
from rtserver.wire.codec import pack
from tests.transport.rig import Rig, request, say
from tests.world import Peer, World, content

pytestmark = pytest.mark.skipif(
    twin("rtserver.transport.binary") is None,
    reason="SKIPPED: there is no compiled form here to compare with",
)

NAMES = ["a", "b", "likes:42", "x" * 32, "é", "名前", "x" * 255]
ODD_NAMES = ["", "with space", "a,b", "\x00", "x" * 256, "\u2028", "$x", 7, None, b"a"]
INTS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**63 - 1, -(2**63), 2**63, 2**62, -(2**62), 127, 128, -32, -33, 65_536]),
    st.integers(-(2**64), 2**64 - 1).filter(lambda n: n >= -(2**63)),
)
ODD_NUMBERS = [None, 1.5, "1", True, 3.0, -0.0, 1e300, -1e300, float("nan"), float("inf")]


def mostly(usual: list[object], rare: list[object]) -> st.SearchStrategy[object]:
    """Few values that meet again and again, and now and then an odd one."""
    return st.integers(0, 29).flatmap(lambda n: st.sampled_from(rare if n == 0 else usual))


name = st.one_of(mostly(["a", "b"], ODD_NAMES), mostly(["a", "b"], NAMES))
number = st.one_of(st.integers(-3, 3), st.integers(-3, 3), INTS, mostly([1, 2], ODD_NUMBERS))
mode = st.sampled_from([None, None, None, "best", "last", "sum", "worst"])
pair = st.one_of(
    st.tuples(name, number).map(list),
    st.tuples(name, number).map(list),
    st.sampled_from([[], ["a"], ["a", 1, 2], 5, None]),
)
pairs = st.lists(pair, max_size=20)
# Wholly valid vectors, so that they go the short way, some of their items the long one.
scores = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "é", "ü", "名前"]), st.integers(-3, 3)).map(list),
    min_size=1,
    max_size=8,
)
kind = st.sampled_from([None, "ordinal", "competition", "dense"])

calls = st.one_of(
    st.tuples(st.just("counter.add"), st.lists(name, max_size=1)),
    st.tuples(st.just("counter.add"), st.tuples(name, number).map(list)),
    st.tuples(st.just("counter.add"), st.tuples(name, number, number).map(list)),
    st.tuples(st.just("counter.add_many"), st.tuples(pairs).map(list)),
    st.tuples(st.just("counter.set"), st.tuples(name, number).map(list)),
    st.tuples(st.just("counter.get"), st.tuples(name).map(list)),
    st.tuples(st.just("counter.delete"), st.tuples(name).map(list)),
    st.tuples(st.just("counter.add_within"), st.tuples(name, number, number, number).map(list)),
    st.tuples(st.just("board.create"), st.tuples(name, st.sampled_from(["asc", "desc"])).map(list)),
    st.tuples(
        st.just("board.create"),
        st.tuples(name, st.sampled_from(["asc", "desc"]), mode, st.just("float")).map(list),
    ),
    st.tuples(st.just("board.submit"), st.tuples(name, name, number).map(list)),
    st.tuples(st.just("board.submit"), st.tuples(name, name, number, mode).map(list)),
    st.tuples(
        st.just("board.submit"),
        st.tuples(name, name, number, mode, st.none(), st.sampled_from([None, 5])).map(list),
    ),
    st.tuples(st.just("board.submit_many"), st.tuples(name, pairs).map(list)),
    st.tuples(st.just("counter.add_many"), st.tuples(scores).map(list)),
    st.tuples(st.just("board.submit_many"), st.tuples(st.just("a"), scores).map(list)),
    st.tuples(st.just("board.rank"), st.tuples(name, name).map(list)),
    st.tuples(
        st.just("board.rank"),
        st.tuples(name, name, st.sampled_from([None, "all", "week"]), st.none(), kind).map(list),
    ),
    st.tuples(st.just("board.top"), st.tuples(name).map(list)),
    st.tuples(st.just("board.remove"), st.tuples(name, st.lists(name, min_size=1)).map(list)),
    st.tuples(
        st.just("board.remove"),
        st.tuples(name, st.lists(name, min_size=1), st.just(True)).map(list),
    ),
    st.tuples(st.just("board.delete"), st.tuples(name).map(list)),
    st.tuples(st.just("channel.publish"), st.tuples(name, number).map(list)),
    st.tuples(st.sampled_from(["counter.nope", "server.ping", "counter.list"]), st.just([])),
)
ACKS = [None, {}, {"ack": "synced"}, {"ack": "logged"}, {"ack": "memory"}]
ODD_OPTIONS = [
    {"ack": "never"},
    {"timeout_ms": 5},
    {"idempotency_key": "k"},
    {"as_user": "x"},
    5,
    [],
]
options = mostly([...] * 20 + ACKS, ODD_OPTIONS)
ids = mostly([0, 1, 127, 128, 300, 2**32, 2**63, 2**64 - 1], [-1, None, "1", 2**64 - 1])


def wide(value: object) -> bytes:
    """A value in the longest encoding that msgpack has for it."""
    if type(value) is int and -(2**63) <= value < 2**63:
        return b"\xd3" + struct.pack(">q", value)
    if type(value) is str:
        text = value.encode()
        return b"\xdb" + struct.pack(">I", len(text)) + text
    if type(value) is list:
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(wide, value))
    if type(value) is dict:
        flat = b"".join(wide(part) for pair in value.items() for part in pair)
        return b"\xdf" + struct.pack(">I", len(value)) + flat
    return pack(value)


@st.composite
def frame(draw: st.DrawFn) -> bytes:
    method, params = draw(calls)
    body = [0, draw(ids), method, params]
    given_options = draw(options)
    if given_options is not ...:
        body.append(given_options)
    packed = wide(body) if draw(st.integers(0, 9)) == 0 else pack(body)
    if draw(st.integers(0, 99)) == 0:  # damage
        at = draw(st.integers(0, len(packed) - 1))
        packed = packed[:at] + bytes([draw(st.integers(0, 255))]) + packed[at + 1 :]
    if draw(st.integers(0, 199)) == 0:
        packed += b"\x00"
    return struct.pack(">I", len(packed)) + packed


class Side:
    """One form, with one connection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, pure: bool, user: str | None) -> None:
        monkeypatch.setenv("RTSERVER_PURE", "1" if pure else "0")
        self.world = World()
        self.peer = Peer()
        self.connection = self.world.connect(self.peer)
        self.connection.user = user
        self.reader = new_frame_reader(self.world, self.connection)
        assert (type(self.reader).__module__ == "rtserver.transport.binary") is pure

    def turn(self, piece: bytes, *, full: bool) -> tuple[bytes, str | None, int]:
        """Its replies, how the stream failed, and the cost of nothing: the commands counted."""
        failure = None
        self.world.store.growth.refusal = RtError(MEMORY_FULL, "full") if full else None
        self.world.now += 1
        self.world.open_turn()
        self.reader.receive(piece)
        try:
            self.reader.run()
        except ProtocolError as error:
            failure = f"{error.kind.name}: {error.message}"
            self.reader.drop()
        self.world.end_turn()
        self.world.sync()
        said, self.peer.data = self.peer.data, b""
        return said, failure, self.world.metrics.commands


@settings(deadline=None, max_examples=300)
@given(
    frames=st.lists(frame(), min_size=20, max_size=40),
    cuts=st.lists(st.integers(1, 2_000), min_size=1, max_size=20),
    user=st.sampled_from([None, None, "ann"]),
    full=st.sets(st.integers(0, 20), max_size=8),
)
def test_both_forms_say_log_and_hold_the_same(frames, cuts, user, full):
    with pytest.MonkeyPatch.context() as monkeypatch:
        compiled = Side(monkeypatch, pure=False, user=user)
        plain = Side(monkeypatch, pure=True, user=user)
        stream = b"".join(frames)
        turn = 0
        while stream:
            size = cuts[turn % len(cuts)]
            piece, stream = stream[:size], stream[size:]
            said = compiled.turn(piece, full=turn in full)
            assert said == plain.turn(piece, full=turn in full)
            if said[1] is not None:
                break
            turn += 1
        assert compiled.world.blocks == plain.world.blocks
        assert content(compiled.world.store) == content(plain.world.store)
        monkeypatch.setenv("RTSERVER_PURE", "0")
        compiled.world.assert_same()
        monkeypatch.setenv("RTSERVER_PURE", "1")
        plain.world.assert_same()


# --- what only the compiled form can get wrong ---


@pytest.fixture
async def rig():
    return Rig()


async def test_a_failure_in_the_middle_of_a_short_way_stops_the_server(rig, monkeypatch):
    def broken(*_args):
        raise RuntimeError("no memory")

    client = rig.connect()
    say(client, request(1, "board.submit", "b", "m1", 5))
    await rig.settle()
    client.frames()
    monkeypatch.setattr("rtserver.commands._express.submit_item", broken)
    say(client, request(2, "board.submit_many", "b", [["m1", 50], ["é", 7]]))
    say(client, request(3, "board.rank", "b", "m1"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert client.frames() == []
    assert rig.turn.stopped
    assert len(rig.failures) == 1
    assert "board.submit_many failed in the middle" in str(rig.failures[0])


async def test_nothing_that_has_run_is_kept(rig):
    client = rig.connect()
    say(client, request(1, "server.ping"))
    await rig.settle()
    for size in (10, 100_000):
        data = request(2, "counter.get", "x" * size)
        before = sys.getrefcount(data)
        client.protocol.data_received(data)
        await rig.settle()
        assert sys.getrefcount(data) == before


def test_a_deleted_board_is_not_looked_ahead_for():
    """Its memory goes turn by turn, while requests for it still come in."""
    world = World()
    for start in range(0, 3_000, 1_000):
        world.call("board.submit_many", "b", [[f"m{n}", n] for n in range(start, start + 1_000)])
    frames = b"".join(request(n, "board.rank", "b", f"m{n}") for n in range(100))
    reader = new_frame_reader(world, world.connection)
    for turn in range(200):
        world.open_turn()
        if turn == 1:
            world.send("board.delete", "b")
        reader.receive(frames)
        reader.run()
        world.end_turn()
        world.peer.take()
