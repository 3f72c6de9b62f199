"""Signed tokens: JSON web tokens (RFC 7519) that one of the keys here has signed, and whose time is
now.

A token's algorithm is the one of its key: what a token says about itself is never believed, only
compared. Its times are compared with the time that the caller passes. What it is for stands in the
`typ` of its header (RFC 8725 section 3.11), so that a token for one purpose serves no other even
where both are checked with the same keys. Verification costs 20 to 150 us.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jwt

from rtserver.session.keys import Key, load_keys

__all__ = ["CHALLENGE", "TokenEnded", "TokenRefused", "Tokens", "brief"]

CHALLENGE = "challenge+jwt"  # the `typ` of what proves that a challenge was solved

_TOKEN_BYTES_MAX = 8 * 1024
_KIDS_SHOWN = 5
# What strange bytes lead to in the libraries below; deep nesting is the last.
_UNREADABLE = (jwt.PyJWTError, ValueError, TypeError, RecursionError)


class TokenRefused(Exception):
    """A token that is not valid: the text says which check failed."""


class TokenEnded(TokenRefused):
    """A token that is valid no more."""


class Tokens:
    """Checks tokens with the keys of one file; there are none without it. `typ`: what they are
    for, None where that is who somebody is. Raises ConfigError."""

    def __init__(
        self,
        path: str | None,
        *,
        leeway_ms: int,
        issuer: str | None = None,
        audience: str | None = None,
        typ: str | None = None,
    ) -> None:
        self.keys: dict[str, Key] = {}
        self._path = path
        self._leeway_ms = leeway_ms
        self._issuer = issuer
        self._audience = audience
        self._typ = typ
        self.reload()

    def reload(self) -> str | None:
        """Reads the keys anew; what was read. Raises ConfigError, and the keys in force stay."""
        if self._path is None:
            return None
        self.keys = load_keys(Path(self._path))
        return f"{len(self.keys)} keys of {self._path}"

    def key_of(self, token: str) -> Key:
        """The key that has to have signed a token. Raises TokenRefused."""
        if len(token) > _TOKEN_BYTES_MAX:
            raise TokenRefused(f"it has {len(token)} characters, at most {_TOKEN_BYTES_MAX}")
        if not token.isascii():
            raise TokenRefused("it has characters that no token has")
        try:
            header = jwt.get_unverified_header(token)
        except _UNREADABLE as error:
            raise TokenRefused(f"it cannot be read: {error}") from None
        kid, alg = header.get("kid"), header.get("alg")
        if kid is None and len(self.keys) == 1:
            kid = next(iter(self.keys))
        key = self.keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise TokenRefused(f"its kid is {brief(kid)}, expected one of {self._kids()}")
        if alg != key.alg:
            raise TokenRefused(f"its alg is {brief(alg)}, key {key.kid} is for {key.alg}")
        if "crit" in header:
            raise TokenRefused(f"it needs extensions (crit {brief(header['crit'])}); here are none")
        self._check_purpose(header.get("typ"))
        return key

    def _check_purpose(self, typ: Any) -> None:
        if self._typ is not None and typ != self._typ:
            raise TokenRefused(f"its typ is {brief(typ)}, expected {self._typ!r}")
        if self._typ is None and typ == CHALLENGE:
            raise TokenRefused(f"its typ is {typ!r}: it says nothing of who somebody is")

    def _kids(self) -> str:
        more = ", ..." if len(self.keys) > _KIDS_SHOWN else ""
        return ", ".join(list(self.keys)[:_KIDS_SHOWN]) + more

    def claims(self, token: str, key: Key) -> dict[str, Any]:
        """The claims of a token that the key signed, for us. Raises TokenRefused; the times are
        checked by `ends_at`."""
        try:
            return jwt.decode(
                token,
                key.verifier,
                algorithms=[key.alg],
                audience=self._audience,
                issuer=self._issuer,
                options={
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_sub": False,
                    "verify_aud": self._audience is not None,
                    "verify_iss": self._issuer is not None,
                },
            )
        except jwt.InvalidSignatureError:
            raise TokenRefused(f"key {key.kid} did not sign it") from None
        except _UNREADABLE as error:
            raise TokenRefused(str(error)) from None

    def ends_at(self, claims: dict[str, Any], now: int) -> int:
        """When a token that is valid now ends, in ms. Raises TokenRefused."""
        ends_at = _time_in(claims, "exp")
        if ends_at is None:
            raise TokenRefused("it has no exp: a token must end")
        if now >= ends_at + self._leeway_ms:
            raise TokenEnded(f"the token expired {now - ends_at} ms ago")
        for name in ("nbf", "iat"):
            starts_at = _time_in(claims, name)
            if starts_at is not None and now + self._leeway_ms < starts_at:
                raise TokenRefused(
                    f"its {name} is {starts_at - now} ms from now: it is not valid yet"
                )
        return ends_at


def _time_in(claims: dict[str, Any], name: str) -> int | None:
    seconds = claims.get(name)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TokenRefused(f"its {name} is {brief(seconds)}, expected seconds since 1970")
    if not math.isfinite(seconds) or not 0 <= seconds < 2**40:
        raise TokenRefused(f"its {name} is {brief(seconds)}, expected seconds since 1970")
    return int(seconds * 1_000)


def brief(value: Any) -> str:
    """What a token says, for an error message."""
    return repr(value)[:80]
