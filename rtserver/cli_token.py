"""`rtserver token`: makes keys and tokens, and explains why a token would be refused."""

from __future__ import annotations

import base64
import json
import re
import secrets
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import click
import jwt

from rtserver.config import AuthConfig, ConfigError, load_config
from rtserver.errors import RtError
from rtserver.session.auth import Authority, check_config, secret_hash
from rtserver.session.identity import RANKS
from rtserver.session.keys import ALGORITHMS, Key, load_keys
from rtserver.session.tokens import CHALLENGE

__all__ = ["token"]

EXIT_REFUSED = 1
EXIT_CONFIG = 4

_TTL = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_ROLES_BY_RANK = {rank: role for role, rank in RANKS.items()}
_SECRET_BYTES = 64
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth")  # parts of a JWK, RFC 7518 section 6
_path = click.Path(path_type=Path, dir_okay=False)


def _seconds(_context: Any, _option: Any, value: str) -> int:
    """A time such as 90s, 15m, 1h, 30d."""
    found = _TTL.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no time, expected one such as 90s, 15m, 1h or 30d")
    return int(found["number"]) * _SECONDS[found["unit"]]


def _exit(code: int, text: str) -> NoReturn:
    click.echo(f"rtserver: {text}", err=True)
    sys.exit(code)


@click.group()
def token() -> None:
    """Makes keys and tokens, and explains why a token would be refused."""


# --- keys ---


@token.command("new-key")
@click.option("--alg", type=click.Choice(ALGORITHMS), default="HS256", show_default=True)
@click.option("--kid", help="What tokens call the key. [default: random]")
def new_key(alg: str, kid: str | None) -> None:
    """Prints a key set with a fresh key. Whoever makes tokens needs it; the server's auth.keys is
    the same file for HS256 and its like, or what `token public` makes of it for the others."""
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
        _exit(EXIT_CONFIG, f"{alg} needs the extra: pip install 'rtserver[jwt]'")
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


@token.command("public")
@click.option("--keys", type=_path, required=True, help="A key set with private keys.")
def public(keys: Path) -> None:
    """Prints the key set without what signs: all that the server needs."""
    _read(keys)
    shown = []
    for jwk in json.loads(keys.read_bytes())["keys"]:
        if jwk.get("kty") == "oct":
            _exit(EXIT_CONFIG, f"{keys}: key {jwk['kid']} is a secret and has no public half")
        kept = {name: value for name, value in jwk.items() if name not in _PRIVATE}
        shown.append({**kept, "key_ops": ["verify"]} if "key_ops" in kept else kept)
    click.echo(json.dumps({"keys": shown}, indent=2))


# --- tokens ---


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
    given = {"sub": user, "role": role, "iss": issuer, "aud": audience}
    click.echo(_signed(keys, kid, given, ttl))


@token.command("challenge")
@click.option("--keys", type=_path, required=True, help="The key set to sign with.")
@click.option("--kid", help="Which of its keys. [default: the only one]")
@click.option("--sale", required=True, help="Whose queue it lets the user join.")
@click.option("--user", required=True, help="Who solved the challenge (sub).")
@click.option("--ttl", callback=_seconds, default="2m", show_default=True, help="Such as 90s, 5m.")
def challenge(keys: Path, kid: str | None, sale: str, user: str, ttl: int) -> None:
    """Prints the token which says that a user has solved the challenge of a sale, for the parameter
    challenge of sale.join. The server's sales.challenge_keys checks it."""
    click.echo(_signed(keys, kid, {"sub": user, "sale": sale}, ttl, typ=CHALLENGE))


def _signed(
    keys: Path, kid: str | None, given: dict[str, str | None], ttl: int, typ: str | None = None
) -> str:
    """A token with these claims, those that are None left out."""
    key = _chosen(_read(keys), kid)
    now = int(time.time())
    claims: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    claims |= {"iat": now, "exp": now + ttl}
    if key.key is key.verifier and not isinstance(key.key, bytes):
        _exit(EXIT_CONFIG, f"{keys}: key {key.kid} is the public half, which cannot sign")
    headers = {"kid": key.kid} if typ is None else {"kid": key.kid, "typ": typ}
    return jwt.encode(claims, key.key, key.alg, headers=headers)


def _read(path: Path) -> dict[str, Key]:
    try:
        return load_keys(path)
    except ConfigError as error:
        _exit(EXIT_CONFIG, str(error))


def _chosen(keys: dict[str, Key], kid: str | None) -> Key:
    if kid is None and len(keys) > 1:
        raise click.UsageError(f"--kid is missing, expected one of {', '.join(keys)}")
    key = next(iter(keys.values())) if kid is None else keys.get(kid)
    if key is None:
        raise click.UsageError(f"--kid is {kid!r}, expected one of {', '.join(keys)}")
    return key


@token.command("check")
@click.option("--config", type=_path, help="The server's configuration.")
@click.option("--keys", type=_path, help="Instead of it, only a key set.")
@click.argument("text", metavar="TOKEN")
def check(config: Path | None, keys: Path | None, text: str) -> None:
    """Says step by step whether a token is valid, and for what, or why it would be refused (exit
    code 1). A TOKEN of - is read from stdin, where nobody sees it in a list of processes."""
    if (config is None) == (keys is None):
        raise click.UsageError("give one of --config and --keys")
    text = sys.stdin.readline().strip() if text == "-" else text
    click.echo(json.dumps(_contents(text), indent=2))
    try:
        auth = AuthConfig(keys=str(keys)) if config is None else load_config(config).auth
        check_config(auth)
        authority = Authority(auth, dev=False)
    except ConfigError as error:
        _exit(EXIT_CONFIG, str(error))
    try:
        identity = authority.prove(text, int(time.time() * 1_000), _passed)
    except RtError as error:
        click.echo(f"NO  {error}", err=True)
        sys.exit(EXIT_REFUSED)
    who = identity.party
    click.echo(f"valid for {who} with the role {_ROLES_BY_RANK[identity.rank]}", err=True)


def _passed(text: str) -> None:
    click.echo(f"ok  {text}", err=True)


def _contents(text: str) -> dict[str, Any]:
    """What a token says of itself, believed or not; never the secret of a back end."""
    if text.startswith("key:"):
        return {"service": text.split(":")[1]}
    try:
        claims = jwt.decode(text, options={"verify_signature": False})
        return {"header": jwt.get_unverified_header(text), "claims": claims}
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        return {"unreadable": str(error)}


@token.command("hash")
def hash_command() -> None:
    """Reads the secret of a back end from stdin and prints the hash for auth.services."""
    secret = sys.stdin.readline().rstrip("\r\n")
    if not secret:
        raise click.UsageError("stdin is empty, expected one line with the secret")
    click.echo(secret_hash(secret))
