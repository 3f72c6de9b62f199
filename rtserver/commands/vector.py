"""Vector commands: many items in one request, applied in order, each on its own.

A failed item leaves `{"error": [...]}` in its place and does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rtserver.commands.kinds import Kind
from rtserver.errors import INVALID_PARAMS, RtError, shown

__all__ = ["Failed", "Item", "attempt", "each"]


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


def attempt(apply: Callable[[Any], Any], item: Any) -> Any:
    """The same for one item."""
    return each([item], apply)[0]


class Item:
    """What one item of a vector is: an array of named fields, of which optional ones may be left
    out as nil."""

    __slots__ = ("_checks", "_kinds", "_names")

    def __init__(self, **fields: Kind) -> None:
        self._names = tuple(fields)
        self._kinds = tuple(fields.values())
        self._checks = tuple(kind.check for kind in self._kinds)

    def read(self, item: Any) -> list[Any]:
        """The checked fields of an item. Raises RtError invalid_params."""
        checks = self._checks
        if type(item) is list and len(item) == len(checks):
            try:
                return [check(value) for check, value in zip(checks, item, strict=True)]
            except ValueError:
                pass  # the slow way finds out which field it was, or that one is left out
        return self._read_each(item)

    def _read_each(self, item: Any) -> list[Any]:
        if type(item) is not list or len(item) > len(self._names):
            raise RtError(
                INVALID_PARAMS, f"an item is [{', '.join(self._names)}], not {shown(item)}"
            )
        values: list[Any] = []
        for place, (name, kind) in enumerate(zip(self._names, self._kinds, strict=True)):
            value = item[place] if place < len(item) else None
            if value is None and not kind.optional:
                raise RtError(INVALID_PARAMS, f"{name} is missing in {shown(item)}")
            try:
                values.append(None if value is None else kind.check(value))
            except ValueError as error:
                raise RtError(
                    INVALID_PARAMS, f"{name} is {shown(value)}, {error}", {"param": name}
                ) from None
        return values
