"""Messages to one channel with few and with many subscribers, against PUBLISH."""

from __future__ import annotations

from functools import partial

from bench.contest import Load, Shape, contest, rates, servers
from bench.load import Audience
from bench.report import OURS, Result
from bench.requests import command, frame
from bench.run import Run
from bench.supplies import CHANNEL, DATA, publishes

__all__ = ["audience", "measure"]

_DEPTH = 128
_SHAPES = {  # by subscribers: fewer messages under way to more of them
    1: Shape(connections=16, depth=_DEPTH),
    1_000: Shape(connections=1, depth=_DEPTH),
    10_000: Shape(connections=1, depth=32),
}
_CONNECTIONS_MAX = 12_000


def measure(run: Run) -> Result:
    """Workload `pubsub`."""
    result = Result(
        "pubsub",
        f"channel.publish of {len(DATA)} bytes (logged, with history) against PUBLISH (neither),"
        " pipelined",
    )
    if run.generator.program is None:
        result.notes.append("SKIPPED: subscribers need the compiled generator, so a C compiler")
        return result
    settings = ["[limits]", f"connections_max = {_CONNECTIONS_MAX}"]
    with servers(run, settings) as peers:
        for nominal, shape in _SHAPES.items():
            title = f"deliveries, 1 to {nominal:,}"
            load = partial(_load, shape, run.sized(nominal))
            rates(result, title, contest(run, title, peers, load), "/s")
            result.notes.append(f"{title}: published over {shape}")
    result.notes.append(
        "counted where they arrived; a round ends when every message has reached every subscriber"
    )
    return result


def _load(shape: Shape, subscribers: int, subject: str) -> Load:
    return Load(
        partial(publishes, subject, shape.depth // 2),  # two batches fill the window
        shape,
        audience(subject, subscribers),
        count=lambda outcome: outcome.deliveries,
    )


def audience(subject: str, subscribers: int) -> Audience:
    """So many subscribers of CHANNEL."""
    if subject == OURS:
        return Audience(subscribers, frame(0, "channel.subscribe", CHANNEL))
    message = command("message", CHANNEL, DATA)
    return Audience(subscribers, command("SUBSCRIBE", CHANNEL), len(message))
