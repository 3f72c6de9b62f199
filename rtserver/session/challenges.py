"""Challenges of sales: a token which says that a user may join a queue, because whoever put a
CAPTCHA or a proof of work in front of it found that solved.

Such a token is signed with a key of `sales.challenge_keys` and checked here without asking anybody:
`typ` challenge+jwt in its header, `sub` the user, `sale` the sale, `exp` soon. It is good for that
user in that sale until it ends; how often she may join is the queue's own limit.
"""

from __future__ import annotations

from rtserver.config import SalesConfig
from rtserver.errors import CHALLENGE_FAILED, RtError
from rtserver.session.tokens import CHALLENGE, TokenEnded, TokenRefused, Tokens, brief

__all__ = ["Challenges"]


class Challenges:
    """Checks the tokens. Raises ConfigError where the keys cannot be used."""

    def __init__(self, config: SalesConfig) -> None:
        self._ms_max = config.challenge_ms_max
        self._tokens = Tokens(
            config.challenge_keys, leeway_ms=config.challenge_leeway_ms, typ=CHALLENGE
        )
        self.reload = self._tokens.reload

    def check(self, sale: str, user: str, token: str | None, now: int) -> None:
        """Raises RtError challenge_failed, with a `reason` of one word for programs."""
        if not self._tokens.keys:
            raise _failed(
                "unconfigured",
                f"the queue of {sale!r} asks for a challenge, and sales.challenge_keys is not"
                " configured: name the file with the keys that sign challenges there",
            )
        if token is None:
            raise _failed("missing", f"the queue of {sale!r} asks for a challenge: solve it first")
        try:
            self._check(sale, user, token.strip(), now)
        except TokenEnded as why:
            raise _failed("expired", f"the challenge is too old: {why}") from None
        except TokenRefused as why:
            raise _failed("refused", f"the challenge is refused: {why}") from None

    def _check(self, sale: str, user: str, token: str, now: int) -> None:
        key = self._tokens.key_of(token)
        claims = self._tokens.claims(token, key)
        for name, expected in (("sale", sale), ("sub", user)):
            if claims.get(name) != expected:
                raise TokenRefused(f"its {name} is {brief(claims.get(name))}, not {expected!r}")
        left = self._tokens.ends_at(claims, now) - now
        if left > self._ms_max:
            raise TokenRefused(
                f"it ends in {left} ms, expected at most {self._ms_max} (sales.challenge_ms_max)"
            )


def _failed(reason: str, message: str) -> RtError:
    return RtError(CHALLENGE_FAILED, message, {"reason": reason})
