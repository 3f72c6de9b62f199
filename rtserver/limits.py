"""Every bound of the server, in one place.

Each field is a key of the `[limits]` table of the configuration. Nothing in the server grows
beyond one of these; the comment says what happens at the bound. Sizes are bytes, times are
milliseconds, unless the name says otherwise.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = [
    "BASKET_MAX",
    "BEST_SEATS_MAX",
    "ENDED_HOLDS_KEPT",
    "FRAME_BYTES_CEILING",
    "HOLDS_PER_USER_MAX",
    "HOLD_LIVES",
    "INT64_MAX",
    "INT64_MIN",
    "LATEST_KEYS_MAX",
    "LIST_DEFAULT",
    "LIST_MAX",
    "META_BYTES_MAX",
    "NAME_BYTES_MAX",
    "NESTING_MAX",
    "NOTE_BYTES_MAX",
    "PRESENCE_EVENTS_MAX",
    "REFUNDS_PER_ORDER_MAX",
    "REPLY_BYTES_MAX",
    "ROW_SPAN_MAX",
    "SALES_IN_METRICS_MAX",
    "STOCK_MAX",
    "STREAM_CHANNELS_MAX",
    "TIME_MAX",
    "VALUES_MAX",
    "VECTOR_MAX",
    "Limits",
]

# Fixed by the protocol: part of what clients may rely on, so not configurable.
FRAME_BYTES_CEILING = 16 * 1024 * 1024  # so the first byte of a frame is never more than 1
NESTING_MAX = 32
NAME_BYTES_MAX = 255
VECTOR_MAX = 1_000
LIST_DEFAULT = 100
LIST_MAX = 1_000
META_BYTES_MAX = 1_024  # what a board may keep beside a score, packed
NOTE_BYTES_MAX = 256  # what a user may say beside her status
VALUES_MAX = 16_384  # values in one frame, containers and map keys included
REPLY_BYTES_MAX = 256 * 1024  # messages and list items in one reply; more comes by paging
PRESENCE_EVENTS_MAX = 10_000  # names in one join or leave, whatever a namespace says
LATEST_KEYS_MAX = 10_000  # keys of a channel of the class latest, whatever history_count says
STREAM_CHANNELS_MAX = 64  # of one event stream or long poll: their cursor names them all
STOCK_MAX = 2**40  # units of one item
ROW_SPAN_MAX = 4_096  # between the lowest and the highest seat number of a row
BASKET_MAX = 100  # items in one basket
BEST_SEATS_MAX = 32  # adjacent seats in one search
HOLDS_PER_USER_MAX = 100  # open holds of one user in one sale
HOLD_LIVES = 5  # a hold that is extended again and again lasts at most so many times hold_ms
REFUNDS_PER_ORDER_MAX = 1_000  # parts that one order is refunded in: each is looked at again
ENDED_HOLDS_KEPT = 1_000_000  # of a sale, that were not sold: older ones are not_found
SALES_IN_METRICS_MAX = 100  # that /metrics tells apart: the first by name
TIME_MAX = 2**53  # ms of anything that is said to last: added to the time it stays below 64 bits
INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1

Count = Annotated[int, Meta(ge=1)]
Millis = Annotated[int, Meta(ge=0)]


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The configurable bounds with their defaults."""

    # --- connections ---
    connections_max: Count = 10_000  # beyond: closed with too_many_connections
    frame_bytes_max: Annotated[int, Meta(ge=1024, le=FRAME_BYTES_CEILING)] = 1024 * 1024
    inline_line_bytes_max: Annotated[int, Meta(ge=1024, le=FRAME_BYTES_CEILING)] = 64 * 1024
    http_head_bytes_max: Annotated[int, Meta(ge=1024)] = 16 * 1024
    http_request_ms_max: Annotated[int, Meta(ge=100)] = 5_000
    subscriptions_per_connection_max: Count = 1_000  # beyond: limit_reached
    http_body_bytes_max: Annotated[int, Meta(ge=1024, le=FRAME_BYTES_CEILING)] = 1024 * 1024
    ws_fragments_max: Count = 64  # of one WebSocket message, empty ones counted: then closed
    ws_ping_ms: Annotated[int, Meta(ge=100)] = 25_000  # a WebSocket quiet so long is pinged
    stream_heartbeat_ms: Annotated[int, Meta(ge=100)] = 15_000  # a comment on a quiet SSE stream
    poll_ms_max: Annotated[int, Meta(ge=0)] = 60_000  # a long poll waits at most so long
    unauthenticated_bytes_max: Count = 64 * 1024  # from a connection that may do nothing yet
    unauthenticated_ms_max: Annotated[int, Meta(ge=100)] = 5_000  # until it says who it is
    silent_ms_max: Annotated[int, Meta(ge=100)] = 60_000  # without a first byte, where anyone may
    requests_total_bytes: Count = 256 * 1024 * 1024  # received and not run: the largest are closed
    replies_waiting_max: Count = 100_000  # synced replies a connection may wait for: then it waits

    # --- outgoing bytes of one connection ---
    outbox_soft_bytes: Count = 256 * 1024  # above: subscriptions become cursors, reading stops
    outbox_soft_messages: Count = 20_000  # above: the same
    outbox_hard_bytes: Count = 1024 * 1024  # above: closed with slow_consumer
    outbox_stuck_ms: Annotated[int, Meta(ge=100)] = 10_000  # no byte taken so long: closed
    outbox_total_bytes: Count = 1024 * 1024 * 1024  # all together: the fullest are closed

    # --- sessions, presence, watches ---
    session_window_ms: Annotated[int, Meta(ge=0)] = 60_000  # a lost connection's session is kept
    sessions_detached_max: Count = 100_000  # without a connection: the oldest gives way
    presence_grace_ms: Annotated[int, Meta(ge=0)] = 5_000  # from the last connection to `leave`
    presence_interval_ms: Annotated[int, Meta(ge=1)] = 1_000  # between counts of large channels
    presence_per_turn: Count = 200  # who leave, and channels told of it, in one turn
    presence_pushes_per_turn: Count = 10_000  # joins and leaves: other channels are told later
    last_seen_max: Count = 1_000_000  # users: the one seen longest ago gives way
    watch_interval_ms: Annotated[int, Meta(ge=0)] = 20  # between two looks at what is watched
    namespaces_configured_max: Count = 10_000  # by channel.configure: beyond, limit_reached
    blocks_max: Count = 10_000  # users sent away for a while: whose time ends first gives way
    watches_max: Count = 100_000  # watched things: beyond, limit_reached
    watches_per_turn: Count = 1_000  # and entries made of what changed: the next turn goes on
    drain_ms: Annotated[int, Meta(ge=0)] = 2_000  # at a stop, over which reconnects are spread
    memory_max: Annotated[int, Meta(ge=0)] = (
        0  # resident bytes above which growth is refused; 0: none
    )

    # --- a turn of the loop ---
    turn_cost_max: Count = 4_000  # commands and items; the rest runs in the next turn
    turn_ms_max: Annotated[int, Meta(ge=1)] = 4  # no new command starts later in the turn
    connection_cost_per_turn: Count = 1_000
    turn_log_bytes_max: Annotated[int, Meta(ge=4096)] = 4 * 1024 * 1024
    timers_per_turn: Count = 200
    reclaimed_per_turn: Count = 2_000  # entries of deleted structures freed a turn

    # --- state ---
    counters_max: Count = 50_000_000  # creation beyond: limit_reached
    boards_max: Count = 100_000
    board_members_max: Count = 100_000_000  # of one board
    channels_max: Count = 1_000_000
    history_total_bytes: Count = 256 * 1024 * 1024  # the longest untouched channel gives way
    idempotency_keys_max: Count = 1_000_000  # beyond: keyed writes answer overloaded
    idempotency_age_ms: Annotated[int, Meta(ge=1_000)] = 600_000
    idempotency_client_age_ms: Annotated[int, Meta(ge=1_000)] = 3_600_000
    sales_max: Count = 10_000  # creation beyond: limit_reached
    sale_items_max: Count = 1_000_000  # of one sale
    sale_holds_max: Count = 100_000_000  # ever made in one sale
    sale_waiting_max: Count = 5_000_000  # in the queue of one sale
    sale_audits_max: Count = 16  # that run, one after the other: beyond, overloaded
    sale_keys_max: Count = 50_000_000  # idempotency keys that sales remember for life
    sources_max: Count = 100_000  # [name, partition] pairs; beyond: limit_reached
