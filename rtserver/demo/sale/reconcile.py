"""Compares what the buyers were told with what the sale says of itself, line by line.

Pure: takes a diary and books, gives findings. The ledger is added up here by its own rules, which
are written out once more on purpose: a reconciliation that used the server's code would agree with
its mistakes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeVar

from rtclient.results import Order, Step
from rtserver.demo.sale.books import Books
from rtserver.demo.sale.diary import Diary, Fate, Held, refund_of
from rtserver.demo.sale.plans import PARTY_MAX

__all__ = ["CHECKS", "Finding", "reconcile", "sold_out_after_ms"]

T = TypeVar("T")

_FREE, _HELD, _SOLD, _GONE = range(4)
_MOVES: Final = {  # where the units of a step come from and go to; None: from outside
    "created": (None, _FREE),
    "restocked": (None, _FREE),
    "reserved": (_FREE, _HELD),
    "confirmed": (_HELD, _SOLD),
    "retaken": (_FREE, _SOLD),
    "cancelled": (_HELD, _FREE),
    "expired": (_HELD, _FREE),
    "released": (_HELD, _FREE),
    "replaced": (_HELD, _FREE),
    "freed": (_HELD, _FREE),
    "refunded": (_SOLD, _FREE),
    "withdrawn": (_SOLD, _GONE),
}
_ENDINGS: Final = {"cancelled", "expired", "released", "confirmed", "retaken"}
_FATES: Final = {
    Fate.HELD: {"expired", "released"},
    Fate.CANCELLED: {"cancelled"},
    Fate.EXPIRED: {"expired"},
    Fate.SOLD: {"confirmed", "retaken"},
}


Check = Callable[[Diary, Books], Iterator[str | None]]
"""Yields one item for each thing it compares: None, or what is wrong with it."""


class Finding(NamedTuple):
    """One check: what it claims, over how many things, and what contradicts it."""

    name: str
    claim: str
    compared: int
    problems: list[str]


def reconcile(diary: Diary, books: Books) -> list[Finding]:
    """All checks, in the order in which a person would ask."""
    return [
        Finding(name, claim, *_gathered(check(diary, books)))
        for name, (claim, check) in CHECKS.items()
    ]


def _gathered(lines: Iterator[str | None]) -> tuple[int, list[str]]:
    """How many things were compared, and what is wrong."""
    found = list(lines)
    return len(found), [line for line in found if line is not None]


def _same(what: str, told: object, said: object) -> str | None:
    return None if told == said else f"{what}: told {told}, the sale says {said}"


def _each_same(what: str, told: Counter[T], said: Counter[T]) -> Iterator[str | None]:
    for one in told.keys() | said.keys():
        yield _same(f"{what} {one}", told[one], said[one])


# --- orders and holds ---


def _orders(diary: Diary, books: Books) -> Iterator[str | None]:
    told = {held.order: held for held in diary.holds.values() if held.order is not None}
    said = {order.order: order for order in books.orders}
    if len(said) != len(books.orders):
        yield f"the sale lists {len(books.orders)} orders with {len(said)} ids"
    for name, held in told.items():
        order = said.get(name)
        if order is None:
            yield f"{held.user} was told of the order {name}, which the sale does not have"
        else:
            yield _same(name, _as_told(held), _as_said(order))
    for name, order in said.items():
        if name not in told:
            yield f"the sale has the order {name} of {order.user}, who was not told of it"


def _as_told(held: Held) -> tuple[object, ...]:
    return held.user, held.bought, held.reference, dict(+held.refunded)


def _as_said(order: Order) -> tuple[object, ...]:
    return order.user, order.items, order.reference, order.refunded


def _holds(diary: Diary, books: Books) -> Iterator[str | None]:
    """Each hold has the seats and the end that its buyer knows of, and nobody else has one."""
    reserved: dict[str, Step] = {}  # its last basket
    ended: dict[str, str] = {}
    for step in books.steps:
        if step.hold is not None and step.step == "reserved":
            reserved[step.hold] = step
        elif step.hold is not None and step.step in _ENDINGS:
            ended[step.hold] = step.step
    for name, held in diary.holds.items():
        last = reserved.get(name)
        if last is None:
            yield f"{held.user} was told of the hold {name}, which the ledger does not have"
            continue
        yield _same(name, (held.user, held.items), (last.user, last.items))
        end = ended.get(name, "held")
        fits = end in _FATES[held.fate]
        yield None if fits else f"{name}: told {held.fate.value}, the ledger says {end}"
    for name, step in reserved.items():
        if name not in diary.holds:
            yield f"the ledger has the hold {name} of {step.user}, who was not told of it"


# --- seats ---


def _seats(diary: Diary, books: Books) -> Iterator[str | None]:
    """Each seat's balance: of the ledger, of the orders that buyers hold, and of the sale."""
    del diary
    balances: dict[str, list[int]] = {}
    for step in books.steps:
        move = _MOVES.get(step.step)
        if move is None:
            continue
        for sku, units in (step.items or {}).items():
            balance = balances.setdefault(sku, [0, 0, 0, 0])
            source, target = move
            balance[target] += units
            if source is not None:
                balance[source] -= units
                if balance[source] < 0:
                    yield f"step {step.seq} takes {units} of {sku} from where there were fewer"
    if balances.keys() != books.items.keys():
        yield f"the ledger knows {len(balances)} seats, the sale {len(books.items)}"
    for sku, said in books.items.items():
        free, held, sold, _ = balances.get(sku, [0, 0, 0, 0])
        if said.stock != said.free + said.held + said.sold:
            yield f"{sku}: stock {said.stock} is not {said.free} + {said.held} + {said.sold}"
        elif said.held:
            yield f"{sku}: still held when all is over"
        elif not 0 <= said.sold <= said.stock <= 1:
            yield f"{sku}: sold {said.sold} times of {said.stock}"
        else:
            yield _same(sku, (free, held, sold), (said.free, said.held, said.sold))


