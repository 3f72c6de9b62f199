"""The proxy cuts and mends, and what subscribers count is what they got."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench.cutter import Cutter
from bench.listeners import Listener
from bench.peers import Rtserver

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20


async def echo(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


async def read(reader):
    """b"" where the other end is gone, in whatever way."""
    try:
        return await asyncio.wait_for(reader.read(100), PATIENCE_S)
    except ConnectionResetError:
        return b""


async def said_back(address, text):
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(text)
        return await read(reader)
    finally:
        writer.close()


def test_a_proxy_that_is_cut_lets_nobody_through_until_it_is_mended():
    async def main():
        first = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with Cutter(first.sockets[0].getsockname()) as cutter:
            assert await said_back(cutter.address, b"before") == b"before"
            reader, writer = await asyncio.open_connection(*cutter.address)
            writer.write(b"x")
            assert await read(reader) == b"x"
            cutter.cut()
            assert await read(reader) == b""
            assert await said_back(cutter.address, b"meanwhile") == b""
            cutter.mend()
            assert await said_back(cutter.address, b"after") == b"after"
            first.close()
            second = await asyncio.start_server(echo, "127.0.0.1", 0)
            cutter.target = second.sockets[0].getsockname()
            assert await said_back(cutter.address, b"elsewhere") == b"elsewhere"
            second.close()
            cutter.target = ("127.0.0.1", 1)
            assert await said_back(cutter.address, b"nobody") == b""

    asyncio.run(main())


def test_what_comes_twice_or_late_is_counted():
    counts = Counter()
    listener = Listener(counts)
    for number in (1, 2, 4, 4, 3, 5, 1):
        listener.take(number)
    assert counts == {"delivered": 5, "duplicates": 2, "out_of_order": 1}
    assert listener.newest == 5


def test_a_message_that_somebody_lacks_is_waited_for(tmp_path):
    async def main(server):
        url = "ws://{}:{}/ws".format(*server.address)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.listeners", url, "3", "bench"),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "client")))},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )

        async def line():
            return await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)

        assert await line() == b"ready\n"
        server.ask("channel.publish bench 1")
        process.stdin.write(b"2\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.stdout.readline(), 0.3)
        server.ask("channel.publish bench 2")
        assert json.loads(await line()) == {"delivered": 6, "out_of_order": 0}
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0

    with Rtserver(tmp_path, None) as server:
        asyncio.run(main(server))
