"""Results: measures by round, their median, range and ratio, as text, Markdown or JSON.

A ratio compares rtserver with its peer at the same quantity (redis, or who does the same work
there): of the medians, and the range of the ratios of rounds that ran one after the other. What
was wanted stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.wanted import WANTED

__all__ = [
    "BARE",
    "FAILED",
    "NCHAN",
    "OURS",
    "THEIRS",
    "Measure",
    "Report",
    "Result",
    "as_text",
    "ratio",
]

OURS = "rtserver"
THEIRS = "redis"
NCHAN = "nginx + nchan"
BARE = "bare send()"
FAILED = "FAILED"  # the summary of a workload that brought no numbers
_HEADS = ("quantity", "of", "median", "min - max", "unit", "ratio to peer", "wanted")
_PEERS = (THEIRS, NCHAN, BARE)  # a quantity has one of them, if any


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity of one subject, one sample a round."""

    quantity: str
    subject: str
    unit: str
    samples: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.samples)


@dataclass(slots=True)
class Result:
    """What one workload found."""

    workload: str
    summary: str
    measures: list[Measure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def ratio(self, made: Measure) -> tuple[float, float, float] | None:
        """Of a measure of ours to that of its peer."""
        return ratio(self.measures, made.quantity) if made.subject == OURS else None

    def verdicts(self, made: Measure) -> list[str]:
        """What was wanted of a measure of ours, and whether it was reached."""
        if made.subject != OURS:
            return []
        found = self.ratio(made)
        return [
            f"{wanted}: {wanted.verdict(made.samples, made.median, found and found[0])}"
            for wanted in WANTED.get((self.workload, made.quantity), ())
        ]


@dataclass(slots=True)
class Report:
    """One run of the harness."""

    command: str
    facts: dict[str, str]
    results: list[Result] = field(default_factory=list)

    def as_json(self) -> str:
        return json.dumps(
            {
                "command": self.command,
                "facts": self.facts,
                "workloads": [_as_map(result) for result in self.results],
            },
            indent=2,
        )

    def as_markdown(self) -> str:
        facts = [f"- {name}: {value}" for name, value in self.facts.items()]
        parts = [f"# `{self.command}`", "\n".join(facts)]
        parts += [_section(result, f"## {result.workload}", _pipes) for result in self.results]
        return "\n\n".join(parts) + "\n"

    def header(self) -> str:
        width = max(map(len, self.facts))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in self.facts.items())


def as_text(result: Result) -> str:
    """One workload for a terminal."""
    return _section(result, f"== {result.workload}", _columns)


def ratio(measures: Iterable[Measure], quantity: str) -> tuple[float, float, float] | None:
    """Ours to theirs: of the medians, the least and the largest of a round; None without both."""
    found = {made.subject: made for made in measures if made.quantity == quantity}
    ours = found.get(OURS)
    theirs = next((found[peer] for peer in _PEERS if peer in found), None)
    if ours is None or theirs is None:
        return None
    if not all(theirs.samples):
        return None
    rounds = [a / b for a, b in zip(ours.samples, theirs.samples, strict=True)]
    return ours.median / theirs.median, min(rounds), max(rounds)


def _as_map(result: Result) -> dict[str, Any]:
    return {
        "name": result.workload,
        "summary": result.summary,
        "measures": [
            {
                "quantity": made.quantity,
                "subject": made.subject,
                "unit": made.unit,
                "median": made.median,
                "min": min(made.samples),
                "max": max(made.samples),
                "samples": list(made.samples),
                "ratio": result.ratio(made),
                "wanted": result.verdicts(made),
            }
            for made in result.measures
        ],
        "notes": result.notes,
    }


def _section(result: Result, head: str, table: Callable[[list[tuple[str, ...]]], str]) -> str:
    rows = [_HEADS, *(_row(result, made) for made in result.measures)]
    used = [any(column[1:]) for column in zip(*rows, strict=True)]  # nothing compared or wanted
    rows = [tuple(cell for cell, is_used in zip(row, used, strict=True) if is_used) for row in rows]
    notes = "\n".join(f"- {note}" for note in result.notes)
    shown = table(rows) if result.measures else ""
    return "\n\n".join(filter(None, (f"{head}: {result.summary}", shown, notes)))


def _row(result: Result, made: Measure) -> tuple[str, ...]:
    low, high = min(made.samples), max(made.samples)
    spread = "" if len(made.samples) == 1 else f"{_number(low)} - {_number(high)}"
    compared = result.ratio(made)
    shown = "" if compared is None else f"{compared[0]:.3f}"
    if compared is not None and spread:
        shown += f" ({compared[1]:.3f} - {compared[2]:.3f})"
    wanted = "; ".join(result.verdicts(made))
    return made.quantity, made.subject, _number(made.median), spread, made.unit, shown, wanted


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"


def _columns(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _pipes(rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
