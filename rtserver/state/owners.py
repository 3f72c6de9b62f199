"""Answers that are remembered as long as their owner lives, such as those of one sale.

Owns the text keys of each owner, and counts what else is remembered for it: SDK connections that
wrote to it and the answers these have not heard (state/answers.py holds those). `kept` is the sum
of all that, which has a bound. Forgetting an owner is immediate for callers; the memory of its
text keys is freed in slices by `reclaim`. Costs: one more dictionary access a keyed write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, TypeGuard

from rtserver.errors import OVERLOADED, RtError
from rtserver.state.chunks import in_chunks
from rtserver.structs.sharded_map import ShardedMap

__all__ = ["Answer", "Owner", "Owners", "is_alive"]


class Owner:
    """Whose life bounds how long answers are remembered, and how much is remembered for it."""

    __slots__ = ("alive", "answers", "clients", "name", "names")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.names: deque[str] = deque()  # of its text keys, oldest first
        self.answers = 0  # of SDK connections, not heard yet
        self.clients = 0  # SDK connections that wrote to it

    def __len__(self) -> int:
        return len(self.names) + self.answers + self.clients


class Answer:
    """A first success: what was called and what was answered (packed)."""

    __slots__ = ("at", "call", "number", "owner", "result")

    def __init__(
        self, call: bytes, result: bytes, at: int, owner: Owner | None = None, number: int = 0
    ) -> None:
        self.number = number  # of the SDK connection's key
        self.call = call
        self.result = result
        self.at = at
        self.owner = owner

    def as_row(self) -> list[Any]:
        return [self.call, self.result, self.at]


def is_alive(owner: Owner | None) -> TypeGuard[Owner]:
    return owner is not None and owner.alive


class Owners:
    """All owners for whom something is remembered."""

    __slots__ = ("_graves", "_owners", "_text", "kept", "kept_max")

    def __init__(self) -> None:
        self._owners: ShardedMap[tuple[Owner]] = ShardedMap()  # those alive
        self._text: ShardedMap[Answer] = ShardedMap()  # also of graves, until they are reclaimed
        self._graves: deque[Owner] = deque()
        self.kept = 0
        self.kept_max: int | None = None

    def check_room(self) -> None:
        """Raises RtError overloaded where nothing more can be kept."""
        if self.kept_max is not None and self.kept >= self.kept_max:
            raise RtError(
                OVERLOADED,
                f"sales remember {self.kept} idempotency keys, at most {self.kept_max}"
                " (limits.sale_keys_max); those of a sale are forgotten when it is deleted",
            )

    def open(self, name: str) -> Owner:
        """The owner of this name."""
        return self._alone(name)[0]

    def _alone(self, name: str) -> tuple[Owner]:
        """The owner in a tuple, which most SDK connections share."""
        alone = self._owners.get(name)
        if alone is None:
            alone = (Owner(name),)
            self._owners.insert(name, alone)
        return alone

    # --- text keys ---

    def find(self, name: str) -> Answer | None:
        answer = self._text.get(name)
        return answer if answer is not None and is_alive(answer.owner) else None

    def keep(self, owner: Owner, name: str, answer: Answer) -> None:
        """Remembers the answer to a text key that `find` does not know."""
        self._text.insert(name, answer)
        owner.names.append(name)
        self.kept += 1

    # --- what others hold ---

    def joined(self, owners: tuple[Owner, ...], owner: Owner) -> tuple[Owner, ...]:
        """The owners that an SDK connection wrote to, with one that it had not written to."""
        owner.clients += 1
        self.kept += 1
        return owners + self._alone(owner.name)

    def count_answer(self, owner: Owner, change: int) -> None:
        """An answer that an SDK connection did not hear came (1) or went (-1)."""
        owner.answers += change
        self.kept += change

    # --- the end of an owner ---

    def forget(self, name: str) -> int:
        """The owner is no more; how many answers of SDK connections have lost it."""
        if name not in self._owners:
            return 0
        (owner,) = self._owners.pop(name)
        owner.alive = False
        self.kept -= len(owner)
        self._graves.append(owner)
        return owner.answers

    def reclaim(self, entries_max: int) -> bool:
        """Frees a slice of what owners left; True when nothing is left to free."""
        left = entries_max
        while self._graves and left > 0:
            owner = self._graves[0]
            count = min(left, len(owner.names))
            for _ in range(count):
                self._free(owner, owner.names.popleft())
            left -= count + 1
            if not owner.names:
                self._graves.popleft()
        return not self._graves

    def _free(self, owner: Owner, name: str) -> None:
        answer = self._text.get(name)
        if answer is not None and answer.owner is owner:  # else the key was used again since
            self._text.pop(name)

    # --- snapshots ---

    def dump(self) -> Iterator[list[Any]]:
        """[owner, rows] of text keys, in order."""
        for name, (owner,) in self._owners.items():
            for names in in_chunks(owner.names):
                yield [name, [[key, *self._known(key).as_row()] for key in names]]

    def _known(self, name: str) -> Answer:
        answer = self._text.get(name)
        assert answer is not None, "every name of an owner alive has an answer"
        return answer

    def load(self, name: str, rows: list[Any]) -> None:
        owner = self.open(name)
        for key, call, result, at in rows:
            self.keep(owner, key, Answer(call, result, at, owner))

    def check(self) -> int:
        """Raises where names, answers and counts disagree. O(n). How many SDK connections and
        answers of them are counted."""
        kept = names = 0
        for _, (owner,) in self._owners.items():
            kept += len(owner)
            names += len(owner.names)
            for key in owner.names:
                if self._known(key).owner is not owner:
                    raise ValueError(f"{owner.name!r} has the key {key!r} of another owner")
        alive = sum(is_alive(answer.owner) for _, answer in self._text.items())
        if (kept, names) != (self.kept, alive):
            raise ValueError(
                f"owners count {kept} kept with {names} text keys, the totals say {self.kept}"
                f" with {alive}"
            )
        return kept - names
