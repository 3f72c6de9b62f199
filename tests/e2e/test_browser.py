"""The browser client in Chromium, on the demo's page, against a server that is killed under it.

What is promised: everything that was published is there in order and once, and what was written
counts once, over restarts, a network that is switched off, pages that are hidden or frozen, and on
every transport.
"""

from __future__ import annotations

import asyncio

import pytest

from rtserver.demo.run import PAGES
from tests.e2e.browser import BLANK, CHROMIUM, browser
from tests.e2e.site import Site

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not here: browser tests")

TRANSPORTS = ("ws", "sse", "poll")
FOLLOW = """
    globalThis.got = [];
    globalThis.gaps = [];
    rt.on("gap", (gap) => gaps.push(gap));
    rt.channel.subscribe("probe:1", ({ data }) => got.push(data)).ready.then(() => true)
"""


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "data", PAGES)
    yield site
    site.stop()


@pytest.fixture
async def chromium(tmp_path):
    async with browser(tmp_path / "profile") as running:
        yield running
        assert not running.faults


async def open_page(chromium, site, transport="", name="ann"):
    page = await chromium.page(site.url(f"/?name={name}&transport={transport}"))
    await page.until("globalThis.rt?.state === 'connected'")
    assert not transport or await page.run("rt.transport") == transport.split(",")[0]
    return page


# --- the page ---


async def test_the_page_shows_what_happens(chromium, site, tmp_path):
    page = await open_page(chromium, site)
    await page.size(1280, 860)
    with site.client() as client:
        client.call("channel.configure", "ticker", "latest")
        for carrier, price in (("UA", 101.5), ("AA", 99.25), ("UA", 102.75)):
            data = {"price": price, "change": price - 100}
            client.call("channel.publish", "ticker:carriers", data, carrier)
        client.call("counter.add", "live:departures", 1234)
        client.call("board.submit_many", "live:delays", [["LAX", 30], ["SFO", 50], ["BOS", 40]])
        await page.until("document.querySelectorAll('#board li').length === 3")
        client.call("board.submit", "live:delays", "LAX", 90)
    await page.until("document.querySelector('#board li').textContent === '1LAX90 min'")
    await page.until("document.querySelector('#counters dd').textContent === '1,234'")
    tiles = "[...document.querySelectorAll('#ticker li')].map((tile) => tile.textContent).join()"
    await page.until(f"{tiles} === 'AA99.25 ▼,UA102.75 ▲'")

    other = await open_page(chromium, site, name="bob")
    await other.until("document.querySelector('#people').textContent.includes('2 here')")
    await page.until("document.querySelector('#people').textContent.includes('bob')")
    await other.run(
        "document.querySelector('#text').value = '<b>hello</b>';"
        "document.querySelector('#say').requestSubmit()"
    )
    await page.until("document.querySelector('#messages').textContent === 'bob<b>hello</b>'")
    await page.run("document.querySelector('#applaud').click()")
    await other.until("document.querySelector('[data-counter=\"live:applause\"]').textContent == 1")
    for label in ("sse", "poll", "ws"):
        await page.run(f"document.querySelector('#transports [value={label}]').click()")
        await page.until(f"rt.state === 'connected' && rt.transport === '{label}'")
    assert await page.run("document.querySelectorAll('#messages li').length") == 1

    picture = tmp_path / "page.png"
    await page.front()
    await page.screenshot(picture)
    assert picture.stat().st_size > 20_000


async def test_it_asks_no_other_host_and_fits_a_telephone(chromium, site):
    page = await open_page(chromium, site)
    hosts = "performance.getEntriesByType('resource').map(({ name }) => new URL(name).origin)"
    assert set(await page.run(hosts)) == {site.url("")}
    await page.size(360, 700)
    assert await page.run("document.documentElement.scrollWidth <= 360")
    assert await page.run(
        "[...document.querySelectorAll('input, button')].every((one) =>"
        " one.labels?.length || one.textContent.trim())"
    ), "every control has a name"


# --- a server that goes away ---


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_restart_loses_nothing(chromium, site, transport):
    page = await open_page(chromium, site, transport)
    await page.run(FOLLOW)
    await site.publish(20)
    await page.until(site.all)
    for _ in range(2):
        publishing = asyncio.create_task(site.publish(20))
        await asyncio.sleep(0.05)
        await publishing
        site.kill()
        await page.until("rt.state === 'connecting'", 60)
        await page.run("globalThis.added = rt.counter.add('once'); 0")
        site.start()
        await site.publish(20)
        await page.until(site.all)
        await page.run("added")
    assert await page.run("rt.counter.get('once')") == 2
    assert await page.run("rt.transport") == transport
    assert await page.run("gaps") == []


async def test_a_deploy_loses_nothing(chromium, site):
    page = await open_page(chromium, site)
    await page.run(FOLLOW)
    await site.publish(20)
    await asyncio.to_thread(site.drain)
    site.start()
    await site.publish(20)
    await page.until(site.all)
    assert await page.run("gaps") == []


