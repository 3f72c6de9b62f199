"""Values as JSON: an exact round trip for all user data, and refusals that name the trouble."""

from __future__ import annotations

import contextlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.limits import VALUES_MAX
from rtserver.wire.jsonform import from_json, from_json_value, scan_json, to_json
from tests.wire.values import data, same


@given(data)
def test_user_data_survives_json(value):
    text = to_json(value).decode("utf-8")
    assert "\n" not in text
    decoded, end = scan_json(text, 0)
    assert end == len(text)
    assert same(decoded, value)
    assert same(from_json(text.encode()), value)


@given(data)
def test_any_json_reader_can_read_it(value):
    json.loads(to_json(value))


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        scan_json(text, 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"hello", '{"$b64":"aGVsbG8="}'),
        (2**53, "9007199254740992"),
        (2**53 + 1, '{"$i64":"9007199254740993"}'),
        (-(2**63), '{"$i64":"-9223372036854775808"}'),
        ({"$b64": 1}, '{"$map":{"$b64":1}}'),
        ({"$map": {"$i64": "5"}}, '{"$map":{"$map":{"$map":{"$i64":"5"}}}}'),
        ({"$b64": 1, "a": 2}, '{"$b64":1,"a":2}'),
        (1.0, "1.0"),
    ],
)
def test_escapes(value, text):
    assert to_json(value) == text.encode()
    assert same(scan_json(text, 0)[0], value)


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        '{"$b64": "%%%"}',
        '{"$b64": "YQ"}',
        '{"$b64": 5}',
        '{"$i64": 5}',
        '{"$i64": "five"}',
        '{"$i64": "1_000"}',
        '{"$i64": " 7"}',
        '{"$i64": "\u0667"}',
        '{"$i64": ""}',
        '{"$map": []}',
        r'"\ud800"',
        r'{"\udfff": 1}',
        "[" * 100_000,
        "9" * 5_000,
        "{'a': 1}",
        "[1,]",
        "",
    ],
)
def test_what_is_no_value_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        scan_json(text, 0)


def test_escaped_surrogate_pairs_are_one_character():
    assert scan_json(r'"\ud83d\ude00"', 0) == ("\U0001f600", 14)


def test_unknown_words_with_a_dollar_are_ordinary():
    assert from_json_value({"$other": 1}) == {"$other": 1}


# --- frames of strangers ---


def nested(levels):
    return [] if levels == 1 else [nested(levels - 1)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b' [0, 1, "counter.add", ["likes", 1]] \r', [0, 1, "counter.add", ["likes", 1]]),
        (b'[{"$b64": "aGk="}, {"$i64": "9223372036854775807"}]', [b"hi", 2**63 - 1]),
        (b'[{"\\u0024b64": "aGk="}]', [b"hi"]),
        (b'[{"$map": {"$b64": 1}}]', [{"$b64": 1}]),
        (b'"' + b"," * 20_000 + b'"', "," * 20_000),
        (b"[" + b'"a[{:,\\"",' * 3_000 + b"0]", ['a[{:,"'] * 3_000 + [0]),
        (b"[" + b"1," * (VALUES_MAX - 2) + b"1]", [1] * (VALUES_MAX - 1)),
        (b"[" + b"[],{ }," * 8_191 + b"1]", [[], {}] * 8_191 + [1]),
        (b"[" * 32 + b"]" * 32, nested(32)),
    ],
    ids=range(9),
)
def test_what_a_frame_may_be(text, value):
    assert from_json(text) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not JSON"),
        (b"[1,]", "not JSON"),
        (b"[1] [2]", "not JSON"),
        (b"[NaN]", "not JSON"),
        (b"[Infinity]", "not JSON"),
        (b"[1e999]", "not JSON"),
        (b"['a']", "not JSON"),
        (b'["\x01"]', "not JSON"),
        (b'["\\ud800 "]', "not JSON"),
        (b'[{"$b64": "!"}]', "base64"),
        (b'[{"$i64": 5}]', "$i64"),
        (b"9" * 5_000, "not JSON"),
        (b"[" + b"1," * (VALUES_MAX - 1) + b"1]", "values"),
        (b"[" * 17_000, "values"),
        (b'{"a":' * 9_000, "values"),
        (b'"' + b"[" * 20_000, "not JSON"),
        (b"[" * 33 + b"]" * 33, "nested"),
        (b"[" * 1_200 + b"]" * 1_200, "e"),
        (b"[" * 8_000 + b"]" * 8_000, "recursion"),
    ],
    ids=range(19),
)
def test_what_a_frame_must_not_be(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        from_json(text)


@pytest.mark.parametrize("levels", [600, 900, 5_000])
def test_a_typed_value_that_is_too_deep_is_refused(levels):
    with pytest.raises(ValueError, match="nested"):
        scan_json("[" * levels + "]" * levels, 0)


@pytest.mark.parametrize(
    "text",
    [
        b'"' + b'\\"' * 500_000,
        b'"' + b'\\"' * 500_000 + b"\\",
        b'"' + b"," * 1_000_000,
        b"[" + b'",\\n",' * 150_000,
        (b"[" + b" " * 50) * 17_000,
        b"[" * 500_000 + b"," * 500_000,
    ],
    ids=range(6),
)
def test_hostile_text_costs_linear_time(text):
    """One that cost more would not end in an hour."""
    with pytest.raises(ValueError, match=r"JSON|values"):
        from_json(text)