def _tickets(diary: Diary, books: Books) -> Iterator[str | None]:
    """The tickets that buyers have are the seats that are sold, and nobody has too many."""
    owners: dict[str, str] = {}
    parties: Counter[str] = Counter()
    for held in diary.holds.values():
        for sku in +(Counter(held.bought) - held.refunded):
            if sku in owners:
                yield f"{sku} was sold to {owners[sku]} and to {held.user}"
            owners[sku] = held.user
            parties[held.user] += 1
    for user, party in parties.items():
        yield None if party <= PARTY_MAX else f"{user} has {party} seats"
    sold = {sku for sku, balance in books.items.items() if balance.sold}
    for sku in sold ^ owners.keys():
        yield f"{sku}: {'sold to nobody' if sku in sold else f'not sold, but {owners[sku]} has it'}"


# --- the queue ---


def _places(diary: Diary, books: Books) -> Iterator[str | None]:
    """Places and passes that users were told of."""
    joined = Counter(step.user or "" for step in books.steps if step.step == "joined")
    admitted = Counter(step.user or "" for step in books.steps if step.step == "admitted")
    yield from _each_same("places of", diary.joined, joined)
    for user, told in diary.admitted.items():
        yield None if told <= admitted[user] else f"{user} was admitted {admitted[user]} times"
    was_sold_out = any(not free and not held for _, free, held in _totals(books.steps))
    for user in diary.sold_out:
        yield None if was_sold_out else f"{user} was told it is sold out, and it never was"


def _line(diary: Diary, books: Books) -> Iterator[str | None]:
    """Everybody was admitted in her turn: the pre-queue by SHA-256 of seed and user, which was
    bound when the sale was created, then as they came; and nobody reserved without a pass."""
    seed = books.status.seed or ""
    published = hashlib.sha256(seed.encode()).hexdigest()
    yield _same("SHA-256 of the seed", diary.seed_sha256, published)
    line: dict[str, None] = {}
    inside: set[str] = set()
    opened = False
    for step in books.steps:
        user = step.user or ""
        if step.step == "joined":
            line[user] = None
        elif step.step in ("left", "abandoned"):
            line.pop(user, None)
        elif step.step == "opened" and not opened:
            opened = True
            line = dict.fromkeys(sorted(line, key=lambda user: _rank(seed, user)))
        elif step.step == "admitted":
            first = next(iter(line), None)
            yield None if user == first else f"{user} was admitted while {first} was next"
            line.pop(user, None)
            inside.add(user)
        elif step.step == "reserved" and user not in inside:
            yield f"{user} holds {step.hold} and was never admitted"


