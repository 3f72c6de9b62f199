"""Where the server is."""

from __future__ import annotations

import pytest

from rtclient.url import Address, parse_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("rt://127.0.0.1:7370", Address("127.0.0.1", 7370, None, None)),
        ("rt://example.org", Address("example.org", 7370, None, None)),
        ("rt://[::1]:99/", Address("::1", 99, None, None)),
        ("rt://ann@host:1", Address("host", 1, "ann", None)),
        ("rt://a%40b:to%3Aken@host", Address("host", 7370, "a@b", "to:ken")),
        ("rts://host", Address("host", 7370, None, None, "rts")),
        ("ws://host:7370", Address("host", 7370, None, None, "ws", "/ws")),
        ("ws://ann@host/", Address("host", 80, "ann", None, "ws", "/ws")),
        ("wss://host/live?a=1", Address("host", 443, None, None, "wss", "/live?a=1")),
        ("rt+unix:///run/rt%20s.sock", Address("", 0, None, None, "rt+unix", "/run/rt s.sock")),
        ("rt+unix://ann:t@/x", Address("", 0, "ann", "t", "rt+unix", "/x")),
        ("unix:/run/rt.sock", Address("", 0, None, None, "rt+unix", "/run/rt.sock")),
    ],
)
def test_what_a_url_names(url, address):
    assert parse_url(url) == address


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://host", "scheme 'http'"),
        ("host:7370", "scheme 'host'"),
        ("rt://", "names no host"),
        ("rt://host:port", "is wrong"),
        ("rt://host:70000", "is wrong"),
        ("rt://host/path", "more than host and port"),
        ("rt://host?x=1", "more than host and port"),
        ("ws://host/ws#x", "fragment"),
        ("rt+unix://host/x", "more than the path"),
        ("unix:", "names no path"),
    ],
)
def test_a_wrong_url_says_what_is_wrong_and_what_was_expected(url, complaint):
    with pytest.raises(ValueError, match="expected rt://") as caught:
        parse_url(url)
    assert complaint in str(caught.value)


def test_without_a_url_the_environment_decides(monkeypatch):
    monkeypatch.delenv("RT_URL", raising=False)
    assert parse_url(None) == Address("127.0.0.1", 7370, None, None)
    monkeypatch.setenv("RT_URL", "rt://elsewhere:1")
    assert parse_url(None) == Address("elsewhere", 1, None, None)
    assert parse_url("rt://here:2") == Address("here", 2, None, None)


@pytest.mark.parametrize(
    "url",
    ["rt://host:1", "rts://[::1]:7370", "ws://host:80/ws", "wss://host:443/a?b", "rt+unix:///x"],
)
def test_an_address_reads_as_its_url_without_the_caller(url):
    assert str(parse_url(url)) == url
    assert str(parse_url(url.replace("://", "://ann:secret@"))) == url
