"""The order of a turn: nothing leaves before it is logged, and what waits for a sync waits."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.errors import RtError
from rtserver.limits import Limits
from tests.transport.rig import Rig, request, say


@pytest.fixture
async def rig():
    rig = Rig()
    await rig.settle()
    rig.events.clear()
    return rig


async def test_the_block_is_written_before_the_reply_leaves(rig):
    one, other = rig.connect(), rig.connect()
    say(one, request(1, "counter.add", "a", 2), request(2, "board.submit", "b", "ann", 3))
    say(other, request(1, "counter.add", "a", 5))
    assert rig.events == []
    await rig.settle()
    assert rig.events[0] == ("append", ["board.submit", "counter.sum"])
    assert [kind for kind, _ in rig.events] == ["append", "write", "write"]
    assert [frame[3] for frame in other.frames()] == [7]
    assert one.frames()[0] == [1, 1, None, 2]


async def test_pushes_leave_after_the_block_too(rig):
    reader, writer = rig.connect(), rig.connect()
    say(reader, request(1, "channel.subscribe", "room"))
    await rig.settle()
    rig.events.clear()
    say(writer, request(1, "channel.publish", "room", "hi", ack="memory"))
    await rig.settle()
    assert rig.events[0] == ("append", ["channel.publish"])
    (_, message) = reader.frames()
    assert message[2]["data"] == "hi"


async def test_a_connection_whose_outbox_was_full_for_a_moment_is_answered_after_the_log(rig):
    """Its next requests run when the outbox has left, which must be in another turn."""
    client = rig.connect()
    items = [["room", "x" * 60_000] for _ in range(8)]
    say(client, request(1, "channel.publish_many", items))
    await rig.settle()
    rig.events.clear()
    say(
        client,
        *[request(n, "channel.history", "room") for n in range(2, 6)],
        *[request(n, "counter.add", "likes") for n in range(6, 9)],
    )
    await rig.settle()
    frames = client.frames()
    assert [frame[1] for frame in frames] == [*range(1, 9)]
    assert [frame[3] for frame in frames[5:]] == [1, 2, 3]
    appended = [place for place, event in enumerate(rig.events) if event[0] == "append"]
    assert appended
    assert appended[-1] < len(rig.events) - 1


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["add", "publish", "history", "synced", "subscribe", "sync", "turn"]),
        ),
        max_size=40,
    )
)
def test_whatever_is_sent_nothing_leaves_unlogged(steps):
    async def run():
        rig = Rig(Limits(outbox_soft_bytes=1_000, connection_cost_per_turn=9, turn_cost_max=12))
        clients = [rig.connect() for _ in range(3)]
        sent = [0, 0, 0]
        for place, step in steps:
            if step == "turn":
                await asyncio.sleep(0)
                continue
            if step == "sync":
                rig.sync()
                continue
            sent[place] += 1
            calls = {
                "add": request(sent[place], "counter.add", "a"),
                "publish": request(sent[place], "channel.publish", "r", "x" * 500),
                "history": request(sent[place], "channel.history", "r", None, None, 2),
                "synced": request(sent[place], "channel.publish", "r", 1, ack="synced"),
                "subscribe": request(sent[place], "channel.subscribe", "r", {"last": 5}),
            }
            say(clients[place], calls[step])
        await rig.settle()
        rig.sync()
        await rig.settle()
        for client, count in zip(clients, sent, strict=True):
            replies = [frame for frame in client.frames() if frame[0] == 1]
            assert sorted(frame[1] for frame in replies) == [*range(1, count + 1)]
            assert all(frame[2] is None for frame in replies)

    asyncio.run(run())


# --- syncs ---


async def test_a_synced_reply_waits_and_later_ones_overtake_it(rig):
    client = rig.connect()
    say(
        client,
        request(1, "counter.add", "a", ack="synced"),
        request(2, "counter.add", "a", ack="logged"),
        request(3, "counter.get", "a"),
    )
    await rig.settle()
    assert [frame[1] for frame in client.frames()] == [2, 3]
    assert rig.log.sync_requests
    rig.sync()
    await rig.settle()
    assert client.frames() == [[1, 1, None, 1]]


async def test_a_synced_push_holds_back_later_ones_of_its_channel(rig):
    reader, writer = rig.connect(), rig.connect()
    say(reader, request(1, "channel.subscribe", "a"), request(2, "channel.subscribe", "b"))
    await rig.settle()
    reader.frames()
    say(writer, request(1, "channel.publish", "a", 1, ack="synced"))
    say(writer, request(2, "channel.publish", "a", 2), request(3, "channel.publish", "b", 3))
    await rig.settle()
    assert [frame[2]["channel"] for frame in reader.frames()] == ["b"]
    rig.sync()
    await rig.settle()
    assert [frame[2]["offset"] for frame in reader.frames()] == [1, 2]


async def test_a_sync_that_takes_too_long_is_outcome_unknown_once():
    rig = Rig()
    client = rig.connect()
    say(client, request(1, "counter.add", "a", ack="synced", timeout_ms=10))
    await asyncio.sleep(0.05)
    await rig.settle()
    ((_, _, error, _),) = client.frames()
    assert error[1] == "outcome_unknown"
    rig.sync()
    await rig.settle()
    assert client.frames() == []
    say(client, request(2, "counter.get", "a"))
    await rig.settle()
    assert client.frames() == [[1, 2, None, 1]]


async def test_a_replayed_reply_waits_for_the_sync_like_the_first(rig):
    client = rig.connect()
    again = {"ack": "synced", "idempotency_key": "k"}
    say(client, request(1, "counter.add", "a", **again))
    await rig.settle()
    say(client, request(2, "counter.add", "a", **again))
    await rig.settle()
    assert client.frames() == []
    rig.sync()
    await rig.settle()
    assert client.frames() == [[1, 1, None, 1], [1, 2, None, 1]]


async def test_replies_that_wait_for_syncs_are_bounded():
    rig = Rig(Limits(replies_waiting_max=10))
    client = rig.connect()
    say(client, *[request(n, "counter.add", "a", ack="synced") for n in range(1, 31)])
    await rig.settle()
    assert client.protocol.connection.waiting == 10
    assert not client.reading
    for _ in range(4):
        rig.sync()
        await rig.settle()
    assert [frame[1] for frame in client.frames()] == [*range(1, 31)]
    assert client.reading


# --- a block that does not fit the disk ---


async def test_a_stalled_block_holds_its_replies_and_pushes_then_releases_them(rig):
    reader, writer, bystander = rig.connect(), rig.connect(), rig.connect()
    say(reader, request(1, "channel.subscribe", "room"))
    await rig.settle()
    reader.frames()
    rig.log.fits = False
    say(
        writer,
        request(1, "channel.publish", "room", "held"),
        request(2, "counter.add", "a", ack="memory"),
        request(3, "counter.add", "a", ack="synced"),
    )
    await rig.settle()
    assert rig.log.stalled
    assert writer.frames() == reader.frames() == []
    say(bystander, request(1, "counter.get", "a"), request(2, "counter.add", "a"))
    await rig.settle()
    read, refused = bystander.frames()
    assert read[2] is None
    assert refused[2][1] == "disk_full"
    rig.log.fits = True
    await asyncio.sleep(0.25)
    await rig.settle()
    assert [frame[1] for frame in writer.frames()] == [1, 2]
    assert [frame[2]["data"] for frame in reader.frames()] == ["held"]
    rig.sync()
    await rig.settle()
    assert writer.frames() == [[1, 3, None, 2]]
    say(bystander, request(3, "counter.add", "a"))
    await rig.settle()
    assert bystander.frames() == [[1, 3, None, 3]]


async def test_what_is_watched_waits_for_the_end_of_a_stall_without_spinning(rig):
    watcher, writer = rig.connect(), rig.connect()
    say(watcher, request(1, "channel.subscribe", "$counter:a"))
    await rig.settle()
    watcher.frames()
    rig.log.fits = False
    say(writer, request(1, "counter.add", "a"))
    await rig.settle()
    turns = rig.metrics.turn.count
    await asyncio.sleep(0.06)
    assert rig.metrics.turn.count - turns <= 2
    assert watcher.frames() == []
    rig.log.fits = True
    await asyncio.sleep(0.25)
    await rig.settle()
    assert [frame[2]["data"]["value"] for frame in watcher.frames()] == [1]


async def test_a_ledger_that_is_opened_during_a_stall_shows_nothing_of_it(rig):
    reader, writer = rig.connect(), rig.connect()
    say(writer, request(1, "sale.create", "s", {"a": 1}))
    await rig.settle()
    rig.sync()
    await rig.settle()
    rig.log.fits = False
    say(writer, request(2, "sale.pause", "s", ack="logged"))
    await rig.settle()
    say(reader, request(1, "channel.subscribe", "$sale:s:ledger", ["era.1", 0]))
    await rig.settle()
    ((_, _, _, reply),) = reader.frames()
    assert reply["recovered"]
    assert reply["messages"] == []
    rig.log.fits = True
    await asyncio.sleep(0.25)
    await rig.settle()
    steps = [frame[2]["data"]["step"] for frame in reader.frames()]
    assert steps == ["created", "opened", "paused"]


async def test_a_stall_without_anyone_to_answer_ends_too(rig):
    """A turn of notifications has no replies; readers of other turns are not held."""
    writer, bystander = rig.connect(), rig.connect()
    rig.log.fits = False
    body = b"\x93\x02\xabcounter.add\x91\xa1a"
    say(writer, len(body).to_bytes(4, "big") + body)
    await rig.settle()
    assert rig.log.stalled
    for number in range(1, 4):
        say(bystander, request(number, "counter.get", "a"))
        await rig.settle()
    assert [frame[1] for frame in bystander.frames()] == [1, 2, 3]
    rig.log.fits = True
    await asyncio.sleep(0.25)
    await rig.settle()
    say(bystander, request(4, "counter.add", "a"))
    await rig.settle()
    assert bystander.frames() == [[1, 4, None, 2]]


async def test_no_room_in_the_log_is_refused_before_anything_is_touched(rig):
    client = rig.connect()
    rig.log.room = 100
    rig.log.full = True
    say(client, request(1, "counter.add", "a", idempotency_key="k"), request(2, "counter.get", "a"))
    await rig.settle()
    refused, read = client.frames()
    assert refused[2][1] == "disk_full"
    assert read[3] == 0
    rig.log.room = 1 << 30
    say(client, request(3, "counter.add", "a", idempotency_key="k"))
    await rig.settle()
    assert client.frames() == [[1, 3, None, 1]]


async def test_idle_channels_on_a_full_disk_stop_nothing():
    rig = Rig()
    client = rig.connect()
    for number in range(200):
        say(client, request(number, "channel.publish", f"c{number}", 1))
    await rig.settle()
    client.frames()
    rig.clock.advance(600_000)
    rig.turn.open()
    await rig.settle()
    rig.clock.advance(86_400_000)
    rig.log.room = 1_500  # enough for the timers, not for all that follows from them
    rig.log.full = True
    rig.turn.open()
    await rig.settle()
    rig.log.room = 1 << 30
    for _ in range(3):
        rig.clock.advance(86_400_000)
        rig.turn.open()
        await rig.settle()
    assert rig.store.totals()["channels"] == 0


async def test_a_failed_log_stops_everything_before_a_reply_leaves(rig):
    client = rig.connect()

    def fail(*_args):
        raise OSError("EIO")

    rig.log.append_packed = fail
    say(client, request(1, "counter.add", "a"))
    for _ in range(5):
        await asyncio.sleep(0)
    say(client, request(2, "counter.get", "a"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert client.frames() == []
    assert rig.turn.stopped
    assert len(rig.failures) == 1


# --- fairness ---


async def test_a_flood_on_one_connection_leaves_turns_to_others():
    rig = Rig(Limits(turn_cost_max=100, connection_cost_per_turn=50, turn_ms_max=60_000))
    flood, other = rig.connect(), rig.connect()
    say(flood, *[request(n, "counter.add", "a") for n in range(1, 1_001)])
    say(other, request(1, "counter.add", "b"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [frame[1] for frame in other.frames()] == [1]
    assert len(flood.frames()) < 200
    assert not flood.reading
    await rig.settle()
    assert rig.store.counters.get(rig.now, "a") == 1_000
    assert flood.reading


# --- who may stay ---


async def test_who_uses_up_every_turn_has_to_wait_for_the_others():
    """Else a thousand dear commands of one would keep all others waiting until they are done."""
    rig = Rig(Limits(turn_cost_max=40, connection_cost_per_turn=40))
    await rig.settle()
    greedy, modest, third = rig.connect(), rig.connect(), rig.connect()
    say(greedy, *[request(n, "counter.add", "a") for n in range(4_000)])
    say(modest, request(1, "counter.add", "b"))
    say(third, request(1, "counter.add", "b"))
    for _ in range(12):
        await asyncio.sleep(0)
    assert [frame[3] for frame in (*modest.frames(), *third.frames())] == [1, 2]
    assert len(greedy.frames()) < 4_000


def look(rig, ms):
    rig.clock.advance(ms)
    rig.turn.open()
    rig.hub.look_after(rig.dispatcher.ctx.now)


async def test_an_expired_token_ends_its_connection_with_a_code_that_says_reconnect():
    rig = Rig()
    peer = rig.connect()
    say(peer, request(1, "server.hello", None, "ann"))
    await rig.settle()
    connection = peer.protocol.connection
    connection.identify(connection.identity._replace(expires_at=rig.clock.now_ms() + 1_000))
    look(rig, 5_999)
    await rig.settle()
    assert [frame[0] for frame in peer.frames()] == [1]
    look(rig, 1)
    await rig.settle()
    (close,) = peer.frames()
    assert (close[2]["code"], close[2]["name"]) == (4005, "token_expired")
    assert peer.closing


async def test_a_kick_closes_every_connection_of_the_user_and_nobody_elses():
    rig = Rig()
    peers = [rig.connect() for _ in range(3)]
    for peer, user in zip(peers, ("ann", "ann", "bob"), strict=True):
        say(peer, request(1, "server.hello", None, user))
    await rig.settle()
    rig.turn.open()
    assert rig.hub.kick("ann", None, 500) == 2
    await rig.settle()
    assert [peer.frames()[-1][1] for peer in peers[:2]] == ["close", "close"]
    assert [peer.closing for peer in peers] == [True, True, False]
    with pytest.raises(RtError, match="sent away for another 500 ms"):
        rig.hub.blocks.check("ann", None, rig.clock.now_ms())
    assert len(rig.sessions) == 1


async def test_a_token_is_looked_at_with_the_time_of_this_moment():
    rig = Rig()
    await rig.settle()
    seen = []
    rig.authority.identify = lambda token, session, now: seen.append(now) or rig.authority.default
    rig.clock.advance(900)
    rig.hub.identify("token", None)
    assert seen == [rig.clock.now_ms()]


async def test_nothing_is_kept_of_users_who_left():
    rig = Rig()
    peers = [rig.connect() for _ in range(3)]
    for peer, user in zip(peers, ("ann", "ann", "bob"), strict=True):
        say(peer, request(1, "server.hello", None, user))
    say(peers[0], request(2, "server.hello", None, "eve"))
    await rig.settle()
    assert len(rig.hub._users) == 3
    for peer in peers:
        peer.protocol.connection_lost(None)
    assert len(rig.hub._users) == 0
    await rig.settle()
    assert rig.hub.kick("eve", None, 0) == 0
    await rig.settle()
    assert len(rig.sessions) == 2, "her lost session is gone, the others' are kept"
    rig.clock.advance(rig.hub.limits.session_window_ms)
    rig.turn.open()
    rig.sessions.look_after(rig.dispatcher.ctx.now)
    assert len(rig.sessions) == len(rig.sessions._of_user) == 0


async def test_a_kick_from_a_channel_ends_only_that():
    rig = Rig()
    peer = rig.connect()
    hello = request(1, "server.hello", None, "ann")
    say(peer, hello, *(request(2, "channel.subscribe", name) for name in ("a", "b")))
    await rig.settle()
    peer.frames()
    rig.turn.open()
    assert rig.hub.kick("ann", "a", 0) == 1
    await rig.settle()
    ((_, name, what),) = peer.frames()
    assert (name, what["channel"], what["code"]) == ("unsubscribed", "a", 4503)
    assert list(peer.protocol.connection.subscriptions) == ["b"]
