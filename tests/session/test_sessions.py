"""Sessions: what a lost connection was subscribed to goes on with the next one of its party."""

from __future__ import annotations

import pytest

from rtserver.errors import CLOSE_KICKED, CLOSE_SLOW
from rtserver.limits import Limits
from tests.world import Peer, World


class Client:
    """One connection after another of the same party."""

    def __init__(self, world, user="ann"):
        self.world = world
        self.user = user
        self.connect()

    def connect(self):
        self.peer = Peer()
        self.connection = self.world.connect(self.peer)

    def call(self, method, *args):
        return self.world.call_on(self.connection, self.peer, method, *args)

    def hello(self, session=None, positions=None):
        return self.call("server.hello", None, self.user, None, None, session, positions)

    def lose(self):
        self.world.disconnect(self.connection)


@pytest.fixture
def world():
    return World()


def data(reply, channel="room:1"):
    return [message["data"] for message in reply["channels"][channel]["messages"]]


def test_a_session_goes_on_with_what_was_missed(world):
    client = Client(world)
    session = client.hello()["session"]
    client.call("channel.subscribe", "room:1")
    world.call("channel.publish", "room:1", "seen")
    client.lose()
    world.call("channel.publish", "room:1", "missed")
    client.connect()
    reply = client.hello(session)
    assert (reply["resumed"], reply["session"], data(reply)) == (True, session, ["missed"])
    world.call("channel.publish", "room:1", "after")
    assert [frame[2]["data"] for frame in client.peer.take()] == ["after"]


def test_the_client_knows_best_where_it_is(world):
    client = Client(world)
    session = client.hello()["session"]
    epoch = client.call("channel.subscribe", "room:1")["epoch"]
    world.call("channel.publish", "room:1", "sent, but lost on the way")
    client.lose()
    client.connect()
    reply = client.hello(session, {"room:1": [epoch, 0]})
    assert data(reply) == ["sent, but lost on the way"]


def test_a_resume_closes_the_older_connection(world):
    client = Client(world)
    session = client.hello()["session"]
    client.call("channel.subscribe", "room:1")
    older, older_peer = client.connection, client.peer
    client.connect()
    reply = client.hello(session)
    assert reply["resumed"] is True
    assert "room:1" in reply["channels"]
    assert not older.is_open
    assert older_peer.take()[-1][2]["name"] == "replaced"
    world.sessions.lost(older, world.now)  # its socket goes: the session stays where it is
    assert world.sessions.detached == 0
    assert world.sessions.find(session, world.now).user == "ann"


def test_the_window_ends(world):
    client = Client(world)
    session = client.hello()["session"]
    client.lose()
    world.advance(world.limits.session_window_ms)
    world.sessions.look_after(world.now)
    assert len(world.sessions) == 0
    client.connect()
    reply = client.hello(session)
    assert (reply["resumed"], reply["session"] == session) == (False, False)


def test_nobody_resumes_the_session_of_another(world):
    client = Client(world)
    session = client.hello()["session"]
    client.lose()
    other = Client(world, "eve")
    reply = other.hello(session)
    assert (reply["resumed"], reply["session"] == session) == (False, False)
    client.connect()
    assert client.hello(session)["resumed"] is True


@pytest.mark.parametrize(("kind", "kept"), [(CLOSE_SLOW, True), (CLOSE_KICKED, False)])
def test_only_a_close_that_says_reconnect_leaves_a_session(world, kind, kept):
    client = Client(world)
    client.hello()
    client.connection.close(kind, "why")
    client.lose()
    assert len(world.sessions) == kept


def test_lost_sessions_are_bounded():
    world = World(Limits(sessions_detached_max=2))
    sessions = []
    for _ in range(3):
        client = Client(world)
        sessions.append(client.hello()["session"])
        client.lose()
    assert world.sessions.detached == 2
    client.connect()
    assert client.hello(sessions[0])["resumed"] is False
    assert client.hello(sessions[1])["resumed"] is True


def test_an_id_says_who_asks_and_each_use_renews_the_window(world):
    client = Client(world)
    client.connection.pushes = False
    session = client.hello()["session"]
    client.lose()
    for _ in range(3):
        world.advance(world.limits.session_window_ms - 1)
        assert world.sessions.find(session, world.now).user == "ann"
    world.advance(world.limits.session_window_ms)
    assert world.sessions.find(session, world.now) is None


def test_a_kick_ends_the_session_before_its_socket_is_gone(world):
    """Who is in no hurry to close could go on with it elsewhere."""
    client = Client(world)
    session = client.hello()["session"]
    client.connection.close(CLOSE_KICKED, "away")
    assert world.sessions.find(session, world.now) is None
    other = Client(world)
    assert not other.hello(session)["resumed"]
    client.lose()
    assert world.sessions.find(session, world.now) is None


def test_a_storm_of_resumes_reads_a_history_once(world):
    epoch = world.call("channel.publish", "room:1", "x")["epoch"]
    clients = [Client(world, f"u{number}") for number in range(50)]
    sessions = []
    for client in clients:
        sessions.append(client.hello()["session"])
        client.call("channel.subscribe", "room:1")
    for client in clients:
        client.lose()
    for number in range(5):
        world.call("channel.publish", "room:1", number)
    before = world.metrics.history_reads
    for number, (client, session) in enumerate(zip(clients, sessions, strict=True)):
        client.connect()
        assert data(client.hello(session)) == [0, 1, 2, 3, 4]
        if number % 10 == 0:
            world.router.forget_pages()  # as now and then: it is still asked for
    assert world.metrics.history_reads == before + 1
    for _ in range(2):
        world.router.forget_pages()  # now nobody did
    clients[0].call("channel.subscribe", "room:1", [epoch, 1])
    assert world.metrics.history_reads == before + 2


def test_a_page_that_was_read_before_does_not_hide_what_came_since(world):
    epoch = world.call("channel.publish", "room:1", 1)["epoch"]
    for number in (2, 3):
        client = Client(world, f"u{number}")
        client.hello()
        reply = client.call("channel.subscribe", "room:1", [epoch, 0])
        assert [message["data"] for message in reply["messages"]] == [*range(1, number)]
        world.call("channel.publish", "room:1", number)


def test_what_is_published_in_the_turn_of_the_loss_is_not_counted_as_sent(world):
    client = Client(world)
    session = client.hello()["session"]
    client.call("channel.subscribe", "room:1")
    world.open_turn()
    world.send("channel.publish", "room:1", "first")
    world.send("channel.publish", "room:1", "second")
    client.lose()
    world.end_turn()
    world.sync()
    world.peer.take()
    client.connect()
    assert data(client.hello(session)) == ["first", "second"]


def test_who_goes_on_with_another_session_leaves_none_behind(world):
    client = Client(world)
    session = client.hello()["session"]
    client.lose()
    client.connect()
    client.hello()
    assert client.hello(session)["session"] == session
    assert len(world.sessions) == 1
    client.lose()
    world.advance(world.limits.session_window_ms)
    world.sessions.look_after(world.now)
    assert len(world.sessions) == 0


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_call_takes_the_subscriptions_of_a_session_from_nobody(world, is_lost):
    client = Client(world)
    session = client.hello()["session"]
    client.call("channel.subscribe", "room:1")
    if is_lost:
        client.lose()
    call = Client(world)
    call.connection.pushes = False
    reply = call.hello(session)
    assert (reply["resumed"], reply["session"]) == (True, session)
    call.lose()
    assert client.connection.is_open is not is_lost
    client.connect()
    assert list(client.hello(session)["channels"]) == ["room:1"]
