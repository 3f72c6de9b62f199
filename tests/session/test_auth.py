"""Tokens that prove somebody, and all the ways in which one may not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.config import AuthConfig, ConfigError, ServiceKey
from rtserver.errors import RtError
from rtserver.session.auth import Authority, check_config, secret_hash
from rtserver.session.identity import RANKS, Identity

NOW_S = 1_700_000_000
NOW = NOW_S * 1_000
SECRET = b"s" * 32
RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
SMALL_RSA = rsa.generate_private_key(public_exponent=65_537, key_size=1_024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def jwk(kid, alg, key, **more):
    algorithm = jwt.get_algorithm_by_name(alg)
    made = json.loads(algorithm.to_jwk(key)) if not isinstance(key, bytes) else secret_jwk(key)
    return {**made, "kid": kid, "alg": alg, **more}


def secret_jwk(secret):
    return {"kty": "oct", "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode()}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    write(path, standard())
    return path


def write(path, keys):
    path.write_text(json.dumps({"keys": keys}))


def standard():
    return [
        jwk("hs", "HS256", SECRET),
        jwk("rs", "RS256", RSA.public_key()),
        jwk("es", "ES256", EC.public_key()),
        jwk("ed", "EdDSA", ED.public_key()),
        jwk("boss", "HS256", b"b" * 32, rt_role="admin"),
    ]


@pytest.fixture(scope="module")
def authority(key_file):
    return Authority(AuthConfig(keys=str(key_file)), dev=False)


def signed(key=SECRET, alg="HS256", kid="hs", headers=None, **claims):
    claims = {"sub": "ann", "exp": NOW_S + 60, **claims}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, alg, headers={"kid": kid, **(headers or {})})


def refusal(authority, token, now=NOW):
    with pytest.raises(RtError) as caught:
        authority.identify(token, None, now)
    return caught.value.kind.name, caught.value.message


@pytest.mark.parametrize(
    ("key", "alg", "kid"),
    [(SECRET, "HS256", "hs"), (RSA, "RS256", "rs"), (EC, "ES256", "es"), (ED, "EdDSA", "ed")],
)
def test_a_signed_token_proves_its_user(authority, key, alg, kid):
    identity = authority.identify(signed(key, alg, kid), None, NOW)
    assert identity == Identity(RANKS["user"], user="ann", expires_at=NOW + 60_000)


def rsa_public_as_secret():
    """The classic: an asymmetric key's public half used as the secret of HS256."""
    pem = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = {"alg": "HS256", "typ": "JWT", "kid": "rs"}
    claims = {"sub": "ann", "exp": NOW_S + 60}

    def part(raw):
        return base64.urlsafe_b64encode(json.dumps(raw).encode()).rstrip(b"=")

    body = part(header) + b"." + part(claims)
    signature = hmac.digest(pem, body, hashlib.sha256)
    return (body + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(claims):
    """Rightly signed, whatever it says."""
    body = f"{encoded(json.dumps({'alg': 'HS256', 'kid': 'hs'}).encode())}.{encoded(claims)}"
    return f"{body}.{encoded(hmac.digest(SECRET, body.encode(), hashlib.sha256))}"


def unsigned():
    return jwt.encode({"sub": "ann", "exp": NOW_S + 60}, None, "none", headers={"kid": "hs"})


REFUSED = {
    "unsigned": (unsigned, "alg is 'none', key hs is for HS256"),
    "algorithm of another kind of key": (rsa_public_as_secret, "alg is 'HS256', key rs is for"),
    "another secret": (lambda: signed(b"x" * 32), "key hs did not sign it"),
    "unknown key": (lambda: signed(kid="zz"), "kid is 'zz', expected one of hs, rs"),
    "no key named": (lambda: jwt.encode({"sub": "a"}, SECRET), "kid is None"),
    "kid of a strange type": (
        lambda: "eyJhbGciOiJIUzI1NiIsImtpZCI6WzFdfQ.e30.AA",
        "cannot be read",
    ),
    "critical extensions": (lambda: signed(headers={"crit": ["x"]}), "crit"),
    "no end": (lambda: signed(exp=None), "no exp"),
    "an end that is text": (lambda: signed(exp="soon"), "exp"),
    "an end beyond all times": (lambda: signed(exp=1e300), "exp is 1e"),
    "not yet": (lambda: signed(nbf=NOW_S + 60), "nbf is 60000 ms from now"),
    "issued tomorrow": (lambda: signed(iat=NOW_S + 6), "iat is 6000 ms from now"),
    "deep header": (lambda: f"{encoded(b'[' * 6_000)}..", "cannot be read"),
    "deep claims": (lambda: raw(b"[" * 5_000), "recursion"),
    "twenty thousand digits": (lambda: raw(b'{"exp": ' + b"9" * 5_000 + b"}"), "digits"),
    "no times": (lambda: raw(b'{"sub": "ann", "exp": NaN}'), "exp is nan"),
    "half a character": (lambda: raw(rb'{"sub": "\ud800", "exp": 1700000060}'), "sub is"),
    "half a character in the token": (lambda: "\ud800.a.b", "characters that no token has"),
    "half a character in a secret": (lambda: "key:shop:\ud800", "'shop'"),
    "no user": (lambda: signed(sub=None), "sub is None"),
    "a user with a space": (lambda: signed(sub="a b"), "sub is 'a b'"),
    "more than the key gives": (lambda: signed(role="admin"), "gives at most user"),
    "no role": (lambda: signed(role="king"), "role is 'king'"),
    "the server's own role": (lambda: signed(role="internal"), "role is 'internal'"),
    "huge": (lambda: signed(extra="x" * 20_000), "at most 8192"),
    "garbage": (lambda: "a.b.c", "cannot be read"),
    "empty": (lambda: "", "cannot be read"),
    "no secret": (lambda: "key:shop", "key:NAME:SECRET"),
    "unknown service": (lambda: "key:shop:x", "'shop'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_and_why(authority, case):
    make, why = REFUSED[case]
    name, message = refusal(authority, make())
    assert name == "unauthenticated"
    assert why in message


def test_white_space_around_a_token_is_not_the_token(authority):
    assert authority.identify(f" {signed()}\n", None, NOW).user == "ann"


def test_an_expired_token_has_an_error_of_its_own_after_the_leeway(authority):
    token = signed()
    assert authority.identify(token, None, NOW + 64_999).user == "ann"
    name, message = refusal(authority, token, NOW + 65_000)
    assert (name, message) == ("token_expired", "the token expired 5000 ms ago")


def test_issuer_and_audience_count_where_they_are_configured(key_file):
    config = AuthConfig(keys=str(key_file), issuer="me", audience="rt")
    strict = Authority(config, dev=False)
    assert strict.identify(signed(iss="me", aud="rt"), None, NOW).user == "ann"
    for claims in ({"iss": "me"}, {"aud": "rt"}, {"iss": "you", "aud": "rt"}, {}):
        assert refusal(strict, signed(**claims))[0] == "unauthenticated"


def test_a_key_may_give_more(authority):
    identity = authority.identify(signed(b"b" * 32, kid="boss", role="service"), None, NOW)
    assert identity.rank == RANKS["service"]


def test_services_show_a_secret_that_is_kept_as_its_hash():
    config = AuthConfig(services={"shop": ServiceKey(hash=secret_hash("x:y"))})
    check_config(config)
    authority = Authority(config, dev=False)
    identity = authority.identify("key:shop:x:y", None, NOW)
    assert (identity.rank, identity.service, identity.user) == (RANKS["service"], "shop", None)
    assert refusal(authority, "key:shop:x")[0] == "unauthenticated"
    with pytest.raises(ConfigError, match=r"auth\.services\.shop\.hash"):
        check_config(AuthConfig(services={"shop": ServiceKey(hash="x:y")}))


@pytest.mark.parametrize("name", ["a:b", "a b", ""])
def test_a_service_has_a_name_that_its_token_can_say(name):
    with pytest.raises(ConfigError, match=r"auth\.services has the name"):
        check_config(AuthConfig(services={name: ServiceKey(hash=secret_hash("x"))}))


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA")])
def test_a_file_with_private_keys_checks_tokens_too(tmp_path, key, alg):
    path = tmp_path / "keys.json"
    write(path, [jwk("a", alg, key)])
    private = Authority(AuthConfig(keys=str(path)), dev=False)
    assert private.identify(signed(key, alg, "a"), None, NOW).user == "ann"


def test_each_check_that_passed_is_told(authority):
    passed = []
    with pytest.raises(RtError, match="the token expired"):
        authority.prove(signed(), NOW + 100_000, passed.append)
    assert [line.split()[1] for line in passed] == ["kid", "hs", "sub"]
    passed.clear()
    authority.prove(signed(), NOW, passed.append)
    assert passed[-1] == "it ends in 60 s"


def test_a_session_says_who_asks(authority):
    ann = Identity(RANKS["user"], user="ann", expires_at=NOW + 1)
    sessions = Authority(
        authority.config, dev=False, find_session=lambda name, _: ann if name == "s" else None
    )
    assert sessions.identify(None, "s", NOW) == ann
    with pytest.raises(RtError, match="no such session"):
        sessions.identify(None, "t", NOW)
    with pytest.raises(RtError, match="expired"):
        sessions.identify(None, "s", NOW + 10_000)


def test_who_shows_nothing_is_a_developer_or_nobody(authority):
    assert authority.identify(None, None, NOW).rank == RANKS["anonymous"]
    assert authority.must_prove
    assert Authority(AuthConfig(), dev=True).identify(None, None, NOW).rank == RANKS["admin"]


def test_keys_are_read_again_and_a_bad_file_changes_nothing(tmp_path):
    path = tmp_path / "keys.json"
    write(path, standard())
    authority = Authority(AuthConfig(keys=str(path)), dev=False)
    path.write_text("{")
    with pytest.raises(ConfigError, match="is no JWK set"):
        authority.reload()
    assert authority.identify(signed(), None, NOW).user == "ann"
    write(path, [jwk("new", "HS256", b"n" * 32)])
    assert authority.reload() == f"1 keys of {path}"
    assert refusal(authority, signed())[0] == "unauthenticated"
    assert authority.identify(signed(b"n" * 32, kid="new"), None, NOW).user == "ann"
    assert authority.identify(jwt.encode({"sub": "ann", "exp": NOW_S}, b"n" * 32), None, NOW)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([], "is no JWK set"),
        ([{"kty": "oct"}], "key 1 has no kid"),
        ([{"kid": "a", "kty": "oct", "k": "eA"}], "has the alg None"),
        ([{"kid": "a", "alg": "none"}], "has the alg 'none'"),
        ([{"kid": "a", "alg": "HS256", "kty": "oct", "k": "eA"}], "has 1 bytes, expected at least"),
        ([jwk("a", "HS512", SECRET)], "has 32 bytes, expected at least 64"),
        ([jwk("a", "RS256", SMALL_RSA)], "has 1024 bits, expected at least 2048"),
        ([{"kid": "a", "alg": "RS256", "kty": "oct", "k": "eA"}], "cannot be used with RS256"),
        ([{"kid": "a", "alg": "HS256", "rt_role": "king"}], "has the rt_role 'king'"),
        ([jwk("a", "HS256", SECRET), jwk("a", "HS256", SECRET)], "two keys have the kid 'a'"),
        (["x"], "key 1 is no object"),
    ],
)
def test_what_is_wrong_with_a_key_set_is_said(tmp_path, keys, why):
    path = tmp_path / "keys.json"
    write(path, keys)
    with pytest.raises(ConfigError, match=why):
        Authority(AuthConfig(keys=str(path)), dev=False)


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_\-]{0,40}(\.[A-Za-z0-9_\-]{0,60}){2}")
)
def test_no_text_does_anything_but_be_refused(authority, text):
    with pytest.raises(RtError):
        authority.identify(text, None, NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "cty", "zip"])
