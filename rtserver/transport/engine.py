"""What a transport needs of the turn, and what the turn needs of a transport."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from rtserver.commands.dispatch import Waiting
from rtserver.config import WebConfig
from rtserver.limits import Limits
from rtserver.metrics import Metrics
from rtserver.session.connection import Connection, Form, Sink
from rtserver.session.identity import Identity
from rtserver.transport.proxies import Trusted

__all__ = ["Engine", "ListenerInfo", "Newcomer", "Progress", "Reader"]


class Progress(Enum):
    """Why a reader stopped running requests."""

    IDLE = auto()  # it needs more bytes
    MORE = auto()  # its share of the turn is used up; complete requests are left
    BLOCKED = auto()  # its outbox is congested or a reply has to leave first


class Reader(Protocol):
    """The reading half of a transport: requests that were received but not run yet."""

    connection: Connection
    queued: bool  # it waits for its share of the next turn
    ended: bool  # the peer sends nothing more

    def run(self) -> Progress:
        """Runs complete requests while the turn has room for them."""

    def set_reading(self, reading: bool) -> None:
        """Takes bytes from the socket, or leaves them in the kernel."""


class ListenerInfo(NamedTuple):
    """What a connection's listener is. admin: what is for administrators is answered there."""

    admin: bool = False


class Newcomer(Protocol):
    """A socket of which nothing is known yet."""

    def expire(self) -> None:
        """Its time is up: closes it."""


class Engine(Protocol):
    """The turn, as transports see it."""

    limits: Limits
    metrics: Metrics
    web: WebConfig
    dev: bool  # development mode: no authentication, loopback only

    turn: Any  # the turn itself, for compiled streams
    express: Any  # short ways for compiled readers of frames, or None
    waiting: list[Waiting]  # replies that leave after the sync of this turn's block

    connections: int  # open sockets, whatever they speak
    pages: Mapping[str, tuple[str, bytes]]  # {path: (media type, content)} for people
    admin_only: bool  # what is for administrators is on their own listeners
    trusted_proxies: Trusted  # whose X-Forwarded-For is believed
    accepting: bool  # False from the begin of a stop on

    def accept(self, newcomer: Newcomer) -> bool:
        """Counts a socket, whose time runs until it is `known`; False when there are so many that
        it must go at once."""

    def known(self, newcomer: Newcomer) -> None:
        """It has said what it speaks, or is gone."""

    def release(self) -> None:
        """A socket that never became a connection is gone."""

    def identify(self, token: str | None, session: str | None) -> Identity:
        """Who shows this token or this session id, or neither. Raises RtError."""

    def is_stranger(self, token: str | None, session: str | None) -> bool:
        """Whether who shows that may do nothing yet but say who it is."""

    def connect(
        self,
        form: Form,
        sink: Sink,
        address: str | None,
        identity: Identity | None = None,
        *,
        pushes: bool = True,
    ) -> Connection:
        """A new connection that may send requests. `pushes`: it can hear."""

    def follow(
        self,
        connection: Connection,
        channels: Mapping[str, Any],
        presence: Collection[str] = (),
    ) -> dict[str, Any]:
        """Subscribes each channel from where it says ([epoch, offset], {"last": n} or None), and to
        joins and leaves of those in `presence`: the subscribe replies, or {error} in their place.
        All together stay below the reply limit."""

    def positions(self, connection: Connection) -> dict[str, tuple[str, int]]:
        """{channel: (epoch, offset)}: where a connection with a stamp is (session.cursor)."""

    def disconnect(self, connection: Connection) -> None:
        """The peer is gone."""

    def leave(self, connection: Connection) -> None:
        """The connection ends, its socket goes on."""

    def heard(self, reader: Reader, size: int) -> None:
        """New bytes came: they run now, or in a later turn when this one is full."""

    def charge(self, connection: Connection, size: int) -> None:
        """Bytes of a connection with an allowance were taken and run: more than that ends it."""

    def feed(self, reader: Reader) -> None:
        """What kept the reader back may be over."""

    def budget(self) -> int:
        """Cost units that one connection may still use in this turn."""

    def spent(self, cost: int) -> bool:
        """Counts cost; True when the turn has no room for another request."""

    def frame(self, connection: Connection, body: Any, size: int) -> int:
        """Runs one decoded binary frame; returns its cost."""

    def call(
        self,
        connection: Connection,
        request_id: int | None,
        method: str,
        params: Any,
        raw_options: Any,
        size: int,
    ) -> int:
        """Runs one call; returns its cost."""

    def parameters(self, method: str) -> list[str] | None:
        """The names of a method's parameters in order; None for an unknown method."""

    def help(self, topic: str | None) -> str:
        """The text that a person who typed `help` gets."""

    def health(self, path: str) -> tuple[bool, dict[str, Any]] | None:
        """What /livez and /readyz answer; None for another path."""

    def metrics_text(self) -> bytes:
        """What /metrics answers, as Prometheus reads it."""
