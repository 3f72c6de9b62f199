"""Tokens which say that a challenge was solved, made by the command line and by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jwt
import pytest
from click.testing import CliRunner

from rtserver.cli_token import token
from rtserver.config import AuthConfig, SalesConfig, load_config
from rtserver.errors import RtError
from rtserver.session.auth import Authority
from rtserver.session.challenges import Challenges
from rtserver.session.keys import load_keys

NOW_S = 1_700_000_000
NOW = NOW_S * 1_000


def printed(*arguments: object) -> str:
    """What `rtserver token ...` prints."""
    ran = CliRunner().invoke(token, [str(one) for one in arguments])
    assert ran.exit_code == 0, ran.output
    return ran.stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "challenge.json"
    path.write_text(printed("new-key", "--kid", "bouncer"))
    return path


@pytest.fixture
def challenges(keys: Path) -> Challenges:
    return Challenges(SalesConfig(challenge_keys=str(keys), challenge_ms_max=300_000))


def made(keys: Path, typ: str | None = "challenge+jwt", **claims: object) -> str:
    """A token as another program makes it."""
    key = next(iter(load_keys(keys).values()))
    whole = {"sub": "ann", "sale": "show", "exp": NOW_S + 60, **claims}
    kept = {name: value for name, value in whole.items() if value is not None}
    headers = {"kid": key.kid, "typ": typ}
    return jwt.encode(kept, key.key, key.alg, headers=headers)


def refusal(challenges: Challenges, shown: str | None, now: int = NOW) -> tuple[str, str]:
    """(reason, message)."""
    with pytest.raises(RtError) as caught:
        challenges.check("show", "ann", shown, now)
    assert caught.value.kind.name == "challenge_failed"
    details = caught.value.details
    assert details is not None
    return details["reason"], caught.value.message


def test_a_token_lets_its_user_join_its_sale_until_it_ends(
    keys: Path, challenges: Challenges
) -> None:
    shown = made(keys)
    challenges.check("show", "ann", shown, NOW)
    challenges.check("show", "ann", f" {shown}\n", NOW + 64_999)
    reason, message = refusal(challenges, shown, NOW + 65_000)
    assert (reason, message) == (
        "expired",
        "the challenge is too old: the token expired 5000 ms ago",
    )


def test_it_is_for_nobody_else_and_no_other_sale(keys: Path, challenges: Challenges) -> None:
    assert refusal(challenges, made(keys, sub="bob")) == (
        "refused",
        "the challenge is refused: its sub is 'bob', not 'ann'",
    )
    assert "its sale is 'other', not 'show'" in refusal(challenges, made(keys, sale="other"))[1]
    assert "its sale is None" in refusal(challenges, made(keys, sale=None))[1]


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"exp": None}, "it has no exp"),
        ({"exp": NOW_S + 301}, "it ends in 301000 ms, expected at most 300000"),
        ({"exp": "soon"}, "its exp is 'soon'"),
        ({"nbf": NOW_S + 30}, "its nbf is 30000 ms from now"),
        ({"typ": "JWT"}, "its typ is 'JWT', expected 'challenge+jwt'"),
        ({"typ": None}, "its typ is None"),
    ],
)
def test_what_is_wrong_with_it_is_named(
    keys: Path, challenges: Challenges, claims: dict[str, object], says: str
) -> None:
    assert says in refusal(challenges, made(keys, **claims))[1]


def test_none_at_all_is_another_reason(challenges: Challenges) -> None:
    assert refusal(challenges, None)[0] == "missing"
    for shown in ("", "nonsense", "a.b.c", "ü", "x" * 9_000):
        assert refusal(challenges, shown)[0] == "refused"


def test_other_keys_open_nothing(keys: Path, challenges: Challenges, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(printed("new-key", "--kid", "bouncer"))
    assert "key bouncer did not sign it" in refusal(challenges, made(other))[1]


def test_without_keys_it_says_what_to_configure() -> None:
    reason, message = refusal(Challenges(SalesConfig()), "any")
    assert reason == "unconfigured"
    assert "sales.challenge_keys is not configured" in message


def test_a_challenge_proves_nobody_and_a_proof_solves_none(keys: Path) -> None:
    authority = Authority(AuthConfig(keys=str(keys)), dev=False)
    with pytest.raises(RtError, match=r"says nothing of who somebody is"):
        authority.identify(made(keys), None, NOW)
    assert authority.identify(made(keys, typ="JWT"), None, NOW).user == "ann"


@pytest.mark.parametrize("alg", ["HS512", "ES256", "EdDSA"])
def test_the_command_line_makes_them(tmp_path: Path, alg: str) -> None:
    private = tmp_path / "private.json"
    private.write_text(printed("new-key", "--alg", alg))
    shown = printed("challenge", "--keys", private, "--sale", "show", "--user", "ann")
    public = private
    if not alg.startswith("HS"):
        public = tmp_path / "public.json"
        public.write_text(printed("public", "--keys", private))
    challenges = Challenges(SalesConfig(challenge_keys=str(public)))
    now = int(time.time() * 1_000)
    challenges.check("show", "ann", shown, now)
    assert refusal(challenges, shown, now + 126_000)[0] == "expired", "two minutes and the leeway"


def test_keys_are_read_again(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "challenge.json"
    path.write_text(printed("new-key", "--kid", "old"))
    challenges = Challenges(SalesConfig(challenge_keys=str(path)))
    assert refusal(challenges, made(keys))[0] == "refused"
    path.write_text(keys.read_text())
    assert challenges.reload() == f"1 keys of {path}"
    challenges.check("show", "ann", made(keys), NOW)


def test_the_configuration_names_the_keys(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "rtserver.toml"
    path.write_text(f"[sales]\nchallenge_keys = {json.dumps(str(keys))}\n")
    assert load_config(path).sales.challenge_keys == str(keys)
