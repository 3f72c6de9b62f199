"""A message as clients see it: a map in replies, a push on the way.

Data is kept packed in the state; the binary push splices these bytes in as they are.
"""

from __future__ import annotations

from typing import Any

from rtserver.session.connection import Form
from rtserver.state.channels import UNNUMBERED, Message
from rtserver.wire import frames
from rtserver.wire.codec import pack, unpack_trusted
from rtserver.wire.wsforms import MSGPACK

__all__ = ["encode_message", "message_bytes", "message_map"]

_ENVELOPE_BYTES = 64  # of a message in a reply beside names and data


def message_map(message: Message) -> dict[str, Any]:
    """{data, at} with offset, key and sender only where present."""
    fields: dict[str, Any] = {"data": unpack_trusted(message.data), "at": message.at}
    if message.offset != UNNUMBERED:
        fields["offset"] = message.offset
    if message.key is not None:
        fields["key"] = message.key
    if message.sender is not None:
        fields["sender"] = message.sender
    return fields


def message_bytes(message: Message) -> int:
    """About what a message adds to a reply."""
    return len(message.data) + _ENVELOPE_BYTES


def encode_message(form: Form, message: Message) -> bytes:
    """The push of a message in the form of a connection."""
    if form is frames:
        return _binary(message)
    if form is MSGPACK:
        return MSGPACK.wrap(_binary(message))
    return form.encode_push("message", {"channel": message.channel, **message_map(message)})


_HEAD = pack(frames.NOTIFICATION) + pack("message")
_CHANNEL = pack("channel")
_OFFSET = pack("offset")
_AT = pack("at")
_KEY = pack("key")
_SENDER = pack("sender")
_DATA = pack("data")


def _binary(message: Message) -> bytes:
    fields = [_CHANNEL, pack(message.channel), _AT, pack(message.at)]
    if message.offset != UNNUMBERED:
        fields += (_OFFSET, pack(message.offset))
    if message.key is not None:
        fields += (_KEY, pack(message.key))
    if message.sender is not None:
        fields += (_SENDER, pack(message.sender))
    fields += (_DATA, message.data)
    map_header = 0x80 | len(fields) // 2  # a map of less than 16 pairs
    return frames.frame(b"\x93" + _HEAD + bytes((map_header,)) + b"".join(fields))
