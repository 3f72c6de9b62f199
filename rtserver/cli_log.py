"""`rtserver log`: looks at the log of a data directory, audits what it says, and repairs it.

Data goes to stdout, messages to stderr; exit codes are those of `rtserver`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import click

from rtserver.config import DEFAULT_DATA
from rtserver.log_audit import audit_sales
from rtserver.persist import inspect
from rtserver.persist.errors import DirectoryLocked, LogDamaged
from rtserver.persist.files import Files
from rtserver.persist.repair import repair

__all__ = ["data_argument", "log", "need_store", "print_lines"]

EXIT_FAILED = 1
EXIT_START = 3
EXIT_DAMAGED = 5

_STORE_FILES = ("MANIFEST", "log-*.seg", "snapshot-*.snap", "archive/log-*.seg")
_DROPPED_SHOWN = 20
data_argument = click.argument(
    "data", type=click.Path(path_type=Path), default=Path(DEFAULT_DATA), required=False
)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _exit(code: int, text: str) -> NoReturn:
    _say(f"rtserver: {text}")
    sys.exit(code)


def need_store(data: Path) -> None:
    """A mistyped path must not pass for a sound, empty store."""
    if not any(list(data.glob(pattern)) for pattern in _STORE_FILES):
        _exit(EXIT_START, f"{data} holds no data of rtserver")


@click.group()
def log() -> None:
    """Looks at a log, and repairs one that is damaged."""


@log.command("check")
@data_argument
def log_check(data: Path) -> None:
    """Reads everything and reports; exit code 5 when something is damaged."""
    need_store(data)
    report = inspect.check(data, Files())
    click.echo(json.dumps(report, indent=2))
    if report["running"]:
        _say("a server runs here: the segment that it writes to was not checked")
    sys.exit(0 if report["ok"] else EXIT_DAMAGED)


@log.command("dump")
@data_argument
@click.option("--from-seq", default=1, help="The first sequence number to show.")
def log_dump(data: Path, from_seq: int) -> None:
    """Prints every record as one JSON line."""
    need_store(data)
    try:
        print_lines(inspect.dump(data, Files(), from_seq=from_seq))
    except LogDamaged as error:
        _exit(EXIT_DAMAGED, str(error))


def print_lines(rows: Iterable[dict[str, Any]]) -> None:
    from rtserver.wire.jsonform import to_json

    for row in rows:
        click.echo(to_json(row))


@log.command("repair")
@data_argument
@click.option("--truncate-at", type=int, help="Keep the records before this sequence number.")
@click.option("--accept-loss", type=int, help="How many records may be lost; see the report.")
@click.option("--restored", is_flag=True, help="The directory is a restored backup.")
def log_repair(
    data: Path, truncate_at: int | None, accept_loss: int | None, restored: bool
) -> None:
    """Makes a damaged log usable again; without --accept-loss it only reports."""
    need_store(data)
    try:
        report = repair(
            data,
            Files(),
            truncate_at_seq=truncate_at,
            accept_loss=accept_loss,
            restored=restored,
        )
    except DirectoryLocked as error:
        _exit(EXIT_START, str(error))
    except LogDamaged as error:
        _exit(EXIT_DAMAGED, str(error))
    dropped = report.pop("dropped", [])
    print_lines(dropped[:_DROPPED_SHOWN])
    if len(dropped) > _DROPPED_SHOWN:
        _say(f"... and {len(dropped) - _DROPPED_SHOWN:,} more records (`rtserver log dump`)")
    click.echo(json.dumps(report, indent=2))
    _say(_verdict(data, report, accept_loss))
    sys.exit(0 if report["repaired"] else EXIT_FAILED)


def _verdict(data: Path, report: dict[str, Any], accept_loss: int | None) -> str:
    """The last line of a repair: what happened, or what to run next."""
    if report["repaired"]:
        return "repaired" if report["actions"] else "nothing to repair"
    accepted = "" if accept_loss is None else f", {accept_loss:,} were accepted"
    return (
        f"nothing was changed: {report['loss']:,} records would be lost{accepted}."
        f" To do it: rtserver log repair {data} --accept-loss {report['loss']}"
    )


@log.command("audit-sales")
@data_argument
@click.option("--sale", "name", help="Only this one.")
@click.option("--json", "as_json", is_flag=True, help="The whole report as JSON.")
@click.option(
    "--accept-snapshot",
    is_flag=True,
    help="Where the beginning of a sale is gone from the log, a snapshot's word for it will do.",
)
def log_audit_sales(data: Path, name: str | None, as_json: bool, accept_snapshot: bool) -> None:
    """Replays all that is left of the log and its archive, adds up every movement of every sale,
    and compares with each snapshot and with the end. Exit code 5 when anything disagrees."""
    need_store(data)
    report = audit_sales(data, Files(), name, accept_snapshot=accept_snapshot)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _print_audit(report)
    if report["running"]:
        _say("a server runs here: what it had written was audited; see also sale.audit")
    for text in report["reports"]:
        _say(text)
    if report["ok"] and name is not None and not report["sales"]:
        _exit(EXIT_FAILED, f"there is no sale {name!r}")
    sys.exit(0 if report["ok"] else EXIT_DAMAGED)


_COLUMNS = ("stock", "free", "held", "sold", "orders", "steps", "items")


def _print_audit(report: dict[str, Any]) -> None:
    """A table of the sales, and what was compared."""
    rows = [["sale", "state", *_COLUMNS, "agrees"]]
    for sale in report["sales"]:
        state = "deleted" if sale["deleted"] else sale["state"]
        numbers = [f"{sale[column]:,}" for column in _COLUMNS]
        rows.append([sale["name"], state, *numbers, "yes" if sale["ok"] else "NO"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        texts = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
        texts += [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)]
        click.echo("  ".join(texts))
    for text in report["problems"]:
        click.echo(f"! {text}")
    if report["seq"] is not None:
        begins = report["basis"] or "the beginning"
        click.echo(
            f"records {report['basis_seq'] + 1:,} to {report['seq']:,} in {report['segments']}"
            f" segments, from {begins} on; snapshots compared:"
            f" {len(report['snapshots'])};"
            f" {'everything agrees' if report['ok'] else 'NOT everything agrees'}"
        )
