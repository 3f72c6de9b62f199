"""Assembly of one server: recover, wire the parts together, listen, stop.

Owns the order of a life: lock the directory, recover, log what changed in the configuration,
open the listeners, and at the end stop accepting, drain, close the log. Nothing else decides
anything here.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import secrets
import signal
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rtserver.audits import Audits
from rtserver.clock import Clock, ManualClock, SteadyClock, wall_ms
from rtserver.commands.dispatch import Dispatcher
from rtserver.commands.express import new_express
from rtserver.commands.replay import Replay
from rtserver.commands.rights import check_rows
from rtserver.commands.table import Command, load
from rtserver.config import Config, ConfigError
from rtserver.drain import Drain
from rtserver.exposition import Exposition
from rtserver.host import Host
from rtserver.hub import Hub
from rtserver.listeners import Listeners
from rtserver.memory import Memory
from rtserver.metrics import Metrics
from rtserver.persist.files import Files
from rtserver.persist.log import Log
from rtserver.persist.recovery import Recovered, recover
from rtserver.session.auth import Authority
from rtserver.session.auth import check_config as check_auth
from rtserver.session.challenges import Challenges
from rtserver.session.presence import Presence
from rtserver.session.router import Router
from rtserver.session.sessions import Sessions
from rtserver.session.subjects import subject_kinds
from rtserver.session.watches import Watches
from rtserver.snapshots import Snapshots
from rtserver.state.settings import settings_of
from rtserver.state.store import Store
from rtserver.tick import Turn
from rtserver.wire.codec import pack

__all__ = ["Server"]

_log = logging.getLogger("rtserver")

_STOP_GRACE_S = 5.0
_SLICES_PER_SECOND = 20


class Server:
    """One server on one data directory. `start`, then `wait`, then `stop`."""

    def __init__(
        self,
        config: Config,
        *,
        dev: bool,
        manual_clock: bool = False,
        files: Files | None = None,
        progress: Callable[[int, int], None] | None = None,
        pages: Mapping[str, tuple[str, bytes]] | None = None,
    ) -> None:
        self.config = config
        self.directory = Path(config.data).absolute()
        check_auth(config.auth)
        self.authority = Authority(config.auth, dev=dev)
        self._challenges = Challenges(config.sales)
        self.listeners = Listeners(config)
        self.failure: BaseException | None = None
        self.recovered: Recovered | None = None
        self._manual_clock = manual_clock
        self._files = files or Files()
        self._progress = progress
        self._pages = pages or {}
        self._table: Mapping[str, Command] = load()
        check_rows(self._table, config.rights)
        self._store = Store()
        self._metrics = Metrics()
        self._ended = asyncio.Event()
        self._memory = Memory(config.limits.memory_max)
        keys = [self.authority.reload, self._challenges.reload]
        self._reloads = [*self.listeners.reload(), *keys]
        self._drain: Drain | None = None
        self._second: asyncio.TimerHandle | None = None
        self._slice: asyncio.TimerHandle | None = None

    # --- start ---

    async def start(self) -> None:
        """Recovers the state, then listens. Raises LogDamaged, ReplayFailed, OSError."""
        gc.disable()  # a full collection over millions of objects stalls for seconds
        self._loop = asyncio.get_running_loop()
        self._directory_lock = self._files.lock(self.directory)
        recovered = self._recover()
        self._build(recovered)
        self._log_start(recovered)
        await asyncio.sleep(0)  # the turn that logged it ends
        self._store.enforce(self.config.limits)
        gc.collect()
        gc.freeze()
        await self._listen()
        self._look_after()
        self._every_second()

    def _recover(self) -> Recovered:
        replay = Replay(self._table, self._store)
        self.recovered = recover(
            self.directory,
            self._files,
            apply_block=replay.apply_block,
            load_chunk=replay.load_chunk,
            progress=self._progress,
        )
        return self.recovered

    def _build(self, recovered: Recovered) -> None:
        config = self.config
        clock = self._clock(recovered)
        self._log = Log.open(
            self.directory,
            self._files,
            recovered,
            config=config.log,
            closing_record=self._totals,
            notify=self._notify,
            keep_since=self._store.sales.oldest_ms,
        )
        router = self._build_router(clock.now_ms() if recovered.now_ms else None)
        sessions = Sessions(config.limits, router.places, router.leave)
        self.authority.find_session = sessions.find
        self._dispatcher = Dispatcher(
            self._table, self._store, router, self._metrics, config.rights
        )
        self._turn = Turn(
            loop=self._loop,
            clock=clock,
            log=self._log,
            store=self._store,
            router=router,
            dispatcher=self._dispatcher,
            metrics=self._metrics,
            limits=config.limits,
            fail=self._fail,
        )
        self._hub = Hub(
            turn=self._turn,
            dispatcher=self._dispatcher,
            router=router,
            table=self._table,
            limits=config.limits,
            metrics=self._metrics,
            sessions=sessions,
            authority=self.authority,
            web=config.web,
            express=new_express(self._table, self._store, self._dispatcher),
        )
        self._snapshots = Snapshots(
            self.directory,
            self._log,
            self._turn,
            config.log.snapshot_after_bytes,
            lambda: self._dispatcher.ctx.now,
        )
        self._audits = Audits(self._turn, self._store.sales, config.limits)
        self._host = Host(
            config=config,
            directory=self.directory,
            store=self._store,
            router=router,
            hub=self._hub,
            turn=self._turn,
            dispatcher=self._dispatcher,
            metrics=self._metrics,
            log=self._log,
            clock=clock,
            snapshots=self._snapshots,
            audits=self._audits,
            sessions=sessions,
            memory=self._memory,
            challenges=self._challenges,
        )
        self._dispatcher.attach(self._host)
        self._show()

    def _show(self) -> None:
        """What probes, Prometheus and people may read over HTTP."""
        host, hub = self._host, self._hub
        hub.health = host.health
        hub.metrics_text = Exposition(
            host.stats, self._metrics, self.config.limits, self._store.sales
        ).text
        hub.pages = self._pages

    def _build_router(self, restarted_ms: int | None) -> Router:
        """Who hears what, with who is here and what is watched."""
        store = self._store
        limits = self.config.limits
        self._presence = presence = Presence(
            store.last_seen,
            store.sales,
            limits,
            lambda channel: store.settings.channel_rules(channel).presence_events_max,
            restarted_ms=restarted_ms,
        )
        watches = Watches(subject_kinds(store, presence, {}), limits)
        return Router(store.channels, self._metrics, watches, presence)

    def _clock(self, recovered: Recovered) -> Clock:
        """Time goes on from the last logged one: by the boot clock, else by the wall clock."""
        if recovered.same_boot:
            now = recovered.now_ms + max(0, self._files.boot_ms() - recovered.boot_ms)
        else:
            now = max(wall_ms(), recovered.now_ms)
        return ManualClock(now) if self._manual_clock else SteadyClock(now)

    def _totals(self) -> bytes:
        """The record that closes a segment: what replay up to there must give."""
        return pack(("log.totals", 1, [self._store.totals()]))

    def _notify(self) -> None:
        """From the sync thread: the loop shall look at the log. The thread may be quicker than
        the start, so the turn is looked up in the loop, which runs when all is wired."""
        self._loop.call_soon_threadsafe(lambda: self._turn.on_log_progress())

    def _log_start(self, recovered: Recovered) -> None:
        """What changed beside the log, as records: epochs after a loss, the configuration."""
        issues: list[tuple[str, list[Any]]] = []
        settings = settings_of(self.config)
        if settings != self._store.settings.values:
            issues.append(("settings.apply", [settings]))
        if recovered.new_epochs or not self._store.channels.era:
            issues.append(("channel.era", [secrets.token_hex(4)]))
        if issues:
            self._turn.open()
            for method, args in issues:
                self._dispatcher.issue(method, args)
            self._turn.at_start(self._log.request_sync)
        if recovered.new_epochs:
            self._turn.at_start(self._log.clear_era_pending)

    async def _listen(self) -> None:
        _raise_file_limit()
        await self.listeners.open(self._hub)
        self._directory_lock.describe(self.url_address)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first listener."""
        return self.listeners.address

    @property
    def url_address(self) -> str:
        """HOST:PORT as it stands in a URL."""
        return self.listeners.url_address

    # --- life ---

    def _look_after(self) -> None:
        """Connections are looked at in slices: ten thousand at once would be a stall."""
        if self._turn.stopped:
            return
        self._hub.look_after(self._dispatcher.ctx.now, 1 / _SLICES_PER_SECOND)
        self._slice = self._loop.call_later(1 / _SLICES_PER_SECOND, self._look_after)

    def _every_second(self) -> None:
        if self._turn.stopped:
            return
        self._turn.open()  # time goes on for whoever waits, also when nobody speaks
        self._snapshots.look_after()
        self._store.growth.refusal = self._memory.look()
        self._second = self._loop.call_later(1.0, self._every_second)

    async def wait(self) -> None:
        """Returns when `end` was called or the server failed."""
        await self._ended.wait()

    def end(self) -> None:
        """Asks for a stop (a signal handler). Asked again, it is one without a drain."""
        if self._ended.is_set() and self._drain is not None:
            self._drain.hurry()
        self._ended.set()

    def reload(self) -> None:
        """Reads certificates and keys again. What cannot be used is said, and the old one stays."""
        for reload in self._reloads:
            try:
                what = reload()
            except ConfigError as error:
                _log.error("not reloaded: %s", error)
            else:
                if what is not None:
                    _log.info("reloaded %s", what)

    def handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.end)
        self._loop.add_signal_handler(signal.SIGHUP, self.reload)

    def _fail(self, error: BaseException) -> None:
        """State or disk cannot be trusted: nothing more may leave; recovery decides."""
        self.failure = error
        _log.critical("stopping: %s", "".join(traceback.format_exception(error)).strip())
        self._ended.set()

    # --- stop ---

    async def stop(self) -> None:
        """Stops accepting, drains, answers what was applied, closes every connection and the log.
        Takes at most `limits.drain_ms` and a bounded grace."""
        self._hub.accepting = False
        self._host.stopping = True
        if self._second is not None:
            self._second.cancel()
        self.listeners.close()
        self._audits.stop()
        await self._snapshots.stop()
        if self.failure is None:
            self._drain = Drain(self._hub)
            await self._drain.run()
        if self._slice is not None:
            self._slice.cancel()
        await self._snapshots.stop()  # one may have been asked for meanwhile
        if self.failure is None:
            await self._turn.settle(_STOP_GRACE_S)
        if self.failure is None:
            await self._note_last_seen()
        self._turn.stopped = True
        self._log.close(self._dispatcher.ctx.now, clean=self.failure is None)
        self._directory_lock.release()
        self._store.events.clear()

    async def _note_last_seen(self) -> None:
        """Whoever is here was seen now; turns log that, as long as they have room."""
        people = self._presence.people
        people.end(self._dispatcher.ctx.now)
        deadline = self._loop.time() + _STOP_GRACE_S
        while (people.unseen or self._turn.is_open) and self._loop.time() < deadline:
            if self.failure is not None:
                return
            self._turn.open()
            await asyncio.sleep(0.005)


def _raise_file_limit() -> None:
    """As many sockets as the system allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
