"""Presence of a real server over its life: who is seen comes over kills and stops."""

from __future__ import annotations

import pytest

from tests.process import ServerProcess, eventually

GRACE_MS = 5_000


@pytest.fixture
def server(tmp_path):
    with ServerProcess(tmp_path / "data", "--manual-clock") as process:
        yield process


def user(server, name, *channels):
    client = server.client()
    client.call("server.hello", None, name)
    for channel in channels:
        client.call("channel.subscribe", channel)
    return client


def left(client, name):
    """Waits until the server has noticed."""
    eventually(lambda: not client.call("presence.get", [name])["users"][0]["devices"])


def seen(client, *users):
    rows = client.call("presence.get", list(users))["users"]
    return [(row["status"], row["last_seen"]) for row in rows]


def test_joins_and_leaves_of_real_connections(server):
    reader = server.client()
    assert reader.call("channel.subscribe", "room:1", None, True)["presence"] == {"count": 0}
    ann, ben = user(server, "ann", "room:1"), user(server, "ben", "room:1")
    named = set()
    while len(named) < 2:
        method, params = reader.push()
        assert method == "join"
        named |= set(params["users"])
    assert params == {"channel": "room:1", "users": params["users"], "count": 2}
    ann.reset()
    left(reader, "ann")
    ben.close()
    left(reader, "ben")
    assert reader.pushes == []
    reader.call("server.advance", GRACE_MS)
    expected = {"channel": "room:1", "users": ["ann", "ben"], "count": 0}
    assert reader.push() == ["leave", expected]


def test_who_was_seen_when_survives_a_kill_and_a_stop(server):
    with user(server, "ann"):
        pass
    operator = user(server, "operator")
    left(operator, "ann")
    operator.call("server.advance", GRACE_MS)
    ((status, at),) = seen(operator, "ann")
    assert (status, at is not None) == ("offline", True)
    server.kill()
    server.start()
    operator = user(server, "operator")
    assert seen(operator, "ann", "operator") == [("offline", at), ("online", None)]
    stopped = operator.call("server.time")["now"]
    assert server.stop() == 0
    server.start()
    reader = server.client()
    (_, (status, last)) = seen(reader, "ann", "operator")
    assert status == "offline"
    assert last >= stopped


def test_a_restart_lists_those_who_come_back_and_tells_of_them_once(server):
    with user(server, "ann", "room:1"):
        server.kill()
    server.start()
    reader = server.client()
    reader.call("channel.subscribe", "room:1", None, True)
    back = [user(server, name, "room:1") for name in ("ann", "ben")]
    assert reader.call("channel.presence", "room:1")["count"] == len(back)
    assert reader.pushes == []
    reader.call("server.advance", GRACE_MS)
    expected = {"channel": "room:1", "users": ["ann", "ben"], "count": 2}
    assert reader.push() == ["join", expected]
