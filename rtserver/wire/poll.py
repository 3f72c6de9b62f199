"""Pushes as items of the JSON array that a long poll answers, each with a comma behind it.

The same bytes serve all polls. A poll that ends without a push says so with `NOTHING`.
"""

from __future__ import annotations

from typing import Any

from rtserver.wire.frames import NOTIFICATION
from rtserver.wire.jsonform import to_json

__all__ = ["NOTHING", "encode_error", "encode_push", "encode_reply", "joined"]

NOTHING = b" "  # white space, so it may stand between items


def encode_push(method: str, params: Any) -> bytes:
    return to_json([NOTIFICATION, method, params]) + b","


def encode_reply(_request_id: int, _result: Any) -> bytes:
    return b""


def encode_error(_request_id: int | None, _error: list[Any]) -> bytes:
    return b""


def joined(items: bytes) -> bytes:
    """The array of all that was encoded."""
    return b"[" + items.strip(b" ,") + b"]"
