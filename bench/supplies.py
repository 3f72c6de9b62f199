"""The requests of each workload as batches of bytes, all made before any time is taken.

What both servers get comes from one function, which takes the subject first. Everything is drawn
from one seed: two runs, and both sides of a comparison, send the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from bench.report import THEIRS
from bench.requests import Batch, command, frame

__all__ = [
    "BOARD",
    "CHANNEL",
    "DATA",
    "DRAWS",
    "MIX",
    "VECTOR",
    "add_many",
    "added",
    "deleted",
    "in_batches",
    "increments",
    "members",
    "mixed",
    "moves",
    "name_of",
    "publishes",
    "ranks",
    "set_values",
    "submit_many",
    "submitted",
    "vectors",
]

BOARD = "bench"
CHANNEL = "bench"
DATA = "x" * 100
DRAWS = 400_000  # requests in random places before a timed round repeats itself
VECTOR = 1_000  # items of one vector command
MIX = {"add": 77, "submit": 26, "rank": 13, "publish": 6, "get": 6}  # of each 128 requests
_ORDERS = 4  # random orders of all keys, one after another, before a timed round repeats itself
_SEED = 20130101
_SCORE_BITS = 40


def name_of(number: int) -> str:
    """Names of fixed width, for up to a hundred million entities."""
    return f"n:{number:08}"


# --- one request of either server ---


def _add(subject: str, n: int, key: int, **options: Any) -> bytes:
    if subject == THEIRS:
        return command("INCR", name_of(key))
    return frame(n, "counter.add", name_of(key), **options)


def _set(subject: str, n: int, key: int) -> bytes:
    if subject == THEIRS:
        return command("SET", name_of(key), str(n))
    return frame(n, "counter.set", name_of(key), n)


def _get(subject: str, n: int, key: int) -> bytes:
    if subject == THEIRS:
        return command("GET", name_of(key))
    return frame(n, "counter.get", name_of(key))


def _submit(subject: str, n: int, member: int, score: int) -> bytes:
    if subject == THEIRS:
        return command("ZADD", BOARD, str(score), name_of(member))
    return frame(n, "board.submit", BOARD, name_of(member), score)


def _rank(subject: str, n: int, member: int) -> bytes:
    if subject == THEIRS:
        return command("ZREVRANK", BOARD, name_of(member))
    return frame(n, "board.rank", BOARD, name_of(member))


def _publish(subject: str, n: int) -> bytes:
    if subject == THEIRS:
        return command("PUBLISH", CHANNEL, DATA)
    return frame(n, "channel.publish", CHANNEL, DATA)


# --- supplies of timed rounds, which are repeated ---


def increments(subject: str, keys: int, depth: int, ack: str | None = None) -> Iterator[Batch]:
    """Increments by one of `keys` counters, each equally often, in random order."""
    options = {"ack": ack} if ack and subject != THEIRS else {}
    requests = (_add(subject, n, key, **options) for n, key in enumerate(_shuffled(keys, depth)))
    return in_batches(requests, depth)


def vectors(keys: int, items: int, depth: int) -> Iterator[Batch]:
    """The same increments, `items` of them in one counter.add_many."""
    order = _shuffled(keys, items)
    groups = iter(lambda: [(name_of(key), 1) for key in islice(order, items)], [])
    return in_batches(
        (frame(n, "counter.add_many", group) for n, group in enumerate(groups)), depth
    )


def _shuffled(keys: int, least: int) -> Iterator[int]:
    """Every key equally often, in all a multiple of `least` where there are that many keys."""
    draw = random.Random(_SEED)
    order = list(range(keys))
    for _ in range(max(_ORDERS, _ORDERS * least // keys)):
        draw.shuffle(order)
        yield from order


def moves(subject: str, count: int, draws: int, depth: int) -> Iterator[Batch]:
    """New scores of random members of the `count` on the board: each one moves its member."""
    draw = random.Random(_SEED + 1)
    requests = (
        _submit(subject, n, draw.randrange(count), draw.getrandbits(_SCORE_BITS))
        for n in range(draws)
    )
    return in_batches(requests, depth)


def ranks(subject: str, count: int, draws: int, depth: int) -> Iterator[Batch]:
    """Ranks of random members."""
    draw = random.Random(_SEED + 2)
    return in_batches((_rank(subject, n, draw.randrange(count)) for n in range(draws)), depth)


def publishes(subject: str, depth: int) -> Iterator[Batch]:
    """One batch of messages of 100 bytes to one channel."""
    data = b"".join(_publish(subject, n) for n in range(depth))
    yield Batch(data, depth, depth)


def mixed(subject: str, keys: int, count: int, batches: int) -> Iterator[Batch]:
    """Batches of sum(MIX) requests, MIX in each, in random order."""
    draw = random.Random(_SEED + 3)
    kinds = [kind for kind, number in MIX.items() for _ in range(number)]
    for _ in range(batches):
        draw.shuffle(kinds)
        data = [_one_of(subject, n, kind, draw, keys, count) for n, kind in enumerate(kinds)]
        yield Batch(b"".join(data), len(data), MIX["publish"])


def _one_of(subject: str, n: int, kind: str, draw: random.Random, keys: int, count: int) -> bytes:
    key, member, score = draw.randrange(keys), draw.randrange(count), draw.getrandbits(_SCORE_BITS)
    match kind:
        case "add":
            return _add(subject, n, key)
        case "submit":
            return _submit(subject, n, member, score)
        case "rank":
            return _rank(subject, n, member)
        case "publish":
            return _publish(subject, n)
        case _:
            return _get(subject, n, key)


# --- supplies that are sent once ---


def added(subject: str, count: int, keys: int, depth: int) -> Iterator[Batch]:
    """`count` increments over `keys` counters in turn."""
    return in_batches((_add(subject, n, n % keys) for n in range(count)), depth)


def set_values(subject: str, count: int, keys: int, depth: int) -> Iterator[Batch]:
    """`count` times counter.set over `keys` counters in turn."""
    return in_batches((_set(subject, n, n % keys) for n in range(count)), depth)


def submitted(subject: str, count: int, keys: int, depth: int) -> Iterator[Batch]:
    """`count` random scores of `keys` members of one board in turn."""
    score = random.Random(_SEED).getrandbits
    requests = (_submit(subject, n, n % keys, score(_SCORE_BITS)) for n in range(count))
    return in_batches(requests, depth)


def members(subject: str, count: int) -> Iterator[Batch]:
    """`count` new members with random scores, VECTOR in one command."""
    if subject != THEIRS:
        return submit_many(count)
    score = random.Random(_SEED).getrandbits
    requests = (
        command(
            "ZADD",
            BOARD,
            *(word for n in group for word in (str(score(_SCORE_BITS)), name_of(n))),
        )
        for group in _groups(count)
    )
    return in_batches(requests, 1)


def submit_many(count: int) -> Iterator[Batch]:
    """The same members of a board of ours."""
    score = random.Random(_SEED).getrandbits
    requests = (
        frame(0, "board.submit_many", BOARD, [(name_of(n), score(_SCORE_BITS)) for n in group])
        for group in _groups(count)
    )
    return in_batches(requests, 1)


def add_many(count: int) -> Iterator[Batch]:
    """`count` new counters, VECTOR a frame."""
    groups = _groups(count)
    return in_batches(
        (frame(0, "counter.add_many", [(name_of(n), 1) for n in group]) for group in groups), 1
    )


def deleted(count: int, depth: int) -> Iterator[Batch]:
    """Deletes `count` counters."""
    return in_batches((frame(n, "counter.delete", name_of(n)) for n in range(count)), depth)


def _groups(count: int) -> Iterator[range]:
    return (range(low, min(low + VECTOR, count)) for low in range(0, count, VECTOR))


def in_batches(requests: Iterable[bytes], depth: int) -> Iterator[Batch]:
    """Requests in groups of `depth`; the last one may be smaller."""
    rest = iter(requests)
    while group := list(islice(rest, depth)):
        yield Batch(b"".join(group), len(group))
