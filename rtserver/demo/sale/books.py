"""What a sale says of itself when it is over, and what the log of its server holds.

Owns nothing. The ledger comes twice: as it was pushed while the sale ran, and as it is read now.
The log is read twice: record by record, without any of the code that replays it, and by the audit
that `rtserver log audit-sales` makes of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import rtclient
from rtclient.results import Audit, Balance, Order, SaleStatus, Step
from rtserver.commands.journal import META_USER
from rtserver.log_audit import audit_sales
from rtserver.persist import inspect
from rtserver.persist.files import Files

__all__ = ["Books", "LogRecords", "read_books", "read_log"]

_PAGE: Final = 1_000


class LogRecords(NamedTuple):
    """What the log holds of purchases: (hold, user, reference) of confirms, (order, reference) of
    refunds; what its audit says of the sale; and what is wrong with either."""

    confirms: Counter[tuple[str, str, str]]
    refunds: Counter[tuple[str, str]]
    audited: dict[str, Any]
    problems: list[str]


@dataclass
class Books:
    """pushed: what a subscriber of the ledger heard. log: of the server, once that has ended."""

    status: SaleStatus
    items: dict[str, Balance]
    orders: list[Order]
    steps: list[Step]
    pushed: list[Step]
    audit: Audit
    log: LogRecords


async def read_books(rt: rtclient.Client, sale: str, pushed: list[Step]) -> Books:
    """Everything, as it stands now."""
    status = await rt.sale.status(sale, limit=_PAGE)
    items = dict(status.items)
    after = status.next
    while after is not None:
        page = await rt.sale.status(sale, after, _PAGE)
        items.update(page.items)
        after = page.next
    return Books(
        status,
        items,
        await _orders(rt, sale),
        await _steps(rt, sale),
        pushed,
        await rt.sale.audit(sale),
        LogRecords(Counter(), Counter(), {}, ["it was not read"]),
    )


async def _orders(rt: rtclient.Client, sale: str) -> list[Order]:
    found: list[Order] = []
    after: int | None = 0
    while after is not None:
        page = await rt.sale.orders(sale, after, _PAGE)
        found += page.orders
        after = page.next
    return found


async def _steps(rt: rtclient.Client, sale: str) -> list[Step]:
    found: list[Step] = []
    after: int | None = 0
    while after is not None:
        page = await rt.sale.ledger(sale, after, _PAGE)
        found += page.items
        after = page.next
    return found


def read_log(directory: Path, sale: str) -> LogRecords:
    """Of a data directory on which no server runs, and in which there was one sale."""
    report = audit_sales(directory, Files(), sale)
    audited: dict[str, Any] = next(iter(report["sales"]), {})
    found = LogRecords(Counter(), Counter(), audited, list(report["problems"]))
    for row in inspect.dump(directory, Files()):
        if "problem" in row:
            found.problems.append(f"{row['file']} at {row['offset']}: {row['problem']}")
            continue
        name, _, args, *meta = row["record"]
        if name == "sale.confirm":
            hold, reference, *_ = args
            found.confirms[hold, meta[0][META_USER], reference] += 1
        elif name == "sale.refund":
            order, _, reference, *_ = args
            found.refunds[order, reference] += 1
    return found
