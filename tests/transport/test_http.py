"""HTTP on the rig: routes, calls, batches, who may ask, and the order of answers."""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtserver.config import WebConfig
from rtserver.errors import CLOSE_EXPIRED, CLOSE_SLOW, ERRORS, FORBIDDEN, UNAUTHENTICATED, RtError
from rtserver.limits import VECTOR_MAX, Limits
from rtserver.session.identity import Identity
from rtserver.transport.http import HttpStream
from rtserver.transport.websocket import WebSocketStream
from tests.transport.rig import Rig
from tests.transport.rig import request as frame
from tests.transport.web import HOST, JSON, call, get, post, responses

ORIGIN = "Origin: https://shop.example"


@pytest.fixture
async def rig():
    rig = Rig()
    await rig.settle()
    rig.hub.health = lambda path: (True, {"status": "live"}) if path == "/livez" else None
    return rig


async def say(rig, client, *pieces):
    for piece in pieces:
        if client.protocol is None:
            break
        client.protocol.data_received(piece)
        await asyncio.sleep(0)
    await rig.settle()
    return client.bytes()


async def ask(rig, text, client=None):
    """The one response to one request on a connection of its own."""
    answer = await say(rig, client or rig.connect(), text)
    (response,) = responses(answer, bodiless=text.startswith(b"HEAD"))
    return response


async def test_pipelined_requests_take_a_little_time_then_others_have_theirs(rig, monkeypatch):
    times = iter(range(0, 10**9, 300))  # each look at the clock is later
    monkeypatch.setattr("rtserver.transport.http.monotonic_us", lambda: next(times))
    client = rig.connect()
    client.protocol.data_received(get("/livez") * 40)
    assert 1 <= len(responses(client.bytes())) < 10
    await rig.settle()
    assert len(responses(client.bytes())) > 30


# --- health, metrics, pages ---


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (get("/livez"), 200),
        (get("/livez?verbose"), 200),
        (get("/livez", method="HEAD"), 200),
        (get("/"), 404),
        (get("/v1/nope"), 404),
        (get("/v2/call/x"), 404),
        (get("/metrics"), 200),
        (get("/livez", method="DELETE"), 405),
        (get("/metrics", method="POST"), 405),
        (get("/v1/call/server.ping"), 405),
        (get("/v1/batch"), 405),
        (post("/v1/stream", []), 405),
        (post("/v1/poll", []), 405),
        (get("/v1/stream", method="HEAD"), 405),
        (b"GET / WHAT\r\n\r\n", 400),
        (get("/livez", host=None), 400),
        (get("/livez", HOST), 400),
        (get("/livez", "no colon"), 400),
        (b"GET /" + b"a" * 30_000, 431),
        (get("/livez", *[f"X-{n}: {'y' * 900}" for n in range(20)]), 431),
        (get("/livez", "Expect: wonders"), 417),
        (call("server.ping", b" " * (1 << 20)) + b" ", 400),
        (post("/v1/call/server.ping", b"[" + b" " * (1 << 20) + b"]"), 413),
        (get("/ws"), 426),
    ],
    ids=lambda value: repr(value)[:50],
)
async def test_statuses(rig, asked, status):
    answer = await say(rig, rig.connect(), asked)
    response = responses(answer, bodiless=asked.startswith(b"HEAD"))[0]
    assert response.status == status
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert parsedate_to_datetime(response.headers["Date"]).year >= 2024
    if status >= 400:
        assert response.headers["Content-Type"] == "application/problem+json"
    if status >= 400 and response.body:
        content = response.json()
        assert content["status"] == status
        assert content["type"] == f"urn:rtserver:{content['name']}"
        assert ERRORS[content["name"]].code == content["code"]
        assert content["detail"]


async def test_405_says_what_is_allowed(rig):
    assert (await ask(rig, get("/livez", method="PUT"))).headers["Allow"] == "GET, HEAD"
    assert (await ask(rig, get("/v1/call/server.ping"))).headers["Allow"] == "POST"


