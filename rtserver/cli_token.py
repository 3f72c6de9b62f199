"""`rtserver token`: makes keys and tokens, and explains why a token would be refused."""

from __future__ import annotations

import base64
import json
import re
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import click
import jwt

from rtserver.config import AuthConfig, ConfigError, load_config
from rtserver.errors import RtError
from rtserver.session.auth import Authority, secret_hash
from rtserver.session.identity import RANKS
from rtserver.session.keys import ALGORITHMS, Key, load_keys

__all__ = ["token"]

_TTL = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_ROLES_BY_RANK = {rank: role for role, rank in RANKS.items()}
_SECRET_BYTES = 64
_path = click.Path(path_type=Path, dir_okay=False)


def _seconds(_context: Any, _option: Any, value: str) -> int:
    """A time such as 90s, 15m, 1h, 30d."""
    found = _TTL.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no time, expected one such as 90s, 15m, 1h or 30d")
    return int(found["number"]) * _SECONDS[found["unit"]]


@click.group()
def token() -> None:
    """Makes keys and tokens, and explains why a token would be refused."""


@token.command("new-key")
@click.option("--alg", type=click.Choice(ALGORITHMS), default="HS256", show_default=True)
@click.option("--kid", help="What tokens call the key. [default: random]")
def new_key(alg: str, kid: str | None) -> None:
    """Prints a key set with a fresh key; its file belongs into auth.keys. Who makes tokens with an
    asymmetric key needs the private one that is printed here, the server only the public part."""
    made = _new_jwk(alg)
    made |= {"kid": kid or secrets.token_hex(4), "alg": alg, "use": "sig"}
    click.echo(json.dumps({"keys": [made]}, indent=2))


def _new_jwk(alg: str) -> dict[str, Any]:
    if alg.startswith("HS"):
        secret = base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).rstrip(b"=")
        return {"kty": "oct", "k": secret.decode("ascii")}
    try:
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    except ImportError:
        raise click.ClickException(f"{alg} needs the extra: pip install 'rtserver[jwt]'") from None
    private: Any
    algorithm: Any = jwt.get_algorithm_by_name(alg)
    if alg == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
    elif alg == "ES256":
        private = ec.generate_private_key(ec.SECP256R1())
    else:
        private = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    made: dict[str, Any] = json.loads(algorithm.to_jwk(private))
    return made


@token.command("make")
@click.option("--keys", type=_path, required=True, help="The key set to sign with.")
@click.option("--kid", help="Which of its keys. [default: the only one]")
@click.option("--user", required=True, help="Whose token it is (sub).")
@click.option("--role", type=click.Choice(["user", "service", "admin"]), help="[default: user]")
@click.option("--ttl", callback=_seconds, default="1h", show_default=True, help="Such as 15m, 30d.")
@click.option("--issuer", help="As auth.issuer wants it.")
@click.option("--audience", help="As auth.audience wants it.")
def make(
    keys: Path,
    kid: str | None,
    user: str,
    role: str | None,
    ttl: int,
    issuer: str | None,
    audience: str | None,
) -> None:
    """Prints a token."""
    key = _chosen(_read(keys), kid)
    claims: dict[str, Any] = {"sub": user, "exp": int(time.time()) + ttl}
    given = {"role": role, "iss": issuer, "aud": audience}
    claims |= {name: value for name, value in given.items() if value is not None}
    try:
        click.echo(jwt.encode(claims, key.key, key.alg, headers={"kid": key.kid}))
    except (TypeError, ValueError, jwt.PyJWTError) as error:
        raise click.ClickException(f"key {key.kid} cannot sign: {error}") from None


def _read(path: Path) -> dict[str, Key]:
    try:
        return load_keys(path)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


def _chosen(keys: dict[str, Key], kid: str | None) -> Key:
    if kid is None and len(keys) > 1:
        raise click.ClickException(f"--kid is missing, expected one of {', '.join(keys)}")
    key = next(iter(keys.values())) if kid is None else keys.get(kid)
    if key is None:
        raise click.ClickException(f"--kid is {kid!r}, expected one of {', '.join(keys)}")
    return key


@token.command("check")
@click.option("--config", type=_path, help="The server's configuration.")
@click.option("--keys", type=_path, help="Instead of it, only a key set.")
@click.argument("text", metavar="TOKEN")
def check(config: Path | None, keys: Path | None, text: str) -> None:
    """Says whether a token is valid, and for what, or why it would be refused (exit code 1)."""
    click.echo(json.dumps(_contents(text), indent=2))
    try:
        auth = AuthConfig(keys=None if keys is None else str(keys))
        authority = Authority(auth if config is None else load_config(config).auth, dev=False)
        identity = authority.identify(text, None, int(time.time() * 1_000))
    except (ConfigError, RtError) as error:
        click.echo(f"refused: {error}", err=True)
        sys.exit(1)
    who = identity.party
    click.echo(f"valid for {who} with the role {_ROLES_BY_RANK[identity.rank]}", err=True)


def _contents(text: str) -> dict[str, Any]:
    """What a token says of itself, believed or not."""
    if text.startswith("key:"):
        return {"service": text.split(":")[1]}
    try:
        claims = jwt.decode(text, options={"verify_signature": False})
        return {"header": jwt.get_unverified_header(text), "claims": claims}
    except (jwt.PyJWTError, ValueError) as error:
        return {"unreadable": str(error)}


@token.command("hash")
def hash_command() -> None:
    """Reads the secret of a back end from stdin and prints the hash for auth.services."""
    secret = sys.stdin.readline().rstrip("\r\n")
    if not secret:
        raise click.ClickException("stdin is empty, expected one line with the secret")
    click.echo(secret_hash(secret))
