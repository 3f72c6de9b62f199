"""Sales that are watched over real sockets: admissions reach who they are for, over every
transport; the ledger is followed across kills without loss; places outlive them for a while."""

from __future__ import annotations

import aiohttp
import pytest

from tests.process import ServerProcess, WireClient, eventually
from tests.transport.web import read_events

TIMEOUT = aiohttp.ClientTimeout(total=30)
GRACE_MS = 20_000
QUEUE = {"rate_per_s": 100, "active_max": 1, "pass_ms": 10**8, "grace_ms": GRACE_MS}
LEDGER = "$sale:s:ledger"


@pytest.fixture
def server(tmp_path):
    with ServerProcess(tmp_path / "data", "--manual-clock") as process:
        yield process


def user(server, name):
    client = server.client()
    client.call("server.hello", None, name, None, "user")
    return client


def create(staff, **queue):
    items = {"a": 5, "b": 5}
    staff.call("sale.create", "s", items, 2, 60_000, None, None, {**QUEUE, **queue})


def pushed(client, staff):
    """The next state that is pushed; time goes on meanwhile, because admissions gather."""

    def look():
        staff.call("server.advance", 100)
        client.call("server.ping")
        return client.pushes

    eventually(look)
    method, params = client.push()
    assert method == "message"
    return params["data"]


def test_an_admission_is_pushed_to_whom_it_is_for(server):
    staff, ann, bob, cid = server.client(), *(user(server, name) for name in ("ann", "bob", "cid"))
    create(staff)
    for client, name in ((ann, "ann"), (bob, "bob"), (cid, "cid")):
        client.call("channel.subscribe", f"$sale:s:user:{name}")
        client.call("sale.join", "s")
        staff.call("server.advance", 100)
        client.call("server.ping")
    for client, state in ((ann, "admitted"), (bob, "waiting"), (cid, "waiting")):
        assert client.call("sale.place", "s")["state"] == state
        client.pushes.clear()
    ann.call("sale.leave", "s")
    told = pushed(bob, staff)
    assert told["state"] == "admitted"
    assert told["pass_id"] == bob.call("sale.place", "s")["pass_id"]
    assert bob.call("sale.reserve", "s", None, {"a": 1}, None, told["pass_id"])["items"] == {"a": 1}
    told = pushed(cid, staff)
    assert (told["state"], told["position"]) == ("waiting", 1)
    assert ann.push()[1]["data"]["state"] == "none"


async def test_an_admission_is_pushed_over_an_event_stream(server):
    staff, ann = server.client(), user(server, "ann")
    create(staff)
    ann.call("sale.join", "s")
    assert ann.call("sale.place", "s")["state"] == "admitted"
    base = f"http://{server.address[0]}:{server.address[1]}"
    async with aiohttp.ClientSession(base, timeout=TIMEOUT) as http:
        hello = {"user": "bob", "role": "user"}
        async with http.post("/v1/call/server.hello", json=hello) as response:
            session = (await response.json())["session"]
        headers = {"Rt-Session": session}
        async with http.post("/v1/call/sale.join", json=["s"], headers=headers) as response:
            assert (await response.json())["position"] == 1
        params = {"channels": "$sale:s:user:bob,$sale:s:user:ann"}
        async with http.get("/v1/stream", params=params, headers=headers) as stream:
            ((first, _),) = await read_events(stream, 1)
            replies = first[2]["channels"]
            assert replies["$sale:s:user:bob"]["state"]["position"] == 1
            assert replies["$sale:s:user:ann"]["error"][1] == "forbidden"
            staff.call("server.advance", 100)
            ann.call("sale.leave", "s")
            ((push, _),) = await read_events(stream, 1)
            assert push[2]["channel"] == "$sale:s:user:bob"
            assert push[2]["data"]["state"] == "admitted"


def follow(client, since):
    """Subscribes to the ledger; the steps of the reply."""
    reply = client.call("channel.subscribe", LEDGER, since)
    assert reply["class"] == "must"
    assert since is None or reply["recovered"]
    return reply["epoch"], [message["data"] for message in reply["messages"]]


def steps_of(client):
    return [params["data"] for method, params in client.pushes if method == "message"]


def test_the_ledger_is_followed_across_kills_without_loss_or_duplicates(tmp_path):
    told = []
    epoch = None
    with ServerProcess(tmp_path / "data") as server:
        for answered in (100, 200):
            with server.client() as staff, server.client() as reader:
                if epoch is None:
                    staff.call("sale.create", "s", {"a": 10_000}, 0)
                    epoch, _ = follow(reader, None)
                now, steps = follow(reader, [epoch, len(told)])
                assert now == epoch
                told += steps
                reserve(staff, answered)
                reads_on(reader, 50)
                server.kill()
                told += drained(reader)
            server.start()
        with server.client() as reader:
            told += follow(reader, [epoch, len(told)])[1]
            kept = ledger(reader)
    assert len(kept) >= 300
    assert told == kept
    assert [step["seq"] for step in told] == list(range(1, len(told) + 1))


def reserve(staff, answered):
    """Asks for 300 units, and waits for so many answers."""
    asked = [staff.send("sale.reserve", "s", f"u{number}", {"a": 1}) for number in range(300)]
    for request_id in asked[:answered]:
        staff.reply(request_id)


def reads_on(reader, steps):
    eventually(lambda: reader.call("server.ping") and len(steps_of(reader)) >= steps)


def ledger(client):
    """All of it, as the command tells it."""
    kept = []
    after = 0
    while after is not None:
        page = client.call("sale.ledger", "s", after, 1_000)
        kept += page["items"]
        after = page["next"]
    return kept


def drained(client: WireClient):
    """The steps that were pushed before the server died."""
    steps = steps_of(client)
    client.pushes.clear()
    frames = client.read_to_end()
    return steps + [frame[2]["data"] for frame in frames if frame[:2] == [2, "message"]]


def test_a_place_outlives_a_kill_for_the_grace_period(tmp_path):
    with ServerProcess(tmp_path / "data", "--manual-clock") as server:
        staff = server.client()
        create(staff)
        staff.call("sale.pause", "s")
        for name in ("ann", "bob"):
            user(server, name).call("sale.join", "s")
        staff.call("sale.join", "s", "eva")
        server.kill()
        server.start()
        staff, bob = server.client(), user(server, "bob")
        staff.call("server.advance", GRACE_MS - 1)
        assert places(staff) == {"ann": 1, "bob": 2, "eva": 3}
        staff.call("server.advance", 1)
        eventually(lambda: places(staff) == {"ann": None, "bob": 1, "eva": 2})
        assert bob.call("sale.place", "s")["position"] == 1
        server.kill()
        server.start()
        assert places(server.client()) == {"ann": None, "bob": 1, "eva": 2}


def places(staff):
    return {name: staff.call("sale.place", "s", name)["position"] for name in ("ann", "bob", "eva")}
