"""Auditing all sales from the log: every record replayed, every movement added up, all compared.

The records go through the handlers that recovery uses, which assert each balance. What they write
into the ledgers is added up apart from the sales (state/sales/reckoning.py), step by step, so that
an oversell or a double order shows at the step where it happened. The sums are compared with each
snapshot met on the way, whose ledgers must also be the same bytes, with a sale just before it is
deleted, and with what the sales say of themselves at the end.

Costs about what a recovery of the whole history costs, and memory for the state and once more for
the sales of one snapshot.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

from rtserver.commands.replay import Replay, ReplayFailed
from rtserver.commands.table import load
from rtserver.persist.errors import LogDamaged
from rtserver.persist.files import Files
from rtserver.persist.history import History, SnapshotFile, read_history
from rtserver.persist.recovery import one_by_one
from rtserver.state.growth import Growth
from rtserver.state.sales.audit import Audit
from rtserver.state.sales.reckoning import Reckoning
from rtserver.state.sales.sale import Sale
from rtserver.state.sales.sales import Sales
from rtserver.state.store import Store
from rtserver.state.timers import Timers

__all__ = ["audit_sales"]

_DELETE = "sale.delete"
_PIECE = 100_000  # of an audit, where nobody waits


def audit_sales(
    directory: Path, files: Files, name: str | None = None, *, accept_snapshot: bool = False
) -> dict[str, Any]:
    """{ok, running, basis, basis_seq, seq, segments, snapshots: [{name, seq, ok}], sales: [{name,
    state, created_at, deleted, from_log, steps, items, stock, free, held, sold, orders, ok}],
    problems: [text], reports: [text]}, of one sale or of all.

    A sale that was there before the first record that is left is a problem, unless
    `accept_snapshot`. Raises OSError.
    """
    audit = _LogAudit(files, name)
    history = None
    try:
        history = read_history(
            directory,
            files,
            load_chunk=audit.load_chunk,
            apply_block=audit.apply_block,
            at_snapshot=audit.meet,
        )
    except (LogDamaged, ReplayFailed) as error:
        audit.problems.append(str(error))
    else:
        audit.finish(history, accept_snapshot=accept_snapshot)
    return audit.report(history)


class _LogAudit:
    """The state that is replayed, and what its ledgers add up to."""

    def __init__(self, files: Files, name: str | None) -> None:
        self.problems: list[str] = []
        self._files = files
        self._name = name
        self._store = Store()
        self._replay = Replay(load(), self._store)
        self._reckonings: dict[int, Reckoning] = {}  # by the number of the sale
        self._loaded: dict[int, int] = {}  # steps that came with the snapshot it began with
        self._rows: list[dict[str, Any]] = []
        self._snapshots: list[dict[str, Any]] = []

    # --- replaying ---

    def load_chunk(self, chunk: Any) -> None:
        """Of the snapshot that the history begins with."""
        self._replay.load_chunk(chunk)
        self._loaded = {sale.number: len(sale.ledger) for sale in self._store.sales.all()}

    def apply_block(self, records: memoryview, first_seq: int, now_ms: int) -> int:
        if _DELETE.encode() in bytes(records):
            return one_by_one(self._apply)(records, first_seq, now_ms)
        return self._replay.apply_block(records, first_seq, now_ms)

    def _apply(self, record: Any, seq: int, now_ms: int) -> None:
        """A sale that is about to be deleted is audited first."""
        if record[0] == _DELETE:
            sale = self._store.sales.get(record[2][0])
            if sale is not None:
                self._close(sale, deleted=True)
                del self._reckonings[sale.number]
        self._replay.apply(record, seq, now_ms)

    def _reckon(self, sale: Sale) -> Reckoning:
        """What the ledger of a sale adds up to by now."""
        reckoning = self._reckonings.setdefault(sale.number, Reckoning())
        while rows := sale.ledger.read_on(reckoning.steps):
            for row in rows:
                reckoning.add(row)
        return reckoning

    # --- comparing ---

    def meet(self, snapshot: SnapshotFile, store_id: bytes) -> None:
        """A snapshot must say the same as the records before it."""
        found = Sales(Timers(), Growth(), lambda _: None)
        try:
            snapshot.load(self._files, store_id, lambda chunk: _load_sales(found, chunk))
        except (ValueError, KeyError, TypeError, IndexError, AssertionError) as error:
            reason = f"its sales cannot be loaded: {type(error).__name__}: {error}"
            raise LogDamaged(snapshot.name, 0, reason) from error
        problems = []
        ours = {sale.number: sale for sale in self._store.sales.all()}
        theirs = {sale.number: sale for sale in found.all()}
        for number in sorted(ours.keys() | theirs.keys()):
            sale, other = ours.get(number), theirs.get(number)
            if sale is None or other is None:
                known = sale or other
                assert known is not None, "one of them has it"
                where = "the log" if sale is not None else "the snapshot"
                problems.append(f"sale {known.name!r}: only {where} has it")
            elif sale.name == self._name or self._name is None:
                problems += [
                    f"sale {sale.name!r}: {text}"
                    for text in _differences(sale, other, self._reckon(sale))
                ]
        self.problems += [f"{snapshot.name}: {text}" for text in problems]
        self._snapshots.append(
            {"name": snapshot.name, "seq": snapshot.meta.seq, "ok": not problems}
        )

    def finish(self, history: History, *, accept_snapshot: bool) -> None:
        """Every sale that is left, and where its records begin."""
        for sale in self._store.sales.all():
            self._close(sale, deleted=False)
        for row in self._rows:
            if not row["from_log"] and not accept_snapshot:
                self.problems.append(
                    f"sale {row['name']!r}: its beginning, up to record {history.basis_seq}, is not"
                    f" in the log any more, {history.basis} is all that is left of it"
                )
                row["ok"] = False

    def _close(self, sale: Sale, *, deleted: bool) -> None:
        """The last word about a sale."""
        if self._name is not None and sale.name != self._name:
            self._reckonings.setdefault(sale.number, Reckoning())
            return
        audit = Audit(sale, self._reckon(sale))
        while not audit.proceed(_PIECE):
            pass
        result = audit.result
        self.problems += [f"sale {sale.name!r}: {text}" for text in result["problems"]]
        self._rows.append(
            {
                "name": sale.name,
                "state": sale.phase,
                "created_at": sale.created_at,
                "deleted": deleted,
                "from_log": sale.number not in self._loaded,
                "steps": result["steps"],
                "items": result["items"],
                **audit.reckoning.balance(),
                "orders": audit.reckoning.orders,
                "ok": result["ok"],
            }
        )

    def report(self, history: History | None) -> dict[str, Any]:
        """`history` is None where it could not be read to its end."""
        return {
            "ok": not self.problems,
            "running": history is not None and history.running,
            "basis": None if history is None else history.basis,
            "basis_seq": 0 if history is None else history.basis_seq,
            "seq": None if history is None else history.seq,
            "segments": 0 if history is None else history.segments,
            "snapshots": self._snapshots,
            "sales": self._rows,
            "problems": self.problems,
            "reports": [] if history is None else history.reports,
        }


def _load_sales(sales: Sales, chunk: list[Any]) -> None:
    section, value = chunk
    if section == "sales":
        sales.load(value)


def _differences(sale: Sale, other: Sale, reckoning: Reckoning) -> list[str]:
    """In what a sale from a snapshot differs from the replayed one of the same number."""
    chunks = zip_longest(other.ledger.dump(), sale.ledger.dump())
    if any(said != summed for said, summed in chunks):
        return [
            f"its ledger of {len(other.ledger)} steps is not that of the records, which give"
            f" {len(sale.ledger)}"
        ]
    if other.as_row() != sale.as_row():
        return ["its terms or its state are not those that the records give"]
    audit = Audit(other, reckoning)
    while not audit.proceed(_PIECE):
        pass
    return audit.differences
