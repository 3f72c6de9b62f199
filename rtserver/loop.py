"""The event loop of a process: uvloop where it is installed, else asyncio's own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["loop_name", "run_loop"]


def run_loop(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Runs a coroutine to its end; what it returns."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        with asyncio.Runner() as runner:
            return runner.run(main())
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main())


def loop_name() -> str:
    """The event loop that runs, for people."""
    kind = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    return f"uvloop {sys.modules['uvloop'].__version__}" if kind == "uvloop" else "asyncio"
