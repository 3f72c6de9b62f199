"""Who may do what: one table of rows (command, names, role), the first that fits decides.

The rows of the configuration come first, then those below, then what the namespace of a channel
opens (`access`), then the command's own `right`. Default deny: what nothing opens is for services.
Rows bind users and whoever says nothing; services may do all but administration. A pattern is
compared part by part, the parts of watched names decoded, so that nobody reaches another's inbox
by spelling a name in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from rtserver.commands.table import ROLES, Access, Command
from rtserver.config import RightsRow
from rtserver.errors import FORBIDDEN, RtError
from rtserver.state.settings import ChannelRules

__all__ = ["Rights"]

_SERVICE_RANK = ROLES["service"]
_SELF = "$self"
_REST = "*"

_DEFAULTS = (
    RightsRow(command="channel.*", name="$inbox:$self", role="user"),
    RightsRow(command="channel.*", name="$presence:*", role="user"),
)


class Rights:
    """The table in force. `rules` tells how the channels of a name's namespace behave."""

    def __init__(
        self,
        table: Mapping[str, Command],
        rows: Sequence[RightsRow],
        rules: Callable[[str], ChannelRules],
    ) -> None:
        self._rules = rules
        self._rows = {
            name: [
                (_parts(row.name), row.role)
                for row in (*rows, *_DEFAULTS)
                if _covers(row.command, name)
            ]
            for name in table
        }

    def check(self, command: Command, args: list[Any], rank: int, user: str | None) -> None:
        """Raises RtError forbidden where the caller lacks the role that is needed."""
        if rank >= _SERVICE_RANK:
            role: str = command.right
            name = None
        else:
            name = None if command.key_place is None else args[command.key_place]
            role = self._needed(command.name, name, user, command.access) or command.right
        if rank < ROLES[role]:
            raise _forbidden(command.name, name, role)

    def check_access(
        self, access: Access, command: str, channel: str, rank: int, user: str | None
    ) -> None:
        """The same for a channel among several that a command names."""
        if rank >= _SERVICE_RANK:
            return
        role = self._needed(command, channel, user, access) or "service"
        if rank < ROLES[role]:
            raise _forbidden(command, channel, role)

    def _needed(
        self, command: str, name: Any, user: str | None, access: Access | None
    ) -> str | None:
        """The role that a row or the namespace asks for; None: the command's own."""
        rows = self._rows[command]
        if rows:
            parts = [] if name is None else _parts_of(name)
            for pattern, role in rows:
                if _fits(pattern, parts, user):
                    return role
        if access is None:
            return None
        if name.startswith("$"):
            return "service"
        role = getattr(self._rules(name), access)
        assert type(role) is str, "rules name roles"
        return role


def _covers(pattern: str, command: str) -> bool:
    return command.startswith(pattern[:-1]) if pattern.endswith(_REST) else command == pattern


def _parts(pattern: str) -> list[str]:
    return pattern.split(":")


def _parts_of(name: str) -> list[str]:
    """The parts of a name; those of a watched one decoded."""
    head, *rest = name.split(":")
    return [head, *map(unquote, rest)] if head.startswith("$") else [head, *rest]


def _fits(pattern: list[str], parts: list[str], user: str | None) -> bool:
    """Whether a name is one of the pattern's: `*` alone is any name and none, at the end of a
    part it is any rest."""
    if pattern == [_REST]:
        return True
    last = len(pattern) - 1
    for place, expected in enumerate(pattern):
        if place >= len(parts):
            return False
        part = parts[place]
        if expected == _SELF:
            if user is None or part != user:
                return False
        elif place == last and expected.endswith(_REST):
            return part.startswith(expected[:-1])
        elif part != expected:
            return False
    return len(parts) == len(pattern)


def _forbidden(command: str, name: str | None, role: str) -> RtError:
    on = "" if name is None else f" on {name!r}"
    return RtError(
        FORBIDDEN,
        f"{command}{on} needs the role {role}",
        {"role": role, "command": command, "name": name},
    )
