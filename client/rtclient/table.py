"""The commands that this SDK knows: effect, decoder and parameters of each.

Made by client/generate.py from the server's tables; change those, not this.
"""

from __future__ import annotations

from typing import Any, Final

from rtclient import results
from rtclient.command import Command, Effect

SERVER_AUTH: Command[results.Authenticated] = Command(
    "server.auth", Effect.SESSION, results.to_authenticated, ("token",), 1
)
SERVER_KICK: Command[results.Kicked] = Command(
    "server.kick", Effect.SESSION, results.to_kicked, ("user", "channel", "block_ms"), 1
)
SERVER_PING: Command[results.Pong] = Command("server.ping", Effect.SESSION, results.to_pong, (), 0)
SERVER_INFO: Command[Any] = Command("server.info", Effect.SESSION, None, (), 0)
SERVER_STATS: Command[Any] = Command("server.stats", Effect.SESSION, None, (), 0)
SERVER_TIME: Command[results.ServerTime] = Command(
    "server.time", Effect.SESSION, results.to_server_time, (), 0
)
SERVER_ACCEPT_TIME: Command[results.Jumped] = Command(
    "server.accept_time", Effect.SESSION, results.to_jumped, (), 0
)
SERVER_ADVANCE: Command[results.Jumped] = Command(
    "server.advance", Effect.SESSION, results.to_jumped, ("ms",), 1
)
SERVER_SNAPSHOT: Command[results.SnapshotDone] = Command(
    "server.snapshot", Effect.SESSION, results.to_snapshot_done, (), 0
)
COUNTER_ADD: Command[int] = Command(
    "counter.add", Effect.DELTA, None, ("name", "delta", "ttl_ms"), 2
)
COUNTER_ADD_MANY: Command[results.ValuesOrErrors] = Command(
    "counter.add_many", Effect.DELTA, results.to_values_or_errors, ("items",), 1
)
COUNTER_ADD_WITHIN: Command[results.Within] = Command(
    "counter.add_within",
    Effect.WRITE,
    results.to_within,
    ("name", "delta", "min", "max", "on_limit"),
    2,
)
COUNTER_GET: Command[int] = Command("counter.get", Effect.READ, None, ("name",), 1)
COUNTER_GET_MANY: Command[results.Values] = Command(
    "counter.get_many", Effect.READ, results.to_values, ("names",), 1
)
COUNTER_SET: Command[int] = Command("counter.set", Effect.WRITE, None, ("name", "value"), 2)
COUNTER_LIST: Command[results.CounterPage] = Command(
    "counter.list", Effect.READ, results.to_counter_page, ("prefix", "after", "limit"), 1
)
COUNTER_DELETE: Command[results.Deleted] = Command(
    "counter.delete", Effect.WRITE, results.to_deleted, ("name",), 1
)
BOARD_CREATE: Command[results.Created] = Command(
    "board.create", Effect.WRITE, results.to_created, ("name", "order", "mode", "score"), 4
)
BOARD_SUBMIT: Command[results.Submission] = Command(
    "board.submit",
    Effect.WRITE,
    results.to_submission,
    ("name", "member", "score", "mode", "meta", "ttl_ms"),
    3,
)
BOARD_SUBMIT_MANY: Command[results.Submissions] = Command(
    "board.submit_many", Effect.WRITE, results.to_submissions, ("name", "items"), 2
)
BOARD_RANK: Command[results.Rank] = Command(
    "board.rank", Effect.READ, results.to_rank, ("name", "member", "window", "period", "kind"), 5
)
BOARD_TOP: Command[results.Entries] = Command(
    "board.top",
    Effect.READ,
    results.to_entries,
    ("name", "limit", "offset", "window", "period", "kind"),
    6,
)
BOARD_AROUND: Command[results.Entries] = Command(
    "board.around",
    Effect.READ,
    results.to_entries,
    ("name", "member", "radius", "window", "period", "kind"),
    6,
)
BOARD_BY_SCORE: Command[results.Entries] = Command(
    "board.by_score",
    Effect.READ,
    results.to_entries,
    ("name", "low", "high", "limit", "offset", "window", "period", "kind"),
    8,
)
BOARD_MEMBERS: Command[results.Entries] = Command(
    "board.members",
    Effect.READ,
    results.to_entries,
    ("name", "members", "window", "period", "kind"),
    5,
)
BOARD_COUNT: Command[int] = Command(
    "board.count", Effect.READ, None, ("name", "window", "period"), 3
)
BOARD_REMOVE: Command[results.Removed] = Command(
    "board.remove", Effect.WRITE, results.to_removed, ("name", "members", "ban"), 3
)
BOARD_UNBAN: Command[results.Unbanned] = Command(
    "board.unban", Effect.WRITE, results.to_unbanned, ("name", "members"), 2
)
BOARD_INFO: Command[results.BoardInfo] = Command(
    "board.info", Effect.READ, results.to_board_info, ("name",), 1
)
BOARD_LIST: Command[results.NamePage] = Command(
    "board.list", Effect.READ, results.to_name_page, ("prefix", "after", "limit"), 1
)
BOARD_DELETE: Command[results.Deleted] = Command(
    "board.delete", Effect.WRITE, results.to_deleted, ("name",), 1
)
CHANNEL_PUBLISH: Command[results.Published] = Command(
    "channel.publish", Effect.WRITE, results.to_published, ("channel", "data", "key"), 2
)
CHANNEL_PUBLISH_MANY: Command[results.PublishedMany] = Command(
    "channel.publish_many", Effect.WRITE, results.to_published_many, ("items",), 1
)
CHANNEL_HISTORY: Command[results.History] = Command(
    "channel.history", Effect.READ, results.to_history, ("channel", "after", "before", "limit"), 1
)
CHANNEL_PRESENCE: Command[results.PresencePage] = Command(
    "channel.presence", Effect.READ, results.to_presence_page, ("channel", "after", "limit"), 1
)
CHANNEL_CONFIGURE: Command[results.NamespaceRules] = Command(
    "channel.configure",
    Effect.WRITE,
    results.to_namespace_rules,
    (
        "namespace",
        "class",
        "history_count",
        "history_bytes",
        "history_ms",
        "idle_ms",
        "subscribe",
        "publish",
        "presence",
        "presence_events_max",
        "reset",
    ),
    1,
)
PRESENCE_SET: Command[results.UserPresence] = Command(
    "presence.set", Effect.SESSION, results.to_user_presence, ("status", "note"), 1
)
PRESENCE_GET: Command[results.UserPresences] = Command(
    "presence.get", Effect.READ, results.to_user_presences, ("users",), 1
)
TABLE: Final[dict[str, Command[Any]]] = {
    "server.auth": SERVER_AUTH,
    "server.kick": SERVER_KICK,
    "server.ping": SERVER_PING,
    "server.info": SERVER_INFO,
    "server.stats": SERVER_STATS,
    "server.time": SERVER_TIME,
    "server.accept_time": SERVER_ACCEPT_TIME,
    "server.advance": SERVER_ADVANCE,
    "server.snapshot": SERVER_SNAPSHOT,
    "counter.add": COUNTER_ADD,
    "counter.add_many": COUNTER_ADD_MANY,
    "counter.add_within": COUNTER_ADD_WITHIN,
    "counter.get": COUNTER_GET,
    "counter.get_many": COUNTER_GET_MANY,
    "counter.set": COUNTER_SET,
    "counter.list": COUNTER_LIST,
    "counter.delete": COUNTER_DELETE,
    "board.create": BOARD_CREATE,
    "board.submit": BOARD_SUBMIT,
    "board.submit_many": BOARD_SUBMIT_MANY,
    "board.rank": BOARD_RANK,
    "board.top": BOARD_TOP,
    "board.around": BOARD_AROUND,
    "board.by_score": BOARD_BY_SCORE,
    "board.members": BOARD_MEMBERS,
    "board.count": BOARD_COUNT,
    "board.remove": BOARD_REMOVE,
    "board.unban": BOARD_UNBAN,
    "board.info": BOARD_INFO,
    "board.list": BOARD_LIST,
    "board.delete": BOARD_DELETE,
    "channel.publish": CHANNEL_PUBLISH,
    "channel.publish_many": CHANNEL_PUBLISH_MANY,
    "channel.history": CHANNEL_HISTORY,
    "channel.presence": CHANNEL_PRESENCE,
    "channel.configure": CHANNEL_CONFIGURE,
    "presence.set": PRESENCE_SET,
    "presence.get": PRESENCE_GET,
}
