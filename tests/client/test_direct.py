"""A lone thread is lent the socket; whatever else happens, nothing is lost, doubled or held up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
import time

import pytest

import rtclient
import rtclient.sync
from rtclient import direct, runner, wire
from tests.client.fake import FakeServer
from tests.client.test_sync import in_threads

pytestmark = pytest.mark.skipif(not direct.AVAILABLE, reason="there is no poll here")


class Host:
    """A FakeServer in a thread of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.server = FakeServer()
        self.loop.run_until_complete(self.server.listen())
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def later(self, seconds, work, *args):
        self.loop.call_soon_threadsafe(self.loop.call_later, seconds, work, *args)

    def close(self):
        def stop():
            self.server.listener.close()
            for peer in self.server.peers:
                peer.cut()
            self.loop.call_soon(self.loop.stop)

        self.loop.call_soon_threadsafe(stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture(autouse=True, params=["installed", "asyncio"])
def event_loop_of_the_client(request, monkeypatch):
    if request.param == "asyncio":
        monkeypatch.setattr(runner, "_new_loop", asyncio.new_event_loop)


@pytest.fixture
def host():
    host = Host()
    yield host
    host.close()


@contextlib.contextmanager
def lent(url, **options):
    """A client whose socket is lent, as one call shows."""
    with rtclient.sync.connect(url, **options) as rt:
        lend(rt)
        yield rt


def lend(rt):
    for _ in range(100):
        rt.counter.get("lend")
        if rt._runner._line is not None:
            return
    raise AssertionError("the socket was not lent")


def eventually(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


def test_a_lone_thread_needs_no_other(host, monkeypatch):
    with lent(host.server.url) as rt:
        line = rt._runner._line
        handed_over = []
        monkeypatch.setattr(rt._runner, "_hand_over", lambda *_: handed_over.append(1))
        uses = line.uses
        for n in range(20):
            assert rt.counter.get(str(n)) == [str(n)]
        assert line.uses == uses + 20
        assert handed_over == []


def test_without_a_descriptor_for_it_calls_go_through_the_loop(host, monkeypatch):
    def no_more(_):
        raise OSError

    monkeypatch.setattr(direct.os, "dup", no_more)
    with rtclient.sync.connect(host.server.url) as rt:
        for n in range(20):
            assert rt.counter.get(str(n)) == [str(n)]
        assert rt._runner._line is None


def test_what_nobody_uses_goes_back_and_pushes_are_read(host):
    with lent(host.server.url) as rt:
        eventually(lambda: rt._runner._line is None)
        host.loop.call_soon_threadsafe(host.server.peer.close, 4000)
        eventually(lambda: len(host.server.peers) == 2)
        eventually(lambda: rt.connected)
        assert rt.counter.get("x") == ["x"]


def test_a_refusal_and_a_mistake_leave_the_loan_as_it_is(host):
    with lent(host.server.url) as rt:
        host.server.answer = lambda peer, request: peer.refuse(request, 200, "not_found")
        line = rt._runner._line
        for _ in range(3):
            with pytest.raises(rtclient.NotFound):
                rt.board.info("x")
            with pytest.raises(TypeError):
                rt.channel.publish("c", object())
            with pytest.raises(TypeError):
                rt.counter.add("x", acks="synced")
        assert rt._runner._line is line


@pytest.mark.parametrize("cuts", [[1], [3], [4], [5], [40], [2, 30], [50_000]])
def test_a_reply_in_pieces_and_a_large_one(host, cuts):
    def slowly(peer, request):
        body = wire.Packer().pack([1, request[1], None, request[3][0]])
        frame = wire.header(len(body)) + body
        for n, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(frame)], strict=True)):
            host.loop.call_later(0.01 * n, peer.transport.write, frame[start:stop])

    with lent(host.server.url) as rt:
        host.server.answer = slowly
        assert rt.counter.get("x" * 100_000) == "x" * 100_000
        host.server.answer = lambda peer, request: peer.reply(request, request[3])
        lend(rt)


def test_a_call_that_the_socket_does_not_take_at_once(host):
    with lent(host.server.url) as rt:
        host.loop.call_soon_threadsafe(host.server.peer.transport.pause_reading)
        host.later(0.1, host.server.peer.transport.resume_reading)
        data = os.urandom(900_000)
        for _ in range(12):
            with contextlib.suppress(rtclient.OutcomeUnknown):
                assert rt.call("echo", data) == [data]
            lend(rt)


def test_a_push_beside_the_reply(host):
    def with_push(peer, request):
        peer.send([2, "drain", {}], [1, request[1], None, "first"])

    with lent(host.server.url) as rt:
        host.server.answer = with_push
        assert [rt.counter.get("x") for _ in range(20)] == ["first"] * 20


def test_a_reply_to_nobody_is_passed_over(host):
    def twice(peer, request):
        peer.send([1, 10**6, None, "whose?"])
        host.loop.call_later(0.01, peer.reply, request, "mine")

    with lent(host.server.url) as rt:
        host.server.answer = twice
        assert [rt.counter.get("x") for _ in range(5)] == ["mine"] * 5