CLAIMS = st.sampled_from(["sub", "exp", "nbf", "iat", "iss", "aud", "jti", "role"])


@settings(max_examples=300, deadline=None)
@given(header=st.dictionaries(NAMES, JSON), claims=st.binary(max_size=40), known=st.booleans())
def test_no_header_does_anything_but_be_refused(authority, header, claims, known):
    if known:
        header |= {"alg": "HS256", "kid": "hs"}
    head = encoded(json.dumps(header).encode())
    with pytest.raises(RtError):
        authority.identify(f"{head}.{encoded(claims)}.{encoded(b'x' * 32)}", None, NOW)


@settings(max_examples=300, deadline=None)
@given(claims=st.dictionaries(CLAIMS, JSON))
def test_strange_claims_that_are_signed_are_refused_or_mean_a_user(authority, claims):
    try:
        identity = authority.identify(raw(json.dumps(claims).encode()), None, NOW)
    except RtError:
        return
    assert identity.rank <= RANKS["user"]
    assert identity.user == claims["sub"]
    assert identity.expires_at > NOW - 5_000


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 400), flip=st.integers(1, 127))
def test_no_changed_character_is_accepted(authority, place, flip):
    token = signed()
    place %= len(token)
    changed = token[:place] + chr(ord(token[place]) ^ flip) + token[place + 1 :]
    try:
        identity = authority.identify(changed, None, NOW)
    except RtError:
        return
    # The last character of base64 has bits that mean nothing.
    assert identity.user == "ann"
    assert place == len(token) - 1
