"""A sale in a world, and a way to write its commands as one would say them.

`say("confirm reference=r items=a:1+b:2")` calls `sale.confirm` on the hold that the shop is about.
The tables of the specification are written in these words.
"""

from __future__ import annotations

import re
from typing import Any

from tests.world import Peer, Refused, World

ITEMS = {"a": 10, "b": {"stock": 5, "per_user": 3}, "c": 4}
HOLD_MS = 60_000
_NUMBERS = {"ms", "count", "per_user", "hold_ms", "opens_at", "closes_at", "limit"}
_WORDS = {"true": True, "false": False}


class Shop:
    """The sale `s` of three items. Ann is who buys; the staff calls where nobody else is named."""

    def __init__(self, world: World | None = None, **terms: Any) -> None:
        self.world = world or World()
        self._peers: dict[tuple[str, str | None], tuple[Any, Peer]] = {}
        self.hold = ""  # what commands are about
        for point in ("opens", "closes"):
            if f"{point}_in" in terms:
                terms[f"{point}_at"] = self.world.now + terms.pop(f"{point}_in")
        named = {"name": "s", "items": ITEMS, "per_user": 6, "hold_ms": HOLD_MS, **terms}
        self.made = self.ask("sale.create", **named)

    # --- calling ---

    def ask(self, method: str, role: str = "admin", caller: str | None = None, **named: Any) -> Any:
        """A command with parameters by name, as they stand in a request; also `options`."""
        if (role, caller) not in self._peers:
            peer = Peer()
            self._peers[role, caller] = self.world.connect(peer, role, caller), peer
        connection, peer = self._peers[role, caller]
        options = named.pop("options", {})
        args = self.positional(method, named)
        return self.world.call_on(connection, peer, method, *args, **options)

    def positional(self, method: str, named: dict[str, Any]) -> list[Any]:
        """The arguments in the order of the command's row."""
        names = [param.name for param in self.world.table[method].params]
        unknown = set(named) - set(names)
        assert not unknown, f"{method} has no {unknown}"
        args = [named.get(name) for name in names]
        while args and args[-1] is None:
            args.pop()
        return args

    def say(self, words: str, role: str = "admin", caller: str | None = None) -> Any:
        """A command of the sale in words; `wait 1000` lets time pass."""
        verb, *rest = words.split()
        if verb == "wait":
            self.world.advance(int(rest[0]))
            return None
        named = {key: self._value(key, value) for key, _, value in (w.partition("=") for w in rest)}
        options = {"as_user": named.pop("as_user")} if "as_user" in named else {}
        first = self.world.table[f"sale.{verb}"].params[0].name
        named.setdefault(first, self._subject(first))
        if role == "admin" and caller is None and verb in ("reserve", "join", "leave", "place"):
            named.setdefault("user", "ann")
        return self.ask(f"sale.{verb}", role, caller, options=options, **named)

    def attempt(
        self, words: str, role: str = "admin", caller: str | None = None
    ) -> tuple[Any, Refused | None]:
        """The reply or the refusal; a refusal leaves the balances and the log as they were."""
        before, records = self.balances(), len(self.world.records())
        try:
            return self.say(words, role, caller), None
        except Refused as refusal:
            assert self.balances() == before
            assert len(self.world.records()) == records
            return None, refusal

    def _value(self, key: str, text: str) -> Any:
        if text in _WORDS:
            return _WORDS[text]
        if text == "HOLD":
            return self.hold
        if key in _NUMBERS:
            return int(text)
        return amounts(text) if ":" in text else text

    def _subject(self, param: str) -> str:
        if param == "order":
            return self.hold.replace("h", "o", 1)
        return self.hold if param == "hold" else "s"

    # --- looking ---

    def balances(self) -> dict[str, dict[str, int]]:
        """{item: {stock, free, held, sold}}, the same as the total and as its own sum."""
        status = self.say("status")
        if status["next"] is None:
            for of in ("stock", "free", "held", "sold"):
                assert status["total"][of] == sum(row[of] for row in status["items"].values())
        for sku, row in status["items"].items():
            assert row["stock"] == row["free"] + row["held"] + row["sold"], sku
            assert min(row.values()) >= 0, sku
        return status["items"]

    def steps(self) -> list[dict[str, Any]]:
        """The whole ledger."""
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self.ask("sale.ledger", name="s", after=after, limit=1_000)
            found += page["items"]
            after = page["next"]
        return found

    def settle(self) -> None:
        """The sale agrees with its ledger, the state with its log and its snapshot."""
        audit = self.say("audit")
        assert audit["ok"], audit
        assert audit["steps"] == len(self.steps())
        self.world.assert_same()


def amounts(text: str) -> dict[str, int]:
    """`a:2+b:1` as {a: 2, b: 1}; nothing of the empty text."""
    pairs = (part.rpartition(":") for part in text.split("+") if part)
    return {sku: int(units) for sku, _, units in pairs}


def moved(before: dict[str, Any], after: dict[str, Any]) -> dict[str, dict[str, int]]:
    """By how much the columns of each item changed; those that did not are left out."""
    found = {}
    for sku in {**before, **after}:
        old = before.get(sku, {"stock": 0, "free": 0, "held": 0, "sold": 0})
        changed = {of: after[sku][of] - old[of] for of in old if after[sku][of] != old[of]}
        if changed:
            found[sku] = changed
    return found


def rows_of(text: str) -> list[tuple[str, ...]]:
    """The rows of a table in words: a line that ends in a colon names what its rows begin with;
    two spaces part the columns."""
    rows = []
    given = ""
    for line in text.strip().splitlines():
        if line and not line.startswith(" "):
            given = line.removesuffix(":")
        elif line:
            rows.append((given, *re.split(r"  +", line.strip())))
    return rows
