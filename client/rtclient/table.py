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
SALE_CREATE: Command[results.SaleCreated] = Command(
    "sale.create",
    Effect.WRITE,
    results.to_sale_created,
    ("name", "items", "per_user", "hold_ms", "opens_at", "closes_at", "queue"),
    4,
)
SALE_CONFIGURE: Command[results.SalePhase] = Command(
    "sale.configure",
    Effect.WRITE,
    results.to_sale_phase,
    ("name", "per_user", "hold_ms", "opens_at", "closes_at", "queue"),
    1,
)
SALE_RESTOCK: Command[results.Stock] = Command(
    "sale.restock", Effect.WRITE, results.to_stock, ("name", "items"), 2
)
SALE_OPEN: Command[results.SalePhase] = Command(
    "sale.open", Effect.WRITE, results.to_sale_phase, ("name",), 1
)
SALE_PAUSE: Command[results.SalePhase] = Command(
    "sale.pause", Effect.WRITE, results.to_sale_phase, ("name",), 1
)
SALE_CLOSE: Command[results.SalePhase] = Command(
    "sale.close", Effect.WRITE, results.to_sale_phase, ("name", "release"), 2
)
SALE_DELETE: Command[results.Deleted] = Command(
    "sale.delete", Effect.WRITE, results.to_deleted, ("name",), 1
)
SALE_LIST: Command[results.NamePage] = Command(
    "sale.list", Effect.READ, results.to_name_page, ("prefix", "after", "limit"), 1
)
SALE_STATUS: Command[results.SaleStatus] = Command(
    "sale.status", Effect.READ, results.to_sale_status, ("name", "after", "limit"), 1
)
SALE_JOIN: Command[results.Place] = Command(
    "sale.join", Effect.WRITE, results.to_place, ("name", "user", "challenge"), 1
)
SALE_LEAVE: Command[results.Left] = Command(
    "sale.leave", Effect.WRITE, results.to_left, ("name", "user"), 1
)
SALE_PLACE: Command[results.WholePlace] = Command(
    "sale.place", Effect.READ, results.to_whole_place, ("name", "user"), 1
)
SALE_RESERVE: Command[results.Hold] = Command(
    "sale.reserve",
    Effect.WRITE,
    results.to_hold,
    ("name", "user", "items", "best", "pass_id", "hold"),
    1,
)
SALE_CONFIRM: Command[results.Confirmed] = Command(
    "sale.confirm", Effect.WRITE, results.to_confirmed, ("hold", "reference", "items", "late"), 1
)
SALE_CANCEL: Command[results.Cancelled] = Command(
    "sale.cancel", Effect.WRITE, results.to_cancelled, ("hold",), 1
)
SALE_EXTEND: Command[results.Hold] = Command(
    "sale.extend", Effect.WRITE, results.to_hold, ("hold", "ms"), 2
)
SALE_REFUND: Command[results.Refunded] = Command(
    "sale.refund", Effect.WRITE, results.to_refunded, ("order", "items", "reference", "restock"), 1
)
SALE_GET: Command[results.Purchase] = Command(
    "sale.get", Effect.READ, results.to_purchase, ("hold",), 1
)
SALE_BEST_AVAILABLE: Command[results.Seats] = Command(
    "sale.best_available", Effect.READ, results.to_seats, ("name", "zone", "count"), 1
)
SALE_ORDERS: Command[results.Orders] = Command(
    "sale.orders", Effect.READ, results.to_orders, ("name", "after", "limit", "state", "user"), 3
)
SALE_LEDGER: Command[results.Ledger] = Command(
    "sale.ledger", Effect.READ, results.to_ledger, ("name", "after", "limit"), 3
)
SALE_AUDIT: Command[results.Audit] = Command(
    "sale.audit", Effect.READ, results.to_audit, ("name",), 1
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
    "sale.create": SALE_CREATE,
    "sale.configure": SALE_CONFIGURE,
    "sale.restock": SALE_RESTOCK,
    "sale.open": SALE_OPEN,
    "sale.pause": SALE_PAUSE,
    "sale.close": SALE_CLOSE,
    "sale.delete": SALE_DELETE,
    "sale.list": SALE_LIST,
    "sale.status": SALE_STATUS,
    "sale.join": SALE_JOIN,
    "sale.leave": SALE_LEAVE,
    "sale.place": SALE_PLACE,
    "sale.reserve": SALE_RESERVE,
    "sale.confirm": SALE_CONFIRM,
    "sale.cancel": SALE_CANCEL,
    "sale.extend": SALE_EXTEND,
    "sale.refund": SALE_REFUND,
    "sale.get": SALE_GET,
    "sale.best_available": SALE_BEST_AVAILABLE,
    "sale.orders": SALE_ORDERS,
    "sale.ledger": SALE_LEDGER,
    "sale.audit": SALE_AUDIT,
    "channel.publish": CHANNEL_PUBLISH,
    "channel.publish_many": CHANNEL_PUBLISH_MANY,
    "channel.history": CHANNEL_HISTORY,
    "channel.presence": CHANNEL_PRESENCE,
    "channel.configure": CHANNEL_CONFIGURE,
    "presence.set": PRESENCE_SET,
    "presence.get": PRESENCE_GET,
}
