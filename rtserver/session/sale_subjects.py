"""What can be watched of a sale: the sale itself, a user's place in it, its ledger.

Sales are watched by many: what is told is coarse where it is large, and looked at less often the
less it matters. Numbers of users above 100 have two significant digits. A position is exact up to
100; beyond it is rounded up to two digits, so that nobody is told a better one than hers, and it is
looked at once a second, or in ten where it is above 1,000. A time to wait is told in whole seconds,
above 100 of them in two digits. Whoever is let in, or loses the place, is told in the turn in which
that happens: the state says so (`PlaceChanged`), and the router wakes the watch. So a million who
wait cost a bounded number of looks and pushes a second, and nobody waits for the others.
"""

from __future__ import annotations

from typing import Any, Final

from rtserver.errors import NOT_FOUND, RtError
from rtserver.session.tails import Tail
from rtserver.session.watches import Subject, malformed
from rtserver.state.channels import Channels, Message
from rtserver.state.sales.sale import Sale
from rtserver.state.sales.sales import Sales
from rtserver.state.sales.views import possessions
from rtserver.state.store import Store
from rtserver.wire.codec import pack
from rtserver.wire.names import encode_part

__all__ = ["coarse", "place_channel", "sale_kind"]

_ITEMS_MAX = 100  # of a sale whose items are told one by one
_EXACT_MAX = 100
_NEAR_MAX = 1_000
_VISIT_MS = 100  # rest of the place of one who shops: her other devices may hear so much later
_SALE_MS = 250  # of the sale itself
_NEAR_MS = 1_000
_FAR_MS = 10_000
_NO_UNITS: Final = {"stock": 0, "free": 0, "held": 0, "sold": 0}
_NO_SALE: Final = {
    "full": True,
    "state": "none",
    "total": _NO_UNITS,
    "waiting": 0,
    "active": 0,
    "opens_at": None,
    "closes_at": None,
    "seed_sha256": "",
    "seed": None,
    "items": {},
}
_NO_PLACE: Final = {
    "full": True,
    "state": "none",
    "position": None,
    "eta_ms": None,
    "pass_id": None,
    "pass_expires_at": None,
    "holds": [],
    "orders": [],
}
_TOLD = ("state", "total", "opens_at", "closes_at", "seed_sha256", "seed")


def place_channel(sale: str, user: str) -> str:
    """The name of the watch of a user's place."""
    return f"$sale:{encode_part(sale)}:user:{encode_part(user)}"


