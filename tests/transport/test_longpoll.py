"""Long polls on the rig: what ends one, what its cursor acknowledges, what is never missed."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.errors import CLOSE_DRAIN
from rtserver.limits import Limits
from tests.transport.rig import Rig
from tests.transport.web import call, get, publish, responses, say


@pytest.fixture
async def rig():
    rig = Rig()
    await rig.settle()
    return rig


def asked(channels, cursor=None, timeout_ms=None):
    query = f"channels={quote(channels)}"
    if cursor is not None:
        query += f"&cursor={quote(cursor)}"
    if timeout_ms is not None:
        query += f"&timeout_ms={timeout_ms}"
    return get(f"/v1/poll?{query}")


async def poll(rig, channels, cursor=None, timeout_ms=None):
    """The answer to a poll that is answered at once."""
    (response,) = responses(await say(rig, rig.connect(), asked(channels, cursor, timeout_ms)))
    assert response.status == 200, response.body
    return response.json()


def data(answer):
    return [push[2]["data"] for push in answer["messages"]]


async def test_the_first_poll_answers_where_everything_is(rig):
    await publish(rig, "a", 1)
    answer = await poll(rig, "a,b")
    assert answer["messages"] == []
    assert answer["channels"]["a"]["offset"] == 1
    assert answer["channels"]["b"]["offset"] == 0
    assert answer["cursor"]
    assert not rig.hub.parties
    assert not rig.router.subscriptions


async def test_what_came_between_two_polls_is_answered_at_once(rig):
    cursor = (await poll(rig, "a,b"))["cursor"]
    await publish(rig, "b", 1)
    await publish(rig, "a", 2, 3)
    answer = await poll(rig, "a,b", cursor)
    assert sorted(data(answer)) == [1, 2, 3]
    assert "channels" not in answer
    for push in answer["messages"]:
        assert push[:2] == [2, "message"]
        assert push[2]["channel"] in "ab"
    again = await poll(rig, "a,b", cursor)  # not acknowledged yet
    assert again["messages"] == answer["messages"]
    assert (await poll(rig, "a,b", answer["cursor"], 0))["messages"] == []


async def test_a_poll_waits_for_what_comes(rig):
    cursor = (await poll(rig, "a"))["cursor"]
    client = rig.connect()
    assert await say(rig, client, asked("a", cursor)) == b""
    client.protocol.data_received(b"")
    writer = rig.connect()
    writer.protocol.data_received(
        call("channel.publish", ["a", 1]) + call("channel.publish", ["a", 2])
    )
    await rig.settle()
    (response,) = responses(client.bytes())
    first = response.json()
    rest = await poll(rig, "a", first["cursor"], 0)
    assert data(first) + data(rest) == [1, 2]
    assert not client.closing
    assert not rig.router.subscriptions


async def test_a_poll_waits_for_the_sync_of_what_it_tells(rig):
    cursor = (await poll(rig, "a"))["cursor"]
    client = rig.connect()
    await say(rig, client, asked("a", cursor))
    writer = rig.connect()
    await say(rig, writer, call("channel.publish", {"channel": "a", "data": 1, "ack": "synced"}))
    assert client.bytes() == b""
    rig.sync()
    (response,) = responses(await say(rig, client))
    assert data(response.json()) == [1]


async def test_the_time_is_up(rig):
    cursor = (await poll(rig, "a"))["cursor"]
    client = rig.connect()
    assert await say(rig, client, asked("a", cursor, 50)) == b""
    await asyncio.sleep(0.1)
    (response,) = responses(await say(rig, client))
    assert response.json() == {"messages": [], "cursor": cursor}
    (response,) = responses(await say(rig, client, asked("a", cursor, 0)))
    assert response.json() == {"messages": [], "cursor": cursor}


async def test_the_time_has_a_bound():
    rig = Rig(Limits(poll_ms_max=50))
    await rig.settle()
    cursor = (await poll(rig, "a"))["cursor"]
    client = rig.connect()
    await say(rig, client, asked("a", cursor, 99_999_999))
    await asyncio.sleep(0.1)
    assert responses(await say(rig, client))[0].json()["messages"] == []


@pytest.mark.parametrize(
    "query",
    [
        "",
        "channels=",
        "channels=a&cursor=!!",
        "channels=a&cursor=what+ever",
        "channels=a&timeout_ms=-1",
        "channels=a&timeout_ms=soon",
        "channels=a&timeout_ms=9999999999999",
        "channels=a%20b",
    ],
)
async def test_polls_that_are_refused(rig, query):
    (response,) = responses(await say(rig, rig.connect(), get(f"/v1/poll?{query}")))
    if query == "channels=a&cursor=!!":
        assert response.status == 200  # an empty cursor with states that nobody has
        return
    assert response.status == 400
    assert response.json()["name"] == "invalid_params"
    assert not rig.hub.parties


async def test_a_channel_that_joins_later(rig):
    cursor = (await poll(rig, "a"))["cursor"]
    await publish(rig, "b", 1)
    answer = await poll(rig, "a,b", cursor)
    assert answer["messages"] == []
    assert list(answer["channels"]) == ["b"]
    assert answer["channels"]["b"]["offset"] == 1
    assert (await poll(rig, "a,b", answer["cursor"], 0))["messages"] == []


async def test_what_cannot_be_told_is_said(rig):
    cursor = (await poll(rig, "a"))["cursor"]
    await publish(rig, "a", *range(5))
    history = rig.store.channels.get("a").history
    while len(history) > 2:
        history.evict_first()
    answer = await poll(rig, "a", cursor)
    assert answer["messages"][0] == [
        2,
        "gap",
        {"channel": "a", "from": 1, "to": 3, "why": "history"},
    ]
    assert [push[2]["data"] for push in answer["messages"][1:]] == [3, 4]
    rig.turn.open()
    rig.dispatcher.issue("channel.era", ["later"])
    await rig.settle()
    answer = await poll(rig, "a", answer["cursor"])
    assert answer["messages"] == [[2, "gap", {"channel": "a", "why": "epoch"}]]
    assert (await poll(rig, "a", answer["cursor"], 0))["messages"] == []


async def test_errors_of_some_channels_do_not_end_every_poll(rig):
    answer = await poll(rig, "a,$nothing:x")
    assert answer["channels"]["$nothing:x"]["error"][1] == "not_found"
    client = rig.connect()
    assert await say(rig, client, asked("a,$nothing:x", answer["cursor"])) == b""
    await publish(rig, "a", 1)
    (response,) = responses(await say(rig, client))
    assert data(response.json()) == [1]
    (response,) = responses(await say(rig, rig.connect(), asked("$nothing:x")))
    assert response.status == 404


async def test_a_watched_thing_is_told_when_it_is_another(rig):
    name = "$counter:likes"
    answer = await poll(rig, name)
    assert answer["channels"][name]["state"] == {"full": True, "value": 0}
    client = rig.connect()
    assert await say(rig, client, asked(name, answer["cursor"])) == b""
    await say(rig, rig.connect(), call("counter.add", ["likes", 3]))
    await asyncio.sleep(0.1)
    (response,) = responses(await say(rig, client))
    answer = response.json()
    assert data(answer) == [{"full": True, "value": 3}]
    assert await say(rig, client, asked(name, answer["cursor"])) == b""
    client.abort()
    await rig.settle()
    await say(rig, rig.connect(), call("counter.add", ["likes", 3]))
    answer = await poll(rig, name, answer["cursor"])
    assert answer["channels"][name]["state"] == {"full": True, "value": 6}
    assert await say(rig, rig.connect(), asked(name, answer["cursor"])) == b""


async def test_a_transient_channel_is_heard_while_somebody_polls(rig):
    rig.dispatcher.ctx.host.keeps = lambda name: not name.startswith("cursor:")
    rig.turn.open()
    await say(
        rig, rig.connect(), call("channel.configure", {"namespace": "cursor", "class": "transient"})
    )
    answer = await poll(rig, "cursor:1")
    client = rig.connect()
    assert await say(rig, client, asked("cursor:1", answer["cursor"])) == b""
    await publish(rig, "cursor:1", {"x": 1})
    (response,) = responses(await say(rig, client))
    assert data(response.json()) == [{"x": 1}]


async def test_a_server_that_stops_tells_who_waits(rig):
    cursor = (await poll(rig, "a"))["cursor"]
    client = rig.connect()
    await say(rig, client, asked("a", cursor))
    rig.turn.open()
    for connection in list(rig.hub.parties.values()):
        connection.close(CLOSE_DRAIN, "bye")
    (response,) = responses(await say(rig, client))
    answer = response.json()
    assert answer["messages"][0][1] == "close"
    assert answer["messages"][0][2]["name"] == "drain"
    assert answer["cursor"] == cursor
    assert client.closing


@pytest.mark.parametrize("how", ["eof", "lost"])
async def test_who_goes_away_while_waiting_leaves_nothing(rig, how):
    cursor = (await poll(rig, "a"))["cursor"]
    client = rig.connect()
    await say(rig, client, asked("a", cursor, 30))
    if how == "eof":
        assert client.protocol.eof_received() is False
        client.close()
    else:
        client.abort()
    await rig.settle()
    assert not rig.hub.parties
    assert not rig.router.subscriptions
    await asyncio.sleep(0.06)
    await rig.settle()


async def test_polls_on_one_connection_with_calls_between(rig):
    client = rig.connect()
    answer = await say(rig, client, asked("a") + call("channel.publish", ["a", 1]))
    first, second = responses(answer)
    assert second.json()["offset"] == 1
    (response,) = responses(await say(rig, client, asked("a", first.json()["cursor"])))
    assert data(response.json()) == [1]


async def test_what_comes_after_the_answer_waits_for_the_next_poll():
    """The answer is not taken yet, so the poll's connection is still there to be told things."""
    rig = Rig(Limits(outbox_soft_bytes=20_000))
    await rig.settle()
    cursor = (await poll(rig, "a"))["cursor"]
    client = rig.connect()
    client.takes = 100
    await say(rig, client, asked("a", cursor))
    large = "x" * 30_000
    rig.connect().protocol.data_received(call("channel.publish", ["a", large]))
    await asyncio.sleep(0)
    client.protocol.pause_writing()
    await rig.settle()
    taken, client.stuck = client.stuck[:20_000], client.stuck[20_000:]
    rig.hub.look_after(rig.clock.now_ms())
    assert len(rig.hub.parties) == 1
    await publish(rig, "a", 2)
    rest = client.stuck
    client.take_stuck()
    await rig.settle()
    (response,) = responses(client.bytes()[:100] + taken + rest)
    assert data(response.json()) == [large]
    answer = await poll(rig, "a", response.json()["cursor"])
    assert data(answer) == [2]


