"""What a person sees while the sale runs, on stderr: a table that is redrawn on a terminal, else a
line now and then."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Callable
from typing import Final

import click

from rtclient.states import SaleState
from rtserver.demo.sale.diary import Diary, Fate

__all__ = ["Screen"]

_REDRAW_S: Final = 0.25
_LINE_S: Final = 3.0
_BAR: Final = 50


class Screen:
    """state: the newest that is known of the sale."""

    def __init__(self, diary: Diary, buyers: int, came: Callable[[], int]) -> None:
        self._diary = diary
        self._buyers = buyers
        self._came = came
        self._started = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._drawn = 0  # lines
        self.state: SaleState | None = None

    @property
    def is_left(self) -> bool:
        """Whether a seat is free, or may still come back."""
        return self.state is None or self.state.total.free + self.state.total.held > 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_REDRAW_S if self._terminal else _LINE_S)
            self.draw()

    def draw(self) -> None:
        if self.state is None:
            return
        lines = self._table(self.state) if self._terminal else [self._line(self.state)]
        if self._drawn:
            click.echo(f"\x1b[{self._drawn}A\x1b[J", nl=False, err=True)
        if self._terminal:  # a line that wraps would be two to go up
            width = shutil.get_terminal_size().columns
            lines = [line[: width - 1] for line in lines]
        click.echo("\n".join(lines), err=True)
        self._drawn = len(lines) if self._terminal else 0

    def _line(self, state: SaleState) -> str:
        total, diary = state.total, self._diary
        return (
            f"{time.monotonic() - self._started:5.1f} s  {state.state:9}"
            f"  came {self._came():,}, waiting {state.waiting:,}, inside {state.active:,}"
            f" | free {total.free:,}, held {total.held:,}, sold {total.sold:,}"
            f" | refused {diary.refused.total():,}"
        )

    def _table(self, state: SaleState) -> list[str]:
        total, diary = state.total, self._diary
        refused = ", ".join(f"{name} {count:,}" for name, count in diary.refused.most_common())
        return [
            f"{time.monotonic() - self._started:5.1f} s   {state.state}",
            f"buyers   came {self._came():,} of {self._buyers:,}   waiting {state.waiting:,}"
            f"   inside {state.active:,}   admitted {diary.admitted.total():,}",
            f"seats    [{_bar(total.sold, total.held, total.stock)}]   free {total.free:,}"
            f"   held {total.held:,}   sold {total.sold:,}",
            f"holds    {len(diary.holds):,}   bought {diary.count(Fate.SOLD):,}"
            f"   cancelled {diary.count(Fate.CANCELLED):,}",
            f"p99      reserve {diary.reserves.at(0.99):.1f} ms"
            f"   confirm {diary.confirms.at(0.99):.1f} ms",
            f"refused  {refused or 'nobody yet'}",
        ]


def _bar(sold: int, held: int, stock: int) -> str:
    filled = _BAR * sold // max(1, stock)
    reserved = min(_BAR, -(-_BAR * (sold + held) // max(1, stock))) - filled
    return "#" * filled + "-" * reserved + " " * (_BAR - filled - reserved)
