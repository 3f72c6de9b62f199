"""From plain values of the wire to errors and to lists and maps of results: what generated decoders
share."""

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

__all__ = ["error_of", "many", "many_by_name", "many_or_errors"]

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


def many_by_name(raw: dict[str, Any], decode: Callable[[Any], T]) -> dict[str, T]:
    """A map, value by value."""
    return {name: decode(item) for name, item in raw.items()}


def many_or_errors(raw: list[Any], decode: Callable[[Any], T] | None) -> list[T | Error]:
    """A list of items that may each be {"error": [...]} instead."""
    if decode is None:
        return [
            item if type(item) is int or not _is_error(item) else error_of(item["error"])
            for item in raw
        ]
    return [error_of(item["error"]) if _is_error(item) else decode(item) for item in raw]


def _is_error(item: Any) -> bool:
    return type(item) is dict and len(item) == 1 and "error" in item
