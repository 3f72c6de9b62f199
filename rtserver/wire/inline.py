"""Inline text: what a person types into `nc` (protocol.md section 4).

`board.top weekly 3 kind=dense` is a method, positional values and named ones. A value is JSON
where it reads as JSON, else plain text up to the next space. A quoted word is never
`name=value`. Answers are one JSON line; an error line starts with `!`, a push with `>`.
"""

from __future__ import annotations

import re
from typing import Any

from rtserver.wire.jsonform import scan_json, to_json

__all__ = ["encode_error", "encode_push", "encode_reply", "is_request_line", "parse_line"]

_NAMED = re.compile(r"([a-z][a-z0-9_]*)=")
_WORD = re.compile(r"\S+")
_SPACE = re.compile(r"\s*")
_REQUEST_LINE = re.compile(r"\S+ \S+ HTTP/[0-9.]+")


def is_request_line(line: str) -> bool:
    """Whether HTTP begins here. A page may choose a method that nobody knows, and its body would be
    lines: whoever has its own name point at this machine (DNS rebinding) could command us."""
    return _REQUEST_LINE.fullmatch(line) is not None


def parse_line(line: str) -> tuple[str, list[Any], dict[str, Any]]:
    """(method, positional values, named values). Raises ValueError that names the word."""
    position = _skip(line, 0)
    method = _WORD.match(line, position)
    if method is None:
        raise ValueError("the line is empty")
    position = _skip(line, method.end())
    positional: list[Any] = []
    named: dict[str, Any] = {}
    while position < len(line):
        name = _NAMED.match(line, position)
        if name is None:
            value, position = _value(line, position)
            positional.append(value)
        else:
            if name.group(1) in named:
                raise ValueError(f"{name.group(1)} is given twice")
            named[name.group(1)], position = _value(line, name.end())
        position = _skip(line, position)
    return method.group(), positional, named


def _skip(line: str, position: int) -> int:
    space = _SPACE.match(line, position)
    return position if space is None else space.end()


def _value(line: str, start: int) -> tuple[Any, int]:
    word = _WORD.match(line, start)
    text = "" if word is None else word.group()
    try:
        value, end = scan_json(line, start)
        if end == len(line) or line[end].isspace():
            return value, end
    except ValueError:
        pass
    if text[:1] in ('"', "{", "["):
        raise ValueError(f"{text!r} begins like JSON but is not; check its quotes")
    return text, start + len(text)


def encode_reply(_request_id: int, result: Any) -> bytes:
    return to_json(result) + b"\n"


def encode_error(_request_id: int | None, error: list[Any]) -> bytes:
    return b"!" + to_json(error) + b"\n"


def encode_push(method: str, params: Any) -> bytes:
    return b">" + to_json([2, method, params]) + b"\n"
