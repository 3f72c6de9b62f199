"""msgpack values on the wire and in the log.

Promises: what `unpack` accepts has bounded depth and size before anything is allocated for it
(msgpack checks declared lengths against the bytes that are there), holds valid UTF-8, and costs
time linear in its bytes. Anything else is a `ProtocolError`. Which values user data may hold
(`check_data`) is the same on every transport, so that each message can travel as JSON too.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack

from rtserver.errors import ProtocolError
from rtserver.limits import NESTING_MAX, VALUES_MAX

__all__ = ["check_data", "nests_deeply", "pack", "unpack", "unpack_trusted"]

_unpackb = msgpack.unpackb
_packer = msgpack.Packer(use_bin_type=True)
pack = _packer.pack


def unpack(body: bytes | memoryview) -> Any:
    """One msgpack value from bytes of a stranger. Raises ProtocolError."""
    try:
        # Without arguments: text is decoded strictly, map keys must be text. Naming these
        # defaults would cost as much as the decoding of a short frame.
        value = _unpackb(body) if len(body) <= VALUES_MAX else _unpack_counted(body)
    except UnicodeDecodeError as error:
        raise ProtocolError(f"text is not valid UTF-8: {error.reason}") from None
    except ValueError:
        value = _unpack_unkeyed(body)
    # A container costs at least one byte a level, so short bodies need no look.
    if len(body) > NESTING_MAX and nests_deeply(value):
        raise ProtocolError(f"values are nested deeper than {NESTING_MAX} levels")
    return value


def _unpack_unkeyed(body: bytes | memoryview) -> Any:
    """A second try at what failed: a map with other keys than text is no reason to close."""
    try:
        return (
            _unpack_counted(body)
            if len(body) > VALUES_MAX
            else msgpack.unpackb(body, raw=False, strict_map_key=False, object_pairs_hook=_map)
        )
    except UnicodeDecodeError as error:
        raise ProtocolError(f"text is not valid UTF-8: {error.reason}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(f"the body is not one msgpack value: {_reason(error)}") from None


class _Unkeyed:
    """A map with other keys than text: it parses, but nothing accepts it. It is never made a
    dict, because a stranger can choose integers and timestamps that all have the same hash."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"a map with keys of type {self.kind}"


def _unpack_counted(body: bytes | memoryview) -> Any:
    """A value costs at least a byte, so only larger bodies can hold too many: what comes after
    costs time for each value, not for each byte."""
    left = VALUES_MAX

    def take(count: int) -> None:
        nonlocal left
        left -= count
        if left < 0:
            raise ValueError(f"it holds more than {VALUES_MAX} values")

    def take_list(values: list[Any]) -> list[Any]:
        take(len(values))
        return values

    def take_map(pairs: list[tuple[Any, Any]]) -> Any:
        take(2 * len(pairs))
        return _map(pairs)

    return msgpack.unpackb(
        body,
        raw=False,
        strict_map_key=False,
        list_hook=take_list,
        object_pairs_hook=take_map,
        max_array_len=VALUES_MAX,
        max_map_len=VALUES_MAX // 2,
    )


def _map(pairs: list[tuple[Any, Any]]) -> Any:
    for key, _ in pairs:
        if type(key) is not str:
            return _Unkeyed(type(key).__name__)
    return dict(pairs)


def unpack_trusted(body: bytes) -> Any:
    """One msgpack value that this server packed itself."""
    return msgpack.unpackb(body, raw=False, strict_map_key=False)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def nests_deeply(value: Any) -> bool:
    """Whether a value nests deeper than NESTING_MAX levels. Looks at the two levels of a plain
    request without a call for each."""
    if type(value) is not list:
        return _depth_exceeds(value, NESTING_MAX)
    for child in value:
        kind = type(child)
        if kind is list:
            for inner in child:
                kind = type(inner)
                if (kind is list or kind is dict) and _depth_exceeds(inner, NESTING_MAX - 2):
                    return True
        elif kind is dict and _depth_exceeds(child, NESTING_MAX - 1):
            return True
    return False


def _depth_exceeds(value: Any, levels: int) -> bool:
    kind = type(value)
    if kind is list:
        children = value
    elif kind is dict:
        children = value.values()
    else:
        return False
    if levels == 0:
        return True
    for child in children:
        child_kind = type(child)
        if (child_kind is list or child_kind is dict) and _depth_exceeds(child, levels - 1):
            return True
    return False


_LEAVES = frozenset((str, bool, bytes, type(None)))


def check_data(value: Any) -> None:
    """Raises ValueError, naming the trouble, where user data cannot travel on every transport.

    Allowed: nil, booleans, integers of 64 bits (signed or unsigned), finite floats, text, bytes,
    arrays, and maps with text keys, nested at most 32 levels.
    """
    _check_data(value, NESTING_MAX)


def _check_data(value: Any, levels: int) -> None:
    kind = type(value)
    if kind in _LEAVES:
        return
    if kind is int:
        if not -(2**63) <= value < 2**64:
            raise ValueError("an integer is beyond 64 bits")
    elif kind is float:
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
    elif kind is list or kind is dict:
        if levels == 0:
            raise ValueError(f"it is nested deeper than {NESTING_MAX} levels")
        if kind is dict:
            _check_keys(value)
        for child in value.values() if kind is dict else value:
            if type(child) not in _LEAVES:
                _check_data(child, levels - 1)
    elif kind is _Unkeyed:
        raise ValueError(f"a map key is {value.kind}, expected text")
    else:
        raise ValueError("a msgpack extension type is not accepted")


def _check_keys(value: dict[Any, Any]) -> None:
    for key in value:
        if type(key) is not str:
            raise ValueError(f"a map key is {type(key).__name__}, expected text")
