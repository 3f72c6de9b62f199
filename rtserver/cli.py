"""The `rtserver` command: serve, demo, log, snapshot.

Data goes to stdout, messages to stderr. Exit codes: 0 ok, 1 a command failed, 2 usage, 3 the
server could not start, 4 the configuration is wrong, 5 the data is damaged, 6 no server answers,
70 the server stopped because its state or its disk could not be trusted.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import click
import msgspec

from rtserver import PROTOCOL_VERSION, __version__
from rtserver.cli_demo import demo
from rtserver.cli_log import data_argument, log, need_store, print_lines
from rtserver.cli_token import token
from rtserver.commands.reference import reference
from rtserver.commands.replay import Replay, ReplayFailed
from rtserver.commands.table import load
from rtserver.compiled import active_modules
from rtserver.config import (
    DEFAULT_DATA,
    Config,
    ConfigError,
    check_config,
    load_config,
    parse_listen,
    unix_path,
)
from rtserver.loop import loop_name, run_loop
from rtserver.pages import read_pages
from rtserver.persist import inspect
from rtserver.persist.compaction import compact
from rtserver.persist.errors import DirectoryLocked, LogDamaged, LogFailed
from rtserver.persist.files import Files
from rtserver.persist.recovery import Recovered
from rtserver.server import Server
from rtserver.session.auth import is_configured
from rtserver.state.store import Store

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_START = 3
EXIT_CONFIG = 4
EXIT_DAMAGED = 5
EXIT_UNREACHABLE = 6
EXIT_STOPPED = 70  # EX_SOFTWARE of sysexits(3)

_NICE = 19  # of the process that makes snapshots
_PARENT_POLL_S = 0.1  # between its looks at whether its server lives
_PROGRESS_EVERY_S = 0.2


def _say(text: str) -> None:
    click.echo(text, err=True)


def _exit(code: int, text: str) -> NoReturn:
    _say(f"rtserver: {text}")
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message=f"rtserver %(version)s (protocol {PROTOCOL_VERSION})")
def main() -> None:
    """One process that holds, keeps and pushes the live state of an application."""


main.add_command(demo)
main.add_command(log)
main.add_command(token)

# --- serve ---


@main.command()
@click.option("--config", "path", type=click.Path(path_type=Path), help="A TOML file.")
@click.option("--listen", help="HOST:PORT; port 0 takes a free one.")
@click.option("--data", help=f"The data directory. [default: {DEFAULT_DATA}]")
@click.option("--dev", is_flag=True, help="Everyone on this machine has all rights.")
@click.option("--manual-clock", is_flag=True, help="Time moves only by server.advance (--dev).")
@click.option("--pages", type=click.Path(path_type=Path), hidden=True)
def serve(
    path: Path | None,
    listen: str | None,
    data: str | None,
    dev: bool,
    manual_clock: bool,
    pages: Path | None,
) -> None:
    """Starts the server."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    config = _configured(path, listen, data)
    _check_access(config, dev=dev, manual_clock=manual_clock)
    shown = _read_pages(pages, dev=dev)
    sys.exit(run_loop(lambda: _serve(config, dev=dev, manual_clock=manual_clock, pages=shown)))


def _read_pages(directory: Path | None, *, dev: bool) -> Mapping[str, tuple[str, bytes]]:
    if directory is None:
        return {}
    if not dev:
        _exit(EXIT_CONFIG, "--pages is for development; start with --dev")
    try:
        return read_pages(directory)
    except ConfigError as error:
        _exit(EXIT_CONFIG, str(error))


def _configured(path: Path | None, listen: str | None, data: str | None) -> Config:
    try:
        config = load_config(path)
        given = {"listen": listen, "data": data}
        config = msgspec.structs.replace(
            config, **{key: value for key, value in given.items() if value is not None}
        )
        check_config(config)
    except ConfigError as error:
        _exit(EXIT_CONFIG, str(error))
    return config


def _check_access(config: Config, *, dev: bool, manual_clock: bool) -> None:
    if not dev and not is_configured(config.auth):
        _exit(
            EXIT_CONFIG,
            "no authentication is configured, so everyone who reaches the port would have all"
            " rights. Configure auth.keys or auth.services, or start with --dev to accept that on"
            " this machine only",
        )
    if not dev and manual_clock:
        _exit(EXIT_CONFIG, "--manual-clock is for development and needs --dev")
    for address in (config.listen, *(one.listen for one in config.listeners)):
        if dev and not _is_local(address):
            _exit(EXIT_CONFIG, f"--dev listens on loopback only, {address!r} is another address")
    if manual_clock:
        _say("the clock is manual: time moves only by server.advance")


