"""The end of the demo on stdout: what was measured, what was compared, and the verdict."""

from __future__ import annotations

from typing import Final

import click

from rtserver.demo.sale.books import Books
from rtserver.demo.sale.diary import Diary, Fate, Latencies
from rtserver.demo.sale.reconcile import Finding, sold_out_after_ms

__all__ = ["report"]

_SHOWN: Final = 10  # problems of one check


def report(diary: Diary, books: Books, findings: list[Finding], buyers: int, seconds: float) -> int:
    """Prints it; the exit code. seconds: that the sale was open."""
    _print_measured(diary, books, buyers, seconds)
    return _print_verdict(findings)


def _print_measured(diary: Diary, books: Books, buyers: int, seconds: float) -> None:
    ends = dict.fromkeys(("expired", "abandoned", "left", "pass_expired", "retaken"), 0)
    for step in books.steps:
        if step.step in ends:
            ends[step.step] += 1
    held, total = len(diary.holds), books.status.total
    refused = diary.refused.total()
    reasons = ", ".join(f"{name} {count:,}" for name, count in diary.refused.most_common())
    rows = [
        ("open", f"{seconds:.1f} s; {_sold_out(books)}"),
        (
            "joins",
            f"{diary.joined.total():,} places for {buyers:,} buyers; {_times(diary.joins)}",
        ),
        (
            "queue",
            f"{diary.admitted.total():,} were admitted and came, {ends['pass_expired']:,} let their"
            f" pass run out, {ends['left']:,} left, {ends['abandoned']:,} lost their place with"
            " their connection",
        ),
        (
            "reserves",
            f"{held:,} holds, {held / seconds:,.0f}/s, for {len(diary.reserves):,} tries of people;"
            f" {_times(diary.reserves)}",
        ),
        (
            "holds",
            f"{diary.count(Fate.SOLD):,} bought ({ends['retaken']:,} of them late),"
            f" {ends['expired']:,} ran out, {diary.count(Fate.CANCELLED):,} cancelled",
        ),
        (
            "confirms",
            f"{len(diary.confirms):,}; {_times(diary.confirms)}",
        ),
        ("refused", f"{refused:,}, {refused / seconds:,.0f}/s: {reasons}"),
        ("retries", f"{diary.retries:,} requests came twice under one key"),
        (
            "seats",
            f"{total.sold:,} sold, {total.free:,} free, {total.held:,} held;"
            f" {len(books.steps):,} steps in the ledger",
        ),
    ]
    for name, text in rows:
        click.echo(f"{name:9} {text}")


def _times(latencies: Latencies) -> str:
    return f"p50 {latencies.at(0.5):.1f} ms, p99 {latencies.at(0.99):.1f} ms"


def _sold_out(books: Books) -> str:
    taken, final = sold_out_after_ms(books.steps)
    if taken is None:
        return "never sold out"
    first = f"no seat was free for the first time after {taken / 1_000:.1f} s"
    if final is None:
        return f"{first}, then some came back and are left"
    return f"{first}, all were sold after {final / 1_000:.1f} s"


def _print_verdict(findings: list[Finding]) -> int:
    click.echo()
    for _, claim, compared, problems in findings:
        click.echo(f"{'ok  ' if not problems else 'WRONG'} {claim} ({compared:,} compared)")
        for problem in problems[:_SHOWN]:
            click.echo(f"        {problem}")
        if len(problems) > _SHOWN:
            click.echo(f"        and {len(problems) - _SHOWN:,} more")
    compared = sum(finding.compared for finding in findings)
    wrong = sum(len(finding.problems) for finding in findings)
    if wrong:
        click.echo(f"\n{wrong:,} of {compared:,} comparisons DISAGREE")
        return 1
    click.echo(f"\nall {compared:,} comparisons agree")
    return 0
