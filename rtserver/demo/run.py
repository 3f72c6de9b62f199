"""The demo as a person sees it: a server of its own, a progress bar, the boards, the check."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path

import click

import rtclient
from rtserver.demo.flights import BUNDLED, Flight, Recount, read_flights
from rtserver.demo.live import play_live
from rtserver.demo.play import BOARD_CARRIERS, BOARD_DELAYS, Played, check, clear, play
from rtserver.demo.process import serving

__all__ = ["PAGES", "run_demo"]

PAGES = Path(__file__).with_name("pages")
_TOP = 5


async def run_demo(file: Path | None, data: Path | None, listen: str, *, leave: bool) -> int:
    """Plays, prints and checks; returns the exit code."""
    flights = list(read_flights(file or BUNDLED))
    place = nullcontext(str(data)) if data else tempfile.TemporaryDirectory(prefix="rtserver-demo-")
    with place as directory:
        async with serving(
            *("--dev", "--listen", listen, "--data", directory, "--pages", str(PAGES))
        ) as url:
            code = await _show(url, flights)
            if not leave:
                await _stay(url, flights)
    return code


async def _show(url: str, flights: list[Flight]) -> int:
    async with rtclient.connect(url, user="demo") as rt:
        await clear(rt)
        label = f"playing {len(flights):,} flights"
        with click.progressbar(length=len(flights), label=label) as bar:
            played = await play(rt, flights, bar.update)
        await _print_boards(rt)
        compared, wrong = await check(rt, Recount(flights), played)
    _print_throughput(played, len(flights))
    for line in wrong[:20]:
        click.echo(f"WRONG {line}")
    if wrong:
        click.echo(f"{len(wrong):,} of {compared:,} numbers differ from a recount of the file")
        return 1
    click.echo(f"all {compared:,} numbers agree with a recount of the file")
    return 0


async def _print_boards(rt: rtclient.Client) -> None:
    for title, board in (
        ("most delay minutes, by plane", BOARD_DELAYS),
        ("most flights, by carrier", BOARD_CARRIERS),
    ):
        page = await rt.board.top(board, _TOP)
        click.echo(f"\n{title} ({page.count:,} on the board)")
        for entry in page.entries:
            click.echo(f"{entry.rank:4}. {entry.member:8} {entry.score:8,}")


def _print_throughput(played: Played, flights: int) -> None:
    click.echo(
        f"\n{flights:,} flights were {played.updates:,} updates in {played.seconds:.2f} s:"
        f" {played.updates / played.seconds:,.0f} updates/s through one connection of the SDK;"
        f" {played.heard:,} departures were pushed to a subscriber of {played.followed}"
    )


async def _stay(url: str, flights: list[Flight]) -> None:
    host, port = url.removeprefix("rt://").rsplit(":", 1)
    click.echo(f"\nthe server stays up and plays on (Ctrl+C ends it): http://{host}:{port}/")
    click.echo(f"or try: nc {host} {port}")
    click.echo(f"  board.top {BOARD_DELAYS} 3\n  counter.get flights:airport:JFK\n  help")
    async with rtclient.connect(url, user="tower") as rt:
        await play_live(rt, flights)
