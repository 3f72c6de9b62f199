"""A proxy between client and server that cuts, delays and halves what it carries.

`chance` decides; each direction of a connection lives through a budget of bytes drawn anew, then
the connection is cut in the middle of whatever was under way. What was taken and not given on is
lost, in both directions.
"""

from __future__ import annotations

import asyncio
import contextlib


class Proxy:
    """`async with Proxy(host, port, chance) as proxy`; `calm` lets everything pass."""

    def __init__(self, host, port, chance):
        self.target = (host, port)
        self.chance = chance
        self.calm = False
        self.cuts = 0
        self.writers = set()

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        self.port = self.listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.listener.close()
        self.cut_all()
        await asyncio.sleep(0)

    def cut_all(self):
        for writer in list(self.writers):
            writer.transport.abort()

    async def carry(self, reader, writer):
        try:
            theirs, onward = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, onward}
        self.writers |= both
        try:
            await asyncio.gather(self.pump(reader, onward), self.pump(theirs, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.writers -= both
            for one in both:
                one.transport.abort()

    async def pump(self, reader, writer):
        budget = self.chance.choice([600, 5_000, 40_000, 300_000])
        while data := await reader.read(self.chance.choice([1, 7, 100, 4_096, 65_536])):
            budget -= len(data)
            if budget < 0 and not self.calm:
                self.cuts += 1
                data = data[: len(data) // 2]
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            if budget < 0 and not self.calm:
                raise ConnectionResetError("cut by the proxy")
            if self.chance.random() < 0.02 and not self.calm:
                await asyncio.sleep(self.chance.uniform(0, 0.02))
        raise ConnectionResetError("the other side is gone")
