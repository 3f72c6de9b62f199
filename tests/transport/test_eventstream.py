"""Event streams on the rig: the first event, ids that resume, heartbeats, slow readers."""

from __future__ import annotations

import asyncio

import pytest

from rtserver.limits import STREAM_CHANNELS_MAX, Limits
from rtserver.session import messages
from rtserver.wire import sse
from tests.transport.rig import Rig
from tests.transport.web import call, events, get, publish, responses, say


@pytest.fixture
async def rig():
    rig = Rig()
    await rig.settle()
    return rig


async def open_stream(rig, query, *headers):
    """(client, its first event)"""
    client = rig.connect()
    head, _, body = (await say(rig, client, get(f"/v1/stream?{query}", *headers))).partition(
        b"\r\n\r\n"
    )
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
    (first,) = events(body)
    return client, first


async def test_the_head_keeps_everybody_from_buffering(rig):
    client = rig.connect()
    answer = await say(rig, client, get("/v1/stream?channels=a"))
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    for line in (
        "Content-Type: text/event-stream",
        "Cache-Control: no-store, no-transform",
        "X-Accel-Buffering: no",
        "Connection: close",
    ):
        assert line in lines
    assert b"Content-Length" not in head
    retry, _, _ = body.partition(b"\n")
    assert 1_000 <= int(retry.removeprefix(b"retry: ")) < 3_000


async def test_events_and_ids(rig):
    await publish(rig, "a", 1)
    client, (push, cursor) = await open_stream(rig, "channels=a,b,a")
    assert push[:2] == [2, "subscribed"]
    places = {
        name: (reply["epoch"], reply["offset"]) for name, reply in push[2]["channels"].items()
    }
    assert places == {"a": ("era.1", 1), "b": ("era.2", 0)}
    assert all(reply["messages"] == [] for reply in push[2]["channels"].values())
    await publish(rig, "b", "x", "y")
    await publish(rig, "a", 2)
    found = events(await say(rig, client))
    assert [(push[2]["channel"], push[2]["data"]) for push, _ in found] == [
        ("b", "x"),
        ("b", "y"),
        ("a", 2),
    ]
    assert len({cursor, *(cursor for _, cursor in found)}) == 4


@pytest.mark.parametrize("way", ["header", "query", "both"])
async def test_the_last_id_resumes(rig, way):
    client, (_, cursor) = await open_stream(rig, "channels=a,b")
    await publish(rig, "a", 1, 2)
    ids = [cursor for _, cursor in events(await say(rig, client))]
    client.abort()
    await rig.settle()
    await publish(rig, "b", 3)
    query = "channels=b,a,c" + ("" if way == "header" else f"&last_event_id={ids[0]}")
    if way == "both":  # the header is the newer one: the browser sets it when it reconnects
        query = f"channels=b,a,c&last_event_id={cursor}"
    headers = [] if way == "query" else [f"Last-Event-ID: {ids[0]}"]
    client, (push, _) = await open_stream(rig, query, *headers)
    channels = push[2]["channels"]
    assert [m["data"] for m in channels["a"]["messages"]] == [2]
    assert [m["data"] for m in channels["b"]["messages"]] == [3]
    assert channels["a"]["recovered"]
    assert channels["b"]["recovered"]
    assert not channels["c"]["recovered"]


async def test_a_publication_is_encoded_once_for_all_streams(rig, monkeypatch):
    clients = [(await open_stream(rig, "channels=a,b"))[0] for _ in range(20)]
    encoded = []
    original = messages.encode_message

    def counted(form, message):
        encoded.append(form)
        return original(form, message)

    monkeypatch.setattr("rtserver.session.router.encode_message", counted)
    await publish(rig, "a", 1)
    assert encoded == [sse]
    for client in clients:
        ((push, _),) = events(client.bytes())
        assert push[2]["data"] == 1


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("channels=", 400),
        ("channels=a%20b", 400),
        ("channels=a,b%00c", 400),
        ("channels=" + "x" * 256, 400),
        ("channels=" + ",".join(f"c{n}" for n in range(STREAM_CHANNELS_MAX + 1)), 400),
        ("channels=a&last_event_id=whatever!", 400),
        ("channels=$nothing:x", 404),
    ],
)
async def test_streams_that_are_refused(rig, query, status):
    client = rig.connect()
    (response,) = responses(await say(rig, client, get(f"/v1/stream?{query}")))
    assert response.status == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert not rig.hub.parties
    assert not rig.router.subscriptions


async def test_the_error_of_some_channels_is_in_their_place(rig):
    _, (push, _) = await open_stream(rig, "channels=a,$nothing:x")
    channels = push[2]["channels"]
    assert channels["a"]["epoch"]
    assert channels["$nothing:x"]["error"][1] == "not_found"


async def test_all_channels_that_are_allowed_fit_into_a_cursor(rig):
    rig.dispatcher.ctx.host.subscriptions_max = STREAM_CHANNELS_MAX
    names = [f"channel:{n}" for n in range(STREAM_CHANNELS_MAX)]
    _, (_, cursor) = await open_stream(rig, f"channels={','.join(names)}")
    for name in names:
        await publish(rig, name, name)
    _, (push, _) = await open_stream(rig, f"channels={','.join(names)}", f"Last-Event-ID: {cursor}")
    for name, reply in push[2]["channels"].items():
        assert [m["data"] for m in reply["messages"]] == [name]


