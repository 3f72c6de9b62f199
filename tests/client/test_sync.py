"""The blocking client: threads, interrupts, subscriptions, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time

import pytest

import rtclient
import rtclient.sync
from tests.client.fake import FakeServer


@pytest.fixture
def rt(real):
    with rtclient.sync.connect(real.url, user="ann") as client:
        yield client


@pytest.fixture
def silent():
    """The URL of a server that answers no call."""
    loop = asyncio.new_event_loop()
    server = FakeServer(lambda peer, request: None)
    loop.run_until_complete(server.listen())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.url
    loop.call_soon_threadsafe(server.listener.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def in_threads(count, work):
    errors = []

    def run(n):
        try:
            work(n)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []


def test_threads_share_a_client_and_get_their_own_answers(rt):
    def work(n):
        rt.counter.set(f"threads:{n}", n)
        for _ in range(100):
            assert rt.counter.get(f"threads:{n}") == n
            rt.counter.add("threads")

    in_threads(8, work)
    assert rt.counter.get("threads") == 800


def test_the_first_connection_fails_fast_and_leaves_no_thread():
    before = threading.active_count()
    with pytest.raises(rtclient.ConnectionLost, match="cannot connect"):
        rtclient.sync.connect("rt://127.0.0.1:1")
    with pytest.raises(ValueError, match="expected rt://"):
        rtclient.sync.connect("http://127.0.0.1")
    assert threading.active_count() == before


def test_a_refusal_and_a_mistake_are_raised_in_the_calling_thread(rt):
    with pytest.raises(rtclient.NotFound):
        rt.board.info("nothing")
    with pytest.raises(TypeError, match="acks"):
        rt.call("counter.add", "x", acks="synced")
    with pytest.raises(TypeError):
        rt.channel.publish("x", object())
    with pytest.raises(TypeError, match="no option named acks"):
        rt.counter.add("x", acks="synced")


def test_a_timeout(silent):
    with rtclient.sync.connect(silent) as rt:
        with pytest.raises(rtclient.Timeout):
            rt.counter.get("x", timeout=0.02)
        with pytest.raises(rtclient.OutcomeUnknown):
            rt.counter.add("x", timeout=0.02)


def test_closing_answers_everybody_who_waits(silent):
    rt = rtclient.sync.connect(silent)
    outcomes = []

    def wait(call):
        try:
            call("x")
        except rtclient.Error as error:
            outcomes.append(type(error))

    threads = [
        threading.Thread(target=wait, args=(call,)) for call in (rt.counter.get, rt.counter.add)
    ]
    for thread in threads:
        thread.start()
    while len(rt._runner.link.ledger) < 2:
        time.sleep(0.001)
    rt.close()
    rt.close()
    for thread in threads:
        thread.join(10)
    assert set(outcomes) == {rtclient.Closed, rtclient.OutcomeUnknown}
    with pytest.raises(rtclient.Closed):
        rt.counter.get("x")
    with pytest.raises(rtclient.Closed), rt.batch() as b:
        b.counter.add("x")
    with pytest.raises(rtclient.Closed), rt.channel.subscribe("x"):
        pass


def test_an_interrupt_gives_up_the_call_and_nothing_else(silent, real):
    with rtclient.sync.connect(silent) as rt:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            rt.counter.get("x")
        with pytest.raises(rtclient.Timeout):
            rt.counter.get("x", timeout=0.02)


def test_an_interrupted_batch_is_under_way_and_its_outcomes_come(silent):
    with rtclient.sync.connect(silent, timeout=0.3) as rt:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt), rt.batch() as b:
            outcome = b.counter.get("x")
        with pytest.raises(rtclient.Timeout):
            rt.counter.get("x", timeout=1)
        assert isinstance(outcome.exception(), rtclient.Timeout)


def test_a_batch_of_calls_that_were_given_up_ends(rt):
    with rt.batch() as b:
        given_up = [b.counter.add("sync:given-up") for _ in range(3)]
        given_up.append(b.counter.get("sync:given-up"))
        kept = b.counter.get("sync:given-up")
        for future in given_up:
            future.cancel()
    assert kept.result() == 3
    with rt.batch():
        pass


def test_reading_blocks_until_something_comes(rt):
    with rt.channel.subscribe("sync:read") as messages:
        with pytest.raises(rtclient.Timeout, match="within"):
            messages.next(timeout=0.01)
        threading.Timer(0.05, rt.channel.publish, ("sync:read", "late")).start()
        assert next(messages).data == "late"
        rt.channel.publish_many([["sync:read", n] for n in range(600)])
        epoch, offset = messages.position
        for n in range(600):
            message = next(messages)
            assert (message.data, message.offset) == (n, offset + n + 1)
            assert messages.position == (epoch, message.offset)
    with rt.channel.subscribe("sync:read", since=(epoch, offset + 598)) as messages:
        assert messages.recovered
        assert messages.channel == "sync:read"
        assert [next(messages).data, next(messages).data] == [598, 599]


def test_reading_ends_with_the_client(real):
    rt = rtclient.sync.connect(real.url)
    came = []

    def read():
        with rt.channel.subscribe("sync:end") as messages:
            began.set()
            came.extend(messages)
            came.append("end")

    began = threading.Event()
    thread = threading.Thread(target=read)
    thread.start()
    began.wait(10)
    rt.close()
    thread.join(10)
    assert came == ["end"]
    assert not thread.is_alive()


def test_closing_leaves_no_thread_that_comes_and_goes_behind(real):
    """However the end falls between two steps of what other threads do."""

    def come_and_go():
        with contextlib.suppress(rtclient.Closed, StopIteration):
            while True:
                with (
                    rt.channel.subscribe("sync:come") as messages,
                    contextlib.suppress(rtclient.Timeout),
                ):
                    messages.next(timeout=0)

    for _ in range(20):
        rt = rtclient.sync.connect(real.url)
        threads = [threading.Thread(target=come_and_go) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.01)
        rt.close()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_is_told_to_connect_for_itself(rt):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            rt.counter.get("x")
        except RuntimeError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    said = os.read(reader, 1_000).decode()
    os.close(reader)
    assert f"connect one in process {child}" in said


def test_connected(rt):
    assert rt.connected