@pytest.mark.parametrize("path", ["/v1/poll?channels=a&cursor=", "/v1/stream?channels=a"])
async def test_who_is_closed_before_it_began_is_told_so(rig, path, monkeypatch):
    """Not with a cursor that forgets where the reader was."""

    def fail(*_args):
        raise ValueError("a defect")

    monkeypatch.setattr(rig.hub, "follow", fail)
    client = rig.connect()
    (response,) = responses(await say(rig, client, get(path)))
    assert response.status == 503
    assert client.closing
    await rig.settle()
    assert not rig.hub.parties


async def test_a_large_backlog_comes_in_several_answers():
    rig = Rig(Limits(outbox_soft_bytes=20_000))
    await rig.settle()
    cursor = (await poll(rig, "a"))["cursor"]
    sent = [f"{n}".ljust(30_000, "x") for n in range(20)]
    await publish(rig, "a", *sent)
    found = []
    for _ in range(40):
        answer = await poll(rig, "a", cursor, 0)
        found += data(answer)
        cursor = answer["cursor"]
    assert found == sent


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(["poll", "wait", "a", "b", "synced", "sync", "again"]), max_size=30)
)
def test_a_loop_of_polls_misses_nothing_and_repeats_nothing(steps):
    """Whatever is published when: after each answer is acknowledged, everything once, in order."""
    asyncio.run(_loop(steps))


