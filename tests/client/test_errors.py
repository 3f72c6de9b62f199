"""Errors: one class each, by group, picklable, and open to names of a newer server."""

from __future__ import annotations

import copy
import pickle

import pytest

import rtclient
from rtclient.decode import error_of, many_or_errors
from rtserver.errors import ERRORS, RtError

GROUPS = {
    1: rtclient.RequestError,
    2: rtclient.StateError,
    3: rtclient.LimitError,
    4: rtclient.RightsError,
    5: rtclient.ServerError,
}
CLASSES = {error.name: error for group in GROUPS.values() for error in group.__subclasses__()}


@pytest.mark.parametrize("kind", ERRORS.values(), ids=lambda kind: kind.name)
def test_every_error_of_the_server_has_its_class(kind):
    error = error_of(RtError(kind, "it is so", {"param": "name"}).as_wire())
    assert type(error) is CLASSES[kind.name]
    assert isinstance(error, GROUPS[kind.code // 100])
    assert (error.code, error.name, error.retryable) == (kind.code, kind.name, kind.retryable)
    assert (error.message, error.details) == ("it is so", {"param": "name"})
    assert (error.advice, type(error).__doc__) == (kind.advice, kind.advice)
    assert getattr(rtclient, type(error).__name__) is type(error)
    assert str(error) == f"{kind.name}: it is so"


def test_an_error_of_a_newer_server_belongs_to_its_group():
    error = error_of([299, "sold_out_tomorrow", "come back", None])
    assert type(error) is rtclient.StateError
    assert (error.code, error.name, error.retryable) == (299, "sold_out_tomorrow", False)
    assert type(error_of([999, "odd", "?", None])) is rtclient.Error


@pytest.mark.parametrize(
    "error",
    [
        rtclient.NotFound("no board 'x'", {"name": "x"}),
        rtclient.OutcomeUnknown("who knows", retryable=False),
        rtclient.Timeout("too slow"),
        rtclient.ConnectionLost("gone", {"code": 4500}, retryable=True),
        rtclient.StateError("new", None, code=299, name="new_name"),
    ],
    ids=lambda error: error.name,
)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_can_be_pickled_and_copied(error, again):
    other = again(error)
    assert type(other) is type(error)
    assert other is not error
    assert str(other) == str(error)
    for field in ("code", "name", "retryable", "details", "message", "args"):
        assert getattr(other, field) == getattr(error, field)


def test_timeouts_and_lost_connections_are_also_the_builtin_ones():
    assert issubclass(rtclient.Timeout, TimeoutError)
    assert issubclass(rtclient.ConnectionLost, ConnectionError)
    assert issubclass(rtclient.Timeout, rtclient.Error)


def test_an_item_is_a_result_or_an_error():
    refused = {"error": [200, "not_found", "no", None]}
    about_errors = {"error": 1, "rank": 2}
    plain = many_or_errors([5, about_errors, refused], None)
    assert plain[:2] == [5, about_errors]
    decoded = many_or_errors([about_errors, refused], len)
    assert decoded[0] == 2
    assert isinstance(plain[2], rtclient.NotFound)
    assert isinstance(decoded[1], rtclient.NotFound)
