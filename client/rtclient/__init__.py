"""The Python client of rtserver. Depends on msgpack only.

`connect` is asyncio's way in, `rtclient.sync.connect` the blocking one, and
`rtclient.testing` starts a real server for tests.

Made by client/generate.py from the server's tables; change those, not this.
"""

from __future__ import annotations

from rtclient.client import Client, connect
from rtclient.errors import (
    Closed,
    ConnectionLost,
    Error,
    LimitError,
    RequestError,
    RightsError,
    ServerError,
    StateError,
    Timeout,
)
from rtclient.options import Position
from rtclient.results import Message
from rtclient.server_errors import (
    Banned,
    Conflict,
    DeadlineExceeded,
    DiskFull,
    Duplicate,
    Forbidden,
    FrameTooLarge,
    InternalError,
    InvalidOption,
    InvalidParams,
    KeyReused,
    LimitReached,
    NotFound,
    OutcomeUnknown,
    OutOfRange,
    Overloaded,
    ProtocolError,
    UnknownMethod,
    UnsupportedVersion,
)
from rtclient.subscription import Gap, Subscription

__all__ = [
    "Banned",
    "Client",
    "Closed",
    "Conflict",
    "ConnectionLost",
    "DeadlineExceeded",
    "DiskFull",
    "Duplicate",
    "Error",
    "Forbidden",
    "FrameTooLarge",
    "Gap",
    "InternalError",
    "InvalidOption",
    "InvalidParams",
    "KeyReused",
    "LimitError",
    "LimitReached",
    "Message",
    "NotFound",
    "OutOfRange",
    "OutcomeUnknown",
    "Overloaded",
    "Position",
    "ProtocolError",
    "RequestError",
    "RightsError",
    "ServerError",
    "StateError",
    "Subscription",
    "Timeout",
    "UnknownMethod",
    "UnsupportedVersion",
    "connect",
]
