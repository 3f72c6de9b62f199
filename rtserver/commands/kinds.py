"""Kinds of parameters and shapes of results: the vocabulary of the command table.

A `Kind` checks one value that a client sent and gives it a name in the reference; a `Shape` names
the fields of a result. Validation, `help`, protocol.md and the SDK are all made from these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rtserver.limits import (
    INT64_MAX,
    INT64_MIN,
    LIST_MAX,
    META_BYTES_MAX,
    NOTE_BYTES_MAX,
    TIME_MAX,
    VECTOR_MAX,
)
from rtserver.wire.codec import check_data, pack
from rtserver.wire.names import NAME_RULE, is_name

__all__ = [
    "BOOL",
    "CHANNEL",
    "DATA",
    "INT64",
    "LIMIT",
    "MEMBER",
    "META",
    "NAME",
    "NAMES",
    "NOTE",
    "NUMBER",
    "POSITIONS",
    "PREFIX",
    "SHAPES",
    "SINCE",
    "TEXT",
    "TIME_MAX",
    "TTL_MS",
    "UINT",
    "VECTOR",
    "WATCHABLE",
    "Kind",
    "Shape",
    "at_most",
    "one_of",
]

_TEXT_CHARS_MAX = 4_096


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of parameter. `check` returns the value to use or raises ValueError("expected ...");
    `python` is its annotation in the SDK; an `optional` field of an item may be nil."""

    doc: str
    python: str
    check: Callable[[Any], Any]
    optional: bool = False


class Shape:
    """A result map: its name and its fields, each a type in text.

    Types are int, number, text, bool, data, another shape's name; `[x]` is a list of x, `{x}` a
    map from text to x, and a trailing `?` says that the value may be nil.
    """

    def __init__(self, shape: str, /, **fields: str) -> None:
        self.name = shape
        self.fields = fields
        SHAPES[shape] = self


SHAPES: dict[str, Shape] = {}


def _name(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"expected text, not {_type(value)}")
    if not is_name(value):
        raise ValueError(f"expected {NAME_RULE}")
    return value


def _channel(value: Any) -> str:
    name = _name(value)
    if name[0] == "$":
        raise ValueError("expected a name that does not begin with $ (reserved)")
    return name


def _prefix(value: Any) -> str:
    return "" if value == "" else _name(value)


def _type(value: Any) -> str:
    names = {int: "an integer", float: "a number", str: "text", bool: "a boolean", bytes: "bytes"}
    return {**names, list: "an array", dict: "a map"}.get(type(value), "this type")


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > _TEXT_CHARS_MAX:
        raise ValueError(f"expected text of at most {_TEXT_CHARS_MAX} characters")
    return value


def _note(value: Any) -> str:
    if type(value) is not str or len(value.encode("utf-8", "replace")) > NOTE_BYTES_MAX:
        raise ValueError(f"expected text of at most {NOTE_BYTES_MAX} bytes")
    return value


def _int64(value: Any) -> int:
    if type(value) is not int or not INT64_MIN <= value <= INT64_MAX:
        raise ValueError("expected an integer of 64 bits")
    return value


def _uint(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= INT64_MAX:
        raise ValueError("expected an integer of 0 or more")
    return value


def _ttl(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= TIME_MAX:
        raise ValueError("expected milliseconds of 1 or more")
    return value


def _number(value: Any) -> int | float:
    if type(value) is int and INT64_MIN <= value <= INT64_MAX:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    raise ValueError("expected a finite number, integers of 64 bits")


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("expected true or false")
    return value


def _data(value: Any) -> Any:
    if value is None:
        raise ValueError("expected data other than nil")
    try:
        check_data(value)
    except ValueError as error:
        raise ValueError(f"expected data that every transport can carry: {error}") from None
    return value


def _meta(value: Any) -> Any:
    size = len(pack(_data(value)))
    if size > META_BYTES_MAX:
        raise ValueError(f"expected data of at most {META_BYTES_MAX} bytes, not {size}")
    return value


def _vector(value: Any) -> list[Any]:
    if type(value) is not list or not 1 <= len(value) <= VECTOR_MAX:
        raise ValueError(f"expected an array of 1 to {VECTOR_MAX} items")
    return value


def _names(value: Any) -> list[str]:
    return [_name(item) for item in _vector(value)]


def at_most(bound: int, least: int = 1) -> Kind:
    """An integer from `least` to `bound`."""

    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= bound:
            raise ValueError(f"expected an integer from {least} to {bound}")
        return value

    return Kind(f"int {least}..{bound}", "int", check)


def one_of(*words: str) -> Kind:
    """One of a few words."""
    allowed = frozenset(words)
    expected = " or ".join(words)

    def check(value: Any) -> str:
        if type(value) is not str or value not in allowed:
            raise ValueError(f"expected {expected}")
        return value

    annotation = f"Literal[{', '.join(repr(word) for word in words)}]".replace("'", '"')
    return Kind(" \\| ".join(f'"{word}"' for word in words), annotation, check)


def _position(value: Any) -> list[Any]:
    if type(value) is not list or len(value) != 2:
        raise ValueError("expected [epoch, offset]")
    epoch, offset = value
    if type(epoch) is not str or type(offset) is not int or offset < 0:
        raise ValueError("expected [epoch, offset] as an earlier reply gave them")
    return value


def _since(value: Any) -> list[Any] | dict[str, int]:
    if type(value) is list:
        return _position(value)
    if type(value) is not dict:
        raise ValueError('expected [epoch, offset] or {"last": n}')
    last = value.get("last")
    if type(last) is not int or not 0 <= last <= LIST_MAX:
        raise ValueError(f'expected [epoch, offset] or {{"last": n}} with n from 0 to {LIST_MAX}')
    return value


def _positions(value: Any) -> dict[str, list[Any]]:
    if type(value) is not dict or len(value) > VECTOR_MAX:
        raise ValueError(f"expected a map of at most {VECTOR_MAX} channels to [epoch, offset]")
    return {_name(channel): _position(position) for channel, position in value.items()}


NAME = Kind("name", "str", _name)
MEMBER = NAME
CHANNEL = Kind("channel", "str", _channel)
WATCHABLE = Kind("channel or watched thing", "str", _name)
TEXT = Kind("text", "str", _text)
NOTE = Kind(f"text of at most {NOTE_BYTES_MAX} bytes", "str", _note)
PREFIX = Kind("text", "str", _prefix)
INT64 = Kind("int", "int", _int64)
UINT = Kind("int >= 0", "int", _uint)
TTL_MS = Kind("int >= 1", "int", _ttl)
NUMBER = Kind("number", "int | float", _number)
META = Kind(f"data of at most {META_BYTES_MAX:,} bytes", "Any", _meta)
BOOL = Kind("bool", "bool", _bool)
DATA = Kind("data", "Any", _data)
VECTOR = Kind(f"array of up to {VECTOR_MAX:,}", "Sequence[Any]", _vector)
NAMES = Kind(f"array of up to {VECTOR_MAX:,} names", "Sequence[str]", _names)
LIMIT = at_most(LIST_MAX)
SINCE = Kind('[epoch, offset] \\| {"last": n}', "Since", _since)
POSITIONS = Kind("map of channel to [epoch, offset]", "Mapping[str, Position]", _positions)
