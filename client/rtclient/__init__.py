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
from rtclient.items import Gap, Join, Leave
from rtclient.options import Position
from rtclient.results import Message, UserPresence
from rtclient.server_errors import (
    Banned,
    Blocked,
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
    MemoryFull,
    NotFound,
    OutcomeUnknown,
    OutOfRange,
    Overloaded,
    ProtocolError,
    RateLimited,
    TokenExpired,
    Unauthenticated,
    UnknownMethod,
    UnsupportedVersion,
)
from rtclient.states import BoardState, CounterState
from rtclient.subscription import Subscription
from rtclient.watch import Watch

__all__ = [
    "Banned",
    "Blocked",
    "BoardState",
    "Client",
    "Closed",
    "Conflict",
    "ConnectionLost",
    "CounterState",
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
    "Join",
    "KeyReused",
    "Leave",
    "LimitError",
    "LimitReached",
    "MemoryFull",
    "Message",
    "NotFound",
    "OutOfRange",
    "OutcomeUnknown",
    "Overloaded",
    "Position",
    "ProtocolError",
    "RateLimited",
    "RequestError",
    "RightsError",
    "ServerError",
    "StateError",
    "Subscription",
    "Timeout",
    "TokenExpired",
    "Unauthenticated",
    "UnknownMethod",
    "UnsupportedVersion",
    "UserPresence",
    "Watch",
    "connect",
]
