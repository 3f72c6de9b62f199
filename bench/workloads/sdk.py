"""rtclient against redis-py with hiredis: what an application gets from one Python process."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from bench.clients import TASKS
from bench.contest import WrongState, servers
from bench.machine import pinned
from bench.peers import Redis, Rtserver
from bench.report import OURS, THEIRS, Measure, Result
from bench.run import Run

__all__ = ["measure"]

_KEYS = 1_000
_SECONDS_MAX = 1.5
_EXTRA_S = 60
_LIBRARY = {OURS: "rtclient", THEIRS: "redis"}
_CASES = {  # by quantity: style and how, see bench.clients
    "blocking, single calls": ("blocking", "single"),
    "asyncio, single calls": ("asyncio", "single"),
    f"asyncio, {TASKS} tasks of single calls": ("asyncio", "tasks"),
    "blocking, batches of 100": ("blocking", "100"),
    "blocking, batches of 1,000": ("blocking", "1000"),
    "asyncio, batches of 100": ("asyncio", "100"),
    "asyncio, batches of 1,000": ("asyncio", "1000"),
}


def measure(run: Run) -> Result:
    """Workload `sdk`."""
    result = Result(
        "sdk",
        f"rt.counter.add and rt.batch() against {_peer()}: incr, a pool of {TASKS}, and"
        f" pipeline(transaction=False); {_KEYS:,} counters",
    )
    with servers(run) as peers:
        compared = {
            subject: peer
            for subject, peer in peers.items()
            if subject == OURS or find_spec("redis") is not None
        }
        acknowledged = 0
        for quantity, case in _CASES.items():
            samples: dict[str, list[float]] = {subject: [] for subject in compared}
            for number in range(1 - run.warmups, run.rounds + 1):
                for subject, peer in compared.items():
                    done, rate = _round(run, subject, peer, case)
                    run.say(f"{quantity}, round {number}, {subject}: {rate:,.0f}/s")
                    acknowledged += done if subject == OURS else 0
                    if number > 0:
                        samples[subject].append(rate)
            _verify(peers.ours, acknowledged)
            result.measures += [
                Measure(quantity, subject, "ops/s", rates) for subject, rates in samples.items()
            ]
    if THEIRS not in compared:
        result.notes.append("SKIPPED: redis-py or redis-server is missing (pip extra: bench)")
    result.notes.append("client on the load generator's core, on asyncio's own event loop")
    return result


def _round(
    run: Run, subject: str, peer: Rtserver | Redis, case: tuple[str, str]
) -> tuple[int, float]:
    """-> operations done, and how many of them a second."""
    seconds = min(run.seconds, _SECONDS_MAX)
    words = [sys.executable, "-m", "bench.clients", _LIBRARY[subject], *case]
    options = {"port": peer.address[1], "seconds": seconds, "keys": _KEYS}
    words += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    with pinned(run.cores.load):
        done = subprocess.run(
            words, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + _EXTRA_S
        )
    found = json.loads(done.stdout)
    return found["operations"], found["operations"] / found["seconds"]


def _verify(ours: Rtserver, acknowledged: int) -> None:
    stats = ours.ask("server.stats")
    if int(stats["state"]["counter_total"]) != acknowledged or stats["errors"]:
        raise WrongState(
            f"{acknowledged} was acknowledged, the counters hold"
            f" {stats['state']['counter_total']}; errors: {stats['errors']}"
        )


def _peer() -> str:
    try:
        parser = f" with hiredis {version('hiredis')}"
    except PackageNotFoundError:
        parser = " without hiredis"
    try:
        return f"redis-py {version('redis')}{parser}"
    except PackageNotFoundError:
        return "redis-py"
