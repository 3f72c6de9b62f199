"""The process as commands and probes see it: what it is, what it did, its time, its snapshots."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from rtserver import PROTOCOL_VERSION, __version__
from rtserver.audits import Audits
from rtserver.clock import Clock, ManualClock, wall_ms
from rtserver.commands.dispatch import Dispatcher
from rtserver.compiled import active_modules
from rtserver.config import Config
from rtserver.errors import CONFLICT, RtError
from rtserver.hub import Hub
from rtserver.loop import loop_name
from rtserver.memory import Memory
from rtserver.metrics import Metrics
from rtserver.persist.log import Log
from rtserver.session.challenges import Challenges
from rtserver.session.connection import Connection
from rtserver.session.identity import Identity
from rtserver.session.router import Router
from rtserver.session.sessions import Sessions
from rtserver.snapshots import Snapshots
from rtserver.state.channels import Channel
from rtserver.state.sales.audit import Audit
from rtserver.state.store import Store
from rtserver.tick import Turn

__all__ = ["Host"]

_DISAGREEMENT_MS_MAX = 600_000  # between our time and the wall clock, before someone must look


class Host:
    """Implements commands.context.Host."""

    def __init__(
        self,
        *,
        config: Config,
        directory: Path,
        store: Store,
        router: Router,
        hub: Hub,
        turn: Turn,
        dispatcher: Dispatcher,
        metrics: Metrics,
        log: Log,
        clock: Clock,
        snapshots: Snapshots,
        audits: Audits,
        sessions: Sessions,
        memory: Memory,
        challenges: Challenges,
    ) -> None:
        self.sessions = sessions
        self.blocks = hub.blocks
        self.dev = hub.authority.dev
        self.must_prove = hub.authority.must_prove
        self.subscriptions_max = config.limits.subscriptions_per_connection_max
        self.stopping = False
        self._config = config
        self._directory = directory
        self._store = store
        self._router = router
        self._hub = hub
        self._turn = turn
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._snapshots = snapshots
        self._audits = audits
        self._memory = memory
        self._challenges = challenges
        self._started_ms = clock.now_ms()
        self._time_accepted = False

    @property
    def unsettled(self) -> bool:
        return self._turn.unsettled

    # --- what it is and did ---

    def info(self) -> dict[str, Any]:
        limits = self._config.limits
        return {
            "name": "rtserver",
            "version": __version__,
            "protocol": PROTOCOL_VERSION,
            "python": platform.python_version(),
            "loop": loop_name(),
            "compiled": active_modules(),
            "pid": os.getpid(),
            "data": str(self._directory),
            "started_at": self._started_ms,
            "idempotency": {
                "age_ms": limits.idempotency_age_ms,
                "keys_max": limits.idempotency_keys_max,
                "client_age_ms": limits.idempotency_client_age_ms,
                "sale_keys_max": limits.sale_keys_max,
            },
            "limits": self.hello_limits(),
        }

    def hello_limits(self) -> dict[str, int]:
        limits = self._config.limits
        return {
            "frame_bytes_max": limits.frame_bytes_max,
            "subscriptions_max": self.subscriptions_max,
            "outbox_hard_bytes": limits.outbox_hard_bytes,
        }

    def stats(self) -> dict[str, Any]:
        return {
            "uptime_ms": self._clock.now_ms() - self._started_ms,
            "connections": self._hub.connections,
            "sessions": self.sessions.stats(),
            "subscriptions": self._router.subscriptions,
            "presence": self._router.presence.stats(),
            "watches": len(self._router.watches),
            "state": self._store.totals(),
            "memory": self._memory.stats(),
            "log": self._log.stats(),
            **self._metrics.as_map(),
        }

    # --- time ---

    def time(self) -> dict[str, Any]:
        return {
            "now": self._dispatcher.ctx.now,
            "wall": wall_ms(),
            "offset_ms": self._clock.wall_offset_ms(),
            "manual": isinstance(self._clock, ManualClock),
        }

    def accept_time(self) -> dict[str, int]:
        self._time_accepted = True
        return self._jumped(self._clock.accept_wall())

    def advance(self, ms: int) -> dict[str, int]:
        if not isinstance(self._clock, ManualClock):
            raise RtError(CONFLICT, "time moves by itself; start with serve --manual-clock")
        self._clock.advance(ms)
        return self._jumped(ms)

    def _jumped(self, jumped_ms: int) -> dict[str, int]:
        self._turn.cut()  # what follows must see the new time
        return {"jumped_ms": jumped_ms, "now": self._clock.now_ms()}

    # --- who is there ---

    def identify(self, token: str) -> Identity:
        return self._hub.identify(token, None)

    def check_challenge(self, sale: str, user: str, token: str | None) -> None:
        self._challenges.check(sale, user, token, self._dispatcher.ctx.now)

    def act_as(self, connection: Connection, identity: Identity) -> None:
        self._hub.act_as(connection, identity)

    def kick(self, user: str, channel: str | None, block_ms: int) -> int:
        return self._hub.kick(user, channel, block_ms)

    # --- channels ---

    def keeps(self, channel: str) -> bool:
        return self._store.settings.channel_rules(channel).keeps

    def open_channel(self, name: str) -> Channel:
        channel = self._store.channels.get(name)
        if channel is None:
            self._dispatcher.issue("channel.open", [name])
            channel = self._store.channels.get(name)
            assert channel is not None, "channel.open opens the channel"
        return channel

    # --- snapshots and audits ---

    async def audit(self, audit: Audit) -> dict[str, Any]:
        return await self._audits.finish(audit)

    async def snapshot(self) -> dict[str, Any]:
        return await self._snapshots.create()

    # --- health ---

    def health(self, path: str) -> tuple[bool, dict[str, Any]] | None:
        """Answers of /livez and /readyz; None for another path."""
        if path == "/livez":
            return True, {"status": "live"}
        if path != "/readyz":
            return None
        problems = self._problems()
        return not problems, {"status": "ready" if not problems else "not ready", "why": problems}

    def _problems(self) -> list[str]:
        problems = []
        if self.stopping:
            problems.append("stopping")
        if self._log.full or self._log.stalled:
            problems.append("disk_full: writes are refused until there is room for the log")
        if self._memory.full:
            problems.append(
                "memory_full: nothing new is taken until less memory is used (limits.memory_max)"
            )
        offset = self._clock.wall_offset_ms()
        if abs(offset) > _DISAGREEMENT_MS_MAX and not self._time_accepted:
            problems.append(
                f"time: the wall clock is {offset} ms ahead of the server's time;"
                " call server.accept_time when that is right"
            )
        return problems
