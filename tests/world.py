"""A server without sockets and files: commands in, replies and records out.

Tests drive time and turns by hand. `replayed` feeds all records through recovery's own path into
an empty store, so every test can ask whether the log alone gives the same state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from rtserver.commands.dispatch import Dispatcher
from rtserver.commands.express import new_express
from rtserver.commands.replay import Replay
from rtserver.commands.table import ROLES, load
from rtserver.config import AuthConfig, RightsRow, SalesConfig
from rtserver.errors import DISK_FULL, ERRORS, RtError
from rtserver.limits import Limits
from rtserver.metrics import Metrics
from rtserver.session.auth import Authority
from rtserver.session.blocks import Blocks
from rtserver.session.challenges import Challenges
from rtserver.session.connection import Connection
from rtserver.session.identity import Identity
from rtserver.session.presence import Presence
from rtserver.session.router import Router
from rtserver.session.sessions import Sessions
from rtserver.session.subjects import subject_kinds
from rtserver.session.watches import SubjectKind, Watches
from rtserver.state.sales.audit import Audit
from rtserver.state.store import Store
from rtserver.transport.binary import new_frame_reader
from rtserver.wire import frames
from rtserver.wire.codec import pack, unpack_trusted

START_MS = 1_700_000_000_000
RECLAIMED_PER_TURN = 20


class Refused(Exception):
    """An error reply."""

    def __init__(self, error: list[Any]) -> None:
        super().__init__(f"{error[1]}: {error[2]}")
        self.code, self.name, self.message, self.details = error
        assert ERRORS[self.name].code == self.code


class Peer:
    """The far end of a connection: what was written to it, decoded."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = False
        self.stuck = 0  # bytes that the kernel does not take

    def write(self, data: bytes) -> None:
        self.data += data

    def buffered(self) -> int:
        return self.stuck

    def resume(self) -> None:
        pass

    def look(self, now: int) -> None:
        pass

    def end(self) -> None:
        self.ended = True

    def take(self) -> list[Any]:
        """The frames since the last call."""
        found = []
        while self.data:
            (length,) = frames.HEADER.unpack_from(self.data)
            found.append(msgpack.unpackb(self.data[4 : 4 + length], strict_map_key=False))
            self.data = self.data[4 + length :]
        return found


class FakeHost:
    """The process around the commands; only what handlers need."""

    subscriptions_max = 5

    def __init__(self, world: World) -> None:
        self._world = world
        self.sessions = world.sessions
        self.blocks = Blocks(10)
        self.dev = world.authority.dev
        self.must_prove = world.authority.must_prove

    @property
    def unsettled(self) -> bool:
        return self._world.unsettled

    def info(self) -> dict[str, Any]:
        return {"name": "rtserver"}

    def stats(self) -> dict[str, Any]:
        return {}

    def time(self) -> dict[str, Any]:
        return {"now": self._world.now, "wall": self._world.now, "offset_ms": 0, "manual": True}

    def accept_time(self) -> dict[str, int]:
        return {"jumped_ms": 0, "now": self._world.now}

    def advance(self, ms: int) -> dict[str, int]:
        self._world.now += ms
        return {"jumped_ms": ms, "now": self._world.now}

    def hello_limits(self) -> dict[str, int]:
        return {"frame_bytes_max": 1}

    def identify(self, token: str) -> Any:
        return self._world.authority.identify(token, None, self._world.now)

    def check_challenge(self, sale: str, user: str, token: str | None) -> None:
        self._world.challenges.check(sale, user, token, self._world.now)

    def act_as(self, connection: Connection, identity: Identity) -> None:
        connection.identify(identity)
        self._world.presence.identified(connection)
        self.sessions.renew(connection)

    def kick(self, user: str, channel: str | None, block_ms: int) -> int:
        if block_ms:
            self.blocks.block(user, channel, self._world.now + block_ms, self._world.now)
        return 0

    def keeps(self, channel: str) -> bool:
        return self._world.store.settings.channel_rules(channel).keeps

    def open_channel(self, name: str) -> Any:
        if self._world.store.channels.get(name) is None:
            self._world.dispatcher.issue("channel.open", [name])
        return self._world.store.channels.get(name)

    async def snapshot(self) -> dict[str, Any]:
        return {}

    async def audit(self, audit: Audit) -> dict[str, Any]:
        while not audit.proceed():
            pass
        return audit.result