async def test_metrics_are_where_administrators_listen_if_they_do(rig):
    rig.hub.metrics_text = lambda: b"a 1\n"
    response = await ask(rig, get("/metrics"))
    assert response.body == b"a 1\n"
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    rig.hub.admin_only = True
    assert (await ask(rig, get("/metrics"))).status == 404
    client = rig.connect()
    client.protocol = HttpStream(rig.hub, client, None, admin=True)
    assert (await ask(rig, get("/metrics"), client)).body == b"a 1\n"


async def test_pages(rig):
    rig.hub.pages = {
        "/index.html": ("text/html; charset=utf-8", b"<p>"),
        "/a b.js": ("text/javascript; charset=utf-8", b"1"),
    }
    assert (await ask(rig, get("/"))).body == b"<p>"
    response = await ask(rig, get("/a%20b.js"))
    assert response.body == b"1"
    assert response.headers["Content-Type"].startswith("text/javascript")
    response = await ask(rig, get("/index.html", method="HEAD"))
    assert response.headers["Content-Length"] == "3"
    assert (await ask(rig, get("/index.html", method="POST"))).status == 405
    assert (await ask(rig, get("/../index.html"))).status == 404


# --- calls ---


@pytest.mark.parametrize(
    ("asked", "result"),
    [
        (call("counter.add", ["a"]), 1),
        (call("counter.add", ["a", 5]), 5),
        (call("counter.add", {"name": "a", "delta": 2}), 2),
        (call("counter.add", {"name": "a", "delta": 2, "ack": "memory"}), 2),
        (call("counter.set", {"name": "a", "value": {"$i64": str(2**60)}}), {"$i64": str(2**60)}),
        (call("counter.get_many", [["a", "b"]]), {"values": [0, 0]}),
        (
            post(
                "/v1/call/counter.add", ["a"], kind="Content-Type: application/json; charset=utf-8"
            ),
            1,
        ),
        (post("/v1/call/counter.list", None, kind=None), {"items": [], "next": None}),
        (call("counter.list", None), {"items": [], "next": None}),
        (call("counter.list", []), {"items": [], "next": None}),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_calls(rig, asked, result):
    response = await ask(rig, asked)
    assert response.status == 200, response.body
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    if isinstance(result, dict) and "items" in result:
        assert response.json()["next"] is None
    else:
        assert response.json() == result


@pytest.mark.parametrize(
    ("asked", "status", "name"),
    [
        (call("counter.ad", ["a"]), 404, "unknown_method"),
        (call("timers.fire", [1]), 404, "unknown_method"),
        (call("", []), 404, "unknown_method"),
        (call("counter.add", ["a b"]), 400, "invalid_params"),
        (call("counter.add", b"{"), 400, "invalid_params"),
        (call("counter.add", b"[1] [2]"), 400, "invalid_params"),
        (call("counter.add", b'["\xff"]'), 400, "invalid_params"),
        (call("counter.add", b"[NaN]"), 400, "invalid_params"),
        (call("counter.add", b'["a", 1e999]'), 400, "invalid_params"),
        (call("counter.add", b"[" * 40 + b"]" * 40), 400, "invalid_params"),
        (call("counter.add", b"[" + b"[]," * 300_000 + b"1]"), 400, "invalid_params"),
        (call("counter.add", b'["a", 99999999999999999999999]'), 400, "invalid_params"),
        (call("counter.add", b'"a"'), 400, "invalid_params"),
        (call("counter.add", b"null"), 400, "invalid_params"),
        (call("counter.add", {"name": "a", "ack": "never"}), 400, "invalid_option"),
        (call("board.rank", ["none", "a"]), 404, "not_found"),
        (call("channel.subscribe", ["a"]), 409, "conflict"),
        (call("channel.unsubscribe", ["a"]), 409, "conflict"),
        (call("counter.add", ["a"], "Idempotency-Key: a b"), 400, "invalid_option"),
        (call("counter.add", ["a"], 'Idempotency-Key: "a'), 400, "invalid_option"),
        (
            call("counter.add", ["a"], "Idempotency-Key: a", "Idempotency-Key: b"),
            400,
            "invalid_option",
        ),
        (
            call("counter.add", {"name": "a", "idempotency_key": "k"}, "Idempotency-Key: l"),
            400,
            "invalid_option",
        ),
        (post("/v1/call/counter.add", ["a"], kind=None), 415, "protocol_error"),
        (
            post("/v1/call/counter.add", ["a"], kind="Content-Type: text/plain"),
            415,
            "protocol_error",
        ),
        (
            post(
                "/v1/call/counter.add",
                b"a=1",
                kind="Content-Type: application/x-www-form-urlencoded",
            ),
            415,
            "protocol_error",
        ),
        (
            post("/v1/call/counter.list", None, kind="Content-Type: text/plain"),
            415,
            "protocol_error",
        ),
        (post("/v1/call/counter.add", ["a"], JSON), 415, "protocol_error"),
        (post("/v1/call/counter.add", ["a"], "Content-Encoding: gzip"), 415, "protocol_error"),
        (post("/v1/batch", {}), 400, "invalid_params"),
        (post("/v1/batch", []), 400, "invalid_params"),
        (post("/v1/batch", None), 400, "invalid_params"),
        (post("/v1/batch", [["server.ping", []]] * (VECTOR_MAX + 1)), 400, "invalid_params"),
        (post("/v1/batch", [["server.ping", []]], "Idempotency-Key: a"), 400, "invalid_option"),
    ],
    ids=lambda value: repr(value)[:70],
)
async def test_calls_that_are_refused(rig, asked, status, name):
    client = rig.connect()
    response = await ask(rig, asked, client)
    assert (response.status, response.json()["name"]) == (status, name), response.body
    assert response.json()["retryable"] is ERRORS[name].retryable
    assert rig.metrics.errors[name] == 1
    assert (await ask(rig, call("counter.get", ["a"]), client)).body == b"0\n"


async def test_a_key_in_the_header_counts_once(rig):
    for key in ("Idempotency-Key: k1", 'Idempotency-Key: "k1"', "Idempotency-Key: k1"):
        client = rig.connect()
        answer = await say(rig, client, call("counter.add", ["a"], key))
        rig.sync()
        await rig.settle()
        (response,) = responses(answer + client.bytes())
        assert response.body == b"1\n"
    client = rig.connect()
    await say(rig, client, call("counter.add", ["a"], 'Idempotency-Key: ["client", 1, 0]'))
    assert (await ask(rig, call("counter.get", ["a"]))).body == b"2\n"


async def test_every_error_has_a_status():
    for kind in ERRORS.values():
        assert 400 <= kind.status <= 599
        assert (kind.status in (429, 503, 507)) == kind.retryable, kind.name


async def test_retry_after_and_authentication_are_said(rig):
    def refuse(_token, _session):
        raise RtError(UNAUTHENTICATED, "the token is none")

    rig.hub.identify = refuse
    response = await ask(rig, call("server.ping"))
    assert response.status == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    rig.log.full, rig.log.room = True, 0
    rig.hub.identify = lambda _token, _session: Identity(3)
    response = await ask(rig, call("counter.set", ["a", 1]))
    assert response.status == 507
    assert response.headers["Retry-After"] == "1"


async def test_each_request_of_a_socket_is_its_own_party(rig):
    """A proxy keeps one socket for many users."""
    shown = []

    def identify(token, session):
        shown.append((token, session))
        return Identity(3 if token == "all" else 0, token)

    rig.hub.identify = identify
    client = rig.connect()
    answer = await say(
        rig,
        client,
        call("server.hello", None, "Authorization: Bearer all"),
        call("counter.add", ["a"], "authorization: bearer none", "Rt-Session: s1"),
        post("/v1/call/counter.add?session=s2", ["a"], "Authorization: Basic YTpi"),
        call("counter.add", ["a"], "Authorization: Bearer all"),
        call("server.hello", None, "Authorization: Bearer all"),
    )
    first, *counters, last = responses(answer)
    assert [response.status for response in counters] == [403, 403, 200]
    assert shown == [("all", None), ("none", "s1"), (None, "s2"), ("all", None), ("all", None)]
    assert first.json()["user"] == last.json()["user"] == "all"
    assert first.json()["session"] != last.json()["session"]
    assert counters[0].json()["details"]["role"] == "service"
    assert not rig.hub.parties


async def test_a_session_of_a_call_is_there_for_the_next(rig):
    session = (await ask(rig, call("server.hello", {"user": "ann"}))).json()["session"]
    identity = rig.sessions.find(session, rig.clock.now_ms())
    assert identity.user == "ann"


async def test_a_call_makes_nobody_present(rig):
    rig.hub.identify = lambda _token, _session: Identity(3, "ann")
    ann = (await ask(rig, call("presence.get", [["ann"]]))).json()["users"][0]
    assert (ann["status"], ann["devices"]) == ("offline", 0)
    await say(rig, rig.connect(), get("/v1/stream?channels=a"))
    ann = (await ask(rig, call("presence.get", [["ann"]]))).json()["users"][0]
    assert (ann["status"], ann["devices"]) == ("online", 1)


# --- batches ---


async def test_a_batch(rig):
    calls = [
        ["counter.add", ["a", 2]],
        ["counter.add", {"name": "a", "idempotency_key": "k"}],
        ["nope", []],
        ["counter.add", ["a"], {"ack": "synced"}],
        5,
        ["counter.add"],
        ["counter.add", ["a"], None],
        ["counter.add", {"name": "a"}, 7],
        ["channel.subscribe", ["a"]],
        ["counter.get", ["a"]],
    ]
    client = rig.connect()
    assert await say(rig, client, post("/v1/batch", calls), call("counter.get", ["a"])) == b""
    rig.sync()
    await rig.settle()
    first, second = responses(client.bytes())
    found = [one.get("result", one.get("error", [None] * 2)[1]) for one in first.json()]
    assert found == [
        2,
        3,
        "unknown_method",
        4,
        "invalid_params",
        "invalid_params",
        5,
        "invalid_option",
        "conflict",
        5,
    ]
    assert second.body == b"5\n"


async def test_a_batch_is_spread_over_turns(rig):
    calls = [["counter.add_many", [[["a", 1]] * 4]]] * 900
    client = rig.connect()
    client.protocol.data_received(post("/v1/batch", calls))
    other = rig.connect()
    (response,) = responses(await say(rig, other, call("counter.get", ["a"])))
    seen = response.json()
    for _ in range(100):
        await rig.settle()
    assert seen < 3_600
    (response,) = responses(client.bytes())
    assert response.json()[-1]["result"]["values"][-1] == 3_600


async def test_the_answers_of_a_batch_are_bounded():
    rig = Rig(Limits(outbox_hard_bytes=100_000, outbox_soft_bytes=50_000))
    await rig.settle()
    await say(rig, rig.connect(), call("channel.publish", ["big", "x" * 20_000]))
    calls = [["channel.history", ["big"]]] * 10
    (response,) = responses(await say(rig, rig.connect(), post("/v1/batch", calls)))
    names = [one["error"][1] if "error" in one else "ok" for one in response.json()]
    assert names == ["ok"] * 3 + ["overloaded"] * 7


# --- order, keeping alive ---


async def test_pipelined_requests_are_answered_in_order(rig):
    client = rig.connect()
    answer = await say(
        rig,
        client,
        get("/livez")
        + call("counter.add", {"name": "a", "ack": "synced"})
        + get("/nope")
        + call("counter.add", ["a"])
        + get("/livez", method="OPTIONS"),
    )
    assert [response.status for response in responses(answer)] == [200]
    assert rig.store.counters.get(rig.now, "a") == 1  # the next one waits
    rig.sync()
    await rig.settle()
    found = responses(client.bytes())
    assert [response.status for response in found] == [200, 404, 200, 204]
    assert [found[0].body, found[2].body] == [b"1\n", b"2\n"]
    assert not rig.hub.parties


async def test_a_timeout_while_waiting_for_the_sync(rig):
    client = rig.connect()
    await say(rig, client, call("counter.add", {"name": "a", "ack": "synced", "timeout_ms": 50}))
    await asyncio.sleep(0.1)
    await rig.settle()
    (response,) = responses(client.bytes())
    assert (response.status, response.json()["name"]) == (504, "outcome_unknown")


async def test_a_stalled_disk_holds_the_answers_in_order(rig):
    client = rig.connect()
    rig.log.fits = False
    assert await say(rig, client, call("counter.set", ["a", 1]) + get("/livez")) == b""
    assert (await ask(rig, get("/livez"))).status == 200
    rig.log.fits = True
    await asyncio.sleep(0.15)
    await rig.settle()
    assert [response.status for response in responses(client.bytes())] == [200, 200]


@pytest.mark.parametrize(
    ("asked", "stays"),
    [
        (get("/livez"), True),
        (get("/livez", "Connection: close"), False),
        (b"GET /livez HTTP/1.0\r\n\r\n", False),
        (b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (call("server.ping"), True),
        (call("server.ping", None, "Connection: close"), False),
        (get("/nope"), True),
        (get("/nope", HOST), False),
        (get("/livez", "Connection: Upgrade", "Upgrade: h2c"), True),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_keeping_alive(rig, asked, stays):
    client = rig.connect()
    response = await ask(rig, asked, client)
    assert (client.closing or client.eof) is not stays
    assert response.headers.get("Connection", "keep-alive") == ("keep-alive" if stays else "close")
    if stays:
        assert (await ask(rig, get("/livez"), client)).status == 200


async def test_what_follows_a_refused_request_is_not_read(rig):
    bad = get("/livez", HOST)
    client = rig.connect()
    answer = await say(rig, client, call("counter.add", ["a"]) + bad + call("counter.add", ["a"]))
    assert [response.status for response in responses(answer)] == [200, 400]
    assert rig.store.counters.get(rig.now, "a") == 1


async def test_a_client_that_waits_to_be_told_to_go_on(rig):
    client = rig.connect()
    asked = call("counter.add", ["a"], "Expect: 100-continue")
    head, end, body = asked.partition(b"\r\n\r\n")
    first = call("counter.add", {"name": "a", "ack": "synced"})
    assert await say(rig, client, first + head + end) == b""  # the first is not answered yet
    rig.sync()
    await rig.settle()
    done, go_on = responses(client.bytes())
    assert (done.status, go_on.status) == (200, 100)
    (response,) = responses(await say(rig, client, body))
    assert response.body == b"2\n"


async def test_a_body_that_is_too_large_is_not_asked_for(rig):
    (response,) = responses(
        await say(
            rig,
            rig.connect(),
            get("/v1/batch", "Content-Length: 9999999", "Expect: 100-continue", method="POST"),
        )
    )
    assert response.status == 413
    assert response.headers["Connection"] == "close"


# --- time and space ---


@pytest.mark.parametrize(
    "text", [b"GET /livez HTTP/1.1\r\nA: ", post("/v1/batch", [1, 2])[:-2]], ids=["head", "body"]
)
async def test_what_arrives_slowly_is_told_408(text):
    rig = Rig(Limits(http_request_ms_max=100))
    client = rig.connect()
    await say(rig, client, text)
    await asyncio.sleep(0.3)
    assert responses(client.bytes())[0].status == 408
    assert client.eof  # and what it still sends is not held against the answer
    assert await say(rig, client, b"rest\r\n\r\n") == b""
    client.protocol.eof_received()


async def test_a_connection_that_is_kept_alive_is_not_cut_for_its_age():
    rig = Rig(Limits(http_request_ms_max=200))
    await rig.settle()
    client = rig.connect()
    for _ in range(6):
        assert (await ask(rig, call("server.ping"), client)).status == 200
        await asyncio.sleep(0.08)
    assert not client.closing


async def test_a_connection_that_asks_nothing_is_closed_without_a_word():
    rig = Rig(Limits(http_request_ms_max=100))
    client = rig.connect()
    await ask(rig, call("server.ping"), client)
    await asyncio.sleep(0.3)
    assert client.closing
    assert client.bytes() == b""


async def test_a_call_has_the_time_it_needs():
    rig = Rig(Limits(http_request_ms_max=100))
    await rig.settle()
    client = rig.connect()
    await say(rig, client, call("counter.add", {"name": "a", "ack": "synced"}))
    await asyncio.sleep(0.3)
    rig.sync()
    await rig.settle()
    assert responses(client.bytes())[0].body == b"1\n"


async def test_who_does_not_read_answers_is_not_read_from(rig):
    client = rig.connect()
    await say(rig, client, get("/livez"))
    client.protocol.pause_writing()
    assert not client.reading
    assert await say(rig, client, get("/livez")) == b""
    client.protocol.resume_writing()
    assert client.reading
    assert responses(client.bytes())[0].status == 200


async def test_what_is_asked_ahead_is_bounded(rig):
    client = rig.connect()
    await say(rig, client, call("counter.add", {"name": "a", "ack": "synced"}))
    assert client.reading
    await say(rig, client, get("/livez") * 2_000)
    assert not client.reading
    rig.sync()
    for _ in range(100):
        await rig.settle()
    assert len(responses(client.bytes())) == 2_001
    assert client.reading


async def test_a_large_answer_holds_back_the_next_until_it_is_taken(rig):
    await say(rig, rig.connect(), call("channel.publish", ["big", "x" * 200_000]))
    await say(rig, rig.connect(), call("channel.publish", ["big", "x" * 200_000]))
    client = rig.connect()
    client.takes = 100
    taken = await say(rig, client, post("/v1/batch", [["channel.history", ["big"]]] * 2))
    client.protocol.pause_writing()
    await say(rig, client, call("counter.add", ["a"]))
    assert len(rig.hub.parties) == 1
    assert rig.store.counters.get(rig.now, "a") == 0
    client.take_stuck()
    await rig.settle()
    assert [response.status for response in responses(taken + client.bytes())] == [200, 200]
    assert not rig.hub.parties


async def test_an_answer_that_is_not_taken_ends_the_connection(rig):
    await say(rig, rig.connect(), call("channel.publish", ["big", "x" * 250_000]))
    client = rig.connect()
    client.takes = 100
    await say(rig, client, post("/v1/batch", [["channel.history", ["big"]]] * 2))
    client.protocol.pause_writing()
    for _ in range(3):
        rig.clock.advance(rig.limits.outbox_stuck_ms)
        rig.turn.open()
        await rig.settle()
        rig.hub.look_after(rig.clock.now_ms())
        await rig.settle()
    assert client.closing
    assert rig.metrics.errors.get("overloaded") is None


@pytest.mark.parametrize(
    ("asked", "close", "status", "name"),
    [
        (call("counter.add", {"name": "a", "ack": "synced"}), CLOSE_SLOW, 504, "outcome_unknown"),
        (call("server.snapshot"), CLOSE_EXPIRED, 401, "token_expired"),
        (call("server.snapshot"), CLOSE_SLOW, 503, "overloaded"),
        (post("/v1/batch", [["server.snapshot", []]]), CLOSE_SLOW, 200, "overloaded"),
    ],
)
async def test_a_call_that_is_cut_off_says_whether_it_was_applied(rig, asked, close, status, name):
    async def snapshot():
        await asyncio.sleep(0.05)
        return {}

    rig.dispatcher.ctx.host.snapshot = snapshot
    client = rig.connect()
    assert await say(rig, client, asked) == b""
    (connection,) = rig.hub.parties.values()
    rig.turn.open()
    connection.push("drain", {"retry_after_ms": 5})
    connection.close(close, "so it goes")
    await rig.settle()
    (response,) = responses(client.bytes())
    content = response.json()
    assert response.status == status
    assert (content[0]["error"][1] if status == 200 else content["name"]) == name
    assert client.closing
    rig.sync()
    await asyncio.sleep(0.1)
    await rig.settle()
    assert not rig.hub.parties


async def test_half_closed_clients_are_answered(rig):
    client = rig.connect()
    await say(rig, client, call("counter.add", {"name": "a", "ack": "synced"}) + get("/livez"))
    assert client.protocol.eof_received() is True
    rig.sync()
    await rig.settle()
    assert len(responses(client.bytes())) == 2
    assert client.closing


async def test_who_goes_away_leaves_nothing(rig):
    client = rig.connect()
    await say(rig, client, call("counter.add", {"name": "a", "ack": "synced"}) + get("/livez"))
    client.abort()
    await rig.settle()
    rig.sync()
    await rig.settle()
    assert not rig.hub.parties
    assert rig.hub.connections == 0


async def test_too_many_connections_are_told():
    rig = Rig(Limits(connections_max=1))
    await rig.settle()
    keeper = rig.connect()
    await say(rig, keeper, frame(1, "server.ping"))
    client = rig.connect()
    response = await ask(rig, call("server.ping"), client)
    assert response.status == 503
    assert response.headers["Retry-After"]


# --- who may ask ---


def web(rig, *, dev=False, **fields):
    rig.hub.web = WebConfig(**fields)
    rig.hub.dev = dev


PATHS = [
    get("/livez"),
    get("/metrics"),
    get("/nope"),
    call("server.ping"),
    post("/v1/batch", [["server.ping", []]]),
    get("/v1/poll?channels=a"),
    get("/v1/stream?channels=a"),
    get("/ws", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    get("/v1/call/server.ping", "Access-Control-Request-Method: POST", method="OPTIONS"),
]


def with_headers(asked, *headers, host=None):
    head, end, body = asked.partition(b"\r\n\r\n")
    text = head.decode()
    if host is not None:
        text = text.replace(HOST, f"Host: {host}")
    return "\r\n".join([text, *headers]).encode() + end + body


@pytest.mark.parametrize("asked", PATHS, ids=lambda value: repr(value)[:40])
@pytest.mark.parametrize(
    ("dev", "fields", "host", "headers"),
    [
        (True, {}, "evil.example", []),
        (True, {}, "127.0.0.1.evil.example:80", []),
        (True, {}, None, ["Origin: http://evil.example"]),
        (True, {}, None, ["Origin: null"]),
        (True, {}, None, ["X-Forwarded-For: 1.2.3.4"]),
        (True, {}, None, ["Forwarded: for=1.2.3.4"]),
        (True, {}, None, ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"]),
        (False, {"hosts": ["rt.example"]}, "evil.example", []),
        (False, {}, "rt.example", ["Origin: https://shop.example"]),
        (False, {}, "rt.example", ["Origin: null"]),
        (False, {}, "rt.example", ["Origin: https://rt.example:8443"]),
        (False, {}, "rt.example", ["Origin: https://rt.example.evil"]),
        (
            False,
            {"origins": ["https://shop.example"]},
            "rt.example",
            ["Origin: http://shop.example"],
        ),
        (False, {}, "rt.example", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"]),
    ],
)
async def test_every_route_is_guarded(rig, asked, dev, fields, host, headers):
    web(rig, dev=dev, **fields)
    client = rig.connect()
    answer = await say(rig, client, with_headers(asked, *headers, host=host))
    assert responses(answer)[0].status == 403
    assert type(client.protocol) is not WebSocketStream
    assert not rig.hub.parties
    assert rig.metrics.commands == 0


@pytest.mark.parametrize(
    ("dev", "fields", "host", "headers"),
    [
        (True, {}, "localhost:7370", ["Origin: http://localhost:3000"]),
        (True, {}, "[::1]:7370", ["Origin: http://[::1]"]),
        (True, {}, None, ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"]),
        (False, {}, "anything", []),
        (False, {"hosts": ["RT.example"]}, "rt.EXAMPLE:7370", []),
        (False, {}, "rt.example", ["Origin: https://rt.example"]),
        (False, {}, "rt.example:8080", ["Origin: http://rt.example:8080"]),
        (False, {}, "rt.example", ["X-Forwarded-For: 1.2.3.4"]),
        (False, {"origins": ["https://Shop.example"]}, "rt.example", [ORIGIN]),
        (False, {"origins": ["*"]}, "rt.example", ["Origin: null"]),
        (False, {"origins": ["*"]}, "rt.example", ["Sec-Fetch-Site: cross-site"]),
    ],
)
async def test_who_may_ask(rig, dev, fields, host, headers):
    web(rig, dev=dev, **fields)
    response = await ask(rig, with_headers(call("server.ping"), *headers, host=host))
    assert response.status == 200
    assert response.headers["Vary"] == "Origin"


async def test_an_allowed_page_may_read_the_answer_and_the_refusal(rig):
    web(rig, origins=["https://shop.example"])
    for asked in (call("server.ping", None, ORIGIN), call("nope", None, ORIGIN)):
        response = await ask(rig, asked)
        assert response.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        assert "Access-Control-Allow-Credentials" not in response.headers
    response = await ask(
        rig,
        get("/v1/call/x", ORIGIN, "Access-Control-Request-Method: POST", method="OPTIONS"),
    )
    assert response.status == 204
    assert response.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    allowed = response.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"Content-Type", "Authorization", "Idempotency-Key", "Rt-Session", "Last-Event-ID"} == {
        *allowed
    }
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    web(rig, origins=["*"])
    response = await ask(rig, call("server.ping", None, "Origin: https://any.example"))
    assert response.headers["Access-Control-Allow-Origin"] == "*"


# --- WebSocket ---

HANDSHAKE = get(
    "/ws",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def test_a_websocket_takes_over_with_what_came_after_the_head(rig):
    client = rig.connect()
    ping = b"\x89\x80\x00\x00\x00\x00"
    answer = await say(rig, client, call("server.ping") + HANDSHAKE + ping)
    first, second = responses(answer.removesuffix(b"\x8a\x00"))
    assert (first.status, second.status) == (200, 101)
    assert answer.endswith(b"\x8a\x00")
    assert type(client.protocol).__name__ == "WebSocketStream"
    assert rig.hub.connections == 1
    client.abort()
    await rig.settle()
    assert rig.hub.connections == 0


async def test_a_handshake_that_is_refused_is_a_problem(rig):
    client = rig.connect()
    (response,) = responses(await say(rig, client, HANDSHAKE.replace(b": 13", b": 8")))
    assert response.status == 426
    assert response.headers["Sec-WebSocket-Version"] == "13"
    assert response.headers["Connection"] == "close, Upgrade"
    assert response.json()["name"] == "protocol_error"
    assert client.closing

    def refuse(_token, _session):
        raise RtError(FORBIDDEN, "not you")

    rig.hub.identify = refuse
    (response,) = responses(await say(rig, rig.connect(), HANDSHAKE))
    assert response.status == 403


# --- any cut ---

PIPELINE = [
    get("/livez"),
    call("counter.add", ["a"]),
    call("counter.add", ["b", 3], "Idempotency-Key: k"),
    post("/v1/batch", [["counter.add", ["a"]], ["counter.get", ["b"]]]),
    call("nope"),
    get("/v1/poll?channels=c&timeout_ms=0"),
    get("/livez", method="OPTIONS"),
    get("/nope"),
    b"\r\n" + call("counter.list"),
]


async def answers_to(*pieces):
    rig = Rig()
    await rig.settle()
    client = rig.connect()
    answer = await say(rig, client, *pieces)
    for _ in range(6):
        rig.sync()
        await rig.settle()
    return [(one.status, one.body) for one in responses(answer + client.bytes())]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(PIPELINE), min_size=1, max_size=5),
    st.sampled_from([b"", get("/livez", HOST), get("/livez", "Connection: close"), b"GET /"]),
    st.data(),
)
def test_any_cut_of_a_pipeline_gives_the_same_answers(asked, end, data):
    text = b"".join([*asked, end])
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True) if b > a]
    whole = asyncio.run(answers_to(text))
    assert asyncio.run(answers_to(*pieces)) == whole
    assert len(whole) == len(asked) + (end not in (b"", b"GET /"))
