"""TLS between a real client's half and the transport, over a socket that the test plays."""

from __future__ import annotations

import asyncio
import ssl

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.config import TlsConfig
from rtserver.transport.tls import Certificate, TlsTransport


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    made = authority.issue_cert("localhost")
    made.private_key_pem.write_to_path(folder / "key")
    made.cert_chain_pems[0].write_to_path(folder / "cert")
    return Certificate(TlsConfig(certificate=str(folder / "cert"), key=str(folder / "key")))


class Socket:
    """The transport below: what was written, and whether it is read."""

    def __init__(self):
        self.written = b""
        self.reading = True
        self.closing = False
        self.aborted = False
        self.finished = False
        self.stuck = 0

    def write(self, data):
        assert not self.closing
        assert not self.finished, "nothing may be written after the end"
        self.written += data

    def write_eof(self):
        self.finished = True

    def can_write_eof(self):
        return True

    def get_write_buffer_size(self):
        return self.stuck

    def set_write_buffer_limits(self, high=None, low=None):
        self.limits = (high, low)

    def get_extra_info(self, name, default=None):
        return ("127.0.0.1", 5) if name == "peername" else default

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    def abort(self):
        self.closing = self.aborted = True

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


class Recorder(asyncio.Protocol):
    """The protocol above: what came, and what it wants."""

    def __init__(self):
        self.data = b""
        self.calls = []
        self.stays = True

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data):
        assert data
        self.data += data

    def eof_received(self):
        self.calls.append("eof")
        return self.stays

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.calls.append("lost")


class Pair:
    """A client and the server's transport with the wire between them."""

    def __init__(self, authority, certificate):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.above = Recorder()
        self.below = Socket()
        self.tls = TlsTransport(certificate.context, lambda: self.above)
        self.tls.connection_made(self.below)
        self.wire = b""  # on its way to the server

    def collect(self):
        """What the client sends joins the wire; what the server sent is the client's."""
        self.wire += self.outgoing.read()
        data, self.below.written = self.below.written, b""
        self.incoming.write(data)

    def carry(self, size=1 << 20):
        """Some bytes of the wire arrive."""
        data, self.wire = self.wire[:size], self.wire[size:]
        if data:
            self.tls.data_received(data)

    def shake_hands(self, size=1 << 20):
        while True:
            try:
                self.client.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.collect()
                self.carry(size)
        self.collect()
        while self.wire:
            self.carry(size)
        self.collect()

    def say(self, data):
        self.client.write(data)
        self.collect()
        while self.wire:
            self.carry()

    def hear(self):
        self.collect()
        found = b""
        try:
            while part := self.client.read(1 << 16):
                found += part
        except ssl.SSLWantReadError:
            pass
        return found


@pytest.fixture
async def pair(authority, certificate):
    pair = Pair(authority, certificate)
    pair.shake_hands()
    return pair


async def settle():
    for _ in range(300):
        await asyncio.sleep(0)


async def test_the_protocol_knows_of_it_before_the_handshake(authority, certificate):
    pair = Pair(authority, certificate)
    assert pair.above.calls == ["made"]
    assert pair.above.transport is pair.tls
    pair.above.transport.abort()  # as for a peer that never shakes hands
    assert pair.below.aborted


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
async def test_a_handshake_in_pieces(authority, certificate, size):
    pair = Pair(authority, certificate)
    pair.shake_hands(size)
    pair.say(b"hello")
    assert pair.above.data == b"hello"
    pair.tls.write(b"answer")
    assert pair.hear() == b"answer"


pieces = st.lists(st.binary(min_size=1, max_size=40_000), max_size=6)


