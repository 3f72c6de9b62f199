"""The example shop as its visitors see it, in several windows of Chromium at once.

What is promised: a place in line that moves by itself, a hold whose countdown is seen and whose
units are free everywhere when it ends, an order after a purchase, and the truth about what is sold
out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import rtclient
from tests.e2e.browser import CHROMIUM, browser
from tests.e2e.site import Site
from tests.process import eventually

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not here: browser tests")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "client" / "examples" / "flash_sale"
SALE = "starlight"
_OPEN = re.compile(r"the shop is open \(Ctrl\+C ends it\): http://(\S+)/")


@contextlib.contextmanager
def shop(*options):
    """The example as a person starts it; host and port of its page."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, EXAMPLE / "shop.py", *map(str, options)],
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

        def told():
            assert process.poll() is None, text()
            return _OPEN.search(text())

        def text():
            return os.pread(said.fileno(), 1 << 16, 0).decode()

        try:
            yield eventually(told, 30)[1]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0, text()


def own(**terms):
    """A shop with a server of its own, that opens at once unless told otherwise."""
    given = {"opens_in": 0, "rate": 50, "active": 1, **terms}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    return shop("--listen=127.0.0.1:0", *options)


@pytest.fixture
async def chromium(tmp_path):
    async with browser(tmp_path / "profile") as running:
        yield running
        assert not running.faults


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "data", EXAMPLE / "pages")
    yield site
    site.stop()


async def visit(chromium, address, user):
    """A window of a visitor who has seen what there is."""
    page = await chromium.page(f"http://{address}/?user={user}")
    await page.until("document.querySelector('#place').dataset.state !== 'loading'")
    return page


async def click(page, selector):
    """Clicks a button as soon as one can."""
    found = f"document.querySelector('{selector}[aria-disabled=false]:not([hidden])')"
    await page.until(f"(button => button && (button.click(), true))({found})")


async def there(page, selector):
    await page.until(f"!!document.querySelector('{selector}')")


def text(selector):
    return f"document.querySelector('{selector}').textContent"


def seat(row, number):
    return f"#rows [data-row={row}] button:nth-of-type({number})"


def state_of(row, number):
    return f"document.querySelector('{seat(row, number)}').dataset.state"


async def stands(page, words):
    await page.until(f"{text('#standing')} === '{words}'")


async def show(page, path, width=1180, height=820):
    """A screenshot for people who look at what a test saw."""
    await page.size(width, height)
    await page.front()
    await page.screenshot(path)
    assert path.stat().st_size > 10_000


# --- in line, inside, at the till ---


async def test_a_line_moves_as_visitors_hold_give_back_and_buy(chromium, tmp_path):
    with own() as address:
        ann = await visit(chromium, address, "ann")
        await click(ann, "#join")
        await stands(ann, "You are in.")
        await ann.until(f"/lasts [12]:[0-5]\\d/.test({text('#pass')})")
        bob = await visit(chromium, address, "bob")
        await click(bob, "#join")
        await stands(bob, "You are number 1 in line.")
        await bob.until(f"{text('#detail')}.startsWith('About ')")
        cid = await visit(chromium, address, "cid")
        await click(cid, "#join")
        await stands(cid, "You are number 2 in line.")
        await ann.until(f"{text('#waiting')} === '2'")
        assert not await bob.run("!!document.querySelector('#rows [aria-disabled=false]')")

        await click(ann, "#best button")
        await ann.until("document.querySelectorAll('#rows [data-state=mine]').length === 2")
        await ann.until(f"/^[01]:[0-5]\\d$/.test({text('#holds b')})")
        await bob.until("document.querySelectorAll('#rows [data-state=held]').length === 2")
        await show(ann, tmp_path / "hold.png")
        await click(ann, "#holds .quiet")
        await bob.until("!document.querySelector('#rows [data-state=held]')")
        assert await ann.run(text("#news")) == ""

        await click(ann, seat("B", 4))
        await bob.until(f"{state_of('B', 4)} === 'held'")
        assert await ann.run(text("#holds .what")) == "Row B, seat 4"
        await click(ann, "#goods button")
        await ann.until("document.querySelectorAll('#holds li').length === 2")
        await click(ann, "#holds .buy")
        await ann.until(f"{text('#orders')}.startsWith('Row B, seat 4')")
        await bob.until(f"{state_of('B', 4)} === 'sold'")
        assert await ann.run(state_of("B", 4)) == "bought"
        await stands(bob, "You are number 1 in line.")
        await click(ann, "#holds .buy")
        await stands(ann, "Thank you.")
        await stands(bob, "You are in.")
        await stands(cid, "You are number 1 in line.")
        await click(cid, "#leave")
        await stands(cid, "Welcome.")
        await show(bob, tmp_path / "inside.png")


async def test_a_hold_that_runs_out_is_free_in_every_window(chromium):
    with own(hold=4, active=2) as address:
        ann, bob = [await visit(chromium, address, user) for user in ("ann", "bob")]
        for page in (ann, bob):
            await click(page, "#join")
            await stands(page, "You are in.")
        await click(ann, seat("A", 1))
        await bob.until(f"{state_of('A', 1)} === 'held'")
        await there(ann, "#holds .ends")
        await ann.until(f"{text('#news')} === 'Time is up: Row A, seat 1 went back.'")
        await bob.until(f"{state_of('A', 1)} === 'free'")
        await stands(ann, "Welcome.")
        assert await ann.run("document.querySelectorAll('#holds li').length") == 0