class World:
    """Store, router, dispatcher and a list of blocks instead of a log."""

    def __init__(
        self,
        limits: Limits | None = None,
        restarted_ms: int | None = None,
        *,
        store: Store | None = None,
        authority: Authority | None = None,
        sales: SalesConfig | None = None,
        rights: Sequence[RightsRow] = (),
        kinds: Mapping[str, SubjectKind] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.table = load()
        self.store = store or Store()
        self.metrics = Metrics()
        self.presence = Presence(
            self.store.last_seen,
            self.store.sales,
            self.limits,
            lambda channel: self.store.settings.channel_rules(channel).presence_events_max,
            restarted_ms=restarted_ms,
        )
        self.watches = Watches(subject_kinds(self.store, self.presence, kinds or {}), self.limits)
        self.router = Router(self.store.channels, self.metrics, self.watches, self.presence)
        self.sessions = Sessions(self.limits, self.router.places, self.router.leave)
        self.dispatcher = Dispatcher(self.table, self.store, self.router, self.metrics, rights)
        self.authority = authority or Authority(AuthConfig(), dev=True)
        self.challenges = Challenges(sales or SalesConfig())
        self.dispatcher.attach(FakeHost(self))
        self.express = new_express(self.table, self.store, self.dispatcher)
        self.waiting = self.dispatcher.waiting
        self.frame = self.dispatcher.frame
        self.dispatcher.full = RtError(DISK_FULL, "full")
        self.dirty: list[Connection] = []
        self.blocks: list[tuple[int, list[bytes]]] = []
        self.seq = 0
        self.now = restarted_ms or START_MS
        self.timers_per_turn = 1_000  # 0: what is due waits, as behind many others
        self.open_turn()
        self.dispatcher.issue("channel.era", ["era"])
        self.store.enforce(self.limits)
        self.end_turn()
        self.peer = Peer()
        self.connection = self.connect(self.peer)
        self.pushed: list[Any] = []  # pushes that came with replies
        self._next_id = 0

    def connect(self, peer: Peer, role: str = "admin", user: str | None = None) -> Connection:
        connection = Connection(
            1,
            frames,
            peer,
            self.limits,
            self.dirty,
            identity=Identity(ROLES[role], user),
            address=None,
            now=self.now,
        )
        self.presence.identified(connection)
        return connection

    def disconnect(self, connection: Connection) -> None:
        """What the hub does when the peer is gone."""
        self.sessions.lost(connection, self.now)
        connection.lost()
        self.router.leave(connection)
        self.presence.gone(connection)

    # --- turns ---

    @property
    def unsettled(self) -> bool:
        return bool(self.dispatcher.waiting)

    def open_turn(self) -> None:
        ctx = self.dispatcher.ctx
        ctx.now = self.now
        ctx.seed = self.seq.to_bytes(16, "big")
        ctx.draws = 0
        self.dispatcher.journal.limit = 1 << 24
        due = self.store.timers.count_due(self.now, self.timers_per_turn)
        if due:
            self.dispatcher.issue("timers.fire", [due])
        self.presence.expire(self.now)

    def end_turn(self) -> None:
        """Writes the block; replies that wait for a sync stay in `dispatcher.waiting`."""
        for name in self.router.take_idle():
            self.dispatcher.issue("channel.forget", [name])
        rows = self.presence.people.unseen_rows(1_000)
        if rows:
            self.dispatcher.issue("presence.seen", [rows, None])
            self.presence.people.noted(len(rows))
        grace = self.presence.grace
        while (given_up := grace.due(self.now, 500)) is not None:
            self.dispatcher.issue("sale.abandon", [given_up.sale.name, given_up.users])
            grace.done(given_up)
        records, count = self.dispatcher.journal.drain()
        if count:
            self.blocks.append((self.now, split(records)))
            self.seq += count
            assert len(self.blocks[-1][1]) == count
            self.watches.touch()
        self.router.written(self.seq)
        self.router.tell_presence(self.now)
        self.router.look(self.now, self.now, self.seq if self.dispatcher.waiting else 0)
        self.router.catch_up(1_000)
        self._run_offloaded()
        self.flush()
        self.store.reclaim(RECLAIMED_PER_TURN)

    def _run_offloaded(self) -> None:
        """Work beside the loop, which waits for nothing here."""
        for connection, request_id, work in self.dispatcher.offloaded:
            connection.waiting -= 1
            try:
                work.send(None)
            except StopIteration as end:
                connection.reply(request_id, end.value)
        self.dispatcher.offloaded.clear()

    def flush(self) -> None:
        for connection in self.dirty:
            connection.flush()
            if not connection.is_open:
                connection.end()
        self.dirty.clear()

    def sync(self) -> None:
        """Everything written so far is synced."""
        self.router.synced(self.seq)
        for waiting in self.dispatcher.waiting:
            waiting.connection.waiting -= waiting.number
            waiting.connection.send(waiting.replies)
        self.dispatcher.waiting.clear()
        self.flush()

    def advance(self, ms: int) -> None:
        self.now += ms
        self.open_turn()
        self.end_turn()

    # --- calls ---

    def send(
        self,
        method: str,
        *args: Any,
        connection: Connection | None = None,
        options: dict[str, Any] | None = None,
    ) -> int:
        """One request within the turn that is open."""
        self._next_id += 1
        body = [0, self._next_id, method, list(args)]
        if options:
            body.append(options)
        reader = new_frame_reader(self, connection or self.connection)
        reader.receive(frames.frame(pack(body)))
        reader.run()
        return self._next_id

    # What a reader of frames needs of the engine.

    def budget(self) -> int:
        return 1_000_000

    def spent(self, _cost: int) -> bool:
        return False

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        """One turn with one call, synced at once; its result, or Refused."""
        return self.call_on(self.connection, self.peer, method, *args, **options)

    def call_frame(self, body: list[Any]) -> Any:
        """One turn with one frame as it was decoded; the error of its reply is raised."""
        self.open_turn()
        self.dispatcher.frame(self.connection, body, 100)
        self.end_turn()
        self.sync()
        ((_, _, error, result),) = self.peer.take()
        if error is not None:
            raise Refused(error)
        return result

    def call_on(
        self, connection: Connection, peer: Peer, method: str, *args: Any, **options: Any
    ) -> Any:
        self.open_turn()
        request_id = self.send(method, *args, connection=connection, options=options)
        self.end_turn()
        self.sync()
        replies = []
        for frame in peer.take():
            (replies if frame[0] == 1 else self.pushed).append(frame)
        ((_, answered, error, result),) = replies
        assert answered == request_id
        if error is not None:
            raise Refused(error)
        return result

    # --- replay ---

    def records(self) -> list[Any]:
        return [unpack_trusted(record) for _, records in self.blocks for record in records]

    def replayed(self) -> Store:
        """The state that the log alone gives."""
        store = Store()
        replay = Replay(self.table, store)
        seq = 0
        for now, records in self.blocks:
            seq += replay.apply_block(memoryview(b"".join(records)), seq + 1, now)
        return store

    def restored(self) -> Store:
        """The state that a snapshot gives."""
        store = Store()
        replay = Replay(self.table, store)
        for chunk in self.store.dump():
            replay.load_chunk(unpack_trusted(pack(chunk)))
        return store

    def assert_same(self) -> None:
        """Log and snapshot each give exactly this state, and all of them agree with themselves."""
        self.store.check()
        expected = content(self.store)
        for other in (self.replayed(), self.restored()):
            other.check()
            assert content(other) == expected
            assert other.totals() == self.store.totals()


def split(records: bytes) -> list[bytes]:
    """Packed records that follow one another, one by one."""
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False)
    unpacker.feed(records)
    found: list[bytes] = []
    start = 0
    for _ in unpacker:
        found.append(records[start : unpacker.tell()])
        start = unpacker.tell()
    return found


def content(store: Store) -> dict[str, list[bytes]]:
    """Everything in a store in an order that does not depend on how maps iterate."""
    sections: dict[str, list[bytes]] = {}
    for section, value in store.dump():
        rows = value if section in ("counters", "timers") else [value]
        sections.setdefault(section, []).extend(pack(row) for row in rows)
    return {section: sorted(rows) for section, rows in sections.items()}
