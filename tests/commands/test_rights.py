"""Who may do what: the matrix of commands, roles and names."""

from __future__ import annotations

import pytest

from rtserver.commands.rights import Rights
from rtserver.commands.table import ROLES, load
from rtserver.config import AuthConfig, RightsRow, ServiceKey
from rtserver.errors import FORBIDDEN, RtError
from rtserver.session.auth import Authority, secret_hash
from rtserver.session.identity import Identity
from rtserver.state.settings import Settings
from tests.world import Peer, Refused, World

TABLE = load()


def rights(*rows):
    made = Settings()
    made.configure("open", {"subscribe": "user", "publish": "anonymous", "presence": "service"})
    return Rights(TABLE, [RightsRow(**row) for row in rows], made.channel_rules)


def may(table, role, user, command, *args):
    try:
        table.check(TABLE[command], TABLE[command].bind(list(args)), ROLES[role], user)
    except RtError as error:
        return error.kind is not FORBIDDEN or error.details["role"] not in error.message
    return True


MATRIX = [
    # command, args, roles that may
    ("counter.add", ["likes"], "service admin"),
    ("server.kick", ["ann"], "service admin"),
    ("server.stats", [], "admin"),
    ("channel.configure", ["open"], "admin"),
    ("server.ping", [], "anonymous user service admin"),
    ("channel.subscribe", ["room:1"], "service admin"),
    ("channel.subscribe", ["open:1"], "user service admin"),
    ("channel.history", ["open:1"], "user service admin"),
    ("channel.publish", ["open:1", 1], "anonymous user service admin"),
    ("channel.publish", ["room:1", 1], "service admin"),
    ("channel.presence", ["open:1"], "service admin"),
    ("channel.subscribe", ["$inbox:ann"], "user service admin"),
    ("channel.subscribe", ["$inbox:bob"], "service admin"),
    ("channel.subscribe", ["$inbox"], "service admin"),
    ("channel.subscribe", ["$inbox:ann:x"], "service admin"),
    ("channel.subscribe", ["$presence:bob"], "user service admin"),
    ("channel.subscribe", ["$counter:likes"], "service admin"),
    ("channel.subscribe", ["$board:b:top:3"], "service admin"),
]


@pytest.mark.parametrize(("command", "args", "allowed"), [row for row in MATRIX if row[2]])
def test_the_matrix(command, args, allowed):
    table = rights()
    for role in ("anonymous", "user", "service", "admin"):
        user = "ann" if role == "user" else None
        assert may(table, role, user, command, *args) == (role in allowed.split()), role


def test_self_is_compared_after_decoding_and_only_as_a_whole():
    table = rights()
    assert may(table, "user", "a:b", "channel.subscribe", "$inbox:a%3Ab")
    assert not may(table, "user", "a:b", "channel.subscribe", "$inbox:a:b")
    assert not may(table, "user", "a", "channel.subscribe", "$inbox:a:b")
    assert not may(table, "user", "a%3Ab", "channel.subscribe", "$inbox:a%3Ab")
    assert not may(table, "user", "$self", "channel.subscribe", "$inbox:ann")
    assert not may(table, "user", "*", "channel.subscribe", "$inbox:ann")
    assert not may(table, "anonymous", None, "channel.subscribe", "$inbox:None")


def test_rows_of_the_configuration_come_first():
    table = rights(
        {"command": "counter.add", "name": "likes:secret:*", "role": "admin"},
        {"command": "counter.*", "name": "likes:*", "role": "user"},
        {"command": "channel.subscribe", "name": "user:$self:*", "role": "user"},
        {"command": "channel.subscribe", "name": "open:closed", "role": "admin"},
        {"command": "board.top", "role": "anonymous"},
    )
    assert may(table, "user", "ann", "counter.add", "likes:1")
    assert may(table, "user", "ann", "counter.set", "likes:1:2", 3)
    assert not may(table, "user", "ann", "counter.add", "likes:secret:1")
    assert not may(table, "user", "ann", "counter.add", "other")
    assert may(table, "user", "ann", "channel.subscribe", "user:ann:mail")
    assert not may(table, "user", "ann", "channel.subscribe", "user:bob:mail")
    assert not may(table, "user", "ann", "channel.subscribe", "open:closed")
    assert may(table, "anonymous", None, "board.top", "b")
    assert may(table, "service", None, "counter.add", "likes:secret:1"), "rows bind users"


def test_each_item_of_a_vector_is_looked_at():
    world = World()
    world.call("channel.configure", "open", *[None] * 5, None, "user")
    peer = Peer()
    user = world.connect(peer, role="user")
    items = [["open:1", 1], ["room:1", 2]]
    first, second = world.call_on(user, peer, "channel.publish_many", items)["items"]
    assert first["offset"] == 1
    assert second["error"][1] == "forbidden"
    world.assert_same()


def test_presence_needs_a_right_of_its_own():
    world = World()
    world.call("channel.configure", "open", *[None] * 5, "user")
    peer = Peer()
    user = world.connect(peer, role="user")
    with pytest.raises(Refused, match="needs the role service"):
        world.call_on(user, peer, "channel.subscribe", "open:1", None, True)
    assert user.subscriptions == {}


# --- hello, auth, blocks ---


@pytest.fixture
def proven():
    services = {"shop": ServiceKey(hash=secret_hash("x"))}
    return World(authority=Authority(AuthConfig(services=services), dev=False))


def nobody(world):
    peer = Peer()
    connection = world.connect(peer)
    connection.identify(Identity(ROLES["anonymous"]))
    return connection, peer


def test_hello_wants_a_proof(proven):
    connection, peer = nobody(proven)
    with pytest.raises(Refused, match="unauthenticated: token is missing"):
        proven.call_on(connection, peer, "server.hello")
    with pytest.raises(Refused, match="unauthenticated"):
        proven.call_on(connection, peer, "server.hello", None, None, "key:shop:wrong")
    assert connection.rank == ROLES["anonymous"]
    reply = proven.call_on(connection, peer, "server.hello", None, None, "key:shop:x")
    assert (reply["user"], reply["expires_at"]) == (None, None)
    assert connection.rank == ROLES["service"]
    with pytest.raises(Refused, match="only --dev believes that"):
        proven.call_on(connection, peer, "server.hello", None, "ann")


def test_auth_is_for_the_same_party(proven):
    connection, peer = nobody(proven)
    shown = proven.call_on(connection, peer, "server.auth", "key:shop:x")
    assert shown == {"user": None, "role": "service", "expires_at": None}
    connection.identify(Identity(ROLES["user"], user="ann"))
    with pytest.raises(Refused, match="acts for the user 'ann'"):
        proven.call_on(connection, peer, "server.auth", "key:shop:x")


def test_who_was_sent_away_stays_away_for_a_while():
    world = World()
    world.call("server.kick", "ann", None, 1_000)
    world.call("server.kick", "bob", "room:1", 500)
    peer = Peer()
    connection = world.connect(peer)
    with pytest.raises(Refused, match="blocked: 'ann' was sent away for another 1000 ms") as caught:
        world.call_on(connection, peer, "server.hello", None, "ann")
    assert caught.value.details == {"retry_after_ms": 1_000}
    world.call_on(connection, peer, "server.hello", None, "bob")
    with pytest.raises(Refused, match="from 'room:1' for another 500 ms"):
        world.call_on(connection, peer, "channel.subscribe", "room:1")
    world.now += 1_000
    world.call_on(connection, peer, "channel.subscribe", "room:1")
    world.call_on(connection, peer, "server.hello", None, "ann")
