"""presence.* and channel.presence, and when users were seen last over replay and snapshots."""

from __future__ import annotations

import pytest

from rtserver.config import RightsRow
from rtserver.limits import Limits
from rtserver.state.store import Store
from tests.world import START_MS, Peer, Refused, World

GRACE_MS = 5_000


VEILED = RightsRow(command="channel.presence", name="open:veiled", role="service")


@pytest.fixture
def world():
    world = World(rights=[VEILED])
    world.open_turn()
    world.dispatcher.issue(
        "channel.configure", ["open", *[None] * 5, "user", None, "user", None, False]
    )
    world.end_turn()
    return world


class Party:
    """A connection of a user, with the role user."""

    def __init__(self, world, user, role="user"):
        self.world = world
        self.peer = Peer()
        self.connection = world.connect(self.peer, role)
        self.call("server.hello", None, user)

    def call(self, method, *args):
        return self.world.call_on(self.connection, self.peer, method, *args)

    def lose(self):
        self.world.open_turn()
        self.world.disconnect(self.connection)
        self.world.end_turn()


def state(user, **fields):
    usual = {"status": "online", "note": None, "devices": 1, "idle": False, "last_seen": None}
    return {"user": user, **usual, **fields}


def get(world, *users):
    return world.call("presence.get", list(users))["users"]


# --- users ---


def test_users_are_told_in_the_order_asked(world):
    Party(world, "ann")
    assert get(world, "ben", "ann") == [state("ben", status="offline", devices=0), state("ann")]


def test_a_status_lasts_while_the_user_is_connected(world):
    phone, desk = Party(world, "ann"), Party(world, "ann")
    expected = state("ann", status="busy", note="in a meeting", devices=2)
    assert phone.call("presence.set", "busy", "in a meeting") == expected
    phone.lose()
    assert get(world, "ann") == [{**expected, "devices": 1}]
    assert desk.call("presence.set", "away") == state("ann", status="away")
    desk.lose()
    world.advance(GRACE_MS)
    Party(world, "ann")
    assert get(world, "ann") == [state("ann")]


def test_a_user_is_idle_when_all_her_devices_are(world):
    phone, desk = Party(world, "ann"), Party(world, "ann")
    phone.call("presence.set", "busy", "cooking")
    assert desk.call("presence.set", "idle")["idle"] is False
    both = phone.call("presence.set", "idle")
    assert both == state("ann", status="busy", note="cooking", devices=2, idle=True)
    desk.lose()
    assert get(world, "ann")[0]["idle"] is True
    Party(world, "ann")
    assert get(world, "ann")[0]["idle"] is False
    assert phone.call("presence.set", "idle", "asleep")["note"] == "asleep"
    assert phone.call("presence.set", "online") == state("ann", devices=2)


def test_a_call_that_is_no_device_speaks_for_all_of_them(world):
    Party(world, "ann")
    call = Party(world, "ann")
    call.connection.pushes = False
    world.presence.identified(call.connection)
    assert call.call("presence.set", "away", "x") == state("ann", status="away", note="x")
    assert call.call("presence.set", "idle")["idle"] is True
    assert call.call("presence.set", "away")["idle"] is False


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["offline"], "status is 'offline', expected another word"),
        (["a b"], "status is 'a b'"),
        (["away", "x" * 257], "at most 256 bytes"),
        (["away", "é" * 129], "at most 256 bytes"),
        (["away", 3], "expected text"),
    ],
)
def test_what_is_no_status_is_refused(world, args, message):
    ann = Party(world, "ann")
    with pytest.raises(Refused, match=message):
        ann.call("presence.set", *args)
    assert get(world, "ann") == [state("ann")]


def test_who_is_nobody_or_has_no_device_has_no_status(world):
    with pytest.raises(Refused, match="acts for no user") as refusal:
        world.call("presence.set", "away")
    assert refusal.value.name == "unauthenticated"
    call = Party(world, "ann")
    call.connection.pushes = False
    world.presence.identified(call.connection)
    world.advance(GRACE_MS)
    with pytest.raises(Refused, match="no connection that stays") as refusal:
        call.call("presence.set", "away")
    assert refusal.value.name == "conflict"


def test_another_user_on_the_same_connection_is_another_presence(world):
    party = Party(world, "ann")
    party.call("presence.set", "idle")
    party.call("server.hello", None, "ben")
    assert get(world, "ben") == [state("ben")]
    world.advance(GRACE_MS)
    assert get(world, "ann")[0]["status"] == "offline"


# --- watching a user ---


def test_a_user_is_watched(world):
    def pushed():
        world.advance(world.limits.watch_interval_ms)
        return [frame[2]["data"] for frame in world.peer.take() if frame[0] == 2]

    reply = world.call("channel.subscribe", "$presence:ann")
    assert reply["state"] == {"full": True, **state("ann", status="offline", devices=0)}
    ann = Party(world, "ann")
    world.peer.take()
    world.pushed.clear()
    ann.call("presence.set", "away")
    assert pushed()[-1] == {"full": True, **state("ann", status="away")}
    ann.call("presence.set", "away")
    assert pushed() == []
    ann.lose()
    left = world.now
    pushed()
    world.advance(GRACE_MS)
    gone = pushed() or [frame[2]["data"] for frame in world.pushed]
    expected = state("ann", status="offline", devices=0, last_seen=left)
    assert gone == [{"full": True, **expected}]


