"""What event streams and long polls ask alike: which channels, from where, joins and leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rtserver.commands.kinds import WATCHABLE
from rtserver.errors import INVALID_PARAMS, RtError, shown
from rtserver.limits import STREAM_CHANNELS_MAX
from rtserver.session.cursor import positions_in
from rtserver.wire.problem import Problem, problem_of
from rtserver.wire.request import Request

__all__ = ["SUBSCRIBE_COST", "Asked", "asked", "refusal"]

SUBSCRIBE_COST = 5
_ALL = frozenset(("1", "true"))


class Asked(NamedTuple):
    """since: where the reader is on each channel, None where the cursor does not name it.
    presence: the channels whose joins and leaves are wanted."""

    since: Mapping[str, Any]
    presence: frozenset[str]


def asked(request: Request, cursor: str | None) -> Asked:
    """What a request with this cursor follows. Raises RtError."""
    channels = list(dict.fromkeys(filter(None, request.query.get("channels", "").split(","))))
    if not 0 < len(channels) <= STREAM_CHANNELS_MAX:
        raise RtError(
            INVALID_PARAMS,
            f"channels names {len(channels)} channels, expected 1 to {STREAM_CHANNELS_MAX},"
            " separated by commas",
            {"param": "channels"},
        )
    for name in channels:
        try:
            WATCHABLE.check(name)
        except ValueError as error:
            raise RtError(
                INVALID_PARAMS,
                f"channels names {shown(name)}, {error}",
                {"param": "channels"},
            ) from None
    try:
        places = positions_in(cursor or "", channels)
    except ValueError as error:
        raise RtError(INVALID_PARAMS, f"the cursor: {error}") from None
    wanted = request.query.get("presence", "")
    presence = channels if wanted in _ALL else wanted.split(",")
    return Asked(
        {name: places.get(name) for name in channels}, frozenset(presence) & frozenset(channels)
    )


def refusal(replies: Mapping[str, Any]) -> Problem | None:
    """Why nothing can be followed; None where at least one channel can."""
    errors = [reply["error"] for reply in replies.values() if "error" in reply]
    return problem_of(errors[0]) if len(errors) == len(replies) else None