async def test_writes_under_way_at_a_kill_count_once(chromium, site):
    page = await open_page(chromium, site)
    await page.run("""
        globalThis.answered = [];
        globalThis.writing = (async () => {
            for (let n = 0; n < 300; n += 1) answered.push(await rt.counter.add("each", 1));
        })(); 0
    """)
    for _ in range(3):
        await page.until("answered.length % 60 > 20 || answered.length === 300")
        site.kill()
        site.start()
    await page.until("answered.length === 300", 60)
    assert await page.run("answered") == list(range(1, 301))


# --- a network, a page ---


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_offline_and_back(chromium, site, transport):
    page = await open_page(chromium, site, transport)
    await page.run(FOLLOW)
    await site.publish(5)
    await page.until(site.all)
    await page.offline(True)
    await site.publish(20)
    await asyncio.sleep(1)
    await page.offline(False)
    await site.publish(5)
    await page.until(site.all)
    assert await page.run("gaps") == []


async def test_a_page_that_cannot_reach_the_server_hears_all_when_it_can(chromium, site):
    """Also without a word from the browser: the network is gone, requests fail."""
    page = await open_page(chromium, site, "poll")
    await page.run(FOLLOW)
    await page.block("*/v1/*")
    await page.run("rt.counter.get('x').catch(() => 0), 0")
    await page.until("rt.state === 'connecting'")
    await site.publish(30)
    await page.block()
    await page.until(site.all)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_hidden_page_and_a_frozen_one(chromium, site, transport):
    page = await open_page(chromium, site, transport)
    await page.run(FOLLOW)
    other = await chromium.page(BLANK)
    await other.front()
    await site.publish(20)
    await page.send("Page.setWebLifecycleState", state="frozen")
    await site.publish(20)
    await asyncio.sleep(1)
    await page.send("Page.setWebLifecycleState", state="active")
    await page.front()
    await site.publish(5)
    await page.until(site.all)
    assert await page.run("gaps") == []


async def test_a_frozen_page_hears_what_a_restart_has_kept(chromium, site):
    page = await open_page(chromium, site)
    await page.run(FOLLOW)
    await site.publish(5)
    await page.send("Page.setWebLifecycleState", state="frozen")
    await site.publish(10)
    site.kill()
    site.start()
    await site.publish(10)
    await page.send("Page.setWebLifecycleState", state="active")
    await page.until(site.all)


async def test_the_browsers_history(chromium, site):
    """Back from another page, whether the browser kept this one or not."""
    page = await open_page(chromium, site)
    await page.run(FOLLOW)
    await page.run("globalThis.isKept = true; 0")
    await site.publish(5)
    await page.until(site.all)
    await page.go(site.url("/livez"))
    await site.publish(5)
    await page.run("history.back()")
    await page.until("globalThis.rt?.state === 'connected'")
    if await page.run("globalThis.isKept === true"):
        await page.until(site.all)


# --- transports ---


async def test_falls_back_step_by_step_and_returns(chromium, site):
    page = await chromium.page(BLANK)
    blocked = """
        const Real = WebSocket;
        globalThis.isBlocked = true;
        globalThis.WebSocket = function (...args) {
            if (!isBlocked) return new Real(...args);
            setTimeout(() => this.onclose?.({ code: 1006, reason: "" }), 5);
            this.close = () => {};
        };
    """
    await page.send("Page.addScriptToEvaluateOnNewDocument", source=blocked)
    await page.block("*/v1/stream*")
    await page.go(site.url("/?name=ann"))
    await page.until("globalThis.rt?.transport === 'poll'")
    await page.run(FOLLOW)
    await site.publish(10)
    await page.until(site.all)
    await page.block()
    await page.until("rt.transport === 'sse'")
    await site.publish(10)
    await page.until(site.all)
    await page.run("globalThis.isBlocked = false; 0")
    publishing = asyncio.create_task(site.publish(100))
    await page.until("rt.transport === 'ws'", 60)
    await publishing
    await page.until(site.all)
    assert await page.run("gaps") == []


async def test_chromiums_own_event_source(chromium, site):
    page = await chromium.page(site.url("/livez"))
    await page.run("""
        globalThis.got = [];
        globalThis.opened = 0;
        globalThis.stream = new EventSource("/v1/stream?channels=probe:1,other");
        stream.onopen = () => { opened += 1; };
        stream.onmessage = ({ data }) => {
            const [, name, params] = JSON.parse(data);
            const replies = name === "subscribed" ? params.channels["probe:1"].messages : [];
            for (const { data } of name === "message" ? [params] : replies) got.push(data);
        };
    """)
    await page.until("opened === 1")
    await site.publish(20)
    await page.until(site.all)
    site.kill()
    site.start()
    await site.publish(20)
    await page.until("opened === 2")
    await site.publish(20)
    await page.until(site.all)
