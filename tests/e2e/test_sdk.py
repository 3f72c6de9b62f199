"""The SDK against a server as it runs in earnest: TLS, unix sockets, expiring tokens, kicks."""

from __future__ import annotations

import asyncio
import json
import ssl
import time

import jwt
import pytest
import trustme

import rtclient
import rtclient.sync
from rtclient import credentials
from rtserver.session.auth import secret_hash
from tests.process import ServerProcess

KEY = {
    "kty": "oct",
    "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA",
    "kid": "k1",
    "alg": "HS256",
}


class Site:
    """A server with every kind of listener, and what a client needs for each."""

    def __init__(self, folder):
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        certificate, key = folder / "cert.pem", folder / "key.pem"
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        (folder / "keys.json").write_text(json.dumps({"keys": [KEY]}))
        self.unix = folder / "s"
        self.tls = ssl.create_default_context()
        authority.configure_trust(self.tls)
        config = folder / "rtserver.toml"
        config.write_text(
            f"""
            [[listeners]]
            listen = "unix:{self.unix}"
            [[listeners]]
            listen = "localhost:0"
            tls = {{certificate = "{certificate}", key = "{key}"}}
            [auth]
            keys = "{folder / "keys.json"}"
            leeway_ms = 0
            [auth.services.shop]
            hash = "{secret_hash("s3cret")}"
            [namespaces.room]
            subscribe = "user"
            publish = "user"
            """
        )
        self.process = ServerProcess(folder / "data", "--config", config, dev=False)

    def urls(self):
        port = self.process.says(r"listening on rts://\S+:(\d+)").group(1)
        host, plain = self.process.address
        return {
            f"rt://{host}:{plain}": None,
            f"ws://{host}:{plain}": None,
            f"rt+unix://{self.unix}": None,
            f"rts://localhost:{port}": self.tls,
            f"wss://localhost:{port}": self.tls,
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site"))
    with site.process:
        yield site


def token(life_s=60.0):
    claims = {"sub": "ann", "exp": time.time() + life_s}
    return jwt.encode(claims, jwt.PyJWK(KEY).key, "HS256", headers={"kid": "k1"})


async def test_every_way_in_carries_calls_messages_and_watches(site):
    for n, (url, tls) in enumerate(site.urls().items()):
        room, likes = f"room:{n}", f"likes:{n}"
        async with (
            rtclient.connect(url, token="key:shop:s3cret", ssl=tls) as shop,
            rtclient.connect(url, token=token, ssl=tls) as ann,
            ann.channel.subscribe(room) as messages,
            shop.counter.watch(likes) as watch,
        ):
            await asyncio.gather(*(ann.channel.publish(room, i) for i in range(500)))
            found = [await asyncio.wait_for(anext(messages), 10) for _ in range(500)]
            assert [message.data for message in found] == list(range(500))
            assert {message.sender for message in found} == {"ann"}
            assert await shop.counter.add(likes, 5) == 5
            async with asyncio.timeout(10):
                while (await anext(watch)).value != 5:
                    pass
        if tls is None:
            with rtclient.sync.connect(url, token="key:shop:s3cret") as rt:
                assert [rt.counter.add(likes) for _ in range(100)] == list(range(6, 106))


async def test_a_wrong_token_is_refused_with_its_reason(site):
    for url, tls in site.urls().items():
        with pytest.raises(rtclient.Unauthenticated):
            await rtclient.connect(url, token="nonsense", ssl=tls)


async def test_a_token_is_renewed_in_place_before_it_expires(site, monkeypatch):
    monkeypatch.setattr(credentials, "_RENEW_MIN_S", 0.05)
    made = []

    def fetch():
        made.append(token(1.2))
        return made[-1]

    url = next(iter(site.urls()))
    async with (
        rtclient.connect(url, token=fetch) as rt,
        rt.channel.subscribe("room:renewed") as messages,
    ):
        session = rt.session
        for n in range(25):
            await rt.channel.publish("room:renewed", n)
            await asyncio.sleep(0.1)
        assert [(await anext(messages)).data for _ in range(25)] == list(range(25))
        assert rt.session == session
        assert 3 <= len(made) <= 12


async def test_a_token_that_was_not_renewed_leads_to_a_new_connection(site, monkeypatch):
    monkeypatch.setattr(credentials, "_RENEW_MIN_S", 60.0)
    made = []

    def fetch():
        made.append(token(1.0 if not made else 60.0))
        return made[-1]

    url = next(iter(site.urls()))
    async with (
        rtclient.connect(url, token=fetch) as rt,
        rt.channel.subscribe("room:again") as messages,
    ):
        for n in range(20):
            await rt.channel.publish("room:again", n)
            await asyncio.sleep(0.1)
        assert [(await anext(messages)).data for _ in range(20)] == list(range(20))
        assert len(made) == 2


async def test_a_kick_stops_the_client(site):
    url = next(iter(site.urls()))
    async with rtclient.connect(url, token="key:shop:s3cret") as shop:
        ann = await rtclient.connect(url, token=token)
        assert (await shop.server.kick("ann")).ended == 1
        async with asyncio.timeout(10):
            while ann.connected:
                await asyncio.sleep(0.01)
        with pytest.raises(rtclient.ConnectionLost, match="kicked") as caught:
            ann.counter.get("x")
        assert not caught.value.retryable
        await ann.close()
