"""A small shop that sells a hall out: a queue, holds that run out, orders, live in every window.

    python client/examples/flash_sale/shop.py

starts a server of its own with an empty state, creates the sale `starlight` (36 numbered seats and
two extras) and prints a URL. Open it in several windows: each is another visitor, or the one that
`?user=ann` names. The sale opens after a few seconds; who joins before stands in an order drawn by
lot, who joins later stands behind. A few are let in at a time, what one holds is hers for a minute
only, and what she gives back is free in every window at once. `--help` lists what can be changed.

    python client/examples/flash_sale/shop.py --url rt://127.0.0.1:7370

does the same in a server that runs already: start that with `--dev --pages` and the directory
`pages` beside this file.

The page is `pages/`: index.html, shop.css and shop.js on the browser client (client/js), words.js
for what it says. There is no back end in between, because the server refuses by itself what a
visitor may not do, and answers a second click as the first. What a real shop does otherwise:

- `--dev` believes `hello(user=...)`, on this machine only. A shop signs a token for each visitor
  (`[auth]` in the configuration), and the page gets it by `connect(url, {token: fetchIt})`.
- Here the visitor buys by herself. Where money is involved, the back end confirms when the payment
  has come, with the payment's number as `reference`, so that a repeated message of the payment
  service sells once. A row of the configuration leaves the command to back ends:

      [[rights]]
      command = "sale.confirm"
      role = "service"

- A payment that arrives after the hold ran out: `sale.confirm(hold, reference, late="retake")`
  sells it still if the units are free, else the money goes back.
- Bots: `per_address`, `joins_per_user`, `dwell_ms` and `challenge` of the queue.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

import rtclient
from rtserver.demo.process import serving

SALE: Final = "starlight"
PAGES: Final = Path(__file__).with_name("pages")

_ROWS: Final = {"A": 8, "B": 10, "C": 10, "D": 8}  # seats of each
_EXTRAS: Final = {
    "poster": {"stock": 12, "per_user": 2},
    "vinyl": {"stock": 3, "per_user": 1},
}
_PER_USER: Final = 6


class Terms(NamedTuple):
    """What can be changed by options. Times in seconds."""

    opens_in: float
    hold: float
    visit: float
    rate: int
    active: int


def goods() -> dict[str, dict[str, Any]]:
    """The declaration of all items; a numbered seat is an item of stock 1 with a place."""
    seats = {
        f"{row}{seat}": {"stock": 1, "zone": "hall", "row": row, "seat": seat}
        for row, count in _ROWS.items()
        for seat in range(1, count + 1)
    }
    return {**seats, **_EXTRAS}


async def create_sale(rt: rtclient.Client, terms: Terms) -> None:
    """Creates the sale; one that is there already goes on as it is."""
    if SALE in (await rt.sale.list(SALE)).items:
        return
    now = (await rt.server.time()).now
    queue = {
        "rate_per_s": terms.rate,
        "active_max": terms.active,
        "pass_ms": _ms(terms.visit),
        "grace_ms": 30_000,
    }
    await rt.sale.create(
        SALE,
        goods(),
        per_user=_PER_USER,
        hold_ms=_ms(terms.hold),
        opens_at=now + _ms(terms.opens_in) if terms.opens_in else None,
        queue=queue,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


@asynccontextmanager
async def _server(url: str | None, listen: str) -> AsyncIterator[str]:
    """The server that was named, or one of our own that ends with the block; its URL."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="flash-sale-") as data:
        options = ("--dev", "--listen", listen, "--data", data, "--pages", str(PAGES))
        async with serving(*options) as own:
            yield own


async def run(url: str | None, listen: str, terms: Terms) -> None:
    """Creates the sale and stays until it is interrupted."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with _server(url, listen) as server:
        async with rtclient.connect(server, name="flash-sale") as rt:
            await create_sale(rt, terms)
        click.echo(f"the shop is open (Ctrl+C ends it): http://{server.partition('//')[2]}/")
        await ended.wait()


@click.command()
@click.option("--url", help="A server that runs already, rt://host:port.")
@click.option("--listen", default="127.0.0.1:7370", show_default=True, help="For our own server.")
@click.option("--opens-in", default=15.0, show_default=True, help="Seconds until the sale opens.")
@click.option("--hold", default=60.0, show_default=True, help="Seconds that a hold lasts.")
@click.option("--visit", default=120.0, show_default=True, help="Seconds that a pass lasts.")
@click.option("--rate", default=1, show_default=True, help="Visitors let in a second.")
@click.option("--active", default=2, show_default=True, help="Visitors inside at once.")
def main(url: str | None, listen: str, **terms: Any) -> None:
    """A small shop on rtserver: open the printed URL in several windows."""
    asyncio.run(run(url, listen, Terms(**terms)))


if __name__ == "__main__":
    main()