def test_only_a_user_is_watched(world):
    with pytest.raises(Refused, match=r"expected \$presence:<user>"):
        world.call("channel.subscribe", "$presence:ann:phone")


# --- last seen ---


def test_when_users_were_seen_last_survives_replay_and_snapshot(world):
    parties = [Party(world, user) for user in ("ann", "ben", "cyd")]
    world.advance(1_000)
    for party in parties[:2]:
        party.lose()
        world.advance(10)
    world.advance(GRACE_MS)
    assert [one["last_seen"] for one in get(world, "ann", "ben", "cyd")] == [
        START_MS + 1_000,
        START_MS + 1_010,
        None,
    ]
    world.assert_same()
    assert [record[0] for record in world.records()].count("presence.seen") >= 1
    assert world.replayed().last_seen.get("ben") == START_MS + 1_010


def test_the_user_seen_longest_ago_gives_way_also_on_replay():
    world = World(Limits(last_seen_max=2, presence_grace_ms=100))
    for user in ("ann", "ben", "cyd", "ann"):
        Party(world, user).lose()
        world.advance(100)
    seen = [one["last_seen"] is not None for one in get(world, "ann", "ben", "cyd")]
    assert seen == [True, False, True]
    world.assert_same()


def test_a_snapshot_of_before_has_seen_nobody():
    store = Store()
    for chunk in Store().dump():
        assert chunk[0] != "last_seen"
        store.load(chunk)
    assert len(store.last_seen) == 0
    assert "last_seen" not in store.totals()


def test_those_who_are_here_at_a_stop_are_seen(world):
    parties = [Party(world, user) for user in ("ann", "ben")]
    parties[1].lose()
    left = world.now
    world.now += 100
    world.presence.people.end(world.now)
    assert world.presence.people.unseen_rows(10) == [["ben", left], ["ann", left + 100]]


# --- channels ---


def test_a_channel_lists_its_users_by_name(world):
    for user in ("cyd", "ann", "ben", "ann"):
        Party(world, user).call("channel.subscribe", "open:1")
    Party(world, None).call("channel.subscribe", "open:1")
    page = world.call("channel.presence", "open:1", None, 2)
    assert page == {
        "users": [
            {"user": "ann", "devices": 2, "since": START_MS},
            {"user": "ben", "devices": 1, "since": START_MS},
        ],
        "count": 3,
        "anonymous": 1,
        "next": "ben",
    }
    page = world.call("channel.presence", "open:1", "ben", 2)
    assert [row["user"] for row in page["users"]] == ["cyd"]
    assert page["next"] is None


def test_a_channel_that_begins_alike_is_another(world):
    Party(world, "ann").call("channel.subscribe", "open:1")
    Party(world, "ben").call("channel.subscribe", "open:11")
    assert [row["user"] for row in world.call("channel.presence", "open:1")["users"]] == ["ann"]
    empty = {"users": [], "count": 0, "anonymous": 0, "next": None}
    assert world.call("channel.presence", "open:") == empty


def test_a_page_ends_at_the_bound_of_a_reply(world):
    rooms = world.presence._rooms
    for number in range(1_000):
        rooms.enter("open:1", f"{number:04}" + "x" * 250, world.now)
    found, after = [], None
    while True:
        page = world.call("channel.presence", "open:1", after, 1_000)
        found += page["users"]
        after = page["next"]
        if after is None:
            break
        assert len(page["users"]) < 1_000
    assert len(found) == 1_000


def test_a_subscription_with_presence_tells_the_count_and_needs_the_right(world):
    ann = Party(world, "ann")
    reply = ann.call("channel.subscribe", "open:1", None, True)
    assert reply["presence"] == {"count": 1}
    assert "presence" not in ann.call("channel.subscribe", "open:1")
    ann.call("channel.subscribe", "open:veiled")
    for method, args in (
        ("channel.subscribe", ("open:veiled", None, True)),
        ("channel.presence", ("open:veiled",)),
    ):
        with pytest.raises(Refused, match="on 'open:veiled' needs the role service"):
            ann.call(method, *args)
    service = Party(world, "bot", "service")
    assert service.call("channel.presence", "open:veiled")["count"] == 1


def test_presence_is_asked_for_again_by_a_session_that_goes_on(world):
    ann = Party(world, "ann")
    session = ann.connection.session
    ann.call("channel.subscribe", "open:1", None, True)
    ann.lose()
    ann.peer = Peer()
    ann.connection = world.connect(ann.peer)
    reply = ann.call("server.hello", None, "ann", None, None, session)
    assert reply["resumed"]
    assert reply["channels"]["open:1"]["presence"] == {"count": 1}
    Party(world, "ben").call("channel.subscribe", "open:1")
    assert [frame[1:] for frame in ann.peer.take() if frame[1] == "join"] == [
        ["join", {"channel": "open:1", "users": ["ben"], "count": 2}]
    ]
