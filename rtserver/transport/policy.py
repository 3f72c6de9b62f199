"""Who may speak to this server over HTTP: Host, Origin, proxies, and who a request says it is.

A browser sends requests wherever a page asks for it, so every route is guarded: a page of another
origin is refused unless it is allowed, a name that this server is not called by is refused where
names are configured (DNS rebinding), and in development mode only loopback names are good and
nothing may come through a proxy.
"""

from __future__ import annotations

from collections.abc import Mapping

from rtserver.config import WebConfig
from rtserver.wire.http import host_name
from rtserver.wire.problem import Problem
from rtserver.wire.request import Request

__all__ = ["PREFLIGHT", "check", "credentials", "sharing"]

_ANY = "*"
_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))
_FORWARDING = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_BEARER = "bearer "

# The answer to a preflight (Fetch standard, section 3.3) beside the allowed origin.
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST",
    "Access-Control-Allow-Headers": (
        "Content-Type, Authorization, Idempotency-Key, Rt-Session, Last-Event-ID"
    ),
    "Access-Control-Max-Age": "600",
}


def check(request: Request, web: WebConfig, *, dev: bool) -> None:
    """Raises Problem where the request must not be answered."""
    host = request.header("host")
    name = None if host is None else host_name(host)
    if dev:
        for header in _FORWARDING:
            if header in request.headers:
                raise Problem(403, f"a request with {header} came through a proxy")
        if name is not None and name not in _LOCAL_NAMES:
            raise Problem(403, f"Host is {host!r}, expected a loopback name in development mode")
    elif web.hosts and name not in [known.lower() for known in web.hosts]:
        raise Problem(403, f"Host is {host!r}, expected one of web.hosts")
    origin = request.header("origin")
    if origin is not None:
        if not _is_allowed(origin, host, web, dev=dev):
            raise Problem(403, f"Origin is {origin!r}, which may not use this server (web.origins)")
    elif request.header("sec-fetch-site") == "cross-site" and not _is_harmless(request, web):
        # What a page loads as an image or a script carries no Origin.
        raise Problem(403, "a page of another site asked for it, and did not say which")


def _is_allowed(origin: str, host: str | None, web: WebConfig, *, dev: bool) -> bool:
    scheme, _, authority = origin.lower().partition("://")
    if dev:
        return host_name(authority) in _LOCAL_NAMES
    if _ANY in web.origins or origin.lower() in map(str.lower, web.origins):
        return True
    if host is None or scheme not in _DEFAULT_PORTS:
        return False
    port = _DEFAULT_PORTS[scheme]
    return authority.removesuffix(port) == host.lower().removesuffix(port)


def _is_harmless(request: Request, web: WebConfig) -> bool:
    """Somebody followed a link, or any site may ask."""
    return request.header("sec-fetch-mode") == "navigate" or _ANY in web.origins


def sharing(request: Request, web: WebConfig) -> Mapping[str, str]:
    """The headers that let the page of an allowed request read the answer."""
    origin = request.header("origin")
    if origin is None:
        return {"Vary": "Origin"}
    return {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": _ANY if _ANY in web.origins else origin,
        "Access-Control-Expose-Headers": "Retry-After",
    }


def credentials(request: Request) -> tuple[str | None, str | None]:
    """(token of RFC 6750 section 2.1, session id) that the request shows."""
    value = request.header("authorization") or ""
    token = value[len(_BEARER) :].strip() if value.lower().startswith(_BEARER) else None
    return token, request.header("rt-session") or request.query.get("session")
