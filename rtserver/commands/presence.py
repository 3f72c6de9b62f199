"""presence.*: which users are connected, and what they say of themselves."""

from __future__ import annotations

from typing import Any

from rtserver.commands.context import Context
from rtserver.commands.kinds import NAME, NAMES, NOTE, Shape
from rtserver.commands.table import Effect, Param, command
from rtserver.errors import UNAUTHENTICATED, RtError
from rtserver.state.store import Store

USER = Shape(
    "UserPresence",
    user="text",
    status="text",
    note="text?",
    devices="int",
    idle="bool",
    last_seen="int?",
)
USERS = Shape("UserPresences", users="[UserPresence]")


@command(
    "presence.set",
    Effect.SESSION,
    params=[Param("status", NAME), Param("note", NOTE, None)],
    returns=USER,
    right="user",
    summary='Says how the caller is, until she is offline; "idle" speaks of this device only.',
)
def set_status(_store: Store, ctx: Context, status: str, note: str | None) -> dict[str, Any]:
    user = ctx.user
    if user is None:
        raise RtError(UNAUTHENTICATED, "this connection acts for no user, expected one to speak of")
    ctx.router.presence.set(ctx.connection, user, status, note)
    return ctx.router.presence.state(user)


@command(
    "presence.get",
    Effect.READ,
    params=[Param("users", NAMES)],
    returns=USERS,
    items="users",
    right="user",
    summary="How users are, in the order asked; who has no connection is offline.",
)
def get(_store: Store, ctx: Context, users: list[str]) -> dict[str, Any]:
    state = ctx.router.presence.state
    return {"users": [state(user) for user in users]}
