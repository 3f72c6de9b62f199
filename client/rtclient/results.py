"""What commands answer: typed and immutable; fields that a newer server adds are ignored.

Made by client/generate.py from the server's tables; change those, not this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rtclient.decode import many, many_by_name, many_or_errors
from rtclient.errors import Error

__all__ = [
    "Audit",
    "Authenticated",
    "Balance",
    "BoardInfo",
    "Cancelled",
    "Confirmed",
    "CounterItem",
    "CounterPage",
    "Created",
    "Deleted",
    "Entries",
    "Entry",
    "History",
    "Hold",
    "Jumped",
    "Kicked",
    "Ledger",
    "Left",
    "Message",
    "NamePage",
    "NamespaceRules",
    "Order",
    "Orders",
    "Place",
    "Pong",
    "PresencePage",
    "Present",
    "Published",
    "PublishedMany",
    "Purchase",
    "Rank",
    "Refunded",
    "Removed",
    "SaleCreated",
    "SalePhase",
    "SaleStatus",
    "Seats",
    "ServerTime",
    "SnapshotDone",
    "Step",
    "Stock",
    "Submission",
    "Submissions",
    "Unbanned",
    "UserPresence",
    "UserPresences",
    "Values",
    "ValuesOrErrors",
    "WholePlace",
    "Within",
]


@dataclass(frozen=True, slots=True)
class Authenticated:
    """What `server.auth` answers."""

    user: str | None
    role: str
    expires_at: int | None


def to_authenticated(raw: Any) -> Authenticated:
    return Authenticated(raw.get("user"), raw["role"], raw.get("expires_at"))


@dataclass(frozen=True, slots=True)
class Kicked:
    """What `server.kick` answers."""

    ended: int


def to_kicked(raw: Any) -> Kicked:
    return Kicked(raw["ended"])


@dataclass(frozen=True, slots=True)
class Pong:
    """What `server.ping` answers."""

    now: int


def to_pong(raw: Any) -> Pong:
    return Pong(raw["now"])


@dataclass(frozen=True, slots=True)
class ServerTime:
    """What `server.time` answers."""

    now: int
    wall: int
    offset_ms: int
    manual: bool


def to_server_time(raw: Any) -> ServerTime:
    return ServerTime(raw["now"], raw["wall"], raw["offset_ms"], raw["manual"])


@dataclass(frozen=True, slots=True)
class Jumped:
    """What `server.accept_time` and `server.advance` answer."""

    jumped_ms: int
    now: int


def to_jumped(raw: Any) -> Jumped:
    return Jumped(raw["jumped_ms"], raw["now"])


@dataclass(frozen=True, slots=True)
class SnapshotDone:
    """What `server.snapshot` answers."""

    name: str
    seq: int
    bytes: int
    created: bool


def to_snapshot_done(raw: Any) -> SnapshotDone:
    return SnapshotDone(raw["name"], raw["seq"], raw["bytes"], raw["created"])


@dataclass(frozen=True, slots=True)
class ValuesOrErrors:
    """What `counter.add_many` answers."""

    values: list[int | Error]


def to_values_or_errors(raw: Any) -> ValuesOrErrors:
    return ValuesOrErrors(many_or_errors(raw["values"], None))


@dataclass(frozen=True, slots=True)
class Values:
    """What `counter.get_many` answers."""

    values: list[int]


def to_values(raw: Any) -> Values:
    return Values(raw["values"])


@dataclass(frozen=True, slots=True)
class Within:
    """What `counter.add_within` answers."""

    value: int
    applied: int


def to_within(raw: Any) -> Within:
    return Within(raw["value"], raw["applied"])


@dataclass(frozen=True, slots=True)
class CounterItem:
    """One of `CounterPage.items`."""

    name: str
    value: int


def to_counter_item(raw: Any) -> CounterItem:
    return CounterItem(raw["name"], raw["value"])


@dataclass(frozen=True, slots=True)
class CounterPage:
    """What `counter.list` answers."""

    items: list[CounterItem]
    next: str | None


def to_counter_page(raw: Any) -> CounterPage:
    return CounterPage(many(raw["items"], to_counter_item), raw.get("next"))


@dataclass(frozen=True, slots=True)
class Deleted:
    """What `counter.delete`, `board.delete` and `sale.delete` answer."""

    deleted: bool


def to_deleted(raw: Any) -> Deleted:
    return Deleted(raw["deleted"])


@dataclass(frozen=True, slots=True)
class Created:
    """What `board.create` answers."""

    created: bool


def to_created(raw: Any) -> Created:
    return Created(raw["created"])


@dataclass(frozen=True, slots=True)
class Submission:
    """What `board.submit` answers."""

    score: int | float
    rank: int
    previous_rank: int | None
    changed: bool


def to_submission(raw: Any) -> Submission:
    return Submission(raw["score"], raw["rank"], raw.get("previous_rank"), raw["changed"])


@dataclass(frozen=True, slots=True)
class Submissions:
    """What `board.submit_many` answers."""

    items: list[Submission | Error]


def to_submissions(raw: Any) -> Submissions:
    return Submissions(many_or_errors(raw["items"], to_submission))


@dataclass(frozen=True, slots=True)
class Rank:
    """What `board.rank` answers."""

    rank: int | None
    score: int | float | None
    percentile: int | float | None
    error: int


def to_rank(raw: Any) -> Rank:
    return Rank(raw.get("rank"), raw.get("score"), raw.get("percentile"), raw["error"])


@dataclass(frozen=True, slots=True)
class Entry:
    """One of `Entries.entries`."""

    rank: int
    member: str
    score: int | float
    meta: Any


def to_entry(raw: Any) -> Entry:
    return Entry(raw["rank"], raw["member"], raw["score"], raw.get("meta"))


@dataclass(frozen=True, slots=True)
class Entries:
    """What `board.top`, `board.around`, `board.by_score` and `board.members` answer."""

    entries: list[Entry]
    count: int
    next: int | None


def to_entries(raw: Any) -> Entries:
    return Entries(many(raw["entries"], to_entry), raw["count"], raw.get("next"))


@dataclass(frozen=True, slots=True)
class Removed:
    """What `board.remove` answers."""

    removed: int


def to_removed(raw: Any) -> Removed:
    return Removed(raw["removed"])


@dataclass(frozen=True, slots=True)
class Unbanned:
    """What `board.unban` answers."""

    unbanned: int


def to_unbanned(raw: Any) -> Unbanned:
    return Unbanned(raw["unbanned"])


@dataclass(frozen=True, slots=True)
class BoardInfo:
    """What `board.info` answers."""

    name: str
    order: str
    mode: str
    score: str
    windows: list[str]
    count: int
    banned: int
    created_at: int


def to_board_info(raw: Any) -> BoardInfo:
    return BoardInfo(
        raw["name"],
        raw["order"],
        raw["mode"],
        raw["score"],
        raw["windows"],
        raw["count"],
        raw["banned"],
        raw["created_at"],
    )


@dataclass(frozen=True, slots=True)
class NamePage:
    """What `board.list` and `sale.list` answer."""

    items: list[str]
    next: str | None


def to_name_page(raw: Any) -> NamePage:
    return NamePage(raw["items"], raw.get("next"))


@dataclass(frozen=True, slots=True)
class SaleCreated:
    """What `sale.create` answers."""

    created: bool
    seed_sha256: str


def to_sale_created(raw: Any) -> SaleCreated:
    return SaleCreated(raw["created"], raw["seed_sha256"])


@dataclass(frozen=True, slots=True)
class SalePhase:
    """What `sale.configure`, `sale.open`, `sale.pause` and `sale.close` answer."""

    state: str


def to_sale_phase(raw: Any) -> SalePhase:
    return SalePhase(raw["state"])


@dataclass(frozen=True, slots=True)
class Balance:
    """One of `Stock.items` and `SaleStatus.items`, or `SaleStatus.total`."""

    stock: int
    free: int
    held: int
    sold: int


def to_balance(raw: Any) -> Balance:
    return Balance(raw["stock"], raw["free"], raw["held"], raw["sold"])


@dataclass(frozen=True, slots=True)
class Stock:
    """What `sale.restock` answers."""

    items: dict[str, Balance]


def to_stock(raw: Any) -> Stock:
    return Stock(many_by_name(raw["items"], to_balance))


@dataclass(frozen=True, slots=True)
class SaleStatus:
    """What `sale.status` answers."""

    state: str
    items: dict[str, Balance]
    next: str | None
    total: Balance
    waiting: int
    active: int
    refused: dict[str, int]
    opens_at: int | None
    closes_at: int | None
    seed_sha256: str
    seed: str | None


def to_sale_status(raw: Any) -> SaleStatus:
    return SaleStatus(
        raw["state"],
        many_by_name(raw["items"], to_balance),
        raw.get("next"),
        to_balance(raw["total"]),
        raw["waiting"],
        raw["active"],
        raw["refused"],
        raw.get("opens_at"),
        raw.get("closes_at"),
        raw["seed_sha256"],
        raw.get("seed"),
    )


@dataclass(frozen=True, slots=True)
class Place:
    """What `sale.join` answers."""

    state: str
    position: int | None
    eta_ms: int | None
    pass_id: str | None
    pass_expires_at: int | None


def to_place(raw: Any) -> Place:
    return Place(
        raw["state"],
        raw.get("position"),
        raw.get("eta_ms"),
        raw.get("pass_id"),
        raw.get("pass_expires_at"),
    )


@dataclass(frozen=True, slots=True)
class Left:
    """What `sale.leave` answers."""

    left: bool


def to_left(raw: Any) -> Left:
    return Left(raw["left"])


@dataclass(frozen=True, slots=True)
class Hold:
    """What `sale.reserve` and `sale.extend` answer."""

    hold: str
    items: dict[str, int]
    expires_at: int


def to_hold(raw: Any) -> Hold:
    return Hold(raw["hold"], raw["items"], raw["expires_at"])


@dataclass(frozen=True, slots=True)
class Order:
    """One of `WholePlace.orders` and `Orders.orders`."""

    order: str
    state: str
    user: str
    items: dict[str, int]
    at: int
    reference: str | None
    refunded: dict[str, int]


def to_order(raw: Any) -> Order:
    return Order(
        raw["order"],
        raw["state"],
        raw["user"],
        raw["items"],
        raw["at"],
        raw.get("reference"),
        raw["refunded"],
    )


@dataclass(frozen=True, slots=True)
class WholePlace:
    """What `sale.place` answers."""

    state: str
    position: int | None
    eta_ms: int | None
    pass_id: str | None
    pass_expires_at: int | None
    holds: list[Hold]
    orders: list[Order]


def to_whole_place(raw: Any) -> WholePlace:
    return WholePlace(
        raw["state"],
        raw.get("position"),
        raw.get("eta_ms"),
        raw.get("pass_id"),
        raw.get("pass_expires_at"),
        many(raw["holds"], to_hold),
        many(raw["orders"], to_order),
    )


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What `sale.confirm` answers."""

    order: str
    items: dict[str, int]
    already: bool


