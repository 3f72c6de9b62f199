"""Values as JSON: an exact round trip for all user data, and refusals that name the trouble."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.wire.jsonform import from_json_value, scan_json, to_json
from tests.wire.values import data, same


@given(data)
def test_user_data_survives_json(value):
    text = to_json(value).decode("utf-8")
    assert "\n" not in text
    decoded, end = scan_json(text, 0)
    assert end == len(text)
    assert same(decoded, value)


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