async def test_watched_things_come_with_their_state(rig):
    client, (push, _) = await open_stream(rig, "channels=$counter:likes")
    assert push[2]["channels"]["$counter:likes"]["state"] == {"full": True, "value": 0}
    await say(rig, rig.connect(), call("counter.add", ["likes", 7]))
    await asyncio.sleep(0.1)
    ((push, _),) = events(await say(rig, client))
    assert push[2]["data"] == {"full": True, "value": 7}


async def test_quiet_streams_have_a_heartbeat(rig):
    client, _ = await open_stream(rig, "channels=a")
    beats = 0
    for _ in range(40):
        rig.clock.advance(1_000)
        rig.turn.open()
        await rig.settle()
        rig.hub.look_after(rig.clock.now_ms())
        data = await say(rig, client)
        assert data in (b"", sse.COMMENT)
        beats += bool(data)
    assert beats == 2
    assert not client.closing


async def test_bytes_and_requests_after_a_stream_are_ignored(rig):
    client, _ = await open_stream(rig, "channels=a")
    for _ in range(20):
        assert await say(rig, client, call("counter.add", ["a"]) * 200) == b""
        assert client.reading
    assert rig.store.counters.get(rig.now, "a") == 0
    assert len(rig.hub.parties) == 1


@pytest.mark.parametrize("how", ["eof", "lost"])
async def test_a_reader_who_goes_leaves_nothing(rig, how):
    client, _ = await open_stream(rig, "channels=a,b")
    if how == "eof":
        assert client.protocol.eof_received() is False
        client.close()
    else:
        client.abort()
    await rig.settle()
    assert not rig.hub.parties
    assert not rig.router.subscriptions
    assert not rig.hub.connections


async def test_a_slow_reader_misses_nothing_that_the_history_holds():
    rig = Rig(Limits(outbox_soft_bytes=2_000))
    await rig.settle()
    client, _ = await open_stream(rig, "channels=a")
    client.takes = 0
    sent = [f"{n}" * 100 for n in range(40)]
    for item in sent:
        await publish(rig, "a", item)
        if len(client.stuck) > 2_000:
            client.protocol.pause_writing()
    assert len(client.stuck) < 4_000
    found = []
    for _ in range(40):
        client.take_stuck()
        found += events(await say(rig, client))
    assert [push[2]["data"] for push, _ in found] == sent
    assert [push[2]["offset"] for push, _ in found] == [*range(1, 41)]


async def test_a_reader_who_takes_nothing_is_closed_with_a_reason(rig):
    client, _ = await open_stream(rig, "channels=a")
    client.takes = 0
    await publish(rig, "a", 1)
    for _ in range(3):
        rig.clock.advance(rig.limits.outbox_stuck_ms)
        rig.turn.open()
        await rig.settle()
        rig.hub.look_after(rig.clock.now_ms())
        await rig.settle()
    assert client.closing
    client.take_stuck()
    (_, (push, _)) = events(client.bytes())
    assert push[1:] == ["close", push[2]]
    assert push[2]["name"] == "slow_consumer"
    await rig.settle()
    assert not rig.hub.parties


async def test_a_push_that_says_when_to_come_back_tells_the_browser():
    data = sse.encode_push("drain", {"retry_after_ms": 1_234}) + sse.encode_id("e~1.1.1")
    assert data == b'retry: 1234\ndata: [2,"drain",{"retry_after_ms":1234}]\nid: e~1.1.1\n\n'


async def test_text_cannot_break_an_event(rig):
    client, _ = await open_stream(rig, "channels=a")
    nasty = "a\n\nid: x\r\ndata: y\r\u2028\u2029\x00"
    await publish(rig, "a", nasty)
    ((push, _),) = events(await say(rig, client))
    assert push[2]["data"] == nasty


# --- lists of the state ---


async def made_sale(rig):
    """A sale with two steps in its ledger."""
    await say(rig, rig.connect(), call("sale.create", ["s", {"a": 9}, 0]))


async def take_steps(rig, *users):
    """A step of the ledger for each, told when the interval is over."""
    for user in users:
        await say(rig, rig.connect(), call("sale.reserve", ["s", user, {"a": 1}]))
    await synced(rig)


async def synced(rig):
    for _ in range(2):
        rig.sync()
        await rig.settle()
        await asyncio.sleep(0.03)
        rig.turn.open()
        await rig.settle()


async def test_a_ledger_is_followed_and_resumed_like_any_channel(rig):
    await made_sale(rig)
    await synced(rig)
    query = "channels=$sale:s:ledger,a"
    client, (push, cursor) = await open_stream(rig, query)
    assert push[2]["channels"]["$sale:s:ledger"]["offset"] == 2
    await take_steps(rig, "ann", "bob")
    told = events(client.bytes())
    assert [push[2]["data"]["user"] for push, _ in told] == ["ann", "bob"]
    assert len({cursor, *(id for _, id in told)}) == 3
    client.protocol.connection_lost(None)
    await take_steps(rig, "cid")
    _, (push, _) = await open_stream(rig, query, f"Last-Event-ID: {told[0][1]}")
    reply = push[2]["channels"]["$sale:s:ledger"]
    assert reply["recovered"]
    assert [message["data"]["user"] for message in reply["messages"]] == ["bob", "cid"]
