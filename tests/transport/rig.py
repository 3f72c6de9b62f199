"""The whole path from bytes to bytes in one process: real turn, hub, streams and dispatch; the log
and the sockets are fakes that write down, in one list, what happened in which order.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack

from rtserver.clock import ManualClock
from rtserver.commands.dispatch import Dispatcher
from rtserver.commands.express import new_express
from rtserver.commands.table import load
from rtserver.config import AuthConfig
from rtserver.hub import Hub
from rtserver.limits import Limits
from rtserver.metrics import Metrics
from rtserver.session.auth import Authority
from rtserver.session.presence import Presence
from rtserver.session.router import Router
from rtserver.session.sessions import Sessions
from rtserver.session.subjects import subject_kinds
from rtserver.session.watches import Watches
from rtserver.state.store import Store
from rtserver.tick import Turn
from rtserver.transport.listener import FirstBytes
from rtserver.wire.codec import unpack_trusted
from tests.world import START_MS, FakeHost, split


class FakeLog:
    """A log whose disk does what the test says."""

    def __init__(self, events: list[Any]) -> None:
        self.events = events
        self.room = 1 << 30
        self.full = False
        self.stalled = False
        self.failure: Exception | None = None
        self.fits = True  # whether the disk takes the next block
        self.written_seq = 0
        self.synced_seq = 0
        self.sync_requests = 0
        self._seq = 0

    def reserve(self, bytes_bound: int) -> bool:
        return not self.stalled and bytes_bound <= self.room

    def append_packed(self, records: bytes, count: int, now_ms: int) -> int:
        assert not self.stalled, "nothing may follow a stalled block"
        self._seq += count
        self.records = [unpack_trusted(record) for record in split(records)]
        self.stalled = not self.fits
        if not self.stalled:
            self._wrote()
        return self._seq

    def _wrote(self) -> None:
        self.written_seq = self._seq
        self.events.append(("append", [record[0] for record in self.records]))

    def retry(self) -> bool:
        if self.stalled and self.fits:
            self.stalled = False
            self._wrote()
        return not self.stalled

    def request_sync(self) -> None:
        self.sync_requests += 1

    def poll(self) -> None:
        pass


class FakeTransport:
    """A socket: `takes` says how many bytes the kernel has room for."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.takes = 1 << 60
        self.stuck = b""
        self.closing = False
        self.reading = True
        self.eof = False  # the server has closed its half
        self.protocol: Any = None
        self._data = b""

    def write(self, data: bytes) -> None:
        assert not self.closing
        assert not self.eof
        if self.rig.dispatcher.journal:
            self.rig.unlogged.append(data)
        self.rig.events.append(("write", len(data)))
        taken = data[: self.takes] if not self.stuck else b""
        self.takes -= len(taken)
        self._data += taken
        self.stuck += data[len(taken) :]

    def take_stuck(self) -> None:
        """The kernel takes everything."""
        self.takes = 1 << 60
        self._data, self.stuck = self._data + self.stuck, b""
        if self.closing:
            self._lose()
        else:
            self.protocol.resume_writing()

    def frames(self) -> list[Any]:
        """What the peer got since the last call, as frames."""
        found = []
        while len(self._data) >= 4:
            end = 4 + int.from_bytes(self._data[:4], "big")
            assert len(self._data) >= end, "half a frame"
            found.append(msgpack.unpackb(self._data[4:end], strict_map_key=False))
            self._data = self._data[end:]
        return found

    def bytes(self) -> bytes:
        data, self._data = self._data, b""
        return data

    def get_write_buffer_size(self) -> int:
        return len(self.stuck)

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        pass

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 5) if name == "peername" else None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def close(self) -> None:
        self.closing = True
        if not self.stuck:
            self._lose()

    def abort(self) -> None:
        self.closing = True
        self._lose()

    def _lose(self) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            asyncio.get_running_loop().call_soon(protocol.connection_lost, None)


class Rig:
    """Make it within a running loop."""

    def __init__(self, limits: Limits | None = None, auth: AuthConfig | None = None) -> None:
        self.limits = limits or Limits()
        self.events: list[Any] = []
        self.unlogged: list[bytes] = []  # what left while something applied was not in the log
        self.failures: list[BaseException] = []
        self.clock = ManualClock(START_MS)
        self.now = START_MS
        self.log = FakeLog(self.events)
        self.store = Store()
        self.metrics = Metrics()
        self.presence = Presence(
            self.store.last_seen,
            self.store.sales,
            self.limits,
            lambda channel: self.store.settings.channel_rules(channel).presence_events_max,
        )
        self.watches = Watches(subject_kinds(self.store, self.presence, {}), self.limits)
        self.router = Router(self.store.channels, self.metrics, self.watches, self.presence)
        self.sessions = Sessions(self.limits, self.router.places, self.router.leave)
        self.dispatcher = Dispatcher(load(), self.store, self.router, self.metrics)
        self.turn = Turn(
            loop=asyncio.get_running_loop(),
            clock=self.clock,
            log=self.log,
            store=self.store,
            router=self.router,
            dispatcher=self.dispatcher,
            metrics=self.metrics,
            limits=self.limits,
            fail=self.failures.append,
        )
        self.authority = Authority(
            auth or AuthConfig(), dev=auth is None, find_session=self.sessions.find
        )
        self.hub = Hub(
            turn=self.turn,
            dispatcher=self.dispatcher,
            router=self.router,
            table=load(),
            limits=self.limits,
            metrics=self.metrics,
            sessions=self.sessions,
            authority=self.authority,
            express=new_express(load(), self.store, self.dispatcher),
        )
        host = FakeHost(self)
        host.act_as, host.kick, host.blocks = self.hub.act_as, self.hub.kick, self.hub.blocks
        self.dispatcher.attach(host)
        self.turn.open()
        self.dispatcher.issue("channel.era", ["era"])

    @property
    def unsettled(self) -> bool:
        return self.turn.unsettled

    def connect(self) -> FakeTransport:
        """A connection that has not said a byte."""
        transport = FakeTransport(self)
        transport.protocol = FirstBytes(self.hub)
        transport.protocol.connection_made(transport)
        return transport

    def sync(self) -> None:
        """The sync thread has finished with all that is written."""
        self.log.synced_seq = self.log.written_seq
        self.turn.on_log_progress()

    async def settle(self) -> None:
        """Runs turns until nothing is left to do."""
        for _ in range(50):
            await asyncio.sleep(0)
        assert not self.failures, self.failures
        assert not self.unlogged, "bytes left before what was applied was in the log"


def request(request_id: int, method: str, *params: Any, **options: Any) -> bytes:
    body = msgpack.packb([0, request_id, method, list(params), options])
    return len(body).to_bytes(4, "big") + body


def say(transport: FakeTransport, *requests: bytes) -> None:
    """The bytes of a client arrive, all at once."""
    transport.protocol.data_received(b"".join(requests))
