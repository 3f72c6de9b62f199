"""What the skiplist costs: bytes an entry and microseconds an operation, by size.

`python -m bench.skiplist [--sizes 1000,1000000,10000000]` prints one row a size, each measured
in a process of its own. Entries have random 40-bit keys, an array as items, and come in random
order. Memory is the growth of the resident set (/proc/self/statm) over all inserts, of as many
lists as hold 1,000,000 entries together, so that the fixed part of a small list shows. Times are
the mean of up to 100,000 operations in random places, the best of five rounds, the loop that
calls them included. `worst` is the longest single insert or remove of a round in processor
time, in milliseconds: the least of five rounds, because an empty loop shows 2 ms on a shared
machine now and then.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from rtserver.structs.skiplist import Skiplist

MEMORY_ENTRIES = 1_000_000
OPERATIONS_MAX = 100_000
ROUNDS = 5
KEY_BITS = 40
OPERATIONS = (
    "insert",
    "rank",
    "rank_of_key",
    "distinct_before",
    "entry",
    "remove",
    "append",
    "pop_first",
)


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def mean_us(operation: Callable[..., object], calls: Sequence[tuple[Any, ...]]) -> float:
    started = time.perf_counter()
    for call in calls:
        operation(*call)
    return (time.perf_counter() - started) / len(calls) * 1e6


def worst_ms(operation: Callable[..., object], calls: Sequence[tuple[Any, ...]]) -> float:
    clock = time.thread_time_ns
    worst = 0
    for call in calls:
        started = clock()
        operation(*call)
        worst = max(worst, clock() - started)
    return worst / 1e6


def fresh_pairs(size: int, draw: random.Random) -> list[tuple[int, int]]:
    """Up to OPERATIONS_MAX (key, seq) that a list of `size` entries does not hold."""
    return [(draw.getrandbits(KEY_BITS), size + n) for n in range(min(size, OPERATIONS_MAX))]


def worst_round(made: Skiplist[int], draw: random.Random) -> float:
    pairs = fresh_pairs(len(made), draw)
    worst = worst_ms(made.insert, [(key, seq, 7) for key, seq in pairs])
    return max(worst, worst_ms(made.remove, pairs))


def one_round(made: Skiplist[int], draw: random.Random) -> list[float]:
    """The mean of each of OPERATIONS; leaves the list as it was."""
    pairs = fresh_pairs(len(made), draw)
    keys = [(key,) for key, _ in pairs]
    means = [
        mean_us(made.insert, [(key, seq, 7) for key, seq in pairs]),
        mean_us(made.rank, pairs),
        mean_us(made.rank_of_key, keys),
        mean_us(made.distinct_before, keys),
        mean_us(made.entry, [(draw.randrange(len(made)),) for _ in pairs]),
        mean_us(made.remove, pairs),
        mean_us(made.insert, [(1 << KEY_BITS, seq, 7) for _, seq in pairs]),
    ]
    for _, seq in pairs:
        made.remove(1 << KEY_BITS, seq)
        made.insert(-1, seq, 7)
    means.append(mean_us(made.pop_first, [()] * len(pairs)))
    return means


def measure(size: int) -> list[float]:
    """One row of the table for a list of `size` entries."""
    gc.disable()
    draw = random.Random(size)
    lists: list[Skiplist[int]] = []
    before = resident_bytes()
    for _ in range(max(1, MEMORY_ENTRIES // size)):
        made: Skiplist[int] = Skiplist("I")
        lists.append(made)
        for seq in range(size):
            made.insert(draw.getrandbits(KEY_BITS), seq, 7)
    memory = (resident_bytes() - before) / (size * len(lists))
    rounds = [one_round(made, draw) for _ in range(ROUNDS)]
    worst = min(worst_round(made, draw) for _ in range(ROUNDS))
    return [memory, *map(min, zip(*rounds, strict=True)), worst]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--sizes", default="1000,1000000,10000000", help="entries, by comma")
    sizes = [int(size) for size in parser.parse_args().sizes.split(",")]
    heads = ("entries", "B/entry", *OPERATIONS, "worst ms")
    sys.stdout.write("".join(f"{head:>16}" for head in heads) + "\n")
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        for size, row in zip(sizes, fresh.map(measure, sizes), strict=True):
            cells = "".join(f"{cell:>16.2f}" for cell in row)
            sys.stdout.write(f"{size:>16,}{cells}\n")


if __name__ == "__main__":
    main()
