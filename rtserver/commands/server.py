"""server.*: the conversation itself, and the process."""

from __future__ import annotations

import secrets
from collections.abc import Coroutine, Mapping
from typing import Any

from rtserver import PROTOCOL_VERSION
from rtserver.commands.channel import drop_forbidden, follow
from rtserver.commands.context import Context
from rtserver.commands.kinds import (
    NAME,
    POSITIONS,
    TEXT,
    TTL_MS,
    UINT,
    WATCHABLE,
    Shape,
    at_most,
    one_of,
)
from rtserver.commands.table import ROLES, Effect, Param, command
from rtserver.errors import (
    CONFLICT,
    FORBIDDEN,
    LIMIT_REACHED,
    UNAUTHENTICATED,
    UNSUPPORTED_VERSION,
    RtError,
)
from rtserver.session.identity import Identity
from rtserver.session.sessions import Place
from rtserver.state.store import Store

HELLO = Shape(
    "Hello",
    session="text",
    user="text?",
    expires_at="int?",
    resumed="bool",
    channels="{Subscribed}",
    version="int",
    heartbeat_ms="int?",
    limits="{int}",
)
IDENTITY = Shape("Authenticated", user="text?", role="text", expires_at="int?")
KICKED = Shape("Kicked", ended="int")
PONG = Shape("Pong", now="int")
TIME = Shape("ServerTime", now="int", wall="int", offset_ms="int", manual="bool")
JUMPED = Shape("Jumped", jumped_ms="int", now="int")
SNAPSHOT = Shape("SnapshotDone", name="text", seq="int", bytes="int", created="bool")

_ENDS_TURN = 1_000  # a cost that makes the reader ask whether the turn goes on
_HEARTBEAT_MIN_MS = 1_000
_HEARTBEAT_MAX_MS = 3_600_000
_BLOCK_MAX_MS = 30 * 86_400_000
_JITTER_SHARE = 5  # of a heartbeat that chance takes away, at most
_ROLES_BY_RANK = {rank: role for role, rank in ROLES.items()}


@command(
    "server.hello",
    Effect.SESSION,
    params=[
        Param("client", NAME, None),
        Param("user", NAME, None),
        Param("token", TEXT, None),
        Param("role", one_of("anonymous", "user", "service", "admin"), None),
        Param("session", NAME, None),
        Param("positions", POSITIONS, None),
        Param("version", UINT, PROTOCOL_VERSION),
        Param("heartbeat_ms", at_most(_HEARTBEAT_MAX_MS, _HEARTBEAT_MIN_MS), None),
    ],
    returns=HELLO,
    items="positions",
    cost=10,
    right="anonymous",
    unproven=True,
    summary="Says who is there, negotiates version and heartbeat, resumes channels by position.",
)
def hello(
    _store: Store,
    ctx: Context,
    client: str | None,
    user: str | None,
    token: str | None,
    role: str | None,
    session: str | None,
    positions: dict[str, list[Any]] | None,
    version: int,
    heartbeat_ms: int | None,
) -> dict[str, Any]:
    if version != PROTOCOL_VERSION:
        raise RtError(
            UNSUPPORTED_VERSION,
            f"version is {version}, this server speaks {PROTOCOL_VERSION}",
            {"versions": [PROTOCOL_VERSION]},
        )
    connection = ctx.connection
    _check_count(positions, ctx.host.subscriptions_max)
    _introduce(ctx, token, user, role)
    connection.client = client or connection.client
    connection.heartbeat_ms = heartbeat_ms or connection.heartbeat_ms
    asked_ms = connection.heartbeat_ms
    places = _resume(ctx, session)
    return {
        "session": connection.session,
        "user": connection.user,
        "expires_at": connection.expires_at,
        "resumed": places is not None,
        "channels": _follow(ctx, places or {}, positions or {}),
        "version": PROTOCOL_VERSION,
        "heartbeat_ms": None if asked_ms is None else _jittered(asked_ms),
        "limits": ctx.host.hello_limits(),
    }


def _introduce(ctx: Context, token: str | None, user: str | None, role: str | None) -> None:
    """Decides for whom the connection acts from now on. Raises RtError, and nothing changed."""
    host = ctx.host
    identity = ctx.connection.identity if token is None else _shown(ctx, token)
    if identity.rank == ROLES["anonymous"] and host.must_prove:
        raise RtError(UNAUTHENTICATED, "token is missing: this server wants to know who is there")
    if role is not None:
        _check_role(identity.rank, role)
        identity = identity._replace(rank=ROLES[role])
    if user is not None and user != identity.user:
        if not host.dev:
            raise RtError(
                FORBIDDEN,
                f"user is {user!r}, and only --dev believes that: show a token whose sub it is",
                {"user": user},
            )
        identity = identity._replace(user=user)
    host.blocks.check(identity.user, None, ctx.now)
    _act_as(ctx, identity)


def _shown(ctx: Context, token: str) -> Identity:
    """Whose token it is; a connection that acts for somebody goes on for that party only."""
    identity = ctx.host.identify(token)
    present = ctx.connection.identity
    if present.is_somebody and present.party != identity.party:
        raise RtError(
            CONFLICT,
            f"the token is of {identity.party}, this connection acts for {present.party}: open"
            " another one",
        )
    return identity


