"""Who may do what at the demo's server: a shop with a secret, and buyers with signed tokens.

Everything is made for one run and lies in its directory. Buyers have the rights that every user
has: their own places, holds and orders.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from pathlib import Path

import jwt

import rtclient
from rtclient.client import Connecting
from rtserver.session.auth import secret_hash

__all__ = ["Access"]

_TOKEN_S = 3_600 * 2
_KEY_ID = "demo"


class Access:
    """The secrets of one run."""

    def __init__(self) -> None:
        secret = secrets.token_urlsafe(32)
        self._key = secrets.token_bytes(64)
        self._hash = secret_hash(secret)
        self._shop = f"key:shop:{secret}"

    def configure(self, directory: Path, data: Path) -> Path:
        """Writes the server's configuration and its key set."""
        key = base64.urlsafe_b64encode(self._key).rstrip(b"=").decode("ascii")
        keys = directory / "keys.json"
        keys.write_text(
            json.dumps({"keys": [{"kty": "oct", "kid": _KEY_ID, "alg": "HS256", "k": key}]})
        )
        path = directory / "rtserver.toml"
        path.write_text(
            f"""listen = "127.0.0.1:0"
data = {json.dumps(str(data))}

[web]
trusted_proxies = ["127.0.0.1"]

[limits]
drain_ms = 0

[auth]
keys = {json.dumps(str(keys))}

[auth.services.shop]
hash = "{self._hash}"
"""
        )
        return path

    def connect_shop(self, url: str) -> Connecting:
        """A connection of the back end."""
        return rtclient.connect(url, token=self._shop, name="shop")

    def connect_buyer(self, url: str, user: str, address: str) -> Connecting:
        """A connection as of a browser, by a proxy that says where it comes from."""
        return rtclient.connect(
            url.replace("rt://", "ws://"),
            token=self._token(user),
            name="buyer",
            headers={"X-Forwarded-For": address},
        )

    def _token(self, name: str) -> str:
        claims = {"sub": name, "exp": int(time.time()) + _TOKEN_S}
        return jwt.encode(claims, self._key, "HS256", headers={"kid": _KEY_ID})
