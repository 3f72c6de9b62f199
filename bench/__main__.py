"""The command line of the harness: `python -m bench [WORKLOAD ...]`."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click

from bench.contest import Shape, WrongState, canned
from bench.load import Generator, LoadFailed
from bench.machine import Cores, facts, file_system, raise_file_limit
from bench.peers import Redis, Rtserver
from bench.plot import PlotImpossible, need_library, plot
from bench.report import FAILED, OURS, THEIRS, Report, Result, as_text
from bench.run import Run
from bench.workloads import WORKLOADS
from bench.workloads.counter import SHAPE

_ROUNDS, _SECONDS = 5, 2.0
_QUICK_ROUNDS, _QUICK_SECONDS = 1, 0.1
_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True)


def _say(text: str) -> None:
    click.echo(f"  {text}", err=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("workloads", nargs=-1, type=click.Choice(list(WORKLOADS)))
@click.option("--rounds", type=click.IntRange(1), help=f"Measured rounds. [default: {_ROUNDS}]")
@click.option("--seconds", type=click.FloatRange(0.01), help=f"Of a round. [default: {_SECONDS}]")
@click.option("--quick", is_flag=True, help="A smoke run: few entities, short rounds.")
@click.option("--huge", is_flag=True, help="Also a board of 10,000,000 members.")
@click.option("--directory", type=_DIRECTORY, help="Disk to use.")
@click.option("--json", "json_file", type=_FILE, help="Also write JSON.")
@click.option("--markdown", type=_FILE, help="Also write Markdown.")
@click.option("--plot", "picture", type=_FILE, help="Also draw the ratios, as PNG.")
def main(
    workloads: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    huge: bool,
    directory: Path | None,
    json_file: Path | None,
    markdown: Path | None,
    picture: Path | None,
) -> None:
    """Measures rtserver, and redis beside it where it is installed. Without names: everything.

    Servers are pinned to one core, the load generator to another. Results go to stdout,
    progress to stderr.
    """
    try:
        if picture is not None:
            need_library()
        cores = Cores.choose()
        raise_file_limit()
        with tempfile.TemporaryDirectory(prefix="rtserver-bench-", dir=directory) as room:
            run = Run(
                generator=Generator(cores.load, Path(room) / "load"),
                cores=cores,
                directory=Path(room),
                rounds=rounds or (_QUICK_ROUNDS if quick else _ROUNDS),
                warmups=0 if quick else 1,
                seconds=seconds or (_QUICK_SECONDS if quick else _SECONDS),
                quick=quick,
                huge=huge,
                say=_say,
            )
            report = _measure(run, workloads or tuple(WORKLOADS))
        _write(json_file, report.as_json() + "\n")
        _write(markdown, report.as_markdown())
        if picture is not None:
            plot(report, picture)
        if failed := [made.workload for made in report.results if made.summary == FAILED]:
            raise click.ClickException(f"no numbers of {', '.join(failed)}")
    except PlotImpossible as error:
        raise click.ClickException(str(error)) from None


def _measure(run: Run, workloads: tuple[str, ...]) -> Report:
    report = Report(shlex.join(["python", "-m", "bench", *sys.argv[1:]]), _facts(run))
    click.echo(report.header())
    started = time.perf_counter()
    for number, name in enumerate(workloads, start=1):
        _say(f"[{number}/{len(workloads)}, {time.perf_counter() - started:.0f} s] {name}")
        room = run.directory / name
        try:
            result = WORKLOADS[name](replace(run, directory=room))
        except (WrongState, LoadFailed, RuntimeError, OSError, subprocess.SubprocessError) as error:
            result = Result(name, FAILED, notes=[f"{type(error).__name__}: {error}"])
        shutil.rmtree(room, ignore_errors=True)  # the next one needs the disk
        report.results.append(result)
        click.echo(f"\n{as_text(result)}")
    return report


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def _facts(run: Run) -> dict[str, str]:
    """All that stands above the numbers."""
    with Rtserver(run.directory / "facts", run.cores.server) as server:
        info = server.ask("server.info")
    theirs = Redis.version()
    smoke = "SMOKE RUN, its numbers mean nothing: " if run.quick else ""
    return {
        **facts(run.cores),
        "disk": file_system(run.directory),
        "rtserver": f"{info['version']} on {info['loop']}, Python {info['python']},"
        f" compiled modules: {', '.join(info['compiled']) or 'none'}; {Rtserver.durability}",
        "redis": f"{theirs}; {Redis.durability}" if theirs else "SKIPPED: no redis-server here",
        "rounds": f"{smoke}{run.rounds} of {run.seconds} s after {run.warmups} warm-up, peers in"
        " turn",
        "generator": _ceiling(run, SHAPE),
        "unpipelined": _ceiling(run, Shape(connections=50, depth=1)),
    }


def _ceiling(run: Run, shape: Shape) -> str:
    """What the generator reaches against canned replies."""
    alone = {subject: canned(run, subject, shape) for subject in (OURS, THEIRS)}
    ours, theirs = alone[OURS], alone[THEIRS]
    if ours is None or theirs is None:
        return "no C compiler (cc): the generator is Python and may be what is measured"
    return f"alone, {shape}: {ours.rate:,.0f} ops/s as frames, {theirs.rate:,.0f} as RESP"


if __name__ == "__main__":
    main()