def _rank(seed: str, user: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{user}".encode()).digest()[:8]) >> 1


# --- the ledger ---


def _ledger(diary: Diary, books: Books) -> Iterator[str | None]:
    """What was pushed is what is read, without a hole."""
    del diary
    yield _same("steps", len(books.pushed), len(books.steps))
    for place, (pushed, step) in enumerate(zip(books.pushed, books.steps, strict=False), 1):
        if step.seq != place:
            yield f"step {place} has the number {step.seq}"
        else:
            yield _same(f"step {place}", pushed, step)


def _audit(diary: Diary, books: Books) -> Iterator[str | None]:
    del diary
    yield _same("steps of the audit", len(books.steps), books.audit.steps)
    yield from books.audit.problems
    yield None if books.audit.ok else "sale.audit does not say ok"


def _answers(diary: Diary, books: Books) -> Iterator[str | None]:
    del books
    yield from [None] * diary.retries
    yield from diary.contradictions


def _log(diary: Diary, books: Books) -> Iterator[str | None]:
    """The records of the log are the purchases and refunds that buyers were told of, each once."""
    yield from books.log.problems
    bought = [held for held in diary.holds.values() if held.order is not None]
    confirms = Counter((held.id, held.user, held.reference or "") for held in bought)
    refunds = Counter((held.order or "", refund_of(held)) for held in bought if held.refunded)
    yield from _each_same("confirms of", confirms, books.log.confirms)
    yield from _each_same("refunds of", refunds, books.log.refunds)


def _log_audit(diary: Diary, books: Books) -> Iterator[str | None]:
    """What replaying the log gives is what the sale said of itself."""
    del diary
    total = books.status.total
    said = {
        "ok": True,
        "steps": len(books.steps),
        "orders": len(books.orders),
        "stock": total.stock,
        "free": total.free,
        "held": total.held,
        "sold": total.sold,
    }
    for name, value in said.items():
        yield _same(f"{name} by the log", books.log.audited.get(name), value)


CHECKS: Final[dict[str, tuple[str, Check]]] = {
    "orders": ("every order that a buyer was told of is there, and no other", _orders),
    "holds": ("every hold has the seats and the end that its buyer knows, and no other", _holds),
    "seats": ("no seat is sold twice, none is stuck: stock = free + held + sold", _seats),
    "tickets": ("the tickets that buyers have are the seats that are sold", _tickets),
    "places": ("places and passes are the ones that users were told of", _places),
    "line": ("everybody was admitted in her turn, by the seed that was bound before", _line),
    "answers": ("a retry got the answer of the first, and no answer was a surprise", _answers),
    "ledger": ("the ledger that was pushed is the one that is read", _ledger),
    "audit": ("sale.audit agrees", _audit),
    "log": ("the log has one record for each purchase and refund, and no other", _log),
    "log_audit": ("rtserver log audit-sales derives the same from the log", _log_audit),
}


def sold_out_after_ms(steps: list[Step]) -> tuple[int | None, int | None]:
    """From the opening to the moment when no seat was free for the first time, and to the one when
    none was held either, for good; None where that was never so."""
    opened_at = next((step.at for step in steps if step.step == "opened"), 0)
    taken: int | None = None
    final: int | None = None
    for at, free, held in _totals(steps):
        if not free and taken is None:
            taken = at - opened_at
        if free or held:
            final = None
        elif final is None:
            final = at - opened_at
    return taken, final


def _totals(steps: list[Step]) -> Iterator[tuple[int, int, int]]:
    """(time, free, held) after each step that moved units."""
    free = held = 0
    for step in steps:
        move = _MOVES.get(step.step)
        if move is None:
            continue
        units = sum((step.items or {}).values())
        source, target = move
        free += units * ((target == _FREE) - (source == _FREE))
        held += units * ((target == _HELD) - (source == _HELD))
        yield step.at, free, held
