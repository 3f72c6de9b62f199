"""Who shows a token: JSON web tokens (RFC 7519), secrets of back ends, sessions.

An `Authority` turns what a connection shows into an `Identity`, or refuses with the check that
failed. Verification happens once a connection and once a refresh, off the hot path.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from rtserver.config import AuthConfig, ConfigError
from rtserver.errors import TOKEN_EXPIRED, UNAUTHENTICATED, RtError
from rtserver.session.identity import RANKS, Identity
from rtserver.session.keys import Key
from rtserver.session.tokens import TokenEnded, TokenRefused, Tokens, brief
from rtserver.wire.names import NAME_RULE, is_name

__all__ = ["Authority", "secret_hash"]

_SERVICE_PREFIX = "key:"
_DEVELOPER = Identity(RANKS["admin"])
_ANONYMOUS = Identity(RANKS["anonymous"])

Note = Callable[[str], None]  # hears of each check that a token passed


def _unheard(_passed: str) -> None: ...


def secret_hash(secret: str) -> str:
    """How the secret of a back end is kept in the configuration."""
    # Half a character (a surrogate) has no bytes: what was typed or sent so matches no secret.
    return f"sha256:{hashlib.sha256(secret.encode('utf-8', 'surrogatepass')).hexdigest()}"


class Authority:
    """What connections may prove here. `find_session` tells whose a session is, if it lives."""

    def __init__(
        self,
        config: AuthConfig,
        *,
        dev: bool,
        find_session: Callable[[str, int], Identity | None] = lambda _session, _now: None,
    ) -> None:
        self.config = config
        self.dev = dev
        self.find_session = find_session
        self._tokens = Tokens(
            config.keys,
            leeway_ms=config.leeway_ms,
            issuer=config.issuer,
            audience=config.audience,
        )

    @property
    def default(self) -> Identity:
        """Who has shown nothing yet."""
        return _DEVELOPER if self.dev else _ANONYMOUS

    @property
    def must_prove(self) -> bool:
        """Whether who shows nothing may do nothing but that."""
        return not self.dev and not self.config.anonymous

    def reload(self) -> str | None:
        """Reads the keys anew; what was read. Raises ConfigError, and the keys in force stay. A
        connection keeps what it has proved until that expires."""
        return self._tokens.reload()

    def identify(self, token: str | None, session: str | None, now: int) -> Identity:
        """Who shows this token, or else this session, or nothing. Raises RtError."""
        if token is not None:
            return self.prove(token, now)
        if session is None:
            return self.default
        found = self.find_session(session, now)
        if found is None:
            raise RtError(
                UNAUTHENTICATED,
                "there is no such session any more; call server.hello and use the one it answers",
            )
        check_time(found, now, self.config.leeway_ms)
        return found

    def prove(self, token: str, now: int, note: Note = _unheard) -> Identity:
        """Who shows this token. Raises RtError that says which check failed. White space around it
        came from a file or an editor, not from whoever made it."""
        token = token.strip()
        if token.startswith(_SERVICE_PREFIX):
            return self._service(token, note)
        return self._user(token, now, note)

    # --- secrets of back ends ---

    def _service(self, token: str, note: Note) -> Identity:
        name, colon, secret = token.removeprefix(_SERVICE_PREFIX).partition(":")
        if not colon:
            raise RtError(UNAUTHENTICATED, "a service shows key:NAME:SECRET")
        known = self.config.services.get(name)
        shown = secret_hash(secret)
        # The same time for an unknown name as for a wrong secret.
        matches = hmac.compare_digest(shown, shown[::-1] if known is None else known.hash)
        if known is None or not matches:
            raise RtError(UNAUTHENTICATED, f"the secret is not the one of a service {name[:64]!r}")
        note(f"its secret is the one of the service {name!r}, whose role is {known.role}")
        return Identity(RANKS[known.role], service=name)

    # --- tokens ---

    def _user(self, token: str, now: int, note: Note) -> Identity:
        if not self._tokens.keys:
            raise RtError(UNAUTHENTICATED, "auth.keys is not configured, so no token is valid")
        try:
            return self._proved(token, now, note)
        except TokenEnded as why:
            raise RtError(TOKEN_EXPIRED, str(why)) from None
        except TokenRefused as why:
            raise RtError(UNAUTHENTICATED, f"the token is refused: {why}") from None

    def _proved(self, token: str, now: int, note: Note) -> Identity:
        """Raises TokenRefused."""
        key = self._tokens.key_of(token)
        note(f"its kid is {key.kid!r}, a key here, and its alg {key.alg} is the one of that key")
        claims = self._tokens.claims(token, key)
        note(f"key {key.kid} signed it{self._meant()}")
        user, role = _user_in(claims), _role_in(claims, key)
        note(f"its sub is {user!r}; its role is {role}, key {key.kid} gives at most {key.role}")
        expires_at = self._tokens.ends_at(claims, now)
        note(f"it ends in {(expires_at - now) / 1_000:,.0f} s")
        return Identity(RANKS[role], user=user, expires_at=expires_at)

    def _meant(self) -> str:
        """What else the signature was checked with."""
        config = self.config
        issuer = "" if config.issuer is None else f", its iss is {config.issuer!r}"
        return issuer + ("" if config.audience is None else f", its aud has {config.audience!r}")

    def is_over(self, expires_at: int | None, now: int) -> bool:
        """Whether what proved an identity has ended; None does not end."""
        return expires_at is not None and now >= expires_at + self.config.leeway_ms


def check_time(identity: Identity, now: int, leeway_ms: int) -> None:
    """Raises RtError where what proved the identity has ended."""
    expires_at = identity.expires_at
    if expires_at is not None and now >= expires_at + leeway_ms:
        raise RtError(TOKEN_EXPIRED, f"the token expired {now - expires_at} ms ago")


def _user_in(claims: dict[str, Any]) -> str:
    user = claims.get("sub")
    if not isinstance(user, str) or not is_name(user):
        raise TokenRefused(f"its sub is {brief(user)}, expected the name of a user")
    return user


def _role_in(claims: dict[str, Any], key: Key) -> str:
    role = claims.get("role", "user")
    if not isinstance(role, str) or role not in RANKS or role == "internal":
        raise TokenRefused(f"its role is {brief(role)}, expected anonymous, user, service or admin")
    if RANKS[role] > RANKS[key.role]:
        raise TokenRefused(f"its role is {role}, key {key.kid} gives at most {key.role} (rt_role)")
    return role


def is_configured(config: AuthConfig) -> bool:
    """Whether anybody can prove anything here."""
    return config.keys is not None or bool(config.services)


def check_config(config: AuthConfig) -> None:
    """Raises ConfigError for names that no token can say and hashes that no secret has."""
    for name, service in config.services.items():
        if not is_name(name) or ":" in name:
            raise ConfigError(
                f"auth.services has the name {name!r}, expected {NAME_RULE}, nor colons"
            )
        kind, _, digest = service.hash.partition(":")
        if kind != "sha256" or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ConfigError(
                f"auth.services.{name}.hash is no hash, expected sha256:HEX as printed by"
                " `rtserver token hash`"
            )
