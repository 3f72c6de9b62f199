"""server.hello, auth and kick: for whom a connection acts, and for how long."""

from __future__ import annotations

import pytest

from rtserver.commands.table import ROLES
from rtserver.config import AuthConfig, ServiceKey
from rtserver.session.auth import Authority, secret_hash
from rtserver.session.identity import Identity
from tests.world import Peer, Refused, World

HOUR_MS = 3_600_000


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


def test_who_must_prove_himself_may_do_nothing_but_that(proven):
    proven.connection.identify(Identity(ROLES["admin"]))
    rules = [None] * 5
    proven.call("channel.configure", "open", *rules, "anonymous", "anonymous", "anonymous")
    connection, peer = nobody(proven)
    for method, *args in (
        ("channel.publish", "open:1", 1),
        ("channel.publish_many", [["open:1", 1]]),
        ("channel.subscribe", "open:1"),
        ("channel.unsubscribe", "open:1"),
        ("channel.history", "open:1"),
        ("server.info",),
        ("counter.add", "likes"),
    ):
        with pytest.raises(Refused, match=f"unauthenticated: {method} needs to know who"):
            proven.call_on(connection, peer, method, *args)
    assert proven.call_on(connection, peer, "server.ping")
    assert proven.call_on(connection, peer, "server.time")
    proven.open_turn()
    replies = proven.dispatcher.follow(connection, {"open:1": None})
    assert replies["open:1"]["error"][1] == "unauthenticated"
    proven.end_turn()


def test_where_nobody_is_allowed_he_has_the_rights_that_namespaces_give_him():
    services = {"shop": ServiceKey(hash=secret_hash("x"))}
    open_to_all = Authority(AuthConfig(services=services, anonymous=True), dev=False)
    world = World(authority=open_to_all)
    world.call("channel.configure", "open", *[None] * 5, "anonymous")
    connection, peer = nobody(world)
    world.call_on(connection, peer, "server.hello")
    world.call_on(connection, peer, "channel.subscribe", "open:1")
    with pytest.raises(Refused, match="forbidden"):
        world.call_on(connection, peer, "channel.subscribe", "room:1")


class Issuer:
    """Proves whoever its tokens name, as `user` or `user:role`, for an hour."""

    dev = False
    must_prove = True

    def identify(self, token, _session, now):
        user, _, role = token.partition(":")
        return Identity(ROLES[role or "user"], user=user, expires_at=now + HOUR_MS)


def test_auth_goes_on_with_a_fresh_token_and_the_same_session():
    world = World(authority=Issuer())
    connection, peer = nobody(world)
    session = world.call_on(connection, peer, "server.hello", None, None, "ann")["session"]
    first = connection.expires_at
    world.now += 1_000
    shown = world.call_on(connection, peer, "server.auth", "ann")
    assert shown == {"user": "ann", "role": "user", "expires_at": first + 1_000}
    assert connection.expires_at == first + 1_000
    assert world.sessions.find(session, world.now).expires_at == first + 1_000


def test_a_token_of_another_is_no_way_to_become_her():
    world = World(authority=Issuer())
    connection, peer = nobody(world)
    world.call_on(connection, peer, "server.hello", None, None, "ann")
    for method, args in (("server.auth", ["bob"]), ("server.hello", [None, None, "bob"])):
        with pytest.raises(Refused, match="conflict: the token is of the user 'bob'"):
            world.call_on(connection, peer, method, *args)
    assert connection.user == "ann"


def test_who_may_less_than_before_stops_hearing_what_that_opened():
    world = World(authority=Issuer())
    world.call("channel.configure", "open", *[None] * 5, "user")
    connection, peer = nobody(world)
    world.call_on(connection, peer, "server.hello", None, None, "ann:service")
    for name in ("open:1", "room:1", "$inbox:ann", "$counter:likes"):
        if not name.startswith("$inbox"):
            world.call_on(connection, peer, "channel.subscribe", name)
    world.pushed.clear()
    world.call_on(connection, peer, "server.auth", "ann")
    assert list(connection.subscriptions) == ["open:1"]
    ended = {push[2]["channel"]: push[2]["name"] for push in world.pushed}
    assert ended == {"room:1": "forbidden", "$counter:likes": "forbidden"}
    world.call("channel.publish", "room:1", "secret")
    assert peer.take() == []


def test_keys_of_back_ends_are_their_own():
    world = World()
    peers = {}
    for service in ("shop", "bank"):
        peer = peers[service] = Peer()
        peer.connection = world.connect(peer)
        peer.connection.identify(Identity(ROLES["service"], service=service))
    key = {"idempotency_key": "k"}

    def add(service, *args):
        return world.call_on(peers[service].connection, peers[service], "counter.add", *args, **key)

    assert [add("shop", "likes", 2), add("shop", "likes", 2)] == [2, 2]
    assert add("bank", "likes", 3) == 5, "another back end's key is another key"
    world.assert_same()
    assert [record[3]["v"] for record in world.records()[-2:]] == ["shop", "bank"]


def test_a_hello_costs_what_it_resumes():
    world = World()
    frame = [0, 1, "server.hello", {"positions": {f"c:{number}": ["e", 0] for number in range(5)}}]
    costs = [
        world.dispatcher.frame(world.connection, body, 100)
        for body in ([0, 1, "server.hello", {}], frame)
    ]
    assert costs[1] - costs[0] == 5
