"""From plain values of the wire to errors and lists of results: what generated decoders share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from rtclient.errors import (
    Error,
    LimitError,
    RequestError,
    RightsError,
    ServerError,
    StateError,
)
from rtclient.server_errors import ERRORS

__all__ = ["error_of", "many", "or_error"]

T = TypeVar("T")

_GROUPS: Final[dict[int, type[Error]]] = {
    1: RequestError,
    2: StateError,
    3: LimitError,
    4: RightsError,
    5: ServerError,
}


def error_of(raw: list[Any]) -> Error:
    """The error of a reply, [code, name, message, details]; a newer server may know more names
    than we do, then the class is that of the code's group."""
    code, name, message, details = raw
    kind = ERRORS.get(name)
    if kind is not None:
        return kind(message, details)
    return _GROUPS.get(code // 100, Error)(message, details, code=code, name=name)


def many(raw: list[Any], decode: Callable[[Any], T]) -> list[T]:
    """A list, item by item."""
    return [decode(item) for item in raw]


def or_error(decode: Callable[[Any], T] | None) -> Callable[[Any], T | Error]:
    """The decoder of an item that may be {"error": [...]} instead."""

    def item(raw: Any) -> T | Error:
        if type(raw) is dict and len(raw) == 1 and "error" in raw:
            return error_of(raw["error"])
        return raw if decode is None else decode(raw)

    return item
