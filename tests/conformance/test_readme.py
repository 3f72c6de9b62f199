"""The sale that README.md prints works as printed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import rtclient

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def test_the_printed_sale(server):
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.S | re.M)
    (code,) = [block for block in blocks if "rt.sale.create" in block]
    names = {}
    exec(code, names)

    async def run():
        async with rtclient.connect(server.url) as rt, asyncio.timeout(20):
            return await names["sell"](rt), await rt.sale.status("gig")

    order, status = asyncio.run(run())
    assert order.items == {"floor": 2}
    assert status.items["floor"] == rtclient.results.Balance(500, 498, 0, 2)