def _is_local(address: str) -> bool:
    """Whether only this machine reaches it: loopback, or a unix socket."""
    if unix_path(address) is not None:
        return True
    host, _ = parse_listen(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _serve(
    config: Config, *, dev: bool, manual_clock: bool, pages: Mapping[str, tuple[str, bytes]]
) -> int:
    _say(
        f"rtserver {__version__} · protocol {PROTOCOL_VERSION} · Python"
        f" {platform.python_version()} · {loop_name()} · compiled modules:"
        f" {', '.join(active_modules()) or 'none'}"
    )
    try:
        server = Server(
            config, dev=dev, manual_clock=manual_clock, progress=_RecoveryBar(), pages=pages
        )
    except ConfigError as error:
        _say(f"rtserver: {error}")
        return EXIT_CONFIG
    started = time.monotonic()
    try:
        await server.start()
    except DirectoryLocked as error:
        _say(f"rtserver: {error}")
        return EXIT_START
    except (LogDamaged, ReplayFailed) as error:
        _say(f"rtserver: {error}")
        return EXIT_DAMAGED
    except (OSError, LogFailed) as error:
        _say(f"rtserver: cannot listen or use {config.data}: {error}")
        return EXIT_START
    assert server.recovered is not None, "start recovers"
    _say(_recovered_line(server.directory, server.recovered, time.monotonic() - started))
    for report in server.recovered.reports:
        _say(f"recovery: {report}")
    _say(f"listening on rt://{server.url_address} (frames, nc, http and ws)")
    for address in server.listeners.shown[1:]:
        _say(f"listening on {address}")
    if dev:
        _say("development mode: everyone on this machine has all rights")
    server.handle_signals()
    await server.wait()
    await server.stop()
    _say("stopped")
    return EXIT_STOPPED if server.failure is not None else 0


def _recovered_line(directory: Path, recovered: Recovered, seconds: float) -> str:
    if not recovered.records and recovered.snapshot is None:
        return f"data in {directory}: empty, begun now"
    base = f"snapshot {recovered.snapshot} and " if recovered.snapshot else ""
    return (
        f"data in {directory}: recovered {base}{recovered.records:,} records of"
        f" {recovered.bytes:,} bytes in {seconds:.2f} s"
    )


class _RecoveryBar:
    """A line on the terminal that shows how far a long recovery is."""

    def __init__(self) -> None:
        self._shown_at = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._terminal or now - self._shown_at < _PROGRESS_EVERY_S:
            return
        self._shown_at = now
        share = done / total if total else 1.0
        bar = "#" * int(30 * share)
        click.echo(f"\rrecovering [{bar:<30}] {share:4.0%} of {total:,} bytes", nl=False, err=True)
        if done >= total:
            click.echo(err=True)


# --- snapshot ---


@main.group()
def snapshot() -> None:
    """Makes, lists and verifies snapshots."""


@snapshot.command("create")
@data_argument
@click.option("--token", "proof", envvar="RT_TOKEN", help="Of an admin. [env: RT_TOKEN]")
def snapshot_create(data: Path, proof: str | None) -> None:
    """Asks the server that runs on a data directory to make a snapshot."""
    address = Files().lock_holder(data)
    if address is None:
        _exit(EXIT_UNREACHABLE, f"no server runs on {data}")
    answer = _ask(address, "server.snapshot", proof)
    click.echo(answer)
    sys.exit(EXIT_FAILED if answer.startswith("!") else 0)


def _ask(address: str, line: str, proof: str | None) -> str:
    """One line to a running server and its answer, as a person would with nc, who first says who
    he is where he has a token."""
    host, port = parse_listen(address)
    lines = [line] if proof is None else [f"server.auth {json.dumps(proof)}", line]
    try:
        with socket.create_connection((host, port)) as connection:
            answers = connection.makefile("r", encoding="utf-8")
            for one in lines:
                connection.sendall(one.encode() + b"\n")
                answer = answers.readline().strip()
                if answer.startswith("!"):
                    break
    except OSError as error:
        _exit(EXIT_UNREACHABLE, f"the server at {address} does not answer: {error}")
    return answer


@snapshot.command("list")
@data_argument
def snapshot_list(data: Path) -> None:
    """Lists the snapshots of a data directory, newest last."""
    need_store(data)
    try:
        print_lines(inspect.list_snapshots(data, Files()))
    except LogDamaged as error:
        _exit(EXIT_DAMAGED, str(error))


@snapshot.command("verify")
@data_argument
def snapshot_verify(data: Path) -> None:
    """Reads every snapshot of a data directory and loads it; exit code 5 when one is damaged."""
    need_store(data)
    report = inspect.verify_snapshots(data, Files(), _empty_state)
    click.echo(json.dumps(report, indent=2))
    sys.exit(0 if report["ok"] else EXIT_DAMAGED)


def _empty_state() -> Replay:
    return Replay(load(), Store())


def _give_way() -> None:
    """Whoever else wants the processor gets nearly all of it; a busy machine must not starve the
    snapshot altogether, or the log would grow without end."""
    with contextlib.suppress(OSError):
        os.nice(_NICE)


def _end_with(server: int) -> None:
    """Nobody waits for a snapshot whose server is gone, and the next server makes its own."""
    while os.getppid() == server:
        time.sleep(_PARENT_POLL_S)
    os._exit(EXIT_FAILED)


@main.command(hidden=True, name="reference")
def reference_command() -> None:
    """Prints the reference of protocol.md from the command table."""
    click.echo(reference(load()), nl=False)


@main.command(hidden=True, name="compact")
@data_argument
@click.argument("server", type=int)
def compact_command(data: Path, server: int) -> None:
    """The separate process that makes a snapshot; the running server starts it."""
    _give_way()
    threading.Thread(target=_end_with, args=(server,), daemon=True).start()
    try:
        made = compact(data, Files(), _empty_state)
    except (DirectoryLocked, LogDamaged, ReplayFailed, OSError) as error:
        _exit(EXIT_DAMAGED, str(error))
    click.echo(json.dumps(made))
