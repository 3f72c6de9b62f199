"""What commands answer: typed and immutable; fields that a newer server adds are ignored.

Made by client/generate.py from the server's tables; change those, not this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rtclient.decode import many, many_or_errors
from rtclient.errors import Error

__all__ = [
    "Authenticated",
    "BoardInfo",
    "CounterItem",
    "CounterPage",
    "Created",
    "Deleted",
    "Entries",
    "Entry",
    "History",
    "Jumped",
    "Kicked",
    "Message",
    "NamePage",
    "NamespaceRules",
    "Pong",
    "PresencePage",
    "Present",
    "Published",
    "PublishedMany",
    "Rank",
    "Removed",
    "ServerTime",
    "SnapshotDone",
    "Submission",
    "Submissions",
    "Unbanned",
    "UserPresence",
    "UserPresences",
    "Values",
    "ValuesOrErrors",
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
    """What `counter.delete` and `board.delete` answer."""

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
    """What `board.list` answers."""

    items: list[str]
    next: str | None


def to_name_page(raw: Any) -> NamePage:
    return NamePage(raw["items"], raw.get("next"))


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
