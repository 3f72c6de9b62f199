"""The command table: one row declares all that is known of a command.

From the rows come dispatch, validation, `help`, the reference in protocol.md, permission checks,
costs, and the SDK's methods. Policy reads a row's columns; nothing ever asks for a command by
name. A handler module registers its rows with `@command(...)`; `load()` imports them all.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal, NoReturn

from rtserver.commands.kinds import Kind, Shape
from rtserver.errors import INVALID_PARAMS, RtError, shown
from rtserver.session.identity import RANKS

__all__ = ["ROLES", "Access", "Ack", "Command", "Effect", "Param", "Role", "command", "load"]

Role = Literal["anonymous", "user", "service", "admin", "internal"]
ROLES: Final = RANKS
Ack = Literal["memory", "logged", "synced"]
Access = Literal["subscribe", "publish", "presence"]
Handler = Callable[..., Any]
Coalesce = Callable[[Any, list[Any], Any], bool]
Keeper = Callable[[Any, list[Any]], str | None]

_MODULES = ("server", "counter", "board", "sale", "channel", "presence", "internal")
_REQUIRED: Final = object()


class Effect(Enum):
    """What a command does to the world."""

    WRITE = "write"  # changes the state and is logged
    READ = "read"  # reads the state
    SESSION = "session"  # sees the connection and the process; never logged


class Param:
    """One parameter: a name, a kind, and a default (none: it is required)."""

    __slots__ = ("default", "doc", "kind", "name")

    def __init__(self, name: str, kind: Kind, default: Any = _REQUIRED, doc: str = "") -> None:
        self.name = name
        self.kind = kind
        self.default = default
        self.doc = doc

    @property
    def required(self) -> bool:
        return self.default is _REQUIRED


class Command:
    """One row of the table.

    key: the parameter that names the entity, for routing. ack: the default acknowledgement of a
    write. right: the least role. cost: units of a turn's budget, plus one an item of the
    parameter `items` (an array's length or a limit). version: of the handler's meaning, kept in
    each record; `older` holds the handlers of earlier versions for replay. coalesce: for writes
    that may be summed up with others of the turn instead of being logged one by one. access: which
    right of its namespace opens the channel that is named (commands.rights); `right` is then what
    anybody needs. signed: a record says also which back end called. keeper: whose life bounds how
    long its answers to idempotency keys are remembered (None: their age). unproven: may be called
    before it is known who calls, where that must be known. offloaded: the handler may answer with a
    coroutine, whose result is the reply.
    """

    __slots__ = (
        "_checks",
        "_defaults",
        "_places",
        "access",
        "ack",
        "coalesce",
        "cost",
        "effect",
        "handler",
        "is_write",
        "items_place",
        "keeper",
        "key_place",
        "name",
        "noun",
        "offloaded",
        "older",
        "params",
        "rank",
        "returns",
        "right",
        "signed",
        "summary",
        "unproven",
        "version",
    )

    def __init__(
        self,
        name: str,
        effect: Effect,
        handler: Handler,
        *,
        params: Sequence[Param],
        returns: str | Shape,
        summary: str,
        right: Role,
        access: Access | None = None,
        key: str | None = None,
        ack: Ack = "logged",
        cost: int = 1,
        items: str | None = None,
        version: int = 1,
        older: Mapping[int, Handler] | None = None,
        coalesce: Coalesce | None = None,
        offloaded: bool = False,
        unproven: bool = False,
        signed: bool = False,
        keeper: Keeper | None = None,
    ) -> None:
        self.name = name
        self.noun = name.partition(".")[0]
        self.effect = effect
        self.is_write = effect is Effect.WRITE
        self.handler = handler
        self.params = tuple(params)
        self.returns = returns
        self.summary = summary
        self.right = right
        self.rank = ROLES[right]
        self.access: Access | None = access
        self.ack: Ack = ack
        self.cost = cost
        self.version = version
        self.older = dict(older or {})
        self.coalesce = coalesce
        self.offloaded = offloaded
        self.unproven = unproven
        self.signed = signed
        self.keeper = keeper
        self._places = {param.name: place for place, param in enumerate(self.params)}
        self._checks = tuple(param.kind.check for param in self.params)
        self._defaults = [param.default for param in self.params]
        self.key_place = None if key is None else self._places[key]
        self.items_place = None if items is None else self._places[items]

    def bind(self, params: Any) -> list[Any]:
        """The arguments in order, checked and with defaults. Raises RtError invalid_params."""
        if type(params) is list:
            args = params
        elif type(params) is dict:
            args = [params.get(param.name) for param in self.params]
        else:
            raise RtError(INVALID_PARAMS, f"params of {self.name} are an array or a map")
        missing = len(self.params) - len(args)
        if missing:
            if missing < 0:
                raise self._too_many(args)
            args = args + [None] * missing
        defaults = self._defaults
        for place, check in enumerate(self._checks):
            value = args[place]
            if value is None:
                default = defaults[place]
                args[place] = self._missing(place) if default is _REQUIRED else default
                continue
            try:
                args[place] = check(value)
            except ValueError as error:
                raise self._wrong(place, value, error) from None
        return args

    def handler_of(self, version: int) -> Handler | None:
        """The handler that a record of this version was written by; None when it is newer."""
        return self.handler if version == self.version else self.older.get(version)

    def total_cost(self, args: list[Any]) -> int:
        if self.items_place is None:
            return self.cost
        items = args[self.items_place]
        if items is None:
            return self.cost
        return self.cost + (items if type(items) is int else len(items))

    def signature(self) -> str:
        """`board.top(name, limit=100, offset?)`"""
        return f"{self.name}({', '.join(map(_signature, self.params))})"

    def _missing(self, place: int) -> NoReturn:
        name = self.params[place].name
        raise RtError(
            INVALID_PARAMS, f"{name} is missing; {self.signature()} needs it", {"param": name}
        )

    def _wrong(self, place: int, value: Any, error: ValueError) -> RtError:
        name = self.params[place].name
        return RtError(INVALID_PARAMS, f"{name} is {shown(value)}, {error}", {"param": name})

    def _too_many(self, args: list[Any]) -> RtError:
        return RtError(
            INVALID_PARAMS, f"{len(args)} parameters, expected at most those of {self.signature()}"
        )


def _signature(param: Param) -> str:
    if param.required:
        return param.name
    if param.default is None:
        return f"{param.name}?"
    default = repr(param.default).replace("'", '"')
    return f"{param.name}={default.lower() if isinstance(param.default, bool) else default}"


_rows: dict[str, Command] = {}


def command(name: str, effect: Effect, **columns: Any) -> Callable[[Handler], Handler]:
    """Registers a handler as a row of the table; the columns are those of `Command`."""

    def register(handler: Handler) -> Handler:
        if name in _rows:
            raise ValueError(f"two rows are named {name}")
        _rows[name] = Command(name, effect, handler, **columns)
        return handler

    return register


def load() -> Mapping[str, Command]:
    """The whole table by name, noun after noun."""
    for module in _MODULES:
        importlib.import_module(f"rtserver.commands.{module}")
    place = {noun: index for index, noun in enumerate(_MODULES)}
    rows = sorted(_rows.values(), key=lambda row: place.get(row.noun, len(place)))
    return {row.name: row for row in rows}
