"""The client's address behind proxies: only what trusted ones wrote is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.config import ConfigError
from rtserver.transport.proxies import client_address, trusted_in

PROXIES = trusted_in(["10.0.0.0/8", "::1", "192.0.2.7"])


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.9.9.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.9.9.9", "203.0.113.9"),  # the first is made up
        ("10.0.0.1", "10.1.1.1,10.2.2.2", "10.1.1.1"),  # nobody else there
        ("203.0.113.9", "6.6.6.6", "203.0.113.9"),  # no proxy of ours
        ("::1", "2001:db8::5", "2001:db8::5"),
        ("::1", "[2001:db8::5]:4711", "2001:db8::5"),
        ("::1", "203.0.113.9:4711", "203.0.113.9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, rubbish, 10.9.9.9", "10.0.0.1"),
        ("10.0.0.1", "rubbish, 203.0.113.9", "203.0.113.9"),  # beyond what is believed
        (None, "203.0.113.9", None),
    ],
)
def test_addresses(peer, header, client):
    assert client_address(peer, header, PROXIES) == client


def test_unix_sockets_are_trusted_by_name():
    trusted = trusted_in(["unix", "10.0.0.0/8"])
    assert client_address(None, "203.0.113.9", trusted) == "203.0.113.9"
    assert client_address(None, "203.0.113.9, 10.1.1.1", trusted) == "203.0.113.9"
    assert client_address(None, "rubbish", trusted) is None
    assert client_address("203.0.113.9", "6.6.6.6", trusted) == "203.0.113.9"


def test_nobody_is_trusted_by_default():
    assert client_address("127.0.0.1", "6.6.6.6", trusted_in([])) == "127.0.0.1"


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "proxy.example", "", "unix:/x"])
def test_what_is_no_network_is_refused(text):
    with pytest.raises(ConfigError, match=r"web\.trusted_proxies"):
        trusted_in([text])


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


@given(addresses, st.text(max_size=200))
def test_an_untrusted_peer_is_itself_whatever_it_says(peer, header):
    trusted = trusted_in(["198.51.100.0/24"])
    if not peer.startswith("198.51.100."):
        assert client_address(peer, header, trusted) == peer


@given(st.text(max_size=200), st.lists(addresses, max_size=5))
def test_what_the_client_made_up_never_counts(made_up, hops):
    """Behind one trusted proxy the client is the last hop, whatever stands before it."""
    trusted = trusted_in(["198.51.100.1"])
    header = ", ".join([made_up, *hops, "203.0.113.9"])
    assert client_address("198.51.100.1", header, trusted) == "203.0.113.9"


@given(st.text(max_size=300))
def test_any_header_gives_an_address_or_the_peer(header):
    found = client_address("10.0.0.1", header, PROXIES)
    assert found == "10.0.0.1" or client_address(found, None, PROXIES) == found


def test_a_header_of_thousands_of_proxies_costs_little():
    header = ", ".join(["10.1.1.1"] * 100_000)
    assert client_address("10.0.0.1", header, PROXIES) == "10.1.1.1"
