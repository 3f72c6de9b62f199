"""What was answered before: idempotency keys and source offsets.

Promises: a text key is remembered for its whole age, never less (a full table refuses new keyed
writes instead); the key of an SDK connection, [client, n, done], is forgotten once the client
has said that it heard the answer, and a number at or below `done` is never applied again. A
source offset at or below the stored one was applied before. All of it is part of the state, so
it survives a crash with the effects it belongs to. Costs: one digest and a few dictionary
accesses a keyed write.

Some writes belong to an owner, such as one sale (the column `keeper` of their row). What they
answered is remembered as long as the owner lives (state/owners.py): text keys, and of an SDK
connection its `done` and the answers it has not heard. What such a connection got from an owner
that was forgotten ages like the rest.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, Final

from rtserver.errors import DUPLICATE, KEY_REUSED, LIMIT_REACHED, OVERLOADED, RtError
from rtserver.state.owners import Answer, Owner, Owners, is_alive
from rtserver.state.settings import Settings
from rtserver.state.timers import Timers
from rtserver.structs.sharded_map import ShardedMap

__all__ = ["TIMER_KIND", "Answer", "Answers", "Key", "Source", "fingerprint"]

Key = str | list[Any]  # text, or [client, n, done]
Source = list[Any]  # [name, partition, offset]

CLIENT_KEYS_MAX: Final = 10_000  # answers one SDK connection may leave unheard
TIMER_KIND: Final = "answers"
_FORGOTTEN_PER_TIMER = 500
_CHUNK = 1_000
_number = attrgetter("number")


def fingerprint(packed_call: bytes) -> bytes:
    """16 bytes that tell whether two calls are the same."""
    return hashlib.blake2b(packed_call, digest_size=16).digest()


class _Client:
    """The keys of one SDK connection."""

    __slots__ = ("answers", "done", "looked_at", "owners", "used_at")

    def __init__(self, now: int) -> None:
        self.done = 0
        self.answers: list[Answer] = []  # those not heard, by number
        self.owners: tuple[Owner, ...] = ()  # which it wrote to; most write to one
        self.used_at = now
        self.looked_at = now  # or used; see Answers._forget_clients

    def find(self, number: int) -> Answer | None:
        place = bisect_left(self.answers, number, key=_number)
        found = self.answers[place : place + 1]
        return found[0] if found and found[0].number == number else None

    def add(self, answer: Answer) -> None:
        place = bisect_left(self.answers, answer.number, key=_number)
        self.answers.insert(place, answer)

    def living_owners(self) -> tuple[Owner, ...]:
        if not all(owner.alive for owner in self.owners):
            self.owners = tuple(owner for owner in self.owners if owner.alive)
        return self.owners


class Answers:
    """All remembered answers, scoped to who acts (`scope` is a user or a service, or "")."""

    __slots__ = (
        "_client_order",
        "_clients",
        "_order",
        "_settings",
        "_sources",
        "_text",
        "_timers",
        "client_keys",
        "keys_max",
        "owners",
        "sources_max",
    )

    def __init__(self, settings: Settings, timers: Timers) -> None:
        self._settings = settings
        self._timers = timers
        self._text: ShardedMap[Answer] = ShardedMap()
        self._order: deque[str] = deque()  # the names in _text, oldest first
        self._clients: ShardedMap[_Client] = ShardedMap()
        self._client_order: deque[str] = deque()  # by when they were looked at
        self._sources: ShardedMap[int] = ShardedMap()
        self.owners = Owners()
        self.client_keys = 0  # answers not heard, without those kept for an owner
        self.keys_max: int | None = None
        self.sources_max: int | None = None

    def __len__(self) -> int:
        """Keys remembered now, without what is kept for owners."""
        return len(self._text) + self.client_keys

    @property
    def sources(self) -> int:
        return len(self._sources)

    # --- idempotency keys ---

    def find(self, now: int, scope: str, key: Key, call: bytes) -> bytes | None:
        """The packed result of the same call made before under this key, or None.

        Raises RtError: key_reused for another call, duplicate for a number at or below `done`.
        """
        answer = self._find(now, scope, key)
        if answer is None:
            return None
        if answer.call != call:
            raise RtError(
                KEY_REUSED, f"idempotency_key {key!r} belongs to a call with other arguments"
            )
        return answer.result

    def _find(self, now: int, scope: str, key: Key) -> Answer | None:
        if isinstance(key, str):
            name = _name(scope, key)
            answer = self._text.get(name)
            if answer is not None and now - answer.at < self._settings.idempotency_age_ms:
                return answer
            return self.owners.find(name)
        client_id, number, _ = key
        client = self._clients.get(_name(scope, client_id))
        if client is None:
            return None
        if number <= client.done:
            raise RtError(
                DUPLICATE,
                f"number {number} of client {client_id!r} is at or below {client.done}, which"
                " was reported done",
            )
        return client.find(number)

    def check_room(self, scope: str, key: Key, *, owned: bool = False) -> None:
        """Raises RtError overloaded where the answer of a new keyed write cannot be kept.

        `owned`: it will be kept for an owner. The one write that then has none is what ended the
        owner; it is remembered by age, whatever the bound.
        """
        if owned:
            self.owners.check_room()
        elif self.keys_max is not None and len(self) >= self.keys_max:
            raise RtError(
                OVERLOADED,
                f"{len(self)} idempotency keys are remembered, at most {self.keys_max}"
                " (limits.idempotency_keys_max); the oldest ones are forgotten with age",
            )
        if isinstance(key, str):
            return
        client = self._clients.get(_name(scope, key[0]))
        if client is None or (client.answers and client.answers[0].number <= key[2]):
            return  # some are reported done with this very call
        if len(client.answers) >= CLIENT_KEYS_MAX:
            raise RtError(
                OVERLOADED,
                f"client {key[0]!r} has {len(client.answers)} answers not reported done, at most"
                f" {CLIENT_KEYS_MAX}",
            )

    def remember(
        self,
        now: int,
        scope: str,
        key: Key,
        call: bytes,
        result: bytes,
        owned_by: str | None = None,
    ) -> None:
        """Keeps the first success of a keyed write, as long as its owner lives if it has one."""
        owner = None if owned_by is None else self.owners.open(owned_by)
        number = 0 if isinstance(key, str) else key[1]
        answer = Answer(call, result, now, owner, number)
        if not isinstance(key, str):
            client_id, _, done = key
            client = self._client(now, _name(scope, client_id))
            client.used_at = now
            self._forget_done(client, done)
            if owner is not None:
                self._join(client, owner)
            self._add(client, answer)
        elif owner is not None:
            self.owners.keep(owner, _name(scope, key), answer)
        else:
            self._remember_text(now, _name(scope, key), answer)

    def _remember_text(self, now: int, name: str, answer: Answer) -> None:
        if name not in self._text:
            if not self._order:
                due = now + self._settings.idempotency_age_ms
                self._timers.add(due, TIMER_KIND, "keys")
            self._order.append(name)
        self._text.insert(name, answer)

    def _client(self, now: int, name: str) -> _Client:
        client = self._clients.get(name)
        if client is None:
            client = _Client(now)
            if not self._client_order:
                due = now + self._settings.idempotency_client_age_ms
                self._timers.add(due, TIMER_KIND, "clients")
            self._clients.insert(name, client)
            self._client_order.append(name)
        return client

    def _join(self, client: _Client, owner: Owner) -> None:
        """The client is remembered as long as the owner."""
        if owner not in client.living_owners():
            client.owners = self.owners.joined(client.owners, owner)

    def _add(self, client: _Client, answer: Answer) -> None:
        client.add(answer)
        self._count(answer, 1)

    def _count(self, answer: Answer, change: int) -> None:
        if is_alive(answer.owner):
            self.owners.count_answer(answer.owner, change)
        else:
            self.client_keys += change

    def _forget_done(self, client: _Client, done: int) -> None:
        if done <= client.done:
            return
        client.done = done
        count = bisect_right(client.answers, done, key=_number)
        for answer in client.answers[:count]:
            self._count(answer, -1)
        del client.answers[:count]

    def forget_owner(self, name: str) -> None:
        """The owner is no more, and with it the text keys kept for it."""
        self.client_keys += self.owners.forget(name)

    # --- forgetting, by logged timers only ---

    def fire(self, now: int, what: str) -> None:
        """Forgets a slice of what is past its age, and asks to be called again."""
        again = self._forget_keys(now) if what == "keys" else self._forget_clients(now)
        if again is not None:
            self._timers.add(max(again, now + 1), TIMER_KIND, what)

    def _forget_keys(self, now: int) -> int | None:
        """When the next text key comes of age, or None when none is left."""
        age = self._settings.idempotency_age_ms
        for _ in range(_FORGOTTEN_PER_TIMER):
            if not self._order:
                return None
            answer = self._text.get(self._order[0])
            assert answer is not None, "every name in the order has an answer"
            if answer.at + age > now:
                return answer.at + age
            self._text.pop(self._order.popleft())
        return now

    def _forget_clients(self, now: int) -> int | None:
        """The same for SDK connections. One used since its last look goes to the end; so does one
        with an owner alive, and keeps what belongs to that."""
        age = self._settings.idempotency_client_age_ms
        budget = _FORGOTTEN_PER_TIMER
        while budget > 0:
            budget -= 1
            if not self._client_order:
                return None
            name = self._client_order[0]
            client = self._clients.get(name)
            assert client is not None, "every name in the order has a client"
            if client.looked_at + age > now:
                return client.looked_at + age
            self._client_order.popleft()
            if client.used_at + age > now:
                client.looked_at = client.used_at
                self._client_order.append(name)
                continue
            budget -= len(client.answers)
            self._forget_unowned(client)
            if client.living_owners():
                client.looked_at = now
                self._client_order.append(name)
            else:
                self._clients.pop(name)
        return now

    def _forget_unowned(self, client: _Client) -> None:
        kept = [answer for answer in client.answers if is_alive(answer.owner)]
        self.client_keys -= len(client.answers) - len(kept)
        client.answers = kept

    # --- sources ---

    def check_source(self, source: Source) -> None:
        """Raises RtError duplicate where this offset of the source was applied before."""
        name, partition, offset = source
        stored = self._sources.get(_name(name, str(partition)))
        if stored is not None and offset <= stored:
            raise RtError(
                DUPLICATE,
                f"offset {offset} of source {name!r} partition {partition} is at or below the"
                f" stored {stored}",
                {"stored": stored},
            )
        full = self.sources_max is not None and len(self._sources) >= self.sources_max
        if stored is None and full:
            raise RtError(
                LIMIT_REACHED,
                f"{len(self._sources)} source partitions are stored, at most {self.sources_max}"
                " (limits.sources_max)",
            )

    def advance_source(self, source: Source) -> None:
        name, partition, offset = source
        self._sources.insert(_name(name, str(partition)), offset)

    # --- snapshots ---

    def dump(self) -> Iterator[list[Any]]:
        """["keys", rows], ["kept", owner, rows], ["client", ...], ["sources", rows]."""
        rows: list[Any] = []
        for name in self._order:
            answer = self._text.get(name)
            if answer is not None:
                rows.append([name, *answer.as_row()])
            if len(rows) == _CHUNK:
                yield ["keys", rows]
                rows = []
        yield ["keys", rows]
        for kept in self.owners.dump():
            yield ["kept", *kept]
        for name in self._client_order:
            client = self._clients.get(name)
            if client is not None:
                yield ["client", name, *_client_row(client)]
        yield ["sources", [list(row) for row in self._sources.items()]]

    def load(self, chunk: list[Any]) -> None:
        if chunk[0] == "keys":
            for name, call, result, at in chunk[1]:
                self._order.append(name)
                self._text.insert(name, Answer(call, result, at))
        elif chunk[0] == "kept":
            self.owners.load(*chunk[1:])
        elif chunk[0] == "sources":
            for name, offset in chunk[1]:
                self._sources.insert(name, offset)
        else:
            self._load_client(*chunk[1:])

    def _load_client(
        self,
        name: str,
        looked_at: int,
        done: int,
        used_at: int,
        answers: list[Any],
        owners: Sequence[str] = (),
    ) -> None:
        client = _Client(used_at)
        client.done = done
        client.looked_at = looked_at
        for owner in owners:
            self._join(client, self.owners.open(owner))
        for number, call, result, at, *owned_by in answers:
            of = self.owners.open(owned_by[0]) if owned_by else None
            self._add(client, Answer(call, result, at, of, number))
        self._clients.insert(name, client)
        self._client_order.append(name)

    def check(self) -> None:
        """Raises where the counts are not what there is. O(n)."""
        counted = self.owners.check()
        found: dict[Owner, list[int]] = {}
        unowned = 0
        for _, client in self._clients.items():
            for owner in client.living_owners():
                found.setdefault(owner, [0, 0])[0] += 1
            for answer in client.answers:
                if is_alive(answer.owner):
                    found[answer.owner][1] += 1
                else:
                    unowned += 1
        for owner, counts in found.items():
            if counts != [owner.clients, owner.answers]:
                raise ValueError(f"{owner.name!r} has {counts} clients and answers, not its counts")
        if (counted, self.client_keys) != (sum(map(sum, found.values())), unowned):
            raise ValueError(
                f"clients have {found} for owners and {unowned} other answers, counted were"
                f" {counted} and {self.client_keys}"
            )


def _client_row(client: _Client) -> list[Any]:
    """[looked_at, done, used_at, answers, owners]. An answer that is kept for an owner ends with
    its name; without owners the row is that of older snapshots."""
    answers = [
        [one.number, *one.as_row(), *([one.owner.name] if is_alive(one.owner) else [])]
        for one in client.answers
    ]
    owners = [owner.name for owner in client.living_owners()]
    row = [client.looked_at, client.done, client.used_at, answers]
    return [*row, owners] if owners else row


def _name(scope: str, key: str) -> str:
    """One name for a pair; neither part holds control characters."""
    return f"{scope}\0{key}"