def to_confirmed(raw: Any) -> Confirmed:
    return Confirmed(raw["order"], raw["items"], raw["already"])


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What `sale.cancel` answers."""

    cancelled: bool
    items: dict[str, int]


def to_cancelled(raw: Any) -> Cancelled:
    return Cancelled(raw["cancelled"], raw["items"])


@dataclass(frozen=True, slots=True)
class Refunded:
    """What `sale.refund` answers."""

    order: str
    items: dict[str, int]
    already: bool


def to_refunded(raw: Any) -> Refunded:
    return Refunded(raw["order"], raw["items"], raw["already"])


@dataclass(frozen=True, slots=True)
class Purchase:
    """What `sale.get` answers."""

    sale: str
    state: str
    hold: str
    order: str | None
    user: str
    items: dict[str, int]
    reserved_at: int
    expires_at: int
    ended_at: int | None
    reference: str | None
    refunded: dict[str, int]


def to_purchase(raw: Any) -> Purchase:
    return Purchase(
        raw["sale"],
        raw["state"],
        raw["hold"],
        raw.get("order"),
        raw["user"],
        raw["items"],
        raw["reserved_at"],
        raw["expires_at"],
        raw.get("ended_at"),
        raw.get("reference"),
        raw["refunded"],
    )


@dataclass(frozen=True, slots=True)
class Seats:
    """What `sale.best_available` answers."""

    items: dict[str, int]
    zone: str | None
    row: str | None


def to_seats(raw: Any) -> Seats:
    return Seats(raw["items"], raw.get("zone"), raw.get("row"))


@dataclass(frozen=True, slots=True)
class Orders:
    """What `sale.orders` answers."""

    orders: list[Order]
    next: int | None


def to_orders(raw: Any) -> Orders:
    return Orders(many(raw["orders"], to_order), raw.get("next"))


@dataclass(frozen=True, slots=True)
class Step:
    """One of `Ledger.items`."""

    seq: int
    at: int
    step: str
    caller: str | None
    user: str | None
    hold: str | None
    items: dict[str, int] | None
    reference: str | None


def to_step(raw: Any) -> Step:
    return Step(
        raw["seq"],
        raw["at"],
        raw["step"],
        raw.get("caller"),
        raw.get("user"),
        raw.get("hold"),
        raw.get("items"),
        raw.get("reference"),
    )


@dataclass(frozen=True, slots=True)
class Ledger:
    """What `sale.ledger` answers."""

    items: list[Step]
    next: int | None


def to_ledger(raw: Any) -> Ledger:
    return Ledger(many(raw["items"], to_step), raw.get("next"))


@dataclass(frozen=True, slots=True)
class Audit:
    """What `sale.audit` answers."""

    ok: bool
    steps: int
    items: int
    problems: list[str]


def to_audit(raw: Any) -> Audit:
    return Audit(raw["ok"], raw["steps"], raw["items"], raw["problems"])


@dataclass(frozen=True, slots=True)
class Published:
    """What `channel.publish` answers."""

    offset: int
    epoch: str


def to_published(raw: Any) -> Published:
    return Published(raw["offset"], raw["epoch"])


@dataclass(frozen=True, slots=True)
class PublishedMany:
    """What `channel.publish_many` answers."""

    items: list[Published | Error]


def to_published_many(raw: Any) -> PublishedMany:
    return PublishedMany(many_or_errors(raw["items"], to_published))


@dataclass(frozen=True, slots=True)
class Message:
    """One of `History.messages`."""

    offset: int
    data: Any
    at: int
    key: str | None
    sender: str | None
    channel: str | None


def to_message(raw: Any) -> Message:
    return Message(
        raw["offset"], raw["data"], raw["at"], raw.get("key"), raw.get("sender"), raw.get("channel")
    )


@dataclass(frozen=True, slots=True)
class History:
    """What `channel.history` answers."""

    messages: list[Message]
    epoch: str | None
    offset: int
    next: int | None


def to_history(raw: Any) -> History:
    return History(
        many(raw["messages"], to_message), raw.get("epoch"), raw["offset"], raw.get("next")
    )


@dataclass(frozen=True, slots=True)
class Present:
    """One of `PresencePage.users`."""

    user: str
    devices: int
    since: int


def to_present(raw: Any) -> Present:
    return Present(raw["user"], raw["devices"], raw["since"])


@dataclass(frozen=True, slots=True)
class PresencePage:
    """What `channel.presence` answers."""

    users: list[Present]
    count: int
    anonymous: int
    next: str | None


def to_presence_page(raw: Any) -> PresencePage:
    return PresencePage(
        many(raw["users"], to_present), raw["count"], raw["anonymous"], raw.get("next")
    )


@dataclass(frozen=True, slots=True)
class NamespaceRules:
    """What `channel.configure` answers."""

    namespace: str
    class_: str
    history_count: int
    history_bytes: int
    history_ms: int
    idle_ms: int
    subscribe: str
    publish: str
    presence: str
    presence_events_max: int


def to_namespace_rules(raw: Any) -> NamespaceRules:
    return NamespaceRules(
        raw["namespace"],
        raw["class"],
        raw["history_count"],
        raw["history_bytes"],
        raw["history_ms"],
        raw["idle_ms"],
        raw["subscribe"],
        raw["publish"],
        raw["presence"],
        raw["presence_events_max"],
    )


@dataclass(frozen=True, slots=True)
class UserPresence:
    """What `presence.set` answers."""

    user: str
    status: str
    note: str | None
    devices: int
    idle: bool
    last_seen: int | None


def to_user_presence(raw: Any) -> UserPresence:
    return UserPresence(
        raw["user"],
        raw["status"],
        raw.get("note"),
        raw["devices"],
        raw["idle"],
        raw.get("last_seen"),
    )


@dataclass(frozen=True, slots=True)
class UserPresences:
    """What `presence.get` answers."""

    users: list[UserPresence]


def to_user_presences(raw: Any) -> UserPresences:
    return UserPresences(many(raw["users"], to_user_presence))
