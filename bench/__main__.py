"""The command line of the harness: `python -m bench [WORKLOAD ...]`."""

from __future__ import annotations

import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click

from bench.contest import canned
from bench.load import Generator
from bench.machine import Cores, facts, file_system
from bench.peers import Redis, Rtserver
from bench.report import OURS, THEIRS, Report, as_text
from bench.run import Run
from bench.workloads import WORKLOADS
from bench.workloads.counter import SHAPE

_ROUNDS, _SECONDS = 5, 3.0
_QUICK_ROUNDS, _QUICK_SECONDS = 1, 0.1
_DIRECTORY = click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True)


def _say(text: str) -> None:
    click.echo(f"  {text}", err=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("workloads", nargs=-1, type=click.Choice(sorted(WORKLOADS)))
@click.option("--rounds", type=click.IntRange(1), help=f"Measured rounds. [default: {_ROUNDS}]")
@click.option("--seconds", type=click.FloatRange(0.01), help=f"Of a round. [default: {_SECONDS}]")
@click.option("--quick", is_flag=True, help="A smoke run: few entities, short rounds.")
@click.option("--directory", type=_DIRECTORY, help="Disk to use.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write JSON.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Also write Markdown.")
def main(
    workloads: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    directory: Path | None,
    json_file: Path | None,
    markdown: Path | None,
) -> None:
    """Measures rtserver, and redis beside it where it is installed. Without names: everything.

    Servers are pinned to one core, the load generator to another. Results go to stdout,
    progress to stderr.
    """
    cores = Cores.choose()
    with (
        tempfile.TemporaryDirectory(prefix="rtserver-bench-", dir=directory) as room,
        Generator(cores.load) as generator,
    ):
        run = Run(
            generator=generator,
            cores=cores,
            directory=Path(room),
            rounds=rounds or (_QUICK_ROUNDS if quick else _ROUNDS),
            seconds=seconds or (_QUICK_SECONDS if quick else _SECONDS),
            quick=quick,
            say=_say,
        )
        report = Report(shlex.join(["python", "-m", "bench", *sys.argv[1:]]), _facts(run))
        click.echo(report.header())
        for name in workloads or sorted(WORKLOADS):
            result = WORKLOADS[name](replace(run, directory=run.directory / name))
            report.results.append(result)
            click.echo(f"\n{as_text(result)}")
    _write(json_file, report.as_json() + "\n")
    _write(markdown, report.as_markdown())


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def _facts(run: Run) -> dict[str, str]:
    """All that stands above the numbers."""
    with Rtserver(run.directory / "facts", run.cores.server) as server:
        info = server.ask("server.info")
    theirs = Redis.version()
    alone = {kind: canned(run, kind, SHAPE).rate for kind in (OURS, THEIRS)}
    smoke = "SMOKE RUN, its numbers mean nothing: " if run.quick else ""
    return {
        **facts(run.cores),
        "disk": file_system(run.directory),
        "rtserver": f"{info['version']} on {info['loop']}, Python {info['python']},"
        f" compiled modules: {', '.join(info['compiled']) or 'none'}; {Rtserver.durability}",
        "redis": f"{theirs}; {Redis.durability}" if theirs else "SKIPPED: no redis-server here",
        "rounds": f"{smoke}{run.rounds} of {run.seconds} s after one warm-up, peers in turn",
        "generator": f"alone, {SHAPE}: {alone[OURS]:,.0f} ops/s as frames,"
        f" {alone[THEIRS]:,.0f} as RESP",
    }


if __name__ == "__main__":
    main()
