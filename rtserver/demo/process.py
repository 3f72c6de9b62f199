"""The server process of a demo: started, listened to, and ended with the block that uses it."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click

__all__ = ["serving"]

_LISTENING = re.compile(rb"listening on (rt://\S+)")


@asynccontextmanager
async def serving(*options: str, err: bool = False) -> AsyncIterator[str]:
    """`rtserver serve` with these options; its URL. What it says goes to stdout, or stderr."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rtserver", "serve", *options), stderr=asyncio.subprocess.PIPE
    )
    assert child.stderr is not None, "it was asked for"
    try:
        url = await _url(child.stderr, err)
        drain = asyncio.create_task(_echo(child.stderr, err))
        yield url
        drain.cancel()
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


async def _url(lines: asyncio.StreamReader, err: bool) -> str:
    async for line in lines:
        click.echo(line.decode("utf-8").rstrip(), err=err)
        found = _LISTENING.search(line)
        if found:
            return found.group(1).decode("ascii")
    raise click.ClickException("the server did not start; its last words are above")


async def _echo(lines: asyncio.StreamReader, err: bool) -> None:
    async for line in lines:
        click.echo(line.decode("utf-8").rstrip(), err=err)
