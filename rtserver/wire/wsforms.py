"""The two forms of values on a WebSocket (protocol.md section 6): whole server frames, so that one
publication is the same bytes for all who subscribe in a form.

`rt1.msgpack` puts the frames of TCP into binary messages, `rt1.json` the same arrays as JSON into
text messages.
"""

from __future__ import annotations

from typing import Any

from rtserver.wire import frames
from rtserver.wire.jsonform import to_json
from rtserver.wire.websocket import BINARY, TEXT, frame

__all__ = ["JSON", "MSGPACK", "JsonForm", "MsgpackForm"]


class MsgpackForm:
    """Sub-protocol `rt1.msgpack`."""

    __slots__ = ()

    def wrap(self, packed: bytes) -> bytes:
        """One or more frames as one message."""
        return frame(BINARY, packed)

    def encode_reply(self, request_id: int, result: Any) -> bytes:
        return frame(BINARY, frames.encode_reply(request_id, result))

    def encode_error(self, request_id: int | None, error: list[Any]) -> bytes:
        return frame(BINARY, frames.encode_error(request_id, error))

    def encode_push(self, method: str, params: Any) -> bytes:
        return frame(BINARY, frames.encode_push(method, params))


class JsonForm:
    """Sub-protocol `rt1.json`."""

    __slots__ = ()

    def encode_reply(self, request_id: int, result: Any) -> bytes:
        return frame(TEXT, to_json((frames.REPLY, request_id, None, result)))

    def encode_error(self, request_id: int | None, error: list[Any]) -> bytes:
        return frame(TEXT, to_json((frames.REPLY, request_id, error, None)))

    def encode_push(self, method: str, params: Any) -> bytes:
        return frame(TEXT, to_json((frames.NOTIFICATION, method, params)))


MSGPACK = MsgpackForm()
JSON = JsonForm()
