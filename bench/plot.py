"""The ratios of a run as one picture: a bar each, and a mark where it was wanted.

Needs matplotlib, which is asked for only when a picture is.
"""

from __future__ import annotations

import importlib
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from bench.report import Report
from bench.wanted import WANTED

__all__ = ["PlotImpossible", "need_library", "plot"]

_WIDTH_IN, _ROW_IN, _MARGIN_IN = 11, 0.32, 1.6
_TITLE_CHARS = 90
_LESS_IS_BETTER = ("us", "ms", "bytes")
_REACHED, _MISSED, _PLAIN = "#3a8f5c", "#c0504d", "#7f8fa6"


class PlotImpossible(Exception):
    """No picture can be made; the text says what is missing."""


class _Bar(NamedTuple):
    label: str
    ratio: float
    wanted: float | None
    color: str


def need_library() -> None:
    """Raises PlotImpossible where there is no matplotlib, before a run rather than after it."""
    _library("matplotlib")


def plot(report: Report, path: Path) -> None:
    """Writes a PNG. Raises PlotImpossible when nothing was compared."""
    bars = _bars(report)[::-1]  # from the top
    if not bars:
        raise PlotImpossible("nothing was compared with redis: no picture")
    library = _library("matplotlib")
    library.use("Agg")
    pyplot = _library("matplotlib.pyplot")
    size = (_WIDTH_IN, _MARGIN_IN + _ROW_IN * len(bars))
    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    rows = range(len(bars))
    widths = [bar.ratio - 1 for bar in bars]  # from 1, where both are equal
    axes.barh(rows, widths, left=1, color=[bar.color for bar in bars])
    axes.set_yticks(rows, [bar.label for bar in bars], fontsize=8)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    for row, bar in zip(rows, bars, strict=True):
        axes.annotate(f" {bar.ratio:.2f}", (bar.ratio, row), va="center", fontsize=7)
        if bar.wanted is not None:
            axes.plot([bar.wanted], [row], marker="D", color="black", markersize=5)
    axes.margins(x=0.12, y=0.01)
    axes.set_xlabel("rtserver to redis in the same run (diamond: wanted)")
    axes.set_title(textwrap.fill(report.command, _TITLE_CHARS), fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _bars(report: Report) -> list[_Bar]:
    bars = []
    for result in report.results:
        for made in result.measures:
            found = result.ratio(made)
            if found is None or "processor time" in made.quantity:
                continue
            verdicts = result.verdicts(made)
            missed = any(text.endswith("missed") for text in verdicts)
            color = _MISSED if missed else _REACHED if verdicts else _PLAIN
            bounds = [w for w in WANTED.get((result.workload, made.quantity), ()) if w.is_ratio]
            bound = bounds[0].bound if bounds else None
            label = f"{result.workload}: {made.quantity}"
            if made.unit in _LESS_IS_BETTER:
                label += " (less is better)"
            bars.append(_Bar(label, found[0], bound, color))
    return [bar for bar in bars if bar.ratio > 0]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise PlotImpossible(
            "--plot needs matplotlib: pip install 'rtserver[bench]', or leave the option out"
        ) from None
