"""The requests of each workload as batches of bytes, all made before any time is taken.

Functions of a module, so that they travel to the load generator's process by name. Everything
is drawn from one seed: two runs, and both sides of a comparison, send the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

from bench.report import THEIRS
from bench.requests import Batch, command, frame

__all__ = [
    "BOARD",
    "VECTOR",
    "add_many",
    "added",
    "deleted",
    "increments",
    "name_of",
    "set_values",
    "submit_many",
    "submitted",
]

BOARD = "bench"
VECTOR = 1_000  # items of one vector command
_ORDERS = 4  # random orders of all keys, one after another, before a timed round repeats itself
_SEED = 20130101
_SCORE_BITS = 40


def name_of(number: int) -> str:
    """Names of fixed width, for up to a hundred million entities."""
    return f"n:{number:08}"


@lru_cache(maxsize=8)
def increments(subject: str, keys: int, depth: int) -> Sequence[Batch]:
    """Increments by one of `keys` counters, each equally often, in random order."""
    requests: Iterator[bytes]
    if subject == THEIRS:
        requests = (command("INCR", name_of(key)) for key in _shuffled(keys))
    else:
        requests = (frame(n, "counter.add", name_of(k)) for n, k in enumerate(_shuffled(keys)))
    return _batches(requests, depth)


def _shuffled(keys: int) -> Iterator[int]:
    draw = random.Random(_SEED)
    order = list(range(keys))
    for _ in range(_ORDERS):
        draw.shuffle(order)
        yield from order


def added(count: int, keys: int, depth: int) -> Sequence[Batch]:
    """`count` increments over `keys` counters in turn."""
    return _batches((frame(n, "counter.add", name_of(n % keys)) for n in range(count)), depth)


def add_many(count: int) -> Sequence[Batch]:
    """`count` new counters, VECTOR a frame."""
    groups = _groups(count)
    return _batches(
        (frame(0, "counter.add_many", [(name_of(n), 1) for n in group]) for group in groups), 1
    )


def set_values(count: int, keys: int, depth: int) -> Sequence[Batch]:
    """`count` times counter.set over `keys` counters in turn."""
    return _batches((frame(n, "counter.set", name_of(n % keys), n) for n in range(count)), depth)


def deleted(count: int, depth: int) -> Sequence[Batch]:
    """Deletes `count` counters."""
    return _batches((frame(n, "counter.delete", name_of(n)) for n in range(count)), depth)


def submitted(count: int, depth: int) -> Sequence[Batch]:
    """`count` new members of one board, with random scores."""
    score = random.Random(_SEED).getrandbits
    requests = (
        frame(n, "board.submit", BOARD, name_of(n), score(_SCORE_BITS)) for n in range(count)
    )
    return _batches(requests, depth)


def submit_many(count: int) -> Sequence[Batch]:
    """The same members, VECTOR a frame."""
    score = random.Random(_SEED).getrandbits
    return _batches(
        (
            frame(0, "board.submit_many", BOARD, [(name_of(n), score(_SCORE_BITS)) for n in group])
            for group in _groups(count)
        ),
        1,
    )


def _groups(count: int) -> Iterator[range]:
    return (range(low, min(low + VECTOR, count)) for low in range(0, count, VECTOR))


def _batches(requests: Iterable[bytes], depth: int) -> list[Batch]:
    """Requests in groups of `depth`; the last one may be smaller."""
    rest = iter(requests)
    made = []
    while group := list(islice(rest, depth)):
        made.append((b"".join(group), len(group)))
    return made
