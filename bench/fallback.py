"""The load generator where there is no C compiler: `load send` of load.c in Python.

Takes the same options and prints the same line. It sends one batch at a time on a connection,
whatever its window, in closed loop only, and has no subscribers. Against a fast server it is the
generator that is measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path

from bench.requests import BATCH_HEAD, Batch
from rtserver.wire.frames import HEADER, HEADER_BYTES

__all__ = ["count_frames", "count_lines"]

_SILENCE_S = 30  # without any reply: something is broken
_READ_BYTES = 256 * 1024
_REFUSED = 3  # exit status
_OK_AT = 3  # in the body of a reply: nil where an error would be
_WITHOUT_ERROR = b"\xc0"  # nil

CountReplies = Callable[[bytes], tuple[int, int]]  # -> complete replies, bytes they take


class Refused(Exception):
    """The peer refused a request."""


def count_frames(data: bytes, expected: bytes = _WITHOUT_ERROR) -> tuple[int, int]:
    """Walks from length to length. What each reply holds where an error would be begins so."""
    length_at = HEADER.unpack_from
    size = len(data)
    count = stop = 0
    while stop + HEADER_BYTES <= size:
        after = stop + HEADER_BYTES + length_at(data, stop)[0]
        if after > size:
            break
        if not data.startswith(expected, stop + HEADER_BYTES + _OK_AT):
            raise Refused(data[stop:after].decode(errors="replace"))
        stop = after
        count += 1
    return count, stop


def count_lines(data: bytes, expected: bytes = b"") -> tuple[int, int]:
    """Counts replies of redis; none of its integers is negative unless expected, so a minus is an
    error."""
    if expected:
        return _expected_lines(data, expected)
    if b"$" in data:
        return _walk_lines(data)
    if b"-" in data:
        raise Refused(data.decode(errors="replace"))
    return data.count(b"\n"), data.rfind(b"\n") + 1


def _expected_lines(data: bytes, expected: bytes) -> tuple[int, int]:
    stop = data.rfind(b"\n") + 1
    lines = data[:stop].split(b"\n")[:-1]
    for line in lines:
        if not line.startswith(expected):
            raise Refused(line.decode(errors="replace"))
    return len(lines), stop


def _walk_lines(data: bytes) -> tuple[int, int]:
    """The same where some replies are bytes behind a line with their size, or nil ($-1)."""
    count = stop = 0
    while (after := data.find(b"\n", stop) + 1) > 0:
        line = data[stop:after]
        if line.startswith(b"-"):
            raise Refused(line.decode(errors="replace"))
        if line.startswith(b"$") and not line.startswith(b"$-"):
            after += int(line[1:]) + len(b"\r\n")
            if after > len(data):
                break
        stop = after
        count += 1
    return count, stop


class _Connection:
    """One socket with at most one batch under way."""

    __slots__ = ("_count", "_rest", "_socket", "due", "sent_at")

    def __init__(self, made: socket.socket, count: CountReplies) -> None:
        self.due = 0  # replies that are missing
        self.sent_at = 0.0
        self._socket = made
        self._count = count
        self._rest = b""  # the beginning of a reply

    def send(self, batch: Batch) -> None:
        self.due = batch.replies
        self.sent_at = time.perf_counter()
        self._socket.sendall(batch.data)

    def receive(self) -> None:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionError("the peer closed a connection")
        data = self._rest + data
        count, stop = self._count(data)
        self._rest = data[stop:]
        self.due -= count


class _Drive:
    """Keeps every connection busy, then waits for what is outstanding."""

    def __init__(self, connections: list[_Connection], batches: Iterator[Batch]) -> None:
        self.waits: list[float] = []  # of batches, in seconds
        self.replies = self.sent = 0
        self._batches = batches
        self._busy = sum(self._next(connection) for connection in connections)

    def run(self, selector: selectors.BaseSelector, end: float) -> None:
        while self._busy:
            ready = selector.select(_SILENCE_S)
            if not ready:
                raise TimeoutError(f"no reply for {_SILENCE_S} seconds")
            for key, _ in ready:
                connection: _Connection = key.data
                connection.receive()
                if connection.due > 0:
                    continue
                now = time.perf_counter()
                self.waits.append(now - connection.sent_at)
                if now >= end or not self._next(connection):
                    self._busy -= 1

    def _next(self, connection: _Connection) -> bool:
        batch = next(self._batches, None)
        if batch is None:
            return False
        connection.send(batch)
        self.replies += batch.replies
        self.sent += 1
        return True


def _read_batches(path: Path) -> Iterator[Batch]:
    data = path.read_bytes()
    at = 0
    while at < len(data):
        size, replies, publishes = BATCH_HEAD.unpack_from(data, at)
        at += BATCH_HEAD.size
        yield Batch(data[at : at + size], replies, publishes)
        at += size


def _schedule_s(pid: int | None) -> tuple[float, float]:
    """What the main thread of a process ran, and how long it waited to run."""
    if not pid:
        return 0.0, 0.0
    ran_ns, waited_ns, _ = Path(f"/proc/{pid}/schedstat").read_text("ascii").split()
    return int(ran_ns) / 1e9, int(waited_ns) / 1e9


def _quantile_us(ordered: list[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))] * 1e6


def _send(options: argparse.Namespace) -> dict[str, float]:
    batches = list(_read_batches(options.batches))
    count: CountReplies = count_lines if options.framing == "resp" else count_frames
    if options.expect is not None:
        expected = options.expect.read_bytes()
        is_resp = options.framing == "resp"
        count = partial(count_lines if is_resp else count_frames, expected=expected)
    with selectors.DefaultSelector() as selector:
        for _ in range(options.connections):
            address = options.host, options.port
            made = socket.create_connection(address, timeout=_SILENCE_S)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(made, selectors.EVENT_READ, _Connection(made, count))
        connections = [key.data for key in selector.get_map().values()]
        started, used = time.perf_counter(), time.process_time()
        before = _schedule_s(options.watch)
        drive = _Drive(connections, cycle(batches) if options.seconds else iter(batches))
        drive.run(selector, started + (options.seconds or float("inf")))
        seconds = time.perf_counter() - started
        after = _schedule_s(options.watch)
    waits = sorted(drive.waits)
    shares = {"p50_us": 0.5, "p90_us": 0.9, "p99_us": 0.99, "p999_us": 0.999, "max_us": 1}
    return {
        "replies": drive.replies,
        "batches": drive.sent,
        "deliveries": 0,
        "seconds": seconds,
        **{name: _quantile_us(waits, share) for name, share in shares.items()},
        "late_p99_us": 0,
        "busy_share": (time.process_time() - used) / seconds,
        "peer_ran_s": after[0] - before[0],
        "peer_waited_s": after[1] - before[1],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Sends prepared batches; see load.c.")
    parser.add_argument("what", choices=["send"])
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batches", type=Path, required=True)
    parser.add_argument("--framing", choices=["frames", "resp"], required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--window", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rate", type=float, choices=[0.0])
    parser.add_argument("--spin")
    parser.add_argument("--watch", type=int)
    parser.add_argument("--expect", type=Path)
    gc.disable()
    try:
        sys.stdout.write(json.dumps(_send(parser.parse_args())) + "\n")
    except Refused as error:
        sys.stderr.write(f"the peer refused a request: {error}\n")
        return _REFUSED
    except (OSError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
