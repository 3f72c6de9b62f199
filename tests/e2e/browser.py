"""A headless Chromium for tests: started, spoken to over its DevTools protocol, ended by its pid.

As little of the protocol as the tests need: pages, scripts in them, the network switched off, tabs
in front and behind, screenshots. Everything waits for a bounded time.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import websockets

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
START_TIMEOUT_S = 60
ANSWER_TIMEOUT_S = 20
BLANK = "about:blank"
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)


class PageError(AssertionError):
    """A script of the page threw."""


class Browser:
    """The running browser; `page` opens a tab."""

    def __init__(self, connection: websockets.ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())
        self.faults: list[str] = []  # what scripts threw and nobody caught

    async def _read(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for text in self._connection:
                message = json.loads(text)
                waiter = self._waiting.pop(message.get("id", 0), None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(message)
                elif message.get("method") == "Runtime.exceptionThrown":
                    self.faults.append(json.dumps(message["params"]["exceptionDetails"]))

    async def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._connection.send(json.dumps(message))
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reply = await answer
        assert "error" not in reply, f"{method}: {reply['error']}"
        return reply["result"]

    async def page(self, url: str) -> Page:
        target = (await self.send("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.send("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, target, attached["sessionId"])
        for domain in ("Page", "Runtime", "Network"):
            await page.send(f"{domain}.enable")
        if url != BLANK:
            await page.go(url)
        return page

    async def close(self) -> None:
        self._reading.cancel()
        await self._connection.close()


class Page:
    """One tab."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._browser.send(method, self._session, **params)

    async def go(self, url: str) -> None:
        await self.send("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def run(self, script: str) -> Any:
        """The value of an expression, a promise's when it is one."""
        reply = await self.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in reply:
            thrown = reply["exceptionDetails"]
            raise PageError(thrown.get("exception", {}).get("description", thrown["text"]))
        return reply["result"].get("value")

    async def until(self, condition: str, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """What an expression gives as soon as that is true."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not (value := await self._value(condition)):
            if asyncio.get_running_loop().time() > deadline:
                seen = await self.run("document.body?.innerText")
                raise AssertionError(f"not in {timeout_s} s: {condition}\n{seen}")
            await asyncio.sleep(0.05)
        return value

    async def _value(self, condition: str) -> Any:
        with contextlib.suppress(PageError):  # the page is not that far yet
            return await self.run(condition)

    async def front(self) -> None:
        await self._browser.send("Target.activateTarget", targetId=self._target)

    async def offline(self, is_offline: bool) -> None:
        rest = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await self.send("Network.emulateNetworkConditions", offline=is_offline, **rest)

    async def block(self, *patterns: str) -> None:
        await self.send("Network.setBlockedURLs", urls=list(patterns))

    async def size(self, width: int, height: int, *, dark: bool = False) -> None:
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self, path: Path) -> None:
        reply = await self.send("Page.captureScreenshot", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(reply["data"]))


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Browser]:
    """A browser with an empty profile, ended with the block."""
    assert CHROMIUM is not None, "tests skip without chromium"
    process = subprocess.Popen(
        [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", BLANK],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        address = await _devtools(profile, process)
        async with websockets.connect(address, max_size=None) as connection:
            running = Browser(connection)
            yield running
            await running.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own group: all its processes, no others
        process.wait(10)


async def _devtools(profile: Path, process: subprocess.Popen[bytes]) -> str:
    port_file = profile / "DevToolsActivePort"
    async with asyncio.timeout(START_TIMEOUT_S):
        while not port_file.exists() or len(port_file.read_text().split()) < 2:
            assert process.poll() is None, f"chromium ended with {process.returncode}"
            await asyncio.sleep(0.05)
    port, path = port_file.read_text().split()
    return f"ws://127.0.0.1:{port}{path}"
