"""The turn: read all ready sockets, run their commands, append one block, let replies leave.

Owns the order of these four and the turn's budget. The first bytes of a loop iteration open a
turn and schedule its end with `call_soon`, which runs after every socket that was ready in the
same poll. At the start: room in the log is reserved and due timers fire. At the end: one block
holds all records of the turn; only then do replies and pushes leave, one write a connection;
replies that asked for a sync wait for it in `_unsynced`. Work beyond the budget goes to the
backlog and runs in the next turn, round robin.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rtserver.clock import Clock, monotonic_us
from rtserver.commands.dispatch import BrokenState, Dispatcher, Waiting
from rtserver.errors import CLOSE_INTERNAL, DISK_FULL, OUTCOME_UNKNOWN, OVERLOADED, RtError
from rtserver.limits import Limits
from rtserver.metrics import Metrics
from rtserver.persist.errors import LogFailed
from rtserver.persist.log import Log
from rtserver.session.connection import Connection
from rtserver.session.router import Router
from rtserver.state.store import Store
from rtserver.transport.engine import Progress, Reader

__all__ = ["Turn"]

_logger = logging.getLogger("rtserver")

_RECORD_SLACK = 64 * 1024  # of a turn's last record beyond the largest frame
_DELIVERIES_PER_COST = 8  # pushes that cost about as much as one command
_CHARGE_COST = 32  # after which the time is looked at
_CATCH_UP_MAX = 2_000  # messages a turn sends to readers who are behind
_SEEN_ROWS = 500  # users whose last seen is logged as one record
_GIVEN_UP_MAX = 500  # places of a queue that are given up as one record
_SEEN_ROW_BYTES = 16  # of such a row beside the name
_RETRY_S = 0.1  # between attempts to write a block that did not fit the disk

_DISK_FULL = RtError(DISK_FULL, "the disk has no room for the log; nothing was done")
_NO_SEGMENT = RtError(OVERLOADED, "the next segment of the log is still being prepared")


class _Unsynced:
    """Replies that leave when `seq` is synced."""

    __slots__ = ("answered", "seq", "timer", "waiting")

    def __init__(self, seq: int, waiting: Waiting) -> None:
        self.seq = seq
        self.waiting = waiting
        self.answered = False
        self.timer: asyncio.TimerHandle | None = None


class Turn:
    """The turns of one server; `run` and `open` are for transports, the rest for the server."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        log: Log,
        store: Store,
        router: Router,
        dispatcher: Dispatcher,
        metrics: Metrics,
        limits: Limits,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.dirty: list[Connection] = []  # connections with bytes for this turn's end
        self.is_open = False
        self.stopped = False  # after a failure nothing runs and nothing leaves
        self._loop = loop
        self._clock = clock
        self._log = log
        self._store = store
        self._router = router
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._limits = limits
        self._fail = fail
        self._secret = os.urandom(24)  # of the seeds: each turn has its own
        self._turns = 0
        self._backlog: deque[Reader] = deque()
        self._unsynced: deque[_Unsynced] = deque()
        self._stalled: list[Connection] | None = None  # wait for a block that did not fit
        self._freed: list[Connection] = []  # their outbox has left: their requests may go on
        self._at_start: list[Callable[[], None]] = []
        self._cost_left = 0
        self._uncharged = 0  # cost of small pieces since the time was looked at
        self._deadline_us = 0
        self._started_us = 0
        self._more = False  # the next turn has work even without new bytes
        self._wake: asyncio.TimerHandle | None = None
        self._wake_ms = 0
        self._watch_wake: asyncio.TimerHandle | None = None
        self._timers_wait = False  # due ones found no room in the log
        self._places_wait = False  # and so did users who are gone
        self._room = limits.turn_log_bytes_max + limits.frame_bytes_max + _RECORD_SLACK

    # --- the start ---

    def open(self) -> None:
        """Opens a turn, unless one is open."""
        if self.is_open or self.stopped:
            return
        self.is_open = True
        self._loop.call_soon(self._guarded, self._close)
        self._guarded(self._start)

    def _start(self) -> None:
        self._started_us = monotonic_us()
        self._deadline_us = self._started_us + self._limits.turn_ms_max * 1_000
        self._cost_left = self._limits.turn_cost_max
        ctx = self._dispatcher.ctx
        ctx.now = self._clock.now_ms()
        self._turns += 1
        ctx.seed = self._secret + self._turns.to_bytes(8, "big")
        ctx.draws = 0
        for action in self._at_start:
            action()
        self._at_start.clear()
        self._reserve()
        self._fire_timers()
        self._router.presence.expire(ctx.now)
        self._run_backlog()

    def at_start(self, action: Callable[[], None]) -> None:
        """Runs an action at the start of the next turn, when state and log agree."""
        self._at_start.append(action)
        if not self.is_open:
            self.open()
        else:
            self._more = True

    def _reserve(self) -> None:
        """Room for all that this turn can log, before anything of it is touched."""
        dispatcher = self._dispatcher
        log = self._log
        if log.stalled:
            dispatcher.refusal = _DISK_FULL
            return
        dispatcher.refusal = None
        if log.reserve(self._room):
            dispatcher.journal.limit = self._room
            dispatcher.full = _NO_SEGMENT
        else:
            dispatcher.journal.limit = log.room
            dispatcher.full = _DISK_FULL if log.full else _NO_SEGMENT

    def _fire_timers(self) -> None:
        """Due deadlines come before the turn's commands."""
        due = self._store.timers.count_due(self._dispatcher.ctx.now, self._limits.timers_per_turn)
        if not due:
            self._timers_wait = False
            return
        try:
            self._dispatcher.issue("timers.fire", [due])
        except RtError:
            self._timers_wait = True  # no room in the log: they fire when there is
            return
        self._timers_wait = False
        self._cost_left -= due

    def _run_backlog(self) -> None:
        """In turn: who does not get to it is the first of the next one."""
        for _ in range(len(self._backlog)):
            if self._cost_left <= 0:
                break
            reader = self._backlog.popleft()
            reader.queued = False
            self._run(reader)

    # --- running requests ---

    def run(self, reader: Reader) -> None:
        """The reader has something to run: now, or in its place in the backlog."""
        self.open()
        if not reader.queued and not self.stopped:
            self._guarded(self._run, reader)

    def _run(self, reader: Reader) -> None:
        connection = reader.connection
        try:
            progress = reader.run()
        except (BrokenState, LogFailed):
            raise
        except Exception:
            _logger.exception("connection %d: a request could not be handled", connection.id)
            connection.close(CLOSE_INTERNAL, "the server failed on this request; its log says why")
            return
        ending = progress is Progress.IDLE and reader.ended
        if ending:  # it may listen on, but nobody speaks there any more; or it is about to be lost
            self._router.presence.gone(connection)
        # A half-closed connection is looked at again after each reply that it waits for.
        connection.blocked = progress is Progress.BLOCKED or (ending and connection.waiting > 0)
        if progress is Progress.MORE:
            self._enqueue(reader)
        reader.set_reading(progress is Progress.IDLE)
        if ending and not self._expects(connection):
            connection.is_open = False  # nothing more can come of a half-closed connection
            self.dirty.append(connection)

    @staticmethod
    def _expects(connection: Connection) -> bool:
        return bool(connection.waiting or connection.subscriptions)

    def _enqueue(self, reader: Reader) -> None:
        reader.queued = True
        self._backlog.append(reader)

    @property
    def now_ms(self) -> int:
        """The time of this turn."""
        return self._dispatcher.ctx.now

    def budget(self) -> int:
        """What one connection may still cost in this turn."""
        return min(self._limits.connection_cost_per_turn, self._cost_left)

    def charge(self, cost: int) -> None:
        """Counts cost; now and then looks at the time."""
        self._uncharged += cost
        if self._uncharged >= _CHARGE_COST:
            self._uncharged, cost = 0, self._uncharged
            self.spent(cost)

    def spent(self, cost: int) -> bool:
        """Counts cost; True when no other request may start in this turn."""
        self._cost_left -= cost + self._router.take_audience() // _DELIVERIES_PER_COST
        full = self._dispatcher.journal.bytes >= self._limits.turn_log_bytes_max
        if full or monotonic_us() >= self._deadline_us:
            self._cost_left = 0
        return self._cost_left <= 0

    def cut(self) -> None:
        """Nothing more runs in this turn: what follows must see the next one's time."""
        self._cost_left = 0

    # --- the end ---

    def _close(self) -> None:
        dispatcher = self._dispatcher
        self._forget_idle()
        self._note_who_left()
        self._give_up_places()
        records, count = dispatcher.journal.drain()
        if count:
            self._log.append_packed(records, count, dispatcher.ctx.now)
            self._router.watches.touch()
        if self._log.stalled:
            self._hold(said=count > 0)
        else:
            self._release()
        self._start_offloaded()
        self._flush(self.dirty)
        self._more |= self._router.lags and not self._log.stalled
        self._finish()

    def _forget_idle(self) -> None:
        """Idle channels that nobody listens to; without room in the log they stay till later."""
        for name in self._router.take_idle():
            with suppress(RtError):
                self._dispatcher.issue("channel.forget", [name])

    def _note_who_left(self) -> None:
        """When users were seen last; without room in the log they wait in memory."""
        people = self._router.presence.people
        rows = people.unseen_rows(_SEEN_ROWS)
        if not rows:
            return
        size = sum(4 * len(user) + _SEEN_ROW_BYTES for user, _ in rows)
        with suppress(RtError):
            self._dispatcher.issue("presence.seen", [rows, None], size)
            people.noted(len(rows))
            self._more |= people.unseen > 0

    def _give_up_places(self) -> None:
        """In queues, of users who are gone; without room in the log they wait."""
        grace = self._router.presence.grace
        given_up = grace.due(self._dispatcher.ctx.now, _GIVEN_UP_MAX)
        self._places_wait = False
        if given_up is None:
            return
        size = sum(4 * len(user) for user in given_up.users)
        try:
            self._dispatcher.issue("sale.abandon", [given_up.sale.name, given_up.users], size)
        except RtError:
            self._places_wait = True
            return
        grace.done(given_up)
        self._more = True

    def _release(self) -> None:
        """The block is written: what waited for that may leave."""
        seq = self._log.written_seq
        router = self._router
        router.written(seq)
        self._await_sync(seq)
        router.tell_presence(self._dispatcher.ctx.now)
        if router.watches:
            router.look(monotonic_us() // 1_000, self._dispatcher.ctx.now, self._unsynced_seq())
        router.catch_up(_CATCH_UP_MAX)

    def _unsynced_seq(self) -> int:
        """What is still to be synced for a reply that waits; 0 where none does."""
        return self._unsynced[-1].seq if self._unsynced else 0

    @property
    def unsettled(self) -> bool:
        """Whether a reply waits for its sync, or a block for its write."""
        return bool(self._dispatcher.waiting or self._unsynced or self._log.stalled)

    def _await_sync(self, seq: int) -> None:
        waiting = self._dispatcher.waiting
        if waiting:
            for one in waiting:
                entry = _Unsynced(seq, one)
                self._unsynced.append(entry)
                if one.timeout_ms is not None:
                    delay_s = one.timeout_ms / 1_000
                    entry.timer = self._loop.call_later(delay_s, self._time_out, entry)
            waiting.clear()
        if self._unsynced or self._router.holds:
            self._log.request_sync()

    def _hold(self, *, said: bool) -> None:
        """A block did not fit the disk. If this turn said it, all its bytes wait for a retry."""
        if self._stalled is None:
            self._stalled = []
            self._loop.call_later(_RETRY_S, self._guarded, self._retry)
        if said:
            self._router.hold_ready()
            self._stalled += self.dirty
            self.dirty.clear()

    def _retry(self) -> None:
        if not self._log.retry():
            self._loop.call_later(_RETRY_S, self._guarded, self._retry)
            return
        stalled, self._stalled = self._stalled, None
        self._release()  # before a new turn, whose writes are in no block yet
        self._router.synced(self._log.synced_seq)
        self.dirty.extend(stalled or ())
        self.open()

    def _flush(self, connections: list[Connection]) -> None:
        written = 0
        for connection in connections:
            written += connection.flush()
            if not connection.is_open:
                connection.end()
            elif connection.blocked:
                self._freed.append(connection)
        self._metrics.bytes_out += written
        connections.clear()

    def _finish(self) -> None:
        self.is_open = False
        self._more |= not self._store.reclaim(self._limits.reclaimed_per_turn)
        self._metrics.turn.record(monotonic_us() - self._started_us)
        if self._backlog or self._more:
            self._more = False
            self._loop.call_soon(self.open)
        else:
            self._set_wake()
            self._set_watch_wake()
        freed, self._freed = self._freed, []
        for connection in freed:  # in a new turn: this one's block is already written
            connection.unblock()

    def _set_wake(self) -> None:
        """The next deadline opens a turn even when no bytes come."""
        due = self._next_due()
        if due is None or (self._wake is not None and self._wake_ms <= due):
            return
        if self._wake is not None:
            self._wake.cancel()
        self._wake_ms = due
        delay = max(0, due - self._dispatcher.ctx.now) / 1_000
        if self._timers_wait:
            delay = max(delay, _RETRY_S)
        self._wake = self._loop.call_later(delay, self._awake)

    def _next_due(self) -> int | None:
        """Of the state's deadlines and those of presence; the latter wait for a full disk."""
        dues = [self._store.timers.next_due_ms()]
        if not self._log.stalled:
            presence = self._router.presence
            dues.append(presence.next_due())
            if not self._places_wait:  # then the turn of the next second tries again
                dues.append(presence.grace.next_due())
        return min((due for due in dues if due is not None), default=None)

    def _set_watch_wake(self) -> None:
        """What is watched and changed is looked at even when no bytes come."""
        if self._router.watches and self._watch_wake is None and not self._log.stalled:
            due_in = self._router.watches.due_in(monotonic_us() // 1_000)
            if due_in is not None:
                self._watch_wake = self._loop.call_later(due_in / 1_000, self._awake_watches)

    def _awake_watches(self) -> None:
        self._watch_wake = None
        self.open()

    def _awake(self) -> None:
        self._wake = None
        self.open()

    def _start_offloaded(self) -> None:
        for call in self._dispatcher.offloaded:
            self._loop.create_task(self._offload(*call))
        self._dispatcher.offloaded.clear()

    async def _offload(self, connection: Connection, request_id: int | None, work: Any) -> None:
        try:
            result, error = await work, None
        except RtError as refusal:
            result, error = None, refusal
        self.open()
        connection.waiting -= 1
        if request_id is None:
            return
        if error is None:
            connection.reply(request_id, result)
        else:
            self._metrics.count_error(error.kind.name)
            connection.reply_error(request_id, error)
        connection.unblock()

    # --- syncs ---

    def on_log_progress(self) -> None:
        """The sync thread has news (called in the loop)."""
        self._guarded(self._take_log_progress)

    def _take_log_progress(self) -> None:
        self._log.poll()
        if self._log.failure is not None:
            raise self._log.failure
        synced = self._log.synced_seq
        ready = self._unsynced and self._unsynced[0].seq <= synced
        if not ready and not self._router.holds:
            return
        self.open()
        self._router.synced(synced)
        while self._unsynced and self._unsynced[0].seq <= synced:
            self._answer(self._unsynced.popleft())

    def _answer(self, entry: _Unsynced, error: RtError | None = None) -> None:
        if entry.answered:
            return
        entry.answered = True
        if entry.timer is not None:
            entry.timer.cancel()
        connection, replies, number, request_id, _ = entry.waiting
        connection.waiting -= number
        if error is None:
            connection.send(replies)
        else:
            self._metrics.count_error(error.kind.name)
            connection.reply_error(request_id, error)
        connection.unblock()

    def _time_out(self, entry: _Unsynced) -> None:
        if entry.answered or self.stopped:
            return
        self.open()
        timeout_ms = entry.waiting.timeout_ms
        self._answer(
            entry, RtError(OUTCOME_UNKNOWN, f"applied, but not yet synced after {timeout_ms} ms")
        )

    async def settle(self, grace_s: float) -> None:
        """Waits until every reply that waits for a sync has left, at most so long."""
        end = self._loop.time() + grace_s
        while (self._unsynced or self.is_open) and self._loop.time() < end and not self.stopped:
            self._log.request_sync()
            await asyncio.sleep(0.005)

    # --- failures ---

    def stop(self, error: Exception) -> None:
        """State or log cannot be trusted any more."""
        self.stopped = True
        self._fail(error)

    def _guarded(self, action: Callable[..., None], *args: Any) -> None:
        """Whatever escapes a turn stops the server before a reply of that turn can leave."""
        if self.stopped:
            return
        try:
            action(*args)
        except Exception as error:
            self.stop(error)