async def _loop(steps):
    rig = Rig()
    await rig.settle()
    cursor = (await poll(rig, "a,b"))["cursor"]
    sent = {"a": [], "b": []}
    found = {"a": [], "b": []}
    client = None

    def take(answer):
        for push in answer["messages"]:
            found[push[2]["channel"]].append(push[2]["data"])
        return answer["cursor"]

    for place, step in enumerate([*steps, "sync", "poll", "poll"]):
        if step == "sync":
            rig.sync()
            await rig.settle()
        elif step == "wait" and client is None:
            client = rig.connect()
            client.protocol.data_received(asked("a,b", cursor))
        elif step in ("a", "b", "synced"):
            channel = "a" if step == "synced" else step
            sent[channel].append(place)
            params = {"channel": channel, "data": place}
            if step == "synced":
                params["ack"] = "synced"
            rig.connect().protocol.data_received(call("channel.publish", params))
        elif step == "again" and client is None:
            await poll(rig, "a,b", cursor, 0)  # an answer that was lost on its way
        elif step == "poll" and client is None:
            cursor = take(await poll(rig, "a,b", cursor, 0))
        await asyncio.sleep(0)
        if client is not None:
            await rig.settle()
            answer = client.bytes()
            if answer:
                (response,) = responses(answer)
                cursor = take(response.json())
                client = None
            elif step == "poll":
                client.abort()
                client = None
                await rig.settle()
                cursor = take(await poll(rig, "a,b", cursor, 0))
    assert found == sent


async def test_a_cursor_that_names_nothing_is_refused(rig):
    (response,) = responses(
        await say(rig, rig.connect(), get("/v1/poll?channels=a&cursor=garbage"))
    )
    assert response.status == 400
    assert "cursor" in response.json()["detail"]


async def test_a_ledger_is_polled_like_any_channel(rig):
    async def step(method, *params):
        await say(rig, rig.connect(), call(method, list(params)))
        rig.sync()
        await rig.settle()

    await step("sale.create", "s", {"a": 9}, 0)
    first = await poll(rig, "$sale:s:ledger")
    assert first["channels"]["$sale:s:ledger"]["offset"] == 2
    await step("sale.reserve", "s", "ann", {"a": 1})
    answer = await poll(rig, "$sale:s:ledger", first["cursor"])
    assert [one["user"] for one in data(answer)] == ["ann"]
    assert (await poll(rig, "$sale:s:ledger", answer["cursor"], 0))["messages"] == []
    again = await poll(rig, "$sale:s:ledger", first["cursor"])
    assert again["messages"] == answer["messages"]
