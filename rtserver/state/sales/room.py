"""The waiting room of a sale: who waits, in which order, and who may shop now.

Owns the line, the visits (users with a pass, and those who hold something), the allowance of
admissions, and what is remembered of users and addresses for limits. It knows no stock: the sale
says how many units are free when it asks who comes in. No more shoppers look around than there are
units, so that whoever is let in finds one, and a unit that comes back goes to the next in line
instead of to the fastest of a crowd.

The order is one ranking. Whoever joins before the start has the key SHA-256(seed:user), its first
63 bits: the place is final from the moment of joining, nothing is shuffled, and once the seed is
told anybody can check it. Whoever joins after the start has the next larger key. A visit is an
entry of a second ranking, by the end of its pass. So there is no object a user, and everything that
grows is freed in slices.

Everything follows from the calls and their times. A pass is 64 bits of a keyed hash, so that it
needs no memory; its key is a secret of the sale and not the seed, which the opening tells to all.

`python -m bench.waiting_room`: bytes a waiter and microseconds of processor time of an operation,
with a million who wait, names of 10 bytes (2-core AMD EPYC VM with busy neighbours, CPython 3.11):

    form                                 bytes   join  place  admit
    compiled, before the start              81    2.5    1.3    0.9
    compiled, after it                      71    0.6    2.5    0.9
    compiled, each from its own address    177    3.7    1.7    1.0
    pure, before the start                 173    9.5    6.1    8.3
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from hmac import compare_digest
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from rtserver.errors import LIMIT_REACHED, NO_PASS, RATE_LIMITED, RtError, shown
from rtserver.limits import TIME_MAX
from rtserver.state.chunks import in_chunks
from rtserver.state.sales.outflow import Outflow
from rtserver.state.sales.terms import QueueTerms
from rtserver.structs import expect
from rtserver.structs.ranking import Ranking, new_ranking
from rtserver.structs.tally import Tally, new_tally

__all__ = ["WaitingRoom", "start_key"]

_SLICE = 200  # users who are admitted or whose pass ends in one call
_ROWS = 1_000  # of a ranking that are read at once
_ONE = 1_000  # an admission, in thousandths
_BURST_PARTS = 10  # the allowance holds at most so much of a second
_BATCH_PARTS = 20  # and admissions gather for so much of it, so that a fast queue moves in steps
_HASH_END = 2**63  # keys of the start lie below 0, those of later arrivals above
_HOLDING = 2**62  # added to the end of the pass of one who holds something
_NETWORK_BITS = 64  # of an IPv6 address, what one subscriber has


def start_key(seed: str, user: str) -> int:
    """Where a user stands who joined before the start: a number of 63 bits, smaller is earlier."""
    digest = hashlib.sha256(f"{seed}:{user}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class WaitingRoom:
    """See the module. `seed` is told to all one day, `secret` never. `terms` may be replaced."""

    __slots__ = (
        "_addresses",
        "_credit",
        "_credit_at",
        "_joins",
        "_line",
        "_outflow",
        "_ready",
        "_secret",
        "_seed",
        "_visits",
        "started",
        "terms",
    )

    def __init__(self, terms: QueueTerms, seed: str, secret: str, *, started: bool) -> None:
        self.terms = terms
        self.started = started
        self._seed = seed
        self._secret = secret.encode()
        self._line: Ranking = new_ranking()  # marked: a place that stays without a connection
        self._visits: Ranking = new_ranking()  # by the end of the pass, with _HOLDING or without
        self._ready: Tally = new_tally()  # of the admitted, when they may reserve: with a dwell
        self._joins: Tally = new_tally()  # of users and of addresses, places given to each while
        self._addresses: Tally = new_tally()  # there was a limit
        self._credit = _ONE  # admissions allowed, in thousandths, at the time beside it
        self._credit_at: int | None = None  # None: it begins to grow with the first admission
        self._outflow = Outflow(terms.active_max)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._line)

    @property
    def active(self) -> int:
        """How many are admitted or hold something."""
        return len(self._visits)

    def knows(self, user: str) -> bool:
        """Whether a user waits, is admitted, or holds something."""
        return user in self._line or user in self._visits

    @property
    def counts_addresses(self) -> bool:
        """Whether it matters from where somebody joins."""
        return self.terms.per_address > 0

    # --- the line ---

    def join(
        self,
        _now: int,
        user: str,
        *,
        tied: bool,
        address: str | None,
        waiting_max: int | None = None,
    ) -> None:
        """A place for one who is not known. A tied one hangs on the user's connections. Raises
        RtError limit_reached."""
        line, terms = self._line, self.terms
        assert user not in self._visits, f"{user!r} joins, and is admitted already"
        if waiting_max is not None and len(line) >= waiting_max:
            raise RtError(
                LIMIT_REACHED,
                f"{len(line)} users wait, at most {waiting_max} (limits.sale_waiting_max)",
            )
        network = _counted_address(address) if terms.per_address and address is not None else None
        joins = given = 0
        if terms.joins_per_user:
            joins = _taken(self._joins, user, "joins_per_user", terms.joins_per_user)
        if network is not None:
            given = _taken(self._addresses, network, "per_address", terms.per_address)
        line.place(user, line.seq if self.started else start_key(self._seed, user) - _HASH_END)
        if not tied:
            line.mark(user, True)
        if terms.joins_per_user:
            self._joins.put(user, joins + 1)
        if network is not None:
            self._addresses.put(network, given + 1)

    def rankings(self) -> tuple[Ranking, Ranking]:
        """Who waits, and who visits: for the short way of a join, which does what `join` does for
        one whose place is not tied, where the terms ask nothing."""
        return self._line, self._visits

    def is_tied(self, user: str) -> bool:
        """Whether a user waits whose place hangs on her connections."""
        return user in self._line and not self._line.marked(user)

    def tie(self, user: str) -> bool:
        """From now on the place of one who waits hangs on her connections; False where there is
        nothing to change."""
        if not self._line.marked(user):
            return False
        self._line.mark(user, False)
        return True

    def leave(self, user: str) -> bool:
        """Ends the waiting or the visit of one who holds nothing."""
        if self._line.remove(user) is not None:
            return True
        return self._is_admitted(user) and self._end_visit(user)

    def abandon(self, user: str) -> bool:
        """Ends the waiting of one whose place is tied."""
        return self.is_tied(user) and self._line.remove(user) is not None

    def page(self, after: int | None, limit: int) -> list[tuple[str, int]]:
        """Users who wait with their keys, in order; `after` is the last key of the page before.
        The key says where a page goes on, whoever left meanwhile."""
        start = 0 if after is None else self._line.rank_past_key(after)
        return [(user, key) for user, key, _ in self._line.slice(start, limit)]

    # --- admission ---

    def start(self, now: int) -> None:
        """The sale opens for the first time: who joins from now on is behind all who wait."""
        assert not self.started, "a waiting room starts once"
        self.started = True
        self._credit_at = now

    def admit(self, now: int, units: int) -> list[str]:
        """Lets in as many as rate, active_max and the free units allow now, at most a slice. Where
        nobody can come in, whatever the rate says, nothing changes: then a join need not ask."""
        most = self._room_for(units) if self.started else 0
        if not most:
            return []
        credit = self._credit_now(now)
        count = min(credit // _ONE, most)
        if not count:
            return []
        terms, line, visits = self.terms, self._line, self._visits
        admitted = [user for user, _, _ in line.slice(0, count)]
        for user in admitted:
            line.remove(user)
            visits.place(user, now + terms.pass_ms)
            if terms.dwell_ms:
                self._ready.put(user, now + terms.dwell_ms)
        self._credit = credit - count * _ONE
        self._credit_at = now
        self._outflow.count(now, count)
        return admitted

    def expire(self, now: int) -> list[str]:
        """Ends the visits whose pass has run out, at most a slice: who they were."""
        due = min(self._visits.rank_past_key(now), _SLICE)
        expired = [user for user, _, _ in self._visits.slice(0, due)]
        for user in expired:
            self._end_visit(user)
        return expired

    def next_due(self, now: int, units: int) -> int | None:
        """When `expire`, or `admit` with so many free units, has something to do next; not before
        now. Admissions gather for a twentieth of a second where that many are allowed."""
        due: int | None = None
        for _, ends_at, _ in self._visits.slice(0, 1):
            if ends_at < _HOLDING:
                due = max(now, ends_at)
        count = self._room_for(units) if self.started else 0
        if count:
            rate = self.terms.rate_per_s
            wanted = min(count, max(1, rate // _BATCH_PARTS)) * _ONE
            missing = max(0, wanted - self._credit_now(now))
            admits_at = now if self._credit_at is None else now - (-missing // rate)
            due = admits_at if due is None else min(due, admits_at)
        return due

    def _room_for(self, units: int) -> int:
        """How many may come in at once, whatever the rate says."""
        waiting = len(self._line)
        if not waiting or not units:
            return 0
        looking = self._visits.rank_past_key(_HOLDING - 1)
        most = min(waiting, self.terms.active_max - self.active, units - looking, _SLICE)
        return max(0, most)

    def _credit_now(self, now: int) -> int:
        """The allowance with what was added since it was last looked at."""
        if self._credit_at is None:
            return self._credit
        rate = self.terms.rate_per_s
        most = max(_ONE, rate * _ONE // _BURST_PARTS)
        return min(most, self._credit + rate * (now - self._credit_at))

    # --- visits ---

    def check_pass(self, now: int, user: str, pass_id: str | None) -> None:
        """Raises RtError no_pass; rate_limited where the admission is younger than dwell_ms."""
        visit = self._visits.find(user)
        if visit is None:
            raise self._no_visit(user)
        ends_at = visit[0] % _HOLDING
        if pass_id is None:
            raise RtError(NO_PASS, "pass_id is missing, expected the one that sale.place tells")
        if not compare_digest(pass_id.encode(), self._pass(user, ends_at).encode()):
            raise RtError(
                NO_PASS, f"pass_id is {shown(pass_id)}, which is not the pass of {user!r}"
            )
        if now >= ends_at:
            raise RtError(NO_PASS, f"the pass of {user!r} ended {now - ends_at} ms ago")
        ready_at = self._ready.get(user)
        if ready_at is not None and now < ready_at:
            raise RtError(
                RATE_LIMITED,
                f"{user!r} may reserve in {ready_at - now} ms (queue.dwell_ms)",
                {"retry_after_ms": ready_at - now},
            )

    def _no_visit(self, user: str) -> RtError:
        rank = self._line.rank(user)
        if rank is None:
            return RtError(NO_PASS, f"{user!r} has no place in the queue", {"state": "none"})
        return RtError(
            NO_PASS,
            f"{user!r} is not admitted yet, and waits at position {rank + 1}",
            {"state": "waiting", "position": rank + 1},
        )

    def reserved(self, user: str) -> None:
        """She holds something now; a visit that is none stays so, in a sale whose queue is younger
        than her hold."""
        if self._is_admitted(user):
            found = self._visits.find(user)
            assert found is not None
            self._visits.move(user, found[0] + _HOLDING)
            self._forget_dwell(user)

    def emptied(self, now: int, user: str, *, expired: bool) -> bool:
        """Her last hold ended unsold. Whether that ends her visit: where it expired, or her pass
        ended meanwhile; else she is admitted as before."""
        found = self._visits.find(user)
        if found is None or found[0] < _HOLDING:
            return False
        ends_at = found[0] - _HOLDING
        if expired or now >= ends_at:
            return self._end_visit(user)
        self._visits.move(user, ends_at)
        return False

    def finished(self, user: str) -> bool:
        """She has bought and holds nothing more. Whether that ends a visit."""
        return self._end_visit(user)

    def _is_admitted(self, user: str) -> bool:
        found = self._visits.find(user)
        return found is not None and found[0] < _HOLDING

    def _end_visit(self, user: str) -> bool:
        self._forget_dwell(user)
        return self._visits.remove(user) is not None

    def _forget_dwell(self, user: str) -> None:
        if user in self._ready:
            self._ready.pop(user)

    def _pass(self, user: str, ends_at: int) -> str:
        made = hashlib.blake2b(
            f"{ends_at}:{user}".encode(), key=self._secret, digest_size=8, person=b"pass"
        )
        return f"p{made.hexdigest()}"

    # --- reading ---

    def visit(self, user: str) -> tuple[int, int] | None:
        """Another value with each change of a user's visit; None without one. Cheap."""
        return self._visits.find(user)

    def place(self, now: int, user: str) -> dict[str, Any]:
        """{state, position, eta_ms, pass_id, pass_expires_at} of anybody."""
        found: dict[str, Any] = {
            "state": "none",
            "position": None,
            "eta_ms": None,
            "pass_id": None,
            "pass_expires_at": None,
        }
        visit = self._visits.find(user)
        if visit is not None:
            ends_at = visit[0] % _HOLDING
            found["state"] = "admitted" if visit[0] < _HOLDING else "holding"
            found["pass_id"] = self._pass(user, ends_at)
            found["pass_expires_at"] = ends_at
            return found
        rank = self._line.rank(user)
        if rank is not None:
            found["state"] = "waiting"
            found["position"] = rank + 1
            found["eta_ms"] = self.eta(now, rank + 1)
        return found

    def eta(self, now: int, position: int) -> int | None:
        """ms until the admission at the measured pace; without one, as the terms promise: so many
        a second, and beyond the free slots one for each pass that ends. None before the start."""
        if not self.started:
            return None
        pace = self._outflow.pace(now)
        if pace is not None:
            departures, elapsed = pace
            return position * elapsed // departures
        terms = self.terms
        behind = max(0, position - max(0, terms.active_max - self.active))
        promised = behind * terms.pass_ms // terms.active_max
        return min(TIME_MAX, max(position * 1_000 // terms.rate_per_s, promised))

    # --- memory and snapshots ---

    def release(self, entries_max: int) -> bool:
        """Frees a slice; True when all is free. From the first call on nothing else is called."""
        done = True
        for part in self._parts():
            done = part.release(entries_max) and done
        return done

    def _parts(self) -> list[Ranking | Tally]:
        return [self._line, self._visits, *self._tallies().values()]

    def _tallies(self) -> dict[str, Tally]:
        return {
            "ready": self._ready,
            "joins": self._joins,
            "addresses": self._addresses,
        }

    def dump(self) -> Iterator[list[Any]]:
        """Chunks of at most a thousand rows for `load` into a room made with the same arguments."""
        line, visits = self._line, self._visits
        yield [
            "room",
            [self.started, line.seq, visits.seq, self._credit, self._credit_at],
            self._outflow.dump(),
        ]
        for rows in in_chunks(_rows(line)):
            names, keys, seqs = map(list, zip(*rows, strict=True))
            yield ["line", names, keys, seqs, [name for name in names if line.marked(name)]]
        for rows in in_chunks(_rows(visits)):
            yield ["visits", *map(list, zip(*rows, strict=True))]
        for kind, tally in self._tallies().items():
            for rows in in_chunks(sorted(tally.items())):
                yield [kind, [list(row) for row in rows]]

    def load(self, chunk: list[Any]) -> None:
        """The next chunk of a dump."""
        kind, *columns = chunk
        if kind == "room":
            row, outflow = columns
            self.started, self._line.seq, self._visits.seq, self._credit, self._credit_at = row
            self._outflow.load(outflow)
        elif kind == "line":
            names, keys, seqs, kept = columns
            self._line.load(names, keys, seqs)
            for name in kept:
                self._line.mark(name, True)
        elif kind == "visits":
            self._visits.load(*columns)
        else:
            tally = self._tallies()[kind]
            for name, value in columns[0]:
                tally.put(name, value)

    def check(self) -> None:
        """Raises `StructureBroken` where the parts disagree. O(n)."""
        for part in self._parts():
            part.check()
        for user, key, seq in _rows(self._line):
            expect(user not in self._visits, f"{user!r} waits and is admitted")
            if key < 0:
                expected = start_key(self._seed, user) - _HASH_END
                expect(key == expected, f"{user!r} has another key than the seed gives")
            else:
                expect(self.started, f"{user!r} arrived after a start that was not")
                expect(key == seq - 1, f"{user!r} is not where she arrived")
        for user, _ in self._ready.items():
            expect(self._is_admitted(user), f"{user!r} dwells, and is not admitted")
        expect(self.started or not self.active, "visits before the start")
        expect(self._credit >= 0, "more were admitted than allowed")


def _rows(ranking: Ranking) -> Iterator[tuple[str, int, int]]:
    """All of a ranking in order, in slices."""
    start = 0
    while rows := ranking.slice(start, _ROWS):
        yield from rows
        start += len(rows)


def _taken(tally: Tally, name: str, field: str, most: int) -> int:
    """Places that a user or an address took before. Raises RtError limit_reached."""
    taken = tally.get(name) or 0
    if taken >= most:
        raise RtError(
            LIMIT_REACHED,
            f"{shown(name)} took {taken} places in this queue, at most {most} (queue.{field})",
            {field: most, "taken": taken},
        )
    return taken


def _counted_address(text: str) -> str:
    """What counts as one address: all of IPv6 that one subscriber has is the same."""
    if ":" not in text:
        return text
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if not isinstance(address, IPv6Address):
        return text
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((int(address), _NETWORK_BITS), strict=False))