async def test_sold_out_says_whether_something_may_come_back(chromium):
    with own(active=2) as address:
        async with rtclient.connect(f"rt://{address}") as rt:
            skus = (await rt.sale.status(SALE)).items
            fewer = {sku: -left.free for sku, left in skus.items() if sku != "D8"}
            await rt.sale.restock(SALE, fewer)
        ann, bob = [await visit(chromium, address, user) for user in ("ann", "bob")]
        assert await bob.run(text("#left")) == "1"
        await click(ann, "#join")
        await click(ann, seat("D", 8))
        await bob.until(f"{text('#left')} === 'all on hold'")
        await click(bob, "#join")
        await stands(bob, "You are number 1 in line.")
        await bob.until(f"{text('#detail')}.includes('what comes back')")
        await click(ann, "#holds .buy")
        await stands(bob, "Sold out.")
        await bob.until(f"{text('#left')} === 'sold out'")
        await stands(ann, "Sold out.")
        assert (await ann.run(text("#orders"))).startswith("Row D, seat 8")


async def test_who_joins_before_the_opening_is_drawn_by_lot(chromium):
    with own(opens_in=600) as address:
        ann, bob = [await visit(chromium, address, user) for user in ("ann", "bob")]
        await stands(ann, "Soon.")
        for page in (ann, bob):
            await click(page, "#join")
            await page.until(f"/^You are number [12] in line\\.$/.test({text('#standing')})")
            await page.until(f"/^The sale opens in [89]:[0-5]\\d\\.$/.test({text('#detail')})")
        places: list[str] = []
        while sorted(places) != ["1", "2"]:  # the lots may put bob before ann
            places = [await page.run(f"{text('#standing')}.match(/\\d/)[0]") for page in (ann, bob)]
        first, second = (ann, bob) if places == ["1", "2"] else (bob, ann)
        async with rtclient.connect(f"rt://{address}") as rt:
            await rt.sale.open(SALE)
        await stands(first, "You are in.")
        await stands(second, "You are number 1 in line.")


# --- the page ---


async def test_a_restart_of_the_server_is_seen_and_loses_nothing(chromium, site, tmp_path):
    """With a server that runs already."""
    url = site.url("").replace("http", "rt")
    with shop("--url", url, "--opens-in=0", "--rate=50") as address:
        page = await visit(chromium, address, "ann")
        await click(page, "#join")
        await click(page, seat("C", 1))
        await there(page, "#holds b")
        site.kill()
        await page.until("!document.querySelector('#lost').hidden")
        assert await page.run("document.querySelector('#holds .buy').ariaDisabled") == "true"
        await show(page, tmp_path / "lost.png")
        await asyncio.to_thread(site.start)
        await page.until("document.querySelector('#lost').hidden", 60)
        await click(page, "#holds .buy")
        await page.until(f"{text('#orders')}.startsWith('Row C, seat 1')")
    with shop("--url", url):  # and again: the sale is there, it goes on
        assert await page.run("rt.sale.status('starlight').then((now) => now.total.sold)") == 1


async def test_it_fits_a_telephone_and_can_be_used_without_eyes(chromium, tmp_path):
    with own() as address:
        name = "<b>eve%26"
        page = await visit(chromium, address, name)
        await click(page, "#join")
        await page.run(f"document.querySelector('{seat('B', 1)}').focus()")
        await click(page, seat("B", 1))
        await there(page, "#holds b")
        assert await page.run("document.activeElement.textContent") == "1"
        await show(page, tmp_path / "telephone.png", 375, 760)
        assert await page.run("document.documentElement.scrollWidth <= 375")
        assert await page.run(
            "[...document.querySelectorAll('button')].filter((button) => button.offsetWidth)"
            ".every((button) => button.offsetWidth >= 24 && button.offsetHeight >= 24)"
        ), "a finger hits what it means (WCAG 2.5.8)"
        assert await page.run(text("#me")) == "<b>eve&"
        assert await page.run(
            "[...document.querySelectorAll('select, button')].every((one) =>"
            " one.labels?.length || one.ariaLabel || one.textContent.trim())"
        ), "every control has a name"
        label = "document.querySelector('#rows [data-state=mine]').ariaLabel"
        assert await page.run(label) == "Row B, seat 1, held for you"
        assert await page.run("document.querySelector('#standing').ariaLive") == "polite"
        assert await page.run("document.querySelector('#holds b').role") == "timer"
        assert await page.run("document.querySelector('#countdown').ariaLive") == "polite"
        hosts = "performance.getEntriesByType('resource').map(({ name }) => new URL(name).origin)"
        assert set(await page.run(hosts)) == {f"http://{address}"}
        await page.run("document.querySelector('#holds .quiet').focus()")
        await click(page, "#holds .quiet")
        await page.until("document.activeElement.id === 'standing'")
        unnamed = await chromium.page(f"http://{address}/")
        await unnamed.until(f"/^guest-\\d+$/.test({text('#me')})")
        assert await unnamed.run("location.search") == f"?user={await unnamed.run(text('#me'))}"
