"""Batches mean what the calls one by one mean, and travel as few commands."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rtclient
import rtclient.sync
from tests.client.fake import FakeServer


def outcome(future):
    error = future.exception()
    if error is None:
        return future.result()
    return type(error), error.code


names = st.sampled_from(["a", "b", "bad name"])
calls = st.one_of(
    st.tuples(st.just("counter.add"), names, st.integers(-3, 3)),
    st.tuples(st.just("counter.add"), names, st.integers(1, 3), st.just(60_000)),
    st.tuples(st.just("counter.get"), names),
    st.tuples(st.just("board.submit"), names, names, st.integers(0, 5) | st.just("x")),
    st.tuples(st.just("board.submit"), names, names, st.integers(0, 5), st.just("sum")),
    st.tuples(st.just("board.rank"), names, names),
    st.tuples(st.just("channel.publish"), st.sampled_from(["c", "d", "$x"]), st.integers(0, 9)),
    st.tuples(
        st.just("channel.publish"),
        st.sampled_from(["c", "d"]),
        st.none() | st.text(),
        st.just("key"),
    ),
)


def forget_positions(result):
    """Epochs differ from world to world."""
    return result.offset if isinstance(result, rtclient.results.Published) else result


@settings(max_examples=60, deadline=None)
@given(st.lists(calls, max_size=25))
def test_a_batch_means_what_its_calls_one_by_one_mean(real, script):
    """Two worlds with the same names, told apart by a prefix of the same length."""

    def localised(params, world):
        return [f"{world}-{param}" if param in ("a", "b", "c", "d") else param for param in params]

    def method(nouns, name):
        noun, verb = name.split(".")
        return getattr(getattr(nouns, noun), verb)

    async def both():
        async with rtclient.connect(real.url) as rt:
            world = test_a_batch_means_what_its_calls_one_by_one_mean.worlds = (
                getattr(test_a_batch_means_what_its_calls_one_by_one_mean, "worlds", 0) + 1
            )
            one_by_one = []
            for name, *params in script:
                future = method(rt, name)(*localised(params, f"{world}x"))
                await asyncio.wait([future])
                one_by_one.append(future)
            async with rt.batch() as b:
                together = [
                    method(b, name)(*localised(params, f"{world}y")) for name, *params in script
                ]
            for first, second in zip(one_by_one, together, strict=True):
                assert forget_positions(outcome(first)) == forget_positions(outcome(second))

    asyncio.run(both())


async def test_runs_of_plain_calls_travel_as_one_command():
    async with FakeServer(lambda peer, request: None) as server:
        rt = await rtclient.connect(server.url)
        b = rt.batch()
        likes = [b.counter.add("x"), b.counter.add("y", 5)]
        b.counter.add("z", 1, 60_000)
        b.counter.add("z", ack="synced")
        b.counter.add("z")
        b.board.submit("weekly", "ann", 1)
        b.board.submit("weekly", "bob", 2)
        b.board.submit("daily", "bob", 2)
        b.board.submit("daily", "bob", 2, meta="m")
        b.counter.get("x")
        b.channel.publish("c", {"n": 1})
        b.channel.publish("d", None, key="k")
        b.counter.add("x")
        sending = asyncio.create_task(b.__aexit__(None, None, None))
        while len(server.requests) < 10:
            await asyncio.sleep(0)
        assert [request[2:4] for request in server.requests] == [
            ["counter.add_many", [[["x", 1], ["y", 5]]]],
            ["counter.add", ["z", 1, 60_000]],
            ["counter.add", ["z", 1]],
            ["counter.add", ["z", 1]],
            ["board.submit_many", ["weekly", [["ann", 1], ["bob", 2]]]],
            ["board.submit", ["daily", "bob", 2]],
            ["board.submit", ["daily", "bob", 2, None, "m"]],
            ["counter.get", ["x"]],
            ["channel.publish_many", [[["c", {"n": 1}], ["d", None, "k"]]]],
            ["counter.add", ["x", 1]],
        ]
        assert server.peer.reads == [1, 10]
        sending.cancel()
        server.peer.cut()
        rt._link.end(rtclient.Closed("over"))
        assert all(future.done() for future in likes)


async def test_each_call_has_its_own_outcome():
    replies = {"counter.add_many": {"values": [5, {"error": [203, "out_of_range", "no", None]}]}}

    def answer(peer, request):
        peer.reply(request, replies[request[2]])

    async with FakeServer(answer) as server, rtclient.connect(server.url) as rt:
        async with rt.batch() as b:
            good, bad = b.counter.add("x"), b.counter.add("y")
        assert good.result() == 5
        with pytest.raises(rtclient.OutOfRange):
            bad.result()
        with pytest.raises(RuntimeError, match="over"):
            b.counter.add("z")


async def test_a_refused_vector_is_refused_for_each():
    def refuse(peer, request):
        peer.refuse(request, 301, "disk_full")

    async with FakeServer(refuse) as server, rtclient.connect(server.url) as rt:
        async with rt.batch() as b:
            futures = [b.counter.add("x") for _ in range(3)]
        errors = [future.exception() for future in futures]
        assert {type(error) for error in errors} == {rtclient.DiskFull}
        assert len(set(map(id, errors))) == 3


async def test_what_cannot_be_sent_fails_by_itself():
    async with FakeServer() as server, rtclient.connect(server.url) as rt:
        async with rt.batch() as b:
            large = b.channel.publish("c", b"x" * 2_000_000)
            misspelt = b.counter.get("x", timeouts=1)
            good = b.counter.get("x")
        assert isinstance(large.exception(), rtclient.FrameTooLarge)
        assert isinstance(misspelt.exception(), TypeError)
        assert good.result() == ["x"]


async def test_an_error_in_the_block_drops_the_batch():
    async with FakeServer() as server, rtclient.connect(server.url) as rt:
        b = rt.batch()
        future = b.counter.add("x")
        await b.__aexit__(KeyError, KeyError(), None)
        assert future.cancelled()
        assert server.requests == []
        async with rt.batch():
            pass


async def test_arguments_are_taken_as_they_are_at_the_call():
    async with FakeServer() as server, rtclient.connect(server.url) as rt:
        data = [1]
        async with rt.batch() as b:
            b.call = b.channel.publish("c", data)
            b.call.add_done_callback(lambda future: future.exception())
            data.append(2)
        assert server.requests[0][3] == ["c", [1]]


async def test_runs_are_bounded_in_items_and_bytes():
    async with FakeServer() as server, rtclient.connect(server.url) as rt:

        def runs(count, size):
            b = rt.batch()
            for _ in range(count):
                b.channel.publish("c", b"x" * size)
            lengths = [len(run.items) for run in b._collector._runs]
            b._collector.drop()
            return lengths

        assert runs(2_500, 1) == [1_000, 1_000, 500]
        assert runs(5, 100_000) == [2, 2, 1]
        assert runs(3, 300_000) == [1, 1, 1]
        assert runs(0, 0) == []


@pytest.mark.parametrize("value", [2**64, "\ud800", object(), -(2**63) - 1])
async def test_a_value_that_cannot_be_sent_is_refused_at_its_call_and_disturbs_no_other(value):
    async with FakeServer() as server, rtclient.connect(server.url) as rt:
        async with rt.batch() as b:
            first = b.counter.get("x")
            with pytest.raises((TypeError, ValueError), match=r"channel\.publish cannot be sent"):
                b.channel.publish("c", value)
            unfit = b.counter.get("x", as_user=value)
            last = b.counter.get("y")
        assert (first.result(), last.result()) == (["x"], ["y"])
        with pytest.raises((TypeError, ValueError), match=r"counter\.get cannot be sent"):
            unfit.result()
        with pytest.raises((TypeError, ValueError), match=r"board\.rank cannot be sent"):
            rt.board.rank("weekly", value)
        assert await rt.counter.get("x") == ["x"]


async def test_a_batch_ends_also_when_some_of_its_calls_are_given_up():
    def answer(peer, request):
        for future in futures[::2]:
            future.cancel()
        peer.reply(request, {"values": [0, 1, 2, 3, 4]})

    async with FakeServer(answer) as server, rtclient.connect(server.url) as rt:
        async with rt.batch() as b:
            futures = [b.counter.add("x") for _ in range(5)]
        assert [future.result() for future in futures[1::2]] == [1, 3]


def test_blocking(real):
    with rtclient.sync.connect(real.url) as rt:
        with rt.batch() as b:
            added = [b.counter.add("sync-batch") for _ in range(3)]
            bad = b.counter.add("bad name")
            rank = b.board.submit("sync-batch", "ann", 5)
        assert [future.result() for future in added] == [1, 2, 3]
        assert rank.result().rank == 1
        with pytest.raises(rtclient.InvalidParams):
            bad.result()
        b = rt.batch()
        b.counter.add("sync-batch")
        b.__exit__(KeyError, KeyError(), None)
        assert rt.counter.get("sync-batch") == 3
