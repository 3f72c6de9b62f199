"""Sets of ranks by kind, and the lowest rank that is in any of several of them.

A rank is a small number, a kind an even smaller one: which rows have a free run of which length.
A set is a bitmap in words of 1,024 ranks with a summary that has a bit for each word that is not
empty. `add` and `discard` cost two operations on a word; `lowest` two for each kind it is asked
for, however many ranks there are (up to a million ranks the summary is a word, too).
"""

from __future__ import annotations

from collections.abc import Iterable

from rtserver.structs import expect

__all__ = ["RankSets"]

_SHIFT = 10
_MASK = (1 << _SHIFT) - 1


class RankSets:
    """`kinds` sets, all empty at first."""

    __slots__ = ("_kinds", "_summaries", "_words")

    def __init__(self, kinds: int) -> None:
        self._kinds = kinds
        self._summaries = [0] * kinds
        self._words: dict[int, int] = {}  # of word number * kinds + kind; none is 0

    def add(self, kind: int, rank: int) -> bool:
        """Puts a rank that is not there into a set; True when it is the only one there."""
        number = rank >> _SHIFT
        at = number * self._kinds + kind
        word = self._words.get(at)
        if word is not None:
            self._words[at] = word | 1 << (rank & _MASK)
            return False
        self._words[at] = 1 << (rank & _MASK)
        summary = self._summaries[kind]
        self._summaries[kind] = summary | 1 << number
        return not summary

    def discard(self, kind: int, rank: int) -> bool:
        """Takes a rank that is there out of a set; True when none is left in it."""
        number = rank >> _SHIFT
        at = number * self._kinds + kind
        word = self._words[at] ^ 1 << (rank & _MASK)
        if word:
            self._words[at] = word
            return False
        del self._words[at]
        summary = self._summaries[kind] ^ 1 << number
        self._summaries[kind] = summary
        return not summary

    def lowest(self, kinds: Iterable[int]) -> int | None:
        """The lowest rank in any of these sets."""
        union = 0
        summaries = self._summaries
        for kind in kinds:
            union |= summaries[kind]
        if not union:
            return None
        number = (union & -union).bit_length() - 1
        at = number * self._kinds
        union = 0
        word_of = self._words.get
        for kind in kinds:
            union |= word_of(at + kind, 0)
        return (number << _SHIFT) + (union & -union).bit_length() - 1

    def __contains__(self, key: tuple[int, int]) -> bool:
        """Whether (kind, rank) is there."""
        kind, rank = key
        word = self._words.get((rank >> _SHIFT) * self._kinds + kind, 0)
        return bool(word >> (rank & _MASK) & 1)

    def check(self) -> None:
        """Raises `StructureBroken` unless each summary says which words there are. O(n)."""
        found = [0] * self._kinds
        for at, word in self._words.items():
            number, kind = divmod(at, self._kinds)
            expect(0 < word < 1 << (_MASK + 1), "a word is empty or too long")
            found[kind] |= 1 << number
        expect(found == self._summaries, "a summary differs from the words")
