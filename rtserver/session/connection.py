"""A connection: who is at the other end, what it subscribed to, and its outbox.

Transport-neutral and write-only: reading is each transport's own affair. The outbox collects the
bytes of a turn and leaves as one write at its end; above the soft limit the connection counts as
congested (reading stops, subscriptions become cursors into the history), above the hard limit or
when no byte is taken for long it is closed with a code that says reconnect and resume.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from rtserver.errors import CloseKind, RtError
from rtserver.limits import Limits
from rtserver.session.identity import Identity

__all__ = ["Connection", "Form", "Sink", "Subscription"]


class Form(Protocol):
    """How values look on this connection: wire.frames and wire.inline are such modules."""

    def encode_reply(self, request_id: int, result: Any, /) -> bytes: ...

    def encode_error(self, request_id: int | None, error: list[Any], /) -> bytes: ...

    def encode_push(self, method: str, params: Any, /) -> bytes: ...


class Sink(Protocol):
    """A transport, as its connection sees it."""

    def write(self, data: bytes, /) -> None: ...

    def buffered(self) -> int:
        """Bytes written but not yet taken by the kernel."""

    def resume(self) -> None:
        """What kept requests from being read is over."""

    def kept(self) -> int:
        """Bytes of requests that were received and not run."""

    def look(self, now: int, /) -> None:
        """Called about once a second, for what a transport must see to as time goes by."""

    def end(self) -> None:
        """Closes after what was written has left, or soon if it does not leave."""


class Subscription:
    """One connection on one channel. Live: pushes come as they are released; otherwise
    `position` is the last offset that was put in the outbox. `dropped`: transient messages that
    the outbox did not take, since the reader was told. `presence`: joins and leaves are wanted."""

    __slots__ = ("channel", "connection", "dropped", "live", "position", "presence")

    def __init__(self, connection: Connection, channel: str, position: int) -> None:
        self.connection = connection
        self.channel = channel
        self.position = position
        self.live = False
        self.dropped = 0
        self.presence = False


class _Gone:
    """The sink of a connection whose transport is lost."""

    def write(self, _data: bytes, /) -> None: ...

    def buffered(self) -> int:
        return 0

    def resume(self) -> None: ...

    def kept(self) -> int:
        return 0

    def look(self, _now: int, /) -> None: ...

    def end(self) -> None: ...


_GONE = _Gone()


class Connection:
    """One party. `rank` is its role as a number (commands.table.ROLES)."""

    __slots__ = (
        "_dirty",
        "_limits",
        "_outbox",
        "_sink",
        "_stuck_since_ms",
        "_taken_bytes",
        "_written_bytes",
        "address",
        "allowance",
        "blocked",
        "client",
        "closed_as",
        "expires_at",
        "form",
        "heartbeat_ms",
        "id",
        "identity",
        "idle",
        "is_open",
        "last_heard_ms",
        "pending_bytes",
        "pending_messages",
        "present_as",
        "pushes",
        "rank",
        "service",
        "session",
        "stamp",
        "subscriptions",
        "user",
        "waiting",
    )

    def __init__(
        self,
        connection_id: int,
        form: Form,
        sink: Sink,
        limits: Limits,
        dirty: list[Connection],
        *,
        identity: Identity,
        address: str | None,
        now: int,
    ) -> None:
        self.id = connection_id
        self.form = form
        self.address = address
        self.pushes = True  # whether it can hear: an HTTP request is answered, and that is all
        self.identify(identity)
        self.stamp: Callable[[], bytes] | None = None  # follows each push: where the reader is
        self.present_as: str | None = None  # the user as whom presence counts it
        self.idle = False  # nobody is at this device, it said
        self.client: str | None = None
        self.session: str | None = None
        self.heartbeat_ms: int | None = None
        self.last_heard_ms = now
        self.allowance: int | None = None  # bytes it may still send before it says who it is
        self.subscriptions: dict[str, Subscription] = {}
        self.is_open = True
        self.closed_as: CloseKind | None = None  # why the server closed it
        self.blocked = False  # requests are there, but must not be run yet
        self.waiting = 0  # replies that wait for a sync or a worker
        self.pending_bytes = 0  # in the outbox of this turn and in the transport
        self.pending_messages = 0  # delivered since nothing waited
        self._stuck_since_ms = now  # since when the peer has taken no byte, while some waited
        self._written_bytes = 0  # ever handed to the transport
        self._taken_bytes = 0  # of these, taken by the kernel when it was last looked at
        self._limits = limits
        self._sink = sink
        # Of this turn. Most often it is one piece, and a list for each of thousands of subscribers
        # costs more than all else that a push does here.
        self._outbox: bytes | list[bytes] | None = None
        self._dirty = dirty  # the connections that the end of the turn has to flush

    def identify(self, identity: Identity) -> None:
        """From now on it acts for this party."""
        self.identity = identity
        self.rank = identity.rank
        self.user = identity.user
        self.expires_at = identity.expires_at
        self.service = identity.service

    @property
    def congested(self) -> bool:
        """More waits than the soft limits: nothing new should be made for this connection."""
        return (
            self.pending_bytes > self._limits.outbox_soft_bytes
            or self.pending_messages > self._limits.outbox_soft_messages
        )

    def send(self, data: bytes) -> None:
        """Adds bytes to the outbox of this turn."""
        if not self.is_open or not data:
            return
        self.pending_bytes += len(data)
        outbox = self._outbox
        if outbox is None:
            self._dirty.append(self)
            self._outbox = data
        elif isinstance(outbox, list):
            outbox.append(data)
        else:
            self._outbox = [outbox, data]

    def deliver(self, data: bytes, messages: int) -> bool:
        """Adds so many messages, encoded in this connection's form; False, and none of them, when
        it is congested."""
        limits = self._limits
        if (
            self.pending_bytes > limits.outbox_soft_bytes
            or self.pending_messages > limits.outbox_soft_messages
        ):
            return False
        self.pending_messages += messages
        self.send(data)
        return True

    def reply(self, request_id: int, result: Any) -> None:
        self.send(self.form.encode_reply(request_id, result))

    def reply_error(self, request_id: int | None, error: RtError) -> None:
        self.send(self.form.encode_error(request_id, error.as_wire()))

    def push(self, method: str, params: Any) -> None:
        self.send_push(self.form.encode_push(method, params))

    def send_push(self, data: bytes) -> None:
        """Adds a push that is encoded in this connection's form already."""
        self.send(data)
        if self.stamp is not None:
            self.send(self.stamp())

    def close(self, kind: CloseKind, message: str, retry_after_ms: int | None = None) -> None:
        """Says why; the end of the turn then closes. What was collected before leaves first."""
        params = {"code": kind.code, "name": kind.name, "message": message}
        if retry_after_ms is not None:
            params["retry_after_ms"] = retry_after_ms
        self.push("close", params)
        self.is_open = False
        self.closed_as = kind

    def lost(self) -> None:
        """The peer is gone: nothing more is collected or written."""
        self.is_open = False
        self._outbox = None
        self.pending_bytes = 0
        self._sink = _GONE  # the transport and its buffers are freed: nothing collects cycles

    # --- the end of a turn ---

    def flush(self) -> int:
        """One write of all that was collected; returns its bytes."""
        outbox = self._outbox
        if outbox is None:
            return 0
        data = outbox if isinstance(outbox, bytes) else b"".join(outbox)
        self._outbox = None
        sink = self._sink
        sink.write(data)
        self.pending_bytes = buffered = sink.buffered()
        if not buffered:
            self.pending_messages = 0
        size = len(data)
        self._written_bytes += size
        return size

    def measure(self) -> int:
        """Brings `pending_bytes` up to date between turns."""
        outbox = self._outbox or b""
        collected = len(outbox) if isinstance(outbox, bytes) else sum(map(len, outbox))
        self.pending_bytes = self._sink.buffered() + collected
        if not self.pending_bytes:
            self.pending_messages = 0
        return self.pending_bytes

    def stuck_ms(self, now: int) -> int:
        """How long the peer has taken none of the bytes that wait for it."""
        buffered = self._sink.buffered()
        taken = self._written_bytes - buffered
        if taken != self._taken_bytes or not buffered:
            self._taken_bytes = taken
            self._stuck_since_ms = now
        return now - self._stuck_since_ms

    def kept(self) -> int:
        """Bytes of its requests that were received and not run."""
        return self._sink.kept()

    def look(self, now: int) -> None:
        """About once a second."""
        self._sink.look(now)

    def unblock(self) -> None:
        """Lets requests run again, when nothing keeps them back any more."""
        if self.blocked and not self.congested:
            self.blocked = False
            self._sink.resume()

    def end(self) -> None:
        """Closes the transport."""
        self._sink.end()
