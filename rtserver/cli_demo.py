"""`rtserver demo`: a server of its own, a load that is like life, and a check of every number."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from rtserver.loop import run_loop

__all__ = ["demo"]

EXIT_FAILED = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT  # as shells say it
EXIT_TERMINATED = 128 + signal.SIGTERM

_path = click.Path(path_type=Path)


@click.group(invoke_without_command=True)
@click.option("--file", type=click.Path(path_type=Path, exists=True), help="Another flights CSV.")
@click.option("--data", type=_path, help="Keep the data in this directory.")
@click.option("--listen", default="127.0.0.1:0", show_default=True, help="HOST:PORT.")
@click.option("--exit", "leave", is_flag=True, help="Leave after the check.")
@click.pass_context
def demo(
    context: click.Context, file: Path | None, data: Path | None, listen: str, leave: bool
) -> None:
    """Plays a month of real flights through a server and checks every number."""
    if context.invoked_subcommand is not None:
        _refuse_options(context, context.invoked_subcommand)
        return
    from rtserver.demo.run import run_demo  # keeps the SDK out of `serve`

    try:
        code = _run(lambda: run_demo(file, data, listen, leave=leave))
    except KeyboardInterrupt:
        code = 0
    except (KeyError, ValueError) as error:
        click.echo(
            f"rtserver: {file} is no table of flights like the bundled one: {error!r}", err=True
        )
        code = EXIT_FAILED
    sys.exit(code)


def _run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Runs a demo. One that is told to terminate ends its server and its files too, as one that is
    interrupted does. Raises KeyboardInterrupt."""

    async def until_terminated() -> int:
        task = asyncio.current_task()
        assert task is not None, "a loop runs it"
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await main()

    try:
        return run_loop(until_terminated)
    except asyncio.CancelledError:
        return EXIT_TERMINATED


def _refuse_options(context: click.Context, subcommand: str) -> None:
    """What is written before the name of another demo would have no effect."""
    for name in context.params:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = "--exit" if name == "leave" else f"--{name}"
            raise click.UsageError(f"expected no option before {subcommand!r}, {option} is one")


@demo.command()
@click.option("--buyers", type=click.IntRange(10, 1_000_000), default=50_000, show_default=True)
@click.option("--seats", type=click.IntRange(10, 80_000), default=1_000, show_default=True)
@click.option("--seed", type=int, help="Who comes and what they do. [default: another each time]")
@click.option(
    "--seconds",
    type=click.FloatRange(3, 3_600),
    default=45,
    show_default=True,
    help="How long the sale lasts, unless it is sold out before.",
)
@click.option("--data", type=_path, help="Keep the data in this directory, which must be new.")
def sale(buyers: int, seats: int, seed: int | None, seconds: float, data: Path | None) -> None:
    """Sells the numbered seats of a hall to a crowd, and reconciles what every buyer was told with
    the sale, its ledger and the log. Exit code 1 when anything disagrees."""
    from rtserver.demo.sale.run import run_sale_demo

    try:
        code = _run(lambda: run_sale_demo(buyers, seats, seed, seconds, data))
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    sys.exit(code)
