"""One publish to thousands of WebSockets: how late is the last of them, how many a second?

Beside a bare loop of send() of the same bytes to as many sockets of the same reader, and at
saturation beside nginx with nchan, the fastest of those whose only trade this is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from bench.load import LoadFailed
from bench.nchan import Nchan, post
from bench.peers import Rtserver, Server
from bench.report import BARE, NCHAN, OURS, Measure, Result
from bench.requests import Batch, frame
from bench.run import Run
from bench.sockets import Bare, FanOut, Publisher, Sockets
from bench.supplies import CHANNEL
from bench.websockets import Door, capture, door, subscriber

__all__ = ["measure"]

_DATA = "x" * 128
_PUBLISH = frame(0, "channel.publish", CHANNEL, _DATA)
_PAUSE_US = 2_000  # between the last byte of one message and the next, where times are taken
_WINDOWS = {1_000: 128, 10_000: 32}  # by subscribers: messages on their way at saturation
_ROUNDS_MAX = 5  # thousands of sockets are opened anew in each
_SETTINGS = ("[limits]", "connections_max = 12000")

Round = Callable[[int, Publisher], FanOut]  # subscribers, what is published


def measure(run: Run) -> Result:
    """Workload `fanout`."""
    result = Result(
        "fanout", f"channel.publish of {len(_DATA)} bytes (logged, with history) to WebSockets"
    )
    try:
        sockets = Sockets(run.cores.load, run.directory / "sockets")
    except LoadFailed as error:
        result.notes.append(f"SKIPPED: {error}")
        return result
    with Rtserver(run.directory / "ours", run.cores.server, _SETTINGS) as server:
        ours = partial(_ours, sockets, server)
        bare = partial(_bare, run, sockets, server)
        for nominal, name in ((2_000, "p99"), (10_000, "last byte, p99")):
            _times(run, result, nominal, name, {OURS: ours, BARE: bare})
        rounds: dict[str, Round] = {OURS: ours}
        if (version := Nchan.version()) is None:
            result.notes.append("SKIPPED: no nginx with nchan here (Debian: libnginx-mod-nchan)")
            _rates(run, result, rounds)
        else:
            with Nchan(run.directory / "theirs", run.cores.server) as theirs:
                rounds[NCHAN] = partial(_theirs, sockets, theirs)
                _rates(run, result, rounds)
            result.notes.append(
                f"{NCHAN}: nginx {version}, one process, messages in memory, published by pipelined"
                " POSTs in the same windows"
            )
    result.notes.append(
        f"{BARE}: the bytes that rtserver sent, from a C program that answers each publish with a"
        " loop of send(); the reader is the same"
    )
    return result


# --- rounds ---


def _ours(sockets: Sockets, server: Rtserver, count: int, publisher: Publisher) -> FanOut:
    return sockets.fan_out(server.address, subscriber(CHANNEL), count, publisher, server.pid)


def _bare(run: Run, sockets: Sockets, server: Rtserver, count: int, publisher: Publisher) -> FanOut:
    canned = capture(server.address, subscriber(CHANNEL), _PUBLISH)
    with Bare(sockets, len(_PUBLISH), canned, run.cores.server) as bare:
        return sockets.fan_out(bare.address, subscriber(CHANNEL), count, publisher, bare.pid)


def _theirs(sockets: Sockets, server: Server, count: int, publisher: Publisher) -> FanOut:
    batches = [
        Batch(post(_DATA.encode()) * batch.publishes, batch.replies, batch.publishes)
        for batch in publisher.batches
    ]
    posted = Publisher(batches, publisher.window, publisher.seconds, http=True)
    return sockets.fan_out(server.address, _listener(), count, posted, server.pid)


def _listener() -> Door:
    return door("/subscribe")


def _contest(
    run: Run, title: str, rounds: Mapping[str, Round], count: int, publisher: Publisher
) -> dict[str, list[FanOut]]:
    done: dict[str, list[FanOut]] = {subject: [] for subject in rounds}
    for number in range(min(run.rounds, _ROUNDS_MAX)):
        for subject, one in rounds.items():
            made = one(count, publisher)
            done[subject].append(made)
            run.say(
                f"{title}, round {number + 1}, {subject}: {made.rate:,.0f}/s,"
                f" p50 {made.p50_us / 1e3:.1f} ms, p99 {made.p99_us / 1e3:.1f} ms"
            )
    return done


# --- what they say ---


def _times(run: Run, result: Result, nominal: int, last: str, rounds: Mapping[str, Round]) -> None:
    title = f"1 to {nominal:,}"
    publisher = Publisher([_batch(1)], 1, run.seconds, pause_us=_PAUSE_US)
    done = _contest(run, title, rounds, run.sized(nominal), publisher)
    values: dict[str, Callable[[FanOut], float]] = {
        last.replace("p99", "p50"): lambda one: one.p50_us,
        last: lambda one: one.p99_us,
    }
    for name, value in values.items():
        result.measures += [
            Measure(f"{title}: {name}", subject, "ms", [value(one) / 1e3 for one in made])
            for subject, made in done.items()
        ]
    result.measures += [
        Measure(
            f"{title}: processor time of each",
            subject,
            "us",
            [1e6 * one.peer_ran_s / one.deliveries for one in made],
        )
        for subject, made in done.items()
    ]
    _disturbed(result, title, done)
    result.notes.append(
        f"{title}: one message after another, {done[OURS][0].publishes} of them in a round;"
        " from the publish to the last byte read"
    )


def _rates(run: Run, result: Result, rounds: Mapping[str, Round]) -> None:
    for nominal, window in _WINDOWS.items():
        title = f"deliveries, 1 to {nominal:,}"
        publisher = Publisher([_batch(window // 2)], window, run.seconds)
        done = _contest(run, title, rounds, run.sized(nominal), publisher)
        views: dict[str, tuple[str, Callable[[FanOut], float]]] = {
            title: ("/s", lambda one: one.rate),
            f"{title}, by processor time": (
                "/cpu s",
                lambda one: one.deliveries / one.peer_ran_s,
            ),
        }
        for name, (unit, value) in views.items():
            result.measures += [
                Measure(name, subject, unit, [*map(value, made)]) for subject, made in done.items()
            ]
        result.notes.append(f"{title}: {window} messages on their way at most")
        _disturbed(result, title, done)


def _batch(publishes: int) -> Batch:
    return Batch(_PUBLISH * publishes, publishes, publishes)


def _disturbed(result: Result, title: str, done: Mapping[str, list[FanOut]]) -> None:
    """Who else had the cores."""
    told = [
        f"{subject}: generator busy {max(one.busy_share for one in made):.0%}, core taken by others"
        f" {max(one.peer_waited_s / one.seconds for one in made):.0%}"
        for subject, made in done.items()
    ]
    result.notes.append(f"{title}, of a round at most: {'; '.join(told)}")
