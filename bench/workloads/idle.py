"""Ten thousand WebSockets on which nothing happens: what each takes of memory, and all of a core.

Each has said hello, so that it belongs to a session, and subscribes one channel, to which nobody
publishes. Pings go out within the time that is measured.
"""

from __future__ import annotations

import time

from bench.load import LoadFailed
from bench.peers import Rtserver
from bench.report import OURS, Measure, Result
from bench.requests import frame
from bench.run import Run
from bench.sockets import Sockets
from bench.supplies import CHANNEL
from bench.websockets import door

__all__ = ["measure"]

_SOCKETS = 10_000
_ROUNDS_MAX = 3
_IDLE_S = 10.0
_QUICK_IDLE_S = 0.5
_PING_MS = 10_000  # the default is longer: so each is pinged about once meanwhile
_SETTLE_S = 0.5  # what opening left to do
_SETTINGS = ("[limits]", "connections_max = 12000", f"ws_ping_ms = {_PING_MS}")


def measure(run: Run) -> Result:
    """Workload `idle`."""
    count = run.sized(_SOCKETS)
    result = Result("idle", f"{count:,} WebSockets that said hello, subscribe, and hear nothing")
    try:
        sockets = Sockets(run.cores.load, run.directory / "sockets")
    except LoadFailed as error:
        result.notes.append(f"SKIPPED: {error}")
        return result
    hello = frame(0, "server.hello")
    silent = door("/ws", hello, frame(1, "channel.subscribe", CHANNEL), protocol="rt1.msgpack")
    resident, busy, opening = [], [], []
    for number in range(min(run.rounds, _ROUNDS_MAX)):
        directory = run.directory / str(number)
        with Rtserver(directory, run.cores.server, _SETTINGS) as server:
            server.ask("server.stats")  # what the first request costs is not the sockets'
            bare_bytes = server.resident_bytes()
            with sockets.held(server.address, silent, count) as opened:
                time.sleep(_SETTLE_S)
                resident.append((server.resident_bytes() - bare_bytes) / count / 1024)
                opening.append(opened.seconds)
                seconds = _QUICK_IDLE_S if run.quick else _IDLE_S
                before = server.usage()
                time.sleep(seconds)
                busy.append(100 * server.usage().since(before).ran_s / seconds)
        run.say(f"{count:,} idle: {resident[-1]:.1f} KB each, {busy[-1]:.1f} % of a core")
    result.measures = [
        Measure(f"resident, of each of {_SOCKETS:,}", OURS, "KB", resident),
        Measure("share of a core", OURS, "%", busy),
        Measure("opened within", OURS, "s", opening),
    ]
    result.notes.append(
        f"resident beyond the process before the first of them; pings every {_PING_MS / 1e3:g} s"
        " (the default is longer)"
    )
    return result