def coarse(number: int) -> int:
    """Exact up to 100, then the next number with two significant digits."""
    if number <= _EXACT_MAX:
        return number
    step = int(10 ** (len(str(number)) - 2))
    return -(-number // step) * step


class _Sale:
    """`$sale:<name>`: what changed of it, and of its items."""

    __slots__ = ("_name", "_sales")

    def __init__(self, sales: Sales, name: str) -> None:
        self._sales = sales
        self._name = name

    def marker(self, _now: int) -> tuple[int, int] | None:
        """Whatever changes a sale is a step of its ledger."""
        sale = self._sales.get(self._name)
        return None if sale is None else (sale.number, len(sale.ledger))

    def state(self, _now: int) -> dict[str, Any]:
        sale = self._sales.get(self._name)
        if sale is None:
            return _NO_SALE
        summary = sale.summary()
        names = sale.item_names(None, _ITEMS_MAX + 1)
        return {
            "full": True,
            **{field: summary[field] for field in _TOLD},
            "waiting": coarse(summary["waiting"]),
            "active": coarse(summary["active"]),
            "items": {name: sale.balance(name) for name in names}
            if len(names) <= _ITEMS_MAX
            else {},
        }

    def difference(self, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        """Fields that changed; of `items` those that did."""
        before, after = old["items"], new["items"]
        if new["state"] == "none" or not before.keys() <= after.keys():
            return new
        changed = {field: value for field, value in new.items() if value != old[field]}
        if "items" in changed:
            changed["items"] = {
                name: balance for name, balance in after.items() if balance != before.get(name)
            }
        return changed

    def rest_ms(self, _state: dict[str, Any]) -> int:
        return _SALE_MS


class _Place:
    """`$sale:<name>:user:<user>`: always the whole state, it is small."""

    __slots__ = ("_has_position", "_name", "_sales", "_user")

    def __init__(self, sales: Sales, name: str, user: str) -> None:
        self._sales = sales
        self._name = name
        self._user = user
        self._has_position = False  # in the last state

    def marker(self, _now: int) -> Any:
        """Of one who stands in the line: whether anything happened, as any step may move her. Of
        others only what is their own."""
        sale = self._sales.get(self._name)
        if sale is None:
            return None
        if self._has_position:
            return sale.number, len(sale.ledger)
        return sale.number, sale.phase, self._visit(sale), self._possessions(sale)

    def _visit(self, sale: Sale) -> Any:
        """Where there is no queue, or none for her: what else may change her state."""
        room, book = sale.room, sale.book
        left = book.free == 0, book.held == 0
        return left if room is None else (left, room.knows(self._user), room.visit(self._user))

    def _possessions(self, sale: Sale) -> Any:
        """Another value with any change of her holds and orders: what is refunded is not taken."""
        buyer = sale.book.buyers.get(self._user)
        if buyer is None:
            return None
        holds = [(hold.number, hold.expires_at, hold.items, hold.amounts) for hold in buyer.held]
        return buyer.taken, len(buyer.orders or ()), holds

    def state(self, now: int) -> dict[str, Any]:
        sale = self._sales.get(self._name)
        if sale is None:
            self._has_position = False
            return _NO_PLACE
        place = sale.place(now, self._user)
        position, eta_ms = place["position"], place["eta_ms"]
        self._has_position = position is not None
        if position is not None:
            place["position"] = coarse(position)
        if eta_ms is not None:
            place["eta_ms"] = coarse(-(-eta_ms // 1_000)) * 1_000
        return {"full": True, **place, **possessions(sale, now, self._user)}

    def difference(self, _old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        return new

    def rest_ms(self, state: dict[str, Any]) -> int:
        position = state["position"]
        if position is not None:
            if position <= _EXACT_MAX:
                return 0
            return _NEAR_MS if position <= _NEAR_MAX else _FAR_MS
        shops = state["holds"] or state["pass_id"] is not None
        return _VISIT_MS if shops else _NEAR_MS


class _Ledger(Tail):
    """`$sale:<name>:ledger`: every step, from the first on."""

    __slots__ = ("_channels", "_name", "_sales")

    def __init__(self, sales: Sales, channels: Channels, name: str) -> None:
        self._sales = sales
        self._channels = channels
        self._name = name

    @property
    def epoch(self) -> str | None:
        sale = self._sales.get(self._name)
        return None if sale is None else f"{self._channels.era}.{sale.number}"

    @property
    def top(self) -> int:
        sale = self._sales.get(self._name)
        return 0 if sale is None else len(sale.ledger)

    def read(self, after: int, limit: int, upto: int) -> list[Message]:
        sale = self._sales.get(self._name)
        if sale is None:
            return []
        steps = sale.steps(after, min(limit, upto - after))
        channel = f"$sale:{encode_part(self._name)}:ledger"
        return [Message(channel, step["seq"], step["at"], pack(step), None, None) for step in steps]


def sale_kind(store: Store, parts: list[str]) -> Subject | Tail:
    """What the parts after `$sale:` name. Raises RtError invalid_params, not_found."""
    match parts:
        case [name]:
            return _Sale(store.sales, name)
        case [name, "user", user]:
            return _Place(store.sales, name, user)
        case [name, "ledger"]:
            if store.sales.get(name) is None:
                raise RtError(NOT_FOUND, f"there is no sale {name!r}, so it has no ledger")
            return _Ledger(store.sales, store.channels, name)
    raise malformed("$sale:<name>, $sale:<name>:user:<user> or $sale:<name>:ledger")
