"""Who may do what: one table of rows (command, names, role), the first that fits decides.

The rows of the configuration come first, then those below, then what the namespace of a channel
opens (`access`), then the command's own `right`. Default deny: what nothing opens is for services.
Rows bind users and whoever says nothing; services may do all but administration. What is said of a
command holds for its `*_many` too. A name is compared part by part, the parts of watched names
decoded, so that nobody reaches another's inbox by spelling a name in another way.

The table is compiled once: a check costs a look at the few rows of its command.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any
from urllib.parse import unquote

from rtserver.commands.table import ROLES, Access, Command
from rtserver.config import ConfigError, RightsRow
from rtserver.errors import FORBIDDEN, RtError
from rtserver.session.watches import parts_of
from rtserver.state.settings import ChannelRules
from rtserver.wire.names import encode_part

__all__ = ["Rights", "check_rows"]

_SERVICE_RANK = ROLES["service"]
_SELF = "$self"
_REST = "*"
_MANY = "_many"

_DEFAULTS = (
    RightsRow(command="channel.subscribe", name="$inbox:$self", role="user"),
    RightsRow(command="channel.subscribe", name="$presence:*", role="user"),
    RightsRow(command="channel.subscribe", name="$sale:*:user:$self", role="user"),
    RightsRow(command="channel.subscribe", name="$sale:*:*", role="service"),  # all else within one
    RightsRow(command="channel.subscribe", name="$sale:*", role="user"),
)


class _Stand(Enum):
    """What a part of a pattern stands for, if not for itself."""

    CALLER = 1
    ANY = 2


class _Names:
    """A pattern of names. A part `$self` stands for the caller, percent-encoded as in every name; a
    part `*` before others for any one part; a `*` at the end for any rest, alone for any name and
    none."""

    __slots__ = ("_is_open", "_parts", "is_any")

    def __init__(self, pattern: str) -> None:
        self.is_any = pattern == _REST
        self._is_open = pattern.endswith(_REST)
        parts = pattern.removesuffix(_REST).split(":")
        decode = unquote if parts[0].startswith("$") and parts[0] != _SELF else str
        stands_for: dict[str, _Stand] = {_SELF: _Stand.CALLER, _REST: _Stand.ANY}
        self._parts = [stands_for.get(part) or decode(part) for part in parts]

    def fit(self, name: str, user: str | None) -> bool:
        """Whether the name is one of these for that caller."""
        if self.is_any:
            return True
        if name.startswith("$"):
            head, *rest = parts_of(name)
            parts, caller = ["$" + head, *rest], user
        else:
            parts, caller = name.split(":"), None if user is None else encode_part(user)
        last = len(self._parts) - 1
        if len(parts) <= last or (len(parts) > last + 1 and not self._is_open):
            return False
        for place, expected in enumerate(self._parts):
            part = parts[place]
            if expected is _Stand.CALLER:
                if caller is None or part != caller:
                    return False
            elif expected is _Stand.ANY:
                continue
            elif place == last and self._is_open:
                return part.startswith(expected)
            elif part != expected:
                return False
        return True


class Rights:
    """The table in force. `rules` tells how the channels of a name's namespace behave."""

    def __init__(
        self,
        table: Mapping[str, Command],
        rows: Sequence[RightsRow],
        rules: Callable[[str], ChannelRules],
    ) -> None:
        self._rules = rules
        compiled = [(row.command, _Names(row.name), row.role) for row in (*rows, *_DEFAULTS)]
        self._rows = {
            name: tuple(
                (names, role) for pattern, names, role in compiled if _covers(pattern, name)
            )
            for name in table
        }

    def check(self, command: Command, args: list[Any], rank: int, user: str | None) -> None:
        """Raises RtError forbidden where the caller lacks the role that is needed."""
        if rank >= _SERVICE_RANK and rank >= command.rank:
            return
        name = None if command.key_place is None else args[command.key_place]
        role = self._needed(command, name, user)
        if rank < ROLES[role]:
            raise _forbidden(command.name, name, role)

    def check_access(
        self, access: Access, command: str, channel: str, rank: int, user: str | None
    ) -> None:
        """The same for one channel among several, as `command` would be checked on it."""
        if rank >= _SERVICE_RANK:
            return
        role = self._row_for(command, channel, user) or self._opened(access, channel)
        if rank < ROLES[role]:
            raise _forbidden(command, channel, role)

    def _needed(self, command: Command, name: str | None, user: str | None) -> str:
        if name is not None:
            role = self._row_for(command.name, name, user)
            if role is None and command.access is not None:
                role = self._opened(command.access, name)
        elif command.access is not None:
            role = None  # its handler has each item checked
        else:
            role = self._row_for_many(command.name)
        return role or command.right

    def _row_for(self, command: str, name: str, user: str | None) -> str | None:
        for names, role in self._rows[command]:
            if names.fit(name, user):
                return role
        return None

    def _row_for_many(self, command: str) -> str | None:
        """A command that names nothing or many things needs what the strictest row asks, up to
        the one that is for all names; without that one, no row opens it."""
        strictest = "anonymous"
        for names, role in self._rows[command]:
            strictest = max(strictest, role, key=ROLES.__getitem__)
            if names.is_any:
                return strictest
        return None

    def _opened(self, access: Access, channel: str) -> str:
        if channel.startswith("$"):
            return "service"
        role = getattr(self._rules(channel), access)
        assert type(role) is str, "rules name roles"
        return role


def check_rows(table: Mapping[str, Command], rows: Sequence[RightsRow]) -> None:
    """Raises ConfigError for a row that covers no command or whose names nobody has."""
    for place, row in enumerate(rows):
        where = f"rights[{place}]"
        if not any(_covers(row.command, name) for name in table):
            near = difflib.get_close_matches(row.command, table, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{where}.command is {row.command!r}, which is no command{hint}")
        command = table.get(row.command)
        if command is not None and command.access is not None and command.key_place is None:
            raise ConfigError(
                f"{where}.command is {row.command!r}, whose items are checked one by one: write"
                f" {row.command.removesuffix(_MANY)!r}"
            )
        for part in row.name.split(":"):
            if _SELF in part and part != _SELF:
                raise ConfigError(
                    f"{where}.name is {row.name!r}, expected $self as a whole part between colons"
                )


def _covers(pattern: str, command: str) -> bool:
    single = command.removesuffix(_MANY)
    if pattern.endswith(_REST):
        return command.startswith(pattern[:-1]) or single.startswith(pattern[:-1])
    return pattern in (command, single)


def _forbidden(command: str, name: str | None, role: str) -> RtError:
    on = "" if name is None else f" on {name!r}"
    return RtError(
        FORBIDDEN,
        f"{command}{on} needs the role {role}",
        {"role": role, "command": command, "name": name},
    )
