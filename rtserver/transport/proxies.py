"""Whose request it is when a proxy hands it on: the client's address from X-Forwarded-For.

Each proxy appends the address that it was called from, so the header is believed from its right end
and only as far as trusted proxies wrote it: the first address that is no trusted proxy's is the
client's. What stands further left may be anything the client made up.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from rtserver.config import parse_network

__all__ = ["Trusted", "client_address", "trusted_in"]

Trusted = frozenset[IPv4Network | IPv6Network | None]  # None: peers on unix sockets

_HOPS_MAX = 32  # of a header; who is asked for more was not called by proxies


def trusted_in(networks: Iterable[str]) -> Trusted:
    """The networks of `web.trusted_proxies`. Raises ConfigError."""
    return frozenset(map(parse_network, networks))


def client_address(peer: str | None, forwarded_for: str | None, trusted: Trusted) -> str | None:
    """The address that a request came from: the peer's, or the one that trusted proxies say.
    A header that does not make sense counts for nothing."""
    if forwarded_for is None or not trusted:
        return peer
    found = None if peer is None else _parse(peer)
    if not _is_trusted(found, trusted) or (found is None and peer is not None):
        return peer
    for hop in reversed(forwarded_for.rsplit(",", _HOPS_MAX)[-_HOPS_MAX:]):
        found = _parse(hop.strip())
        if found is None:
            return peer
        if not _is_trusted(found, trusted):
            break
    return str(found)


def _is_trusted(address: IPv4Address | IPv6Address | None, trusted: Trusted) -> bool:
    if address is None:
        return None in trusted
    return any(network is not None and address in network for network in trusted)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """An address as proxies write it: also in brackets, also with a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