@pytest.mark.parametrize(
    "garbage", [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\4\x91\xdd\xff\xff"]
)
def test_garbage_is_a_reason_to_reconnect(host, garbage):
    def once(peer, request):
        host.server.answer = lambda peer, request: peer.reply(request, "well")
        peer.transport.write(garbage)
        if garbage[0] == 0:
            peer.cut()

    with lent(host.server.url) as rt:
        host.server.answer = once
        assert rt.counter.get("x") == "well"
        assert len(host.server.peers) == 2


def test_a_cut_while_a_thread_leads(host):
    def cut(peer, request):
        host.server.answer = lambda peer, request: peer.reply(request, {"deleted": True})
        peer.cut()

    with lent(host.server.url) as rt:
        host.server.answer = cut
        assert rt.board.delete("x").deleted
        lend(rt)
        host.server.answer = cut
        with pytest.raises(rtclient.OutcomeUnknown):
            rt.counter.add("x")
        assert rt.counter.get("x") == {"deleted": True}


def test_a_leader_hears_of_her_timeout_and_her_late_reply_disturbs_nobody(host):
    with lent(host.server.url, timeout=0.1) as rt:
        host.server.answer = lambda peer, request: None
        with pytest.raises(rtclient.OutcomeUnknown):
            rt.counter.add("x")
        late = host.server.requests[-1]
        host.server.answer = lambda peer, request: peer.reply(request, "mine")
        host.loop.call_soon_threadsafe(host.server.peer.reply, late, "late")
        assert [rt.counter.get("x") for _ in range(20)] == ["mine"] * 20


def test_an_interrupted_leader_gives_up_her_call_and_nothing_else(host):
    with lent(host.server.url) as rt:
        host.server.answer = lambda peer, request: None
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            rt.counter.get("x")
        late = host.server.requests[-1]
        host.server.answer = lambda peer, request: peer.reply(request, "mine")
        host.loop.call_soon_threadsafe(host.server.peer.reply, late, "late")
        assert [rt.counter.get("x") for _ in range(20)] == ["mine"] * 20
        assert len(host.server.peers) == 1


def test_interrupts_at_any_step_leave_a_client_that_works(host):
    """A handler that raises, at a moment nobody chose: no call gets another's answer."""
    chance = random.Random()

    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    old = signal.signal(signal.SIGALRM, stop)
    try:
        with lent(host.server.url) as rt:
            stopped = 0
            for n in range(400):
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00002, 0.0006))
                    for _ in range(20):
                        assert rt.counter.get(str(n)) == [str(n)]
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except Stop:
                    stopped += 1
            assert stopped > 20
            assert rt.counter.get("after") == ["after"]
            rt.batch().__exit__(None, None, None)
            eventually(lambda: not len(rt._runner.link.ledger))
            assert rt._runner.link.ledger._bytes == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_others_are_not_held_up_by_a_leader(host):
    with lent(host.server.url) as rt:
        held = []
        host.server.answer = lambda peer, request: held.append((peer, request))
        leader = threading.Thread(target=rt.counter.get, args=("slow",))
        leader.start()
        eventually(lambda: held)
        host.server.answer = lambda peer, request: peer.reply(request, request[3])
        assert rt.counter.get("quick") == ["quick"]
        with rt.batch() as b:
            answer = b.counter.get("batch")
        assert answer.result() == ["batch"]
        assert rt.counter.get("timed", timeout=5) == ["timed"]
        host.loop.call_soon_threadsafe(held[0][0].reply, held[0][1], 1)
        leader.join(10)
        assert not leader.is_alive()


def test_closing_ends_a_leader(host, monkeypatch):
    monkeypatch.setattr(rtclient.link, "_DRAIN_S", 0.05)
    outcomes = []

    def lead(rt):
        try:
            rt.counter.get("x")
        except rtclient.Closed as error:
            outcomes.append(error)

    with lent(host.server.url) as rt:
        host.server.answer = lambda peer, request: None
        leader = threading.Thread(target=lead, args=(rt,))
        leader.start()
        eventually(lambda: len(rt._runner.link.ledger))
    leader.join(10)
    assert len(outcomes) == 1


def test_everything_at_once(real):
    """Threads that call alone and together, batches, subscriptions, timeouts of their own."""
    over = time.monotonic() + 1.5

    with rtclient.sync.connect(real.url) as rt:

        def work(n):
            chance = random.Random(n)
            count = rt.counter.get(f"mixed:{n}")
            while time.monotonic() < over:
                for _ in range(chance.randrange(30)):
                    count += 1
                    assert rt.counter.add(f"mixed:{n}") == count
                kind = chance.randrange(4)
                if kind == 0:
                    with rt.batch() as b:
                        futures = [b.counter.add(f"mixed:{n}") for _ in range(5)]
                    assert [future.result() for future in futures] == [*range(count + 1, count + 6)]
                    count += 5
                elif kind == 1:
                    with rt.channel.subscribe(f"mixed:{n}") as messages:
                        rt.channel.publish(f"mixed:{n}", count)
                        assert messages.next(timeout=5).data == count
                elif kind == 2:
                    assert rt.counter.get(f"mixed:{n}", timeout=5) == count
                else:
                    time.sleep(chance.choice([0.001, 0.05, 0.2]))

        in_threads(3, work)
