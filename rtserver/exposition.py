"""/metrics: what the process counts anyway, as Prometheus reads it.

Everything is read when somebody asks; nothing here is called by an operation. Names follow the
conventions of Prometheus: base units, `_total` for what only grows, no label whose values a user
chooses. Back ends name sales: the first hundred by name are told apart. Each configured bound that
fills up has a gauge of how much of it is used. The text is made once an iteration of the loop,
however many ask for it at a time.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from rtserver import __version__
from rtserver.limits import SALES_IN_METRICS_MAX, Limits
from rtserver.metrics import DurationHistogram, Metrics
from rtserver.state.sales.sale import Sale
from rtserver.state.sales.sales import Sales

__all__ = ["Exposition"]

_ENTITIES = ("counters", "boards", "members", "channels", "keys", "sources", "timers")

_COUNTERS = {
    "commands": ("commands", "Commands that were run or refused."),
    "notification_errors": ("notification_errors", "Notifications that failed without a reply."),
    "connections_opened": ("connections_opened", "Sockets that were accepted."),
    "bytes_in": ("received_bytes", "Bytes that clients sent."),
    "bytes_out": ("sent_bytes", "Bytes that were sent to clients."),
    "messages_published": ("messages_published", "Messages that were published."),
    "deliveries": ("deliveries", "Messages that were put into an outbox."),
    "dropped": ("dropped_messages", "Transient messages that a full outbox did not take."),
    "gaps": ("gaps", "Times that a subscriber was told of missing messages."),
    "history_reads": ("history_reads", "Pages of histories that were read for subscribers."),
}
_LOG_COUNTERS = {
    "blocks": ("log_blocks", "Blocks that were written to the log."),
    "bytes_appended": ("log_appended_bytes", "Bytes that were written to the log."),
    "syncs": ("log_syncs", "Times that the log was synced."),
}
_SALE_METRICS: tuple[tuple[Any, str, str], ...] = (
    (GaugeMetricFamily, "stock", "Units of a sale: free, held or sold."),
    (GaugeMetricFamily, "imbalance", "The stock less the units that are somewhere: 0, always."),
    (GaugeMetricFamily, "waiting", "Users in the queue of a sale."),
    (GaugeMetricFamily, "active", "Users who were let in and are not done."),
    (CounterMetricFamily, "orders", "Orders of a sale, refunded ones too."),
    (CounterMetricFamily, "steps", "Steps in the ledger of a sale."),
)
_US = 1e-6


class Exposition(Collector):
    """Renders the text from `stats`, which answers what server.stats does."""

    def __init__(
        self, stats: Callable[[], dict[str, Any]], metrics: Metrics, limits: Limits, sales: Sales
    ) -> None:
        self._stats = stats
        self._sales = sales
        self._metrics = metrics
        self._limits = limits
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._text: bytes | None = None  # of this iteration

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        if self._text is None:
            self._text = generate_latest(self._registry)
            asyncio.get_running_loop().call_soon(self._forget)
        return self._text

    def _forget(self) -> None:
        self._text = None

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand: registering must not look at a server that is still being built."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        version = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("rtserver_build", "What runs.", version)
        uptime_s = stats["uptime_ms"] / 1_000
        yield _gauge("uptime_seconds", "Since the server started.", uptime_s)
        yield _gauge("connections", "Open sockets.", stats["connections"])
        yield _gauge("subscriptions", "Subscriptions of all connections.", stats["subscriptions"])
        yield _gauge("watches", "Derived channels that somebody watches.", stats["watches"])
        yield from _sessions(stats["sessions"])
        yield from _state(stats["state"])
        full = int(stats["memory"]["full"])
        yield _gauge("memory_full", "1 while nothing new is taken for want of memory.", full)
        yield from _log(stats["log"])
        yield _gauge("sales", "Sales that exist, deleted ones not counted.", len(self._sales))
        names = self._sales.page("", None, SALES_IN_METRICS_MAX)
        yield from _of_sales([self._sales.find(name) for name in names])
        for key, (name, text) in _COUNTERS.items():
            yield _counter(name, text, stats[key])
        yield _by_name("errors", "Error replies.", stats["errors"])
        yield _by_name("closes", "Connections that the server closed.", stats["closes"])
        yield _turns(self._metrics.turn)
        yield from self._bounds(stats)

    def _bounds(self, stats: Mapping[str, Any]) -> Iterator[Metric]:
        state = stats["state"]
        used = {
            "connections_max": stats["connections"],
            "watches_max": stats["watches"],
            "sessions_detached_max": stats["sessions"]["detached"],
            "counters_max": state["counters"],
            "boards_max": state["boards"],
            "channels_max": state["channels"],
            "history_total_bytes": state["history_bytes"],
            "idempotency_keys_max": state["keys"],
            "sale_keys_max": state.get("sale_keys", 0),
            "sources_max": state["sources"],
        }
        if self._limits.memory_max:
            used["memory_max"] = stats["memory"]["resident"]
        bound = GaugeMetricFamily("rtserver_limit", "A configured bound.", labels=["limit"])
        filled = GaugeMetricFamily(
            "rtserver_limit_used", "How much of the bound is used.", labels=["limit"]
        )
        for name, value in used.items():
            bound.add_metric([name], getattr(self._limits, name))
            filled.add_metric([name], value)
        yield bound
        yield filled


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"rtserver_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"rtserver_{name}", text, value)


def _by_name(name: str, text: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"rtserver_{name}", text, labels=["name"])
    for label, value in values.items():
        family.add_metric([label], value)
    return family


def _sessions(sessions: Mapping[str, int]) -> Iterator[Metric]:
    yield _gauge("sessions", "Sessions, with a connection or without.", sessions["all"])
    yield _gauge("sessions_detached", "Sessions without a connection.", sessions["detached"])
    yield _counter("sessions_resumed", "Sessions that a connection resumed.", sessions["resumed"])


def _state(state: Mapping[str, Any]) -> Iterator[Metric]:
    family = GaugeMetricFamily("rtserver_entities", "What the state holds.", labels=["kind"])
    for kind in _ENTITIES:
        family.add_metric([kind], state[kind])
    yield family
    yield _gauge("history_bytes", "Histories of all channels.", state["history_bytes"])


def _log(log: Mapping[str, Any]) -> Iterator[Metric]:
    for key, (name, text) in _LOG_COUNTERS.items():
        yield _counter(name, text, log[key])
    unsynced = log["written_seq"] - log["synced_seq"]
    yield _gauge("log_unsynced_records", "Records written and not yet synced.", unsynced)
    yield _gauge("log_sync_last_seconds", "The last sync.", log["sync_last_us"] * _US)
    yield _gauge("log_sync_max_seconds", "The longest sync.", log["sync_max_us"] * _US)
    yield _gauge("log_archive_bytes", "The archive of the log.", log["archive_bytes"])
    yield _gauge(
        "log_archive_held_bytes",
        "What the archive has beyond log.archive_bytes and archive_days, for sales that exist.",
        log["archive_held_bytes"],
    )
    is_full = int(log["full"] or log["stalled"])
    yield _gauge("log_full", "1 while the disk has no room for the log.", is_full)


def _of_sales(sales: list[Sale]) -> Iterator[Metric]:
    """What each of these sells. The stock stands apart: it is the sum of the units."""
    of_sale: dict[str, Any] = {}
    units = GaugeMetricFamily(
        "rtserver_sale_units", "Units of a sale by where they are.", labels=["sale", "state"]
    )
    refused = CounterMetricFamily(
        "rtserver_sale_refusals", "Refusals of a sale since the start.", labels=["sale", "reason"]
    )
    for metric, name, text in _SALE_METRICS:
        of_sale[name] = metric(f"rtserver_sale_{name}", text, labels=["sale"])
    for sale in sales:
        summary = sale.summary()
        total = summary["total"]
        for state in ("free", "held", "sold"):
            units.add_metric([sale.name, state], total[state])
        for reason, count in summary["refused"].items():
            refused.add_metric([sale.name, reason], count)
        values = {
            "stock": total["stock"],
            "imbalance": total["stock"] - total["free"] - total["held"] - total["sold"],
            "waiting": summary["waiting"],
            "active": summary["active"],
            "orders": sale.book.orders,
            "steps": len(sale.ledger),
        }
        for name, value in values.items():
            of_sale[name].add_metric([sale.name], value)
    yield units
    yield refused
    yield from of_sale.values()


def _turns(turn: DurationHistogram) -> Metric:
    """Bucket i of the histogram counts what took less than 2**i microseconds."""
    family = HistogramMetricFamily("rtserver_turn_seconds", "Turns of the loop.")
    buckets = []
    total = 0
    for place, number in enumerate(turn.buckets[:-1]):
        total += number
        if number:
            buckets.append((repr(2**place * _US), total))
    buckets.append(("+Inf", turn.count))
    family.add_metric([], buckets, turn.sum_us * _US)
    return family
