"""Server-sent events (WHATWG HTML, section 9.2): pushes as events of a stream of text.

`data:` holds the push array as in `rt1.json`, on one line: the same bytes for all streams. The
`id:` line that ends an event is each stream's own. Replies do not travel here.
"""

from __future__ import annotations

from typing import Any

from rtserver.wire.frames import NOTIFICATION
from rtserver.wire.jsonform import to_json

__all__ = [
    "COMMENT",
    "MEDIA_TYPE",
    "encode_error",
    "encode_id",
    "encode_push",
    "encode_reply",
    "encode_retry",
]

MEDIA_TYPE = "text/event-stream"
COMMENT = b":\n\n"  # a heartbeat: proxies see that the stream lives, readers see nothing


def encode_push(method: str, params: Any) -> bytes:
    """An event without its end: the id follows. A push that asks to come back later also tells
    the browser, which reconnects by itself."""
    data = b"data: " + to_json([NOTIFICATION, method, params]) + b"\n"
    retry_ms = params.get("retry_after_ms")
    return data if retry_ms is None else encode_retry(retry_ms) + data


def encode_id(cursor: str) -> bytes:
    """The end of an event: where the reader is after it."""
    return b"id: " + cursor.encode("ascii") + b"\n\n"


def encode_retry(retry_ms: int) -> bytes:
    """How long a reader waits before it reconnects."""
    return b"retry: %d\n" % retry_ms


def encode_reply(_request_id: int, _result: Any) -> bytes:
    return b""


def encode_error(_request_id: int | None, _error: list[Any]) -> bytes:
    return b""