@given(said=pieces, answered=pieces, sizes=st.lists(st.integers(1, 5_000), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_bytes_arrive_in_order_however_they_are_cut(authority, certificate, said, answered, sizes):
    async def play():
        pair = Pair(authority, certificate)
        pair.shake_hands()
        for data in said:
            pair.client.write(data)
        pair.collect()
        turn = 0
        while pair.wire:
            pair.carry(sizes[turn % len(sizes)])
            if turn % 5 == 4:
                pair.tls.pause_reading()
                assert not pair.below.reading
                pair.tls.resume_reading()
                await asyncio.sleep(0)
            turn += 1
        await settle()
        assert pair.above.data == b"".join(said)
        assert pair.below.reading
        for data in answered:
            pair.tls.write(data)
        assert pair.hear() == b"".join(answered)

    asyncio.run(play())


async def test_nothing_is_handed_on_while_nobody_reads(pair):
    pair.tls.pause_reading()
    pair.say(b"a" * 100)
    assert pair.above.data == b""
    assert not pair.below.reading
    pair.tls.resume_reading()
    await settle()
    assert pair.above.data == b"a" * 100
    assert pair.below.reading


async def test_thousands_of_tiny_records_are_taken_in_slices(pair):
    for _ in range(2_000):
        pair.client.write(b"x")
    pair.collect()
    pair.carry()
    taken = len(pair.above.data)
    assert 0 < taken < 2_000
    assert not pair.below.reading, "the rest waits here, more may wait in the kernel"
    await settle()
    assert pair.above.data == b"x" * 2_000
    assert pair.below.reading


async def test_write_buffers_are_those_of_the_socket(pair):
    pair.below.stuck = 123_456
    assert pair.tls.get_write_buffer_size() == 123_456
    pair.tls.set_write_buffer_limits(high=10, low=5)
    assert pair.below.limits == (10, 5)
    pair.tls.pause_writing()
    pair.tls.resume_writing()
    assert pair.above.calls[-2:] == ["pause", "resume"]
    pair.tls.write(b"z" * 300_000)
    assert len(pair.below.written) > 300_000, "all of it is where it is counted"


async def test_the_end_of_one_direction_leaves_the_other(pair):
    with pytest.raises(ssl.SSLError):
        pair.client.unwrap()
    pair.collect()
    pair.carry()
    assert pair.above.calls[-1] == "eof"
    assert not pair.below.closing
    pair.tls.eof_received()  # the socket's own end adds nothing
    assert pair.above.calls.count("eof") == 1
    pair.tls.write(b"late")
    assert pair.hear() == b"late"
    pair.tls.close()
    assert pair.below.closing


async def test_a_protocol_that_does_not_stay_is_closed(pair):
    pair.above.stays = False
    assert not pair.tls.eof_received()
    assert pair.below.closing


async def test_close_says_so_to_the_peer(pair):
    pair.tls.write(b"last")
    pair.tls.close()
    pair.collect()
    assert pair.client.read(100) == b"last"
    assert pair.client.read(100) == b"", "it was told of the end, not cut off"
    pair.tls.write(b"nothing more")
    pair.tls.close()
    assert pair.below.written == b""


async def test_the_end_of_writing(pair):
    pair.tls.write(b"last")
    pair.tls.write_eof()
    assert pair.below.finished
    assert not pair.below.closing
    pair.say(b"still heard or not, but without harm")
    pair.tls.close()
    assert pair.below.closing


async def test_forged_records_end_it(pair):
    pair.tls.data_received(b"\x17\x03\x03\x00\x20" + b"f" * 32)
    assert pair.below.aborted
    assert pair.above.data == b""


async def test_no_handshake_at_all(authority, certificate):
    pair = Pair(authority, certificate)
    pair.tls.data_received(b"GET / HTTP/1.1\r\n\r\n")
    assert pair.below.closing
    assert pair.above.data == b""
    pair.tls.connection_lost(None)
    assert pair.above.calls == ["made", "lost"]


async def test_a_protocol_may_be_changed_and_is_let_go(pair):
    other = Recorder()
    pair.tls.set_protocol(other)
    pair.say(b"for the other")
    assert (pair.above.data, other.data) == (b"", b"for the other")
    pair.tls.connection_lost(None)
    assert other.calls == ["lost"]
    assert pair.tls.get_protocol() is None, "or the two would refer to each other for ever"
    pair.below.closing = True
    for late in (pair.tls.close, pair.tls.abort, pair.tls.resume_reading, pair.tls.pause_reading):
        late()
    pair.tls.write(b"late")
    await settle()
    assert pair.tls.get_extra_info("ssl_object") is None, "the large part is let go"


async def test_writing_before_the_handshake_is_a_defect(authority, certificate):
    pair = Pair(authority, certificate)
    with pytest.raises(RuntimeError):
        pair.tls.write(b"too soon")
