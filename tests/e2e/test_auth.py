"""A real server that wants to know who is there: tokens, services, expiry, rotation, the CLI."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import jwt
import pytest

import rtclient
from rtserver.session.auth import secret_hash
from tests.process import ServerProcess


def cli(*args, stdin=""):
    command = [sys.executable, "-m", "rtserver", *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30)


@pytest.fixture
def keys(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text(cli("token", "new-key", "--alg", "HS256", "--kid", "k1").stdout)
    return path


@pytest.fixture
def server(tmp_path, keys):
    config = tmp_path / "rtserver.toml"
    config.write_text(
        f"""
        [auth]
        keys = "{keys}"
        leeway_ms = 0
        [auth.services.shop]
        hash = "{secret_hash("s3cret")}"
        [namespaces.room]
        subscribe = "user"
        publish = "user"
        """
    )
    with ServerProcess(tmp_path / "data", "--config", config, dev=False) as server:
        yield server


def token(keys, *args):
    made = cli("token", "make", "--keys", keys, "--user", "ann", *args)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


async def test_users_and_services_get_in_and_strangers_do_not(server, keys):
    async with rtclient.connect(server.url, token=token(keys)) as ann:
        with pytest.raises(rtclient.Forbidden) as caught:
            await ann.counter.add("likes")
        assert caught.value.details["role"] == "service"
        async with ann.channel.subscribe("room:1") as messages:
            await ann.channel.publish("room:1", "hi")
            assert (await anext(aiter(messages))).sender == "ann"
        async with rtclient.connect(server.url, token="key:shop:s3cret") as shop:
            assert await shop.counter.add("likes", as_user="ann") == 1
    for wrong in (None, "key:shop:wrong", token(keys)[:-4] + "AAAA"):
        with pytest.raises(rtclient.Unauthenticated):
            await rtclient.connect(server.url, token=wrong)


async def test_a_token_that_ends_ends_its_connection(server, keys):
    claims = {"sub": "ann", "exp": time.time() + 1.5}
    key = json.loads(keys.read_text())["keys"][0]
    short = jwt.encode(claims, jwt.PyJWK(key).key, "HS256", headers={"kid": "k1"})
    with server.connect() as raw:
        raw.sendall(b"server.hello token=" + short.encode() + b"\n")
        lines = raw.makefile("r")
        assert json.loads(lines.readline())["expires_at"] == int(claims["exp"] * 1_000)
        *_, last = lines.read().splitlines()
    assert json.loads(last[1:])[2]["name"] == "token_expired"


async def test_a_fresh_token_in_place_keeps_the_connection(server, keys):
    with server.connect() as raw:
        lines = raw.makefile("r")
        for line in (f"server.hello token={token(keys, '--ttl', '2s')}", "server.ping"):
            raw.sendall(line.encode() + b"\n")
            assert lines.readline().startswith("{")
        raw.sendall(f"server.auth {token(keys)}\n".encode())
        assert json.loads(lines.readline())["role"] == "user"
        time.sleep(3.2)
        raw.sendall(b"server.ping\n")
        assert lines.readline().startswith("{")


def test_check_explains(keys, tmp_path):
    good = cli("token", "check", "--keys", keys, token(keys))
    assert good.returncode == 0
    assert good.stderr.splitlines()[-1] == "valid for the user 'ann' with the role user"
    other = tmp_path / "other.json"
    other.write_text(cli("token", "new-key", "--kid", "k1").stdout)
    bad = cli("token", "check", "--keys", other, token(keys))
    assert bad.returncode == 1
    assert "key k1 did not sign it" in bad.stderr
    assert json.loads(bad.stdout)["claims"]["sub"] == "ann"


def test_without_authentication_only_development_mode_starts(tmp_path):
    refused = cli("serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0")
    assert refused.returncode == 4
    assert "auth.keys or auth.services" in refused.stderr


def test_a_bad_key_set_is_named_at_the_start(tmp_path, keys):
    keys.write_text("{}")
    config = tmp_path / "rtserver.toml"
    config.write_text(f'[auth]\nkeys = "{keys}"\n')
    data = tmp_path / "data"
    refused = cli("serve", "--config", config, "--data", data, "--listen", "127.0.0.1:0")
    assert refused.returncode == 4
    assert "is no JWK set" in refused.stderr
