"""The keys that tokens are checked with: a JWK set (RFC 7517) in a file.

Each key has a `kid` and names its one algorithm in `alg`: what a token says about itself is never
believed, only compared. `rt_role` is the highest role that the key's tokens may give (user unless
it says more). Reading costs time and happens at the start and on request, never for a token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jwt

from rtserver.config import ConfigError, Role

__all__ = ["ALGORITHMS", "Key", "load_keys"]

ALGORITHMS = ("HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA")
_SECRET_BYTES_MIN = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 section 3.2
_RSA_BITS_MIN = 2_048  # RFC 7518 section 3.3
_FILE_BYTES_MAX = 1024 * 1024
_ROLES = get_args(Role)


class Key(NamedTuple):
    """One key: what it is called, its algorithm, the key as the file has it (a private one signs
    tokens), what checks them (a secret, or the public half), the most its tokens may give."""

    kid: str
    alg: str
    key: Any
    verifier: Any
    role: str


def load_keys(path: Path) -> dict[str, Key]:
    """The keys in a file by `kid`. Raises ConfigError that says which key is wrong, and why."""
    try:
        text = path.read_bytes()[: _FILE_BYTES_MAX + 1]
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(text) > _FILE_BYTES_MAX:
        raise ConfigError(f"{path}: is larger than {_FILE_BYTES_MAX} bytes")
    try:
        listed = json.loads(text)["keys"]
        if not isinstance(listed, list) or not listed:
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f'{path}: is no JWK set, expected {{"keys": [...]}}') from None
    keys: dict[str, Key] = {}
    for place, jwk in enumerate(listed):
        try:
            key = _key(jwk)
        except ValueError as error:
            raise ConfigError(f"{path}: key {place + 1} {error}") from None
        if key.kid in keys:
            raise ConfigError(f"{path}: two keys have the kid {key.kid!r}")
        keys[key.kid] = key
    return keys


def _key(jwk: Any) -> Key:
    if not isinstance(jwk, dict):
        raise ValueError("is no object")
    kid, alg, role = jwk.get("kid"), jwk.get("alg"), jwk.get("rt_role", "user")
    if not isinstance(kid, str) or not kid:
        raise ValueError("has no kid: tokens name their key by it")
    if alg not in ALGORITHMS:
        raise ValueError(f"({kid}) has the alg {alg!r}, expected one of {', '.join(ALGORITHMS)}")
    if role not in _ROLES:
        raise ValueError(f"({kid}) has the rt_role {role!r}, expected {' or '.join(_ROLES)}")
    try:
        made = jwt.PyJWK(jwk, algorithm=alg).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"({kid}) cannot be used with {alg}: {error}{_hint(alg)}") from None
    if isinstance(made, bytes):
        if len(made) < _SECRET_BYTES_MIN[alg]:
            raise ValueError(
                f"({kid}) has {len(made)} bytes, expected at least {_SECRET_BYTES_MIN[alg]}"
            )
        return Key(kid, alg, made, made, role)
    if alg == "RS256" and made.key_size < _RSA_BITS_MIN:
        raise ValueError(f"({kid}) has {made.key_size} bits, expected at least {_RSA_BITS_MIN}")
    public = made.public_key() if hasattr(made, "public_key") else made
    return Key(kid, alg, made, public, role)


def _hint(alg: str) -> str:
    """Asymmetric algorithms need a library that is an extra."""
    if alg.startswith("HS") or jwt.algorithms.has_crypto:
        return ""
    return "; install rtserver[jwt] for it"
