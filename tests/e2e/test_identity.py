"""Who is there, with real processes and sockets: a server with a key set and the secret of a back
end, tokens made and explained by the command line, expiry, refresh, rotation and kicks."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import time

import pytest

from tests.process import ErrorReply, ServerProcess, cli, eventually
from tests.transport.web import responses

SECRET = "correct-horse-battery-staple"
CONFIG = """
[auth]
keys = "{keys}"
audience = "shop"
leeway_ms = 0
services.shop.hash = "{hash}"
services.ops = {{ hash = "{hash}", role = "admin" }}

[namespaces.open]
subscribe = "user"
publish = "user"

[namespaces.all]
subscribe = "anonymous"
publish = "anonymous"

[[rights]]
command = "counter.get"
name = "score:$self"
role = "user"
"""


def typed(text, *arguments):
    """`rtserver` with a line on stdin."""
    command = [sys.executable, "-m", "rtserver", *map(str, arguments)]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=60, check=False
    )


def new_key(path, *options):
    made = cli("token", "new-key", *options)
    assert made.returncode == 0, made.stderr
    path.write_text(made.stdout)
    return path


def token(keys, user, *options, audience="shop"):
    made = cli("token", "make", "--keys", keys, "--user", user, "--audience", audience, *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("identity")


@pytest.fixture(scope="module")
def keys(place):
    return new_key(place / "keys.json", "--kid", "first")


@pytest.fixture(scope="module")
def config(place, keys):
    hashed = typed(f"{SECRET}\n", "token", "hash").stdout.strip()
    path = place / "rtserver.toml"
    path.write_text(CONFIG.format(keys=keys, hash=hashed))
    return path


@pytest.fixture(scope="module")
def server(place, config):
    with ServerProcess(place / "data", "--config", config, dev=False) as running:
        yield running


@pytest.fixture
def shop(server):
    with server.client() as client:
        client.call("server.auth", f"key:shop:{SECRET}")
        yield client


def refused(client, method, *args):
    with pytest.raises(ErrorReply) as caught:
        client.call(method, *args)
    return caught.value


def hello(client, shown):
    return client.call("server.hello", None, None, shown)


def post(server, method, params, **headers):
    """(status, content) of a call over HTTP."""
    connection = http.client.HTTPConnection(*server.address, timeout=20)
    head = {"Content-Type": "application/json", **headers}
    connection.request("POST", f"/v1/call/{method}", json.dumps(params), head)
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    return response.status, content


# --- who may what ---


def test_it_says_nothing_of_development_mode(server):
    assert not any("development" in line for line in server.lines)


def test_who_says_nothing_may_only_say_who_he_is(server):
    with server.client() as client:
        for method, *args in (
            ("counter.add", "x"),
            ("channel.publish", "all:1", 1),
            ("server.info",),
        ):
            assert refused(client, method, *args).name == "unauthenticated"
        assert refused(client, "server.hello").name == "unauthenticated"
        assert client.call("server.ping")["now"] > 0


def test_a_user_has_what_her_token_opens_and_no_more(server, keys, shop):
    with server.client() as ann:
        reply = hello(ann, token(keys, "ann"))
        assert reply["user"] == "ann"
        assert 0 < reply["expires_at"] - time.time() * 1_000 < 3_700_000
        ann.call("channel.subscribe", "open:1")
        ann.call("channel.publish", "open:1", "hi")
        assert ann.push()[1]["sender"] == "ann"
        ann.call("channel.subscribe", "$presence:bob")
        assert ann.call("counter.get", "score:ann") == 0
        for method, *args in (
            ("counter.get", "score:bob"),
            ("channel.subscribe", "$counter:likes"),
            ("channel.subscribe", "$inbox:bob"),
            ("channel.subscribe", "room:1"),
        ):
            error = refused(ann, method, *args)
            assert (error.name, error.details["role"]) == ("forbidden", "service")
            assert error.details == {"role": "service", "command": method, "name": args[0]}
        assert refused(ann, "server.hello", None, "bob").name == "forbidden"
        assert refused(ann, "server.hello", None, None, None, "admin").name == "forbidden"


def test_a_back_end_acts_for_users_and_is_no_administrator(shop):
    shop.call("channel.publish", "open:2", "sale", as_user="bob")
    assert shop.call("channel.history", "open:2")["messages"][-1]["sender"] == "bob"
    assert refused(shop, "server.stats").details["role"] == "admin"


@pytest.mark.parametrize(
    "shown",
    ["key:shop:wrong", "key:other:secret", "key:shop", "a.b.c", "x" * 4_000, "\u00e9", ""],
)
def test_what_proves_nothing_changes_nothing(server, shown):
    with server.client() as client:
        assert refused(client, "server.hello", None, None, shown).name == "unauthenticated"
        assert refused(client, "counter.add", "x").name == "unauthenticated"


def test_http_asks_the_same(server, keys):
    ann = {"Authorization": f"Bearer {token(keys, 'ann')}"}
    assert post(server, "counter.get", ["score:ann"], **ann) == (200, 0)
    assert post(server, "counter.get", ["score:bob"], **ann)[0] == 403
    for headers in ({}, {"Authorization": "Bearer a.b.c"}, {"Authorization": "Bearer "}):
        status, problem = post(server, "channel.publish", ["all:1", 1], **headers)
        assert (status, problem["code"]) == (401, 401), headers
    status, reply = post(server, "server.hello", {"token": token(keys, "ann")})
    assert status == 200
    session = {"Rt-Session": reply["session"]}
    assert post(server, "counter.get", ["score:ann"], **session) == (200, 0)
    assert post(server, "counter.get", ["score:bob"], **session)[0] == 403
    assert post(server, "counter.get", ["score:ann"], **{"Rt-Session": "0" * 32})[0] == 401


def test_the_command_line_shows_a_token_too(server):
    refused = cli("snapshot", "create", server.data)
    assert refused.returncode == 1
    assert json.loads(refused.stdout.removeprefix("!"))[1] == "unauthenticated"
    shop = cli("snapshot", "create", server.data, "--token", f"key:shop:{SECRET}")
    assert json.loads(shop.stdout.removeprefix("!"))[1] == "forbidden"
    made = cli("snapshot", "create", server.data, "--token", f"key:ops:{SECRET}")
    assert made.returncode == 0, made.stdout
    assert json.loads(made.stdout)["created"]


# --- over time ---


def test_a_connection_ends_with_its_token_and_goes_on_with_a_fresh_one(server, keys):
    with server.client() as late, server.client() as fresh:
        short = token(keys, "ann", "--ttl", "3s")
        ends_at = hello(late, short)["expires_at"]
        hello(fresh, short)
        assert refused(fresh, "server.auth", token(keys, "bob")).name == "conflict"
        shown = fresh.call("server.auth", token(keys, "ann"))
        assert (shown["user"], shown["role"]) == ("ann", "user")
        assert shown["expires_at"] > ends_at
        name, params = late.push()
        assert (name, params["code"], params["name"]) == ("close", 4005, "token_expired")
        with pytest.raises(EOFError):
            late.read()
        assert time.time() * 1_000 >= ends_at
        assert fresh.call("server.ping")
    with server.client() as client:
        assert refused(client, "server.hello", None, None, short).name == "token_expired"


def test_keys_are_rotated_without_a_restart(place, config, tmp_path):
    keys = new_key(tmp_path / "keys.json", "--kid", "old")
    path = tmp_path / "rtserver.toml"
    path.write_text(config.read_text().replace(str(place / "keys.json"), str(keys)))
    old = token(keys, "ann")
    with ServerProcess(tmp_path / "data", "--config", path, dev=False) as server:
        with server.client() as client:
            hello(client, old)
            keys.write_text("{")
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: said(server, "not reloaded"))
            with server.client() as other:
                hello(other, old)
            new_key(keys, "--kid", "new", "--alg", "EdDSA")
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: said(server, "1 keys of"))
            assert client.call("server.ping"), "what was proved stays proved"
        with server.client() as client:
            assert "expected one of new" in str(refused(client, "server.hello", None, None, old))
            hello(client, token(keys, "ann"))


def test_a_call_over_http_cannot_refresh_what_ends_with_it(server, keys):
    """Its session would go on with the old token, and the caller believe in the new one."""
    session = post(server, "server.hello", {"token": token(keys, "ann")})[1]["session"]
    shown = {"Rt-Session": session}
    status, problem = post(server, "server.auth", {"token": token(keys, "ann")}, **shown)
    assert (status, problem["name"]) == (409, "conflict")


def test_a_stranger_cannot_send_much(server, keys):
    """Ten thousand of them would fill the memory."""
    body = f"[{' ' * 70_000}]".encode()
    bearer = f"Authorization: Bearer {token(keys, 'ann')}\r\n"
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    for shown, statuses in (
        ("", [413]),
        ("Authorization: Bearer x\r\n", [413]),
        ("Rt-Session: x\r\n", [413]),
        (bearer, [200]),
    ):
        head = f"POST /v1/call/server.ping HTTP/1.1\r\nHost: x\r\n{shown}"
        head += "Content-Type: application/json\r\n"
        whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        parts = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunked
        for request in (whole, parts):
            assert [one.status for one in responses(server.raw(request))] == statuses


def said(server, text):
    server._read_lines()
    return any(text in line for line in server.lines)


def test_a_kicked_user_is_out_until_the_block_ends(server, keys, shop):
    eve = token(keys, "eve")
    with server.client() as one, server.client() as two, server.client() as bystander:
        hello(one, eve)
        hello(two, eve)
        hello(bystander, token(keys, "ann"))
        assert shop.call("server.kick", "eve", None, 600_000) == {"ended": 2}
        for client in (one, two):
            name, params = client.push()
            assert (name, params["code"], params["name"]) == ("close", 4503, "kicked")
            assert params["retry_after_ms"] == 600_000
        assert bystander.call("server.ping")
    with server.client() as again:
        error = refused(again, "server.hello", None, None, eve)
        assert error.name == "blocked"
        assert 0 < error.details["retry_after_ms"] <= 600_000
    bearer = {"Authorization": f"Bearer {eve}"}
    assert post(server, "server.ping", [], **bearer)[0] == 403
    shop.call("server.kick", "eve", None, 1)
    with server.client() as again:
        eventually(lambda: may_hello(again, eve))


def may_hello(client, shown):
    try:
        return hello(client, shown)
    except ErrorReply:
        return None


# --- the command line ---


@pytest.mark.parametrize("alg", ["HS256", "HS512", "RS256", "ES256", "EdDSA"])
def test_keys_and_tokens_of_every_kind(tmp_path, alg):
    keys = new_key(tmp_path / "keys.json", "--alg", alg)
    shown = token(keys, "ann")
    checked = cli("token", "check", "--keys", keys, shown)
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["claims"]["sub"] == "ann"
    assert "valid for the user 'ann' with the role user" in checked.stderr
    public = cli("token", "public", "--keys", keys)
    if alg.startswith("HS"):
        assert public.returncode == 4
        assert "no public half" in public.stderr
        return
    half = tmp_path / "public.json"
    half.write_text(public.stdout)
    assert not {"d", "p", "q", "dp", "dq", "qi"} & json.loads(public.stdout)["keys"][0].keys()
    assert cli("token", "check", "--keys", half, shown).returncode == 0
    made = cli("token", "make", "--keys", half, "--user", "ann")
    assert made.returncode == 4
    assert "public half" in made.stderr


def test_check_says_step_by_step_why_a_token_would_be_refused(place, keys, config):
    other = new_key(place / "other.json", "--kid", "first")
    cases = [
        (token(keys, "ann"), 0, 4, "valid for the user 'ann'"),
        (token(keys, "ann", audience="bank"), 1, 1, "Audience doesn't match"),
        (token(keys, "ann", "--role", "admin"), 1, 2, "gives at most user"),
        (token(keys, "ann", "--ttl", "0s"), 1, 3, "the token expired"),
        (token(other, "ann"), 1, 1, "key first did not sign it"),
        ("garbage", 1, 0, "cannot be read"),
        (f"key:shop:{SECRET}", 0, 1, "valid for the service 'shop' with the role service"),
        ("key:shop:wrong", 1, 0, "the secret is not the one"),
    ]
    for text, code, passed, why in cases:
        done = cli("token", "check", "--config", config, text)
        lines = done.stderr.splitlines()
        assert (done.returncode, sum(line.startswith("ok ") for line in lines)) == (code, passed)
        assert why in lines[-1], why
        assert SECRET not in done.stdout
    piped = typed(token(keys, "ann") + "\n", "token", "check", "--config", config, "-")
    assert piped.returncode == 0


def test_check_needs_to_know_by_what(keys):
    assert cli("token", "check", "x").returncode == 2
    assert cli("token", "check", "--keys", keys.parent / "none.json", "x").returncode == 4
    assert cli("token", "make", "--keys", keys, "--user", "ann", "--kid", "zz").returncode == 2
    assert typed("", "token", "hash").returncode == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[auth]\nkeys = '/nowhere/keys.json'", "/nowhere/keys.json: cannot be read"),
        ("[auth]\nservices.shop.hash = 'secret'", "auth.services.shop.hash is no hash"),
        (
            f"[auth]\nservices.shop.hash = 'sha256:{'0' * 64}'\n"
            "[[rights]]\ncommand = 'counter.ad'\nrole = 'user'",
            "did you mean counter.add?",
        ),
    ],
)
def test_a_start_that_would_let_in_the_wrong_ones_is_refused(tmp_path, text, said):
    path = tmp_path / "rtserver.toml"
    path.write_text(text)
    done = cli("serve", "--config", path, "--data", tmp_path / "data", "--listen", "127.0.0.1:0")
    assert done.returncode == 4
    assert said in done.stderr
    assert not (tmp_path / "data").exists()


def test_with_authentication_it_may_listen_on_all_addresses(tmp_path, config):
    with ServerProcess(
        tmp_path / "data", "--config", config, "--listen", "0.0.0.0:0", dev=False
    ) as server:
        server.address = ("127.0.0.1", server.address[1])
        with server.client() as client:
            assert client.call("server.ping")
