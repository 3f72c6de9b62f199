"""Values as JSON, for transports that carry text (protocol.md section 5).

What JSON lacks is written as a map with one reserved key: bytes as `{"$b64": text}`, integers
beyond 2**53 as `{"$i64": text}`, and a user's map whose only key is reserved as `{"$map": ...}`.
Decoding is the exact inverse; NaN and infinities are refused both ways.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, NoReturn

import msgspec

from rtserver.limits import NESTING_MAX, VALUES_MAX
from rtserver.wire.codec import nests_deeply

__all__ = ["from_json", "from_json_value", "scan_json", "to_json"]

_SAFE_INTEGER = 2**53
_RESERVED = frozenset(("$b64", "$i64", "$map"))
_INTEGER = re.compile(r"-?[0-9]{1,20}")
# Neither ever looks at a byte twice: a string that does not end is one match, too.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_EMPTY = re.compile(rb"\[\s*+\]|\{\s*+\}")


def to_json(value: Any) -> bytes:
    """The JSON text of a value, without line breaks."""
    return msgspec.json.encode(_escape(value))


def _escape(value: Any) -> Any:
    kind = type(value)
    if kind is int:
        return value if -_SAFE_INTEGER <= value <= _SAFE_INTEGER else {"$i64": str(value)}
    if kind is bytes:
        return {"$b64": base64.b64encode(value).decode("ascii")}
    if kind is list or kind is tuple:
        return [_escape(item) for item in value]
    if kind is dict:
        escaped = {key: _escape(item) for key, item in value.items()}
        return {"$map": escaped} if _is_reserved(value) else escaped
    return value


def _is_reserved(value: dict[Any, Any]) -> bool:
    return len(value) == 1 and next(iter(value)) in _RESERVED


def from_json(text: bytes) -> Any:
    """One JSON value from bytes of a stranger: at most VALUES_MAX values are made of it, nested at
    most NESTING_MAX levels. Raises ValueError."""
    if len(text) > VALUES_MAX and _values(text) > VALUES_MAX:
        raise ValueError(f"it holds more than {VALUES_MAX} values")
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if len(text) > NESTING_MAX and nests_deeply(value):
        raise ValueError(_TOO_DEEP)
    # Only what is spelt with these can be an escape of ours.
    return from_json_value(value) if b'"$' in text or b"\\u" in text else value


def _values(text: bytes) -> int:
    """How many values a JSON text holds, map keys included; of another text, at least so many as
    could be read before its mistake."""
    count = _separators(text)
    if count > VALUES_MAX:  # perhaps they stand in strings
        text = _STRING.sub(b"", text)
        count = 1 + text.count(b",")  # enough to know of most, and quick
        if count <= VALUES_MAX:
            count = _separators(text) - len(_EMPTY.findall(text))
    return count


def _separators(text: bytes) -> int:
    """Every value but the first follows one of these."""
    return 1 + sum(map(text.count, (b",", b":", b"[", b"{")))


def from_json_value(value: Any) -> Any:
    """Undoes the escapes in a decoded JSON value. Raises ValueError for a malformed one."""
    if type(value) is str:
        return _text(value)
    if type(value) is list:
        return [from_json_value(item) for item in value]
    if type(value) is not dict:
        return value
    if not _is_reserved(value):
        return _map(value)
    ((key, inner),) = value.items()
    if key == "$map":
        if type(inner) is not dict:
            raise ValueError("$map holds a map")
        return _map(inner)
    if type(inner) is not str:
        raise ValueError(f"{key} holds text")
    return _bytes(inner) if key == "$b64" else _integer(inner)


def _map(value: dict[str, Any]) -> dict[str, Any]:
    return {_text(key): from_json_value(item) for key, item in value.items()}


def _text(text: str) -> str:
    """JSON can escape half of a surrogate pair, which is no character (RFC 8259 section 8.2)."""
    if not text.isascii():
        text.encode("utf-8")  # UnicodeEncodeError is a ValueError
    return text


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"$b64 is not base64: {error}") from None


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError("$i64 is not a decimal integer")
    return int(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_TOO_DEEP = f"values are nested deeper than {NESTING_MAX} levels"
_scan = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode


def scan_json(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that starts at text[start] and where it ends. Raises ValueError."""
    try:
        value, end = _scan(text, start)
        return from_json_value(value), end
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
