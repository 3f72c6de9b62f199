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
from rtclient.results import Message, Step, UserPresence, WholePlace
from rtclient.server_errors import (
    AlreadyCancelled,
    AlreadyConfirmed,
    AlreadyRefunded,
    Banned,
    Blocked,
    ChallengeFailed,
    Conflict,
    DeadlineExceeded,
    DiskFull,
    Duplicate,
    Expired,
    Forbidden,
    FrameTooLarge,
    InternalError,
    InvalidOption,
    InvalidParams,
    KeyReused,
    LimitReached,
    MemoryFull,
    NoPass,
    NotFound,
    NotOpen,
    OutcomeUnknown,
    OutOfRange,
    Overloaded,
    ProtocolError,
    RateLimited,
    SoldOut,
    TokenExpired,
    Unauthenticated,
    UnknownMethod,
    UnsupportedVersion,
)
from rtclient.states import BoardState, CounterState, SaleState
from rtclient.subscription import Subscription
from rtclient.watch import Watch

__all__ = [
    "AlreadyCancelled",
    "AlreadyConfirmed",
    "AlreadyRefunded",
    "Banned",
    "Blocked",
    "BoardState",
    "ChallengeFailed",
    "Client",
    "Closed",
    "Conflict",
    "ConnectionLost",
    "CounterState",
    "DeadlineExceeded",
    "DiskFull",
    "Duplicate",
    "Error",
    "Expired",
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
    "NoPass",
    "NotFound",
    "NotOpen",
    "OutOfRange",
    "OutcomeUnknown",
    "Overloaded",
    "Position",
    "ProtocolError",
    "RateLimited",
    "RequestError",
    "RightsError",
    "SaleState",
    "ServerError",
    "SoldOut",
    "StateError",
    "Step",
    "Subscription",
    "Timeout",
    "TokenExpired",
    "Unauthenticated",
    "UnknownMethod",
    "UnsupportedVersion",
    "UserPresence",
    "Watch",
    "WholePlace",
    "connect",
]
