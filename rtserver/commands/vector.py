"""Vector commands: many items in one request, applied in order, each on its own.

A failed item leaves `{"error": [...]}` in its place and does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rtserver.commands.kinds import Kind
from rtserver.errors import INVALID_PARAMS, RtError

__all__ = ["Failed", "each", "fields"]


class Failed(dict[str, Any]):
    """The place of an item that failed; a map on the wire."""

    def __init__(self, error: RtError) -> None:
        super().__init__(error=error.as_wire())


def each(items: list[Any], apply: Callable[[Any], Any]) -> list[Any]:
    """apply(item) for each item in order; a Failed where it raised RtError."""
    results: list[Any] = []
    for item in items:
        try:
            results.append(apply(item))
        except RtError as error:
            results.append(Failed(error))
    return results


def fields(item: Any, names: tuple[str, ...], kinds: tuple[Kind, ...]) -> list[Any]:
    """The checked fields of an item that is an array; trailing ones may be left out as nil."""
    if type(item) is not list or len(item) > len(kinds):
        raise RtError(INVALID_PARAMS, f"an item is [{', '.join(names)}], not {item!r:.80}")
    values: list[Any] = []
    for place, kind in enumerate(kinds):
        value = item[place] if place < len(item) else None
        if value is None:
            if not kind.optional:
                raise RtError(INVALID_PARAMS, f"{names[place]} is missing in {item!r:.80}")
            values.append(None)
            continue
        try:
            values.append(kind.check(value))
        except ValueError as error:
            raise RtError(
                INVALID_PARAMS, f"{names[place]} is {value!r:.80}, {error}", {"param": names[place]}
            ) from None
    return values
