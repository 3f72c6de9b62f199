"""What the commands of sales answer."""

from __future__ import annotations

from rtserver.commands.kinds import Shape

__all__ = [
    "AUDIT",
    "BALANCE",
    "CANCELLED",
    "CONFIRMED",
    "CREATED",
    "DELETED",
    "HOLD",
    "LEDGER",
    "LEFT",
    "ORDER",
    "ORDERS",
    "PLACE",
    "PURCHASE",
    "REFUNDED",
    "SALES",
    "SEATS",
    "STATE",
    "STATUS",
    "STEP",
    "STOCK",
    "WHOLE_PLACE",
]

CREATED = Shape("SaleCreated", created="bool", seed_sha256="text")
DELETED = Shape("Deleted", deleted="bool")
STATE = Shape("SalePhase", state="text")
LEFT = Shape("Left", left="bool")
BALANCE = Shape("Balance", stock="int", free="int", held="int", sold="int")
STOCK = Shape("Stock", items="{Balance}")
STATUS = Shape(
    "SaleStatus",
    state="text",
    items="{Balance}",
    next="text?",
    total="Balance",
    waiting="int",
    active="int",
    refused="{int}",
    opens_at="int?",
    closes_at="int?",
    seed_sha256="text",
    seed="text?",
)
PLACE = Shape(
    "Place",
    state="text",
    position="int?",
    eta_ms="int?",
    pass_id="text?",
    pass_expires_at="int?",
)
HOLD = Shape("Hold", hold="text", items="{int}", expires_at="int")
WHOLE_PLACE = Shape("WholePlace", **PLACE.fields, holds="[Hold]", orders="[Order]")
CONFIRMED = Shape("Confirmed", order="text", items="{int}", already="bool")
CANCELLED = Shape("Cancelled", cancelled="bool", items="{int}")
REFUNDED = Shape("Refunded", order="text", items="{int}", already="bool")
PURCHASE = Shape(
    "Purchase",
    sale="text",
    state="text",
    hold="text",
    order="text?",
    user="text",
    items="{int}",
    reserved_at="int",
    expires_at="int",
    ended_at="int?",
    reference="text?",
    refunded="{int}",
)
ORDER = Shape(
    "Order",
    order="text",
    state="text",
    user="text",
    items="{int}",
    at="int",
    reference="text?",
    refunded="{int}",
)
ORDERS = Shape("Orders", orders="[Order]", next="int?")
STEP = Shape(
    "Step",
    seq="int",
    at="int",
    step="text",
    caller="text?",
    user="text?",
    hold="text?",
    items="{int}?",
    reference="text?",
)
LEDGER = Shape("Ledger", items="[Step]", next="int?")
AUDIT = Shape("Audit", ok="bool", steps="int", items="int", problems="[text]")
SEATS = Shape("Seats", items="{int}", zone="text?", row="text?")
SALES = Shape("NamePage", items="[text]", next="text?")
