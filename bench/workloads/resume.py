"""Ten thousand sessions come back at once: how long until each has what it missed?

All sockets are cut, messages are published meanwhile, and then all connect in the same moment with
`server.hello(session, positions)`. Each reply is read in whole afterwards: resumed, and every
message once and in order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.contest import WrongState
from bench.load import LoadFailed
from bench.peers import Rtserver, Usage
from bench.report import OURS, Measure, Result
from bench.requests import frame
from bench.run import Run
from bench.sockets import Opened, Sockets
from bench.supplies import CHANNEL
from bench.websockets import bodies, door, masked

__all__ = ["measure"]

_SESSIONS = 10_000
_MISSED = 10
_ROUNDS_MAX = 3
_REPLY = 1
_TITLE = f"{_SESSIONS:,} sessions resumed"
_SETTINGS = ("[limits]", "connections_max = 25000")  # the cut ones may not be counted out yet
_FIRST = door(
    "/ws", frame(0, "server.hello"), frame(1, "channel.subscribe", CHANNEL), protocol="rt1.msgpack"
)
_AGAIN = door("/ws", frame(0, "server.hello"), protocol="rt1.msgpack")  # with a hello for each


class _Round(NamedTuple):
    opened: Opened
    history_reads: int
    used: Usage


def measure(run: Run) -> Result:
    """Workload `resume`."""
    count = run.sized(_SESSIONS)
    result = Result(
        "resume",
        f"{count:,} WebSockets are cut, miss {_MISSED} messages, and all come back at once",
    )
    try:
        sockets = Sockets(run.cores.load, run.directory / "sockets")
    except LoadFailed as error:
        result.notes.append(f"SKIPPED: {error}")
        return result
    rounds = []
    with Rtserver(run.directory / "ours", run.cores.server, _SETTINGS) as server:
        for number in range(min(run.rounds, _ROUNDS_MAX)):
            rounds.append(_round(sockets, server, count, number))
            run.say(f"{count:,} resumed in {rounds[-1].opened.seconds:.2f} s")
    result.measures = [
        Measure(_TITLE, OURS, "s", [one.opened.seconds for one in rounds]),
        Measure("processor time of it", OURS, "s", [one.used.ran_s for one in rounds]),
        Measure("core taken by others", OURS, "s", [one.used.waited_s for one in rounds]),
        Measure("one of them, p50", OURS, "s", [one.opened.p50_us / 1e6 for one in rounds]),
        Measure("one of them, p99", OURS, "s", [one.opened.p99_us / 1e6 for one in rounds]),
        Measure(
            "history reads of a channel",
            OURS,
            "",
            [one.history_reads for one in rounds],
        ),
    ]
    result.notes.append(
        "from the first connect() to the last byte of the last reply to hello; all replies were"
        " read afterwards: resumed, all messages, each once, in order"
    )
    return result


def _round(sockets: Sockets, server: Rtserver, count: int, number: int) -> _Round:
    _, answers = sockets.open(server.address, _FIRST, count)
    hellos = [masked(_hello(answer)) for answer in answers]
    data = [f"{number}.{one}" for one in range(_MISSED)]
    for one in data:
        server.ask(f'channel.publish {CHANNEL} "{one}"')
    reads, before = _history_reads(server), server.usage()
    opened, answers = sockets.open(server.address, _AGAIN, count, hellos, at_once=count)
    used = server.usage().since(before)
    for answer in answers:
        _check(answer, data)
    return _Round(opened, _history_reads(server) - reads, used)


def _hello(answer: bytes) -> bytes:
    """What resumes the session of a socket that received this."""
    first, second = (reply[3] for reply in bodies(answer) if reply[0] == _REPLY)
    return frame(
        0,
        "server.hello",
        None,
        None,
        None,
        None,
        first["session"],
        {CHANNEL: (second["epoch"], second["offset"])},
    )


def _check(answer: bytes, data: list[str]) -> None:
    reply: Any = next(reply[3] for reply in bodies(answer) if reply[0] == _REPLY)
    found = [message["data"] for message in reply["channels"][CHANNEL]["messages"]]
    if not reply["resumed"] or found != data:
        raise WrongState(f"resumed: {reply['resumed']}, with {found}, expected {data}")


def _history_reads(server: Rtserver) -> int:
    found: int = server.ask("server.stats")["history_reads"]
    return found