def _act_as(ctx: Context, identity: Identity) -> None:
    connection = ctx.connection
    may_less = identity.rank < connection.rank
    ctx.host.act_as(connection, identity)
    ctx.enter(connection)
    if may_less:
        drop_forbidden(ctx)


def _resume(ctx: Context, session: str | None) -> Mapping[str, Place] | None:
    """Goes on with the session that is named, or with the connection's own, or begins one."""
    sessions = ctx.host.sessions
    connection = ctx.connection
    if session is not None and session != connection.session:
        places = sessions.resume(session, connection, ctx.now)
        if places is not None:
            return places
    if connection.session is None:
        sessions.open(connection, ctx.now)
    return None


def _follow(
    ctx: Context, places: Mapping[str, Place], positions: Mapping[str, Any]
) -> dict[str, Any]:
    """Subscribes what the session had and what the client names, who knows best where it is."""
    since = {name: place.position for name, place in places.items()}
    presence = [name for name, place in places.items() if place.presence]
    return follow(ctx, {**since, **positions}, presence)


def _jittered(heartbeat_ms: int) -> int:
    """A little less, each time another: those who connected together shall not ping together."""
    return heartbeat_ms - secrets.randbelow(heartbeat_ms // _JITTER_SHARE)


def _check_role(rank: int, role: str | None) -> None:
    """A connection may give rights up, not take more."""
    if role is not None and ROLES[role] > rank:
        raise RtError(
            FORBIDDEN,
            f"role is {role!r}, this connection has the role {_ROLES_BY_RANK[rank]!r}",
            {"role": role},
        )


def _check_count(positions: dict[str, Any] | None, bound: int) -> None:
    if positions is not None and len(positions) > bound:
        raise RtError(LIMIT_REACHED, f"{len(positions)} positions, at most {bound} subscriptions")


@command(
    "server.auth",
    Effect.SESSION,
    params=[Param("token", TEXT)],
    returns=IDENTITY,
    cost=10,
    right="anonymous",
    unproven=True,
    summary="Shows a fresh token of the same user before the last one expires.",
)
def auth(_store: Store, ctx: Context, token: str) -> dict[str, Any]:
    if not ctx.connection.pushes:
        raise RtError(
            CONFLICT,
            "an HTTP call has no connection that goes on: show the token as Authorization: Bearer,"
            " or to server.hello for a new session",
        )
    identity = _shown(ctx, token)
    ctx.host.blocks.check(identity.user, None, ctx.now)
    _act_as(ctx, identity)
    return {
        "user": identity.user,
        "role": _ROLES_BY_RANK[identity.rank],
        "expires_at": identity.expires_at,
    }


@command(
    "server.kick",
    Effect.SESSION,
    params=[
        Param("user", NAME),
        Param("channel", WATCHABLE, None),
        Param("block_ms", at_most(_BLOCK_MAX_MS, 0), 0),
    ],
    returns=KICKED,
    cost=100,
    right="service",
    summary="Closes a user's connections, or ends what she hears of a channel, and keeps her out.",
)
def kick(
    _store: Store, ctx: Context, user: str, channel: str | None, block_ms: int
) -> dict[str, int]:
    return {"ended": ctx.host.kick(user, channel, block_ms)}


@command(
    "server.ping",
    Effect.SESSION,
    params=[],
    returns=PONG,
    right="anonymous",
    unproven=True,
    summary="Answers at once with the server's time.",
)
def ping(_store: Store, ctx: Context) -> dict[str, int]:
    return {"now": ctx.now}


@command(
    "server.info",
    Effect.SESSION,
    params=[],
    returns="data",
    right="anonymous",
    summary="What this server is: versions, compiled modules, limits, where it keeps data.",
)
def info(_store: Store, ctx: Context) -> dict[str, Any]:
    return ctx.host.info()


@command(
    "server.stats",
    Effect.SESSION,
    params=[],
    returns="data",
    right="admin",
    summary="What it holds and has done: entities, connections, log, turns, errors by name.",
)
def stats(_store: Store, ctx: Context) -> dict[str, Any]:
    return ctx.host.stats()


@command(
    "server.time",
    Effect.SESSION,
    params=[],
    returns=TIME,
    right="anonymous",
    unproven=True,
    summary="The server's time and how far the system's wall clock is ahead of it.",
)
def time(_store: Store, ctx: Context) -> dict[str, Any]:
    return ctx.host.time()


@command(
    "server.accept_time",
    Effect.SESSION,
    params=[],
    returns=JUMPED,
    cost=_ENDS_TURN,
    right="admin",
    summary="Takes over a wall clock that is ahead, and ends the alarm about the difference.",
)
def accept_time(_store: Store, ctx: Context) -> dict[str, int]:
    return ctx.host.accept_time()


@command(
    "server.advance",
    Effect.SESSION,
    params=[Param("ms", TTL_MS)],
    returns=JUMPED,
    cost=_ENDS_TURN,
    right="admin",
    summary="Moves the time forward (only with serve --manual-clock); what is due fires next.",
)
def advance(_store: Store, ctx: Context, ms: int) -> dict[str, int]:
    return ctx.host.advance(ms)


@command(
    "server.snapshot",
    Effect.SESSION,
    params=[],
    returns=SNAPSHOT,
    right="admin",
    offloaded=True,
    summary="Makes a snapshot by a separate process and answers when it is verified.",
)
def snapshot(_store: Store, ctx: Context) -> Coroutine[Any, Any, dict[str, Any]]:
    return ctx.host.snapshot()
