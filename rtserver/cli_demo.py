"""`rtserver demo`: a server of its own, a load that is like life, and a check of every number."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click.core import ParameterSource

from rtserver.loop import run_loop

__all__ = ["demo"]

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells say it

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
        code = run_loop(lambda: run_demo(file, data, listen, leave=leave))
    except KeyboardInterrupt:
        code = 0
    except (KeyError, ValueError) as error:
        click.echo(
            f"rtserver: {file} is no table of flights like the bundled one: {error!r}", err=True
        )
        code = EXIT_FAILED
    sys.exit(code)


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
        code = run_loop(lambda: run_sale_demo(buyers, seats, seed, seconds, data))
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    sys.exit(code)
