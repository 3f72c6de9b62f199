"""Lines of text: words, named words, JSON values."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.wire.inline import encode_error, encode_push, encode_reply, parse_line
from rtserver.wire.jsonform import to_json
from tests.wire.values import data, same

names = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)


@given(st.lists(data, max_size=4), st.dictionaries(names, data, max_size=4))
def test_values_written_as_json_come_back(positional, named):
    words = ["noun.verb", *(to_json(value).decode() for value in positional)]
    words += [f"{name}={to_json(value).decode()}" for name, value in named.items()]
    method, values, by_name = parse_line(" ".join(words))
    assert method == "noun.verb"
    assert same(values, positional)
    assert same(by_name, named)


@given(st.text(max_size=60))
def test_any_line_parses_or_says_why(line):
    with contextlib.suppress(ValueError):
        parse_line(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("server.ping", ("server.ping", [], {})),
        ("  counter.add\tlikes:42  3 ", ("counter.add", ["likes:42", 3], {})),
        ("counter.add a delta=-5", ("counter.add", ["a"], {"delta": -5})),
        ('counter.get "42"', ("counter.get", ["42"], {})),
        ("counter.get 42", ("counter.get", [42], {})),
        ('m "a=b" a=b', ("m", ["a=b"], {"a": "b"})),
        ('m a="two words" true null', ("m", [True, None], {"a": "two words"})),
        ('m {"a": [1, 2]} x', ("m", [{"a": [1, 2]}, "x"], {})),
        ("m 12:30 5kg 1.5 -", ("m", ["12:30", "5kg", 1.5, "-"], {})),
        ("m a= b", ("m", ["b"], {"a": ""})),
        ("m A=1 =5 1=2", ("m", ["A=1", "=5", "1=2"], {})),
        ("m NaN", ("m", ["NaN"], {})),
    ],
)
def test_lines(line, expected):
    assert parse_line(line) == expected


@pytest.mark.parametrize("line", ['m "open', "m {a}", 'm {"a":', "m [1", 'm "a"b', "", "   "])
def test_half_written_values_are_refused(line):
    with pytest.raises(ValueError, match=r"."):
        parse_line(line)


def test_answers_are_lines():
    assert encode_reply(0, {"a": b"x\n"}) == b'{"a":{"$b64":"eAo="}}\n'
    assert encode_error(None, [103, "invalid_params", "no", None]).startswith(b'![103,"inv')
    assert encode_push("message", {"data": "a\nb"}) == b'>[2,"message",{"data":"a\\nb"}]\n'
