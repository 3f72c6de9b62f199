"""The generated modules say what the tables say, and the package is what it promises to be."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from rtclient import commands, sync_commands, table
from rtclient.command import Effect
from rtserver.commands import table as server_table
from rtserver.commands.reference import public

CLIENT = Path(__file__).resolve().parents[2] / "client"
OWNED = {"server.hello", "channel.subscribe", "channel.unsubscribe"}


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", CLIENT / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_modules_are_fresh(generate):
    assert generate.stale() == [], "run python client/generate.py"


def test_a_changed_table_makes_them_stale(generate, monkeypatch):
    monkeypatch.setattr(server_table._rows["counter.add"], "summary", "Does something else.")
    assert generate.stale() == ["commands.py", "sync_commands.py", "commands.d.ts"]
    assert generate.main(["--check"]) == 1


def test_a_missing_module_is_stale(generate, monkeypatch, tmp_path):
    monkeypatch.setattr(generate, "TARGET", tmp_path)
    monkeypatch.setattr(generate, "JS_TARGET", tmp_path)
    assert len(generate.stale()) == 8


def test_the_table_has_every_public_command_and_the_right_effects():
    rows = {row.name: row for row in public(server_table.load())}
    assert table.TABLE.keys() == rows.keys() - OWNED
    for name, known in table.TABLE.items():
        row = rows[name]
        assert known.params == tuple(param.name for param in row.params)
        if row.coalesce is not None:
            assert known.effect is Effect.DELTA
        else:
            assert known.effect.value == row.effect.value
    assert table.COUNTER_ADD.plain == 2
    assert table.BOARD_SUBMIT.plain == 3


@pytest.mark.parametrize("module", [commands, sync_commands])
def test_methods_have_the_tables_names_and_summaries(module):
    for row in public(server_table.load()):
        if row.name in OWNED:
            continue
        noun, verb = row.name.split(".")
        method = getattr(getattr(module, noun.title()), verb)
        assert method.__doc__.startswith(row.summary)


def test_the_client_never_imports_the_server():
    for path in (CLIENT / "rtclient").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "rtserver"], path


def test_it_runs_with_nothing_but_msgpack():
    """Whatever else is installed cannot be imported here."""
    program = (
        "import sys\n"
        "for name in ('rtserver', 'uvloop', 'pytest', 'msgspec', 'httptools', 'click'):\n"
        "    sys.modules[name] = None\n"
        "import rtclient, rtclient.sync, rtclient.client\n"
        "assert callable(rtclient.connect) and callable(rtclient.sync.connect)\n"
        "try: rtclient.sync.connect('rt://127.0.0.1:1')\n"
        "except rtclient.ConnectionLost as error: assert 'cannot connect' in error.message\n"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, env={"PYTHONPATH": str(CLIENT)}
    )


USAGE = """
from __future__ import annotations

import rtclient
import rtclient.sync
from rtclient.results import Hold, Order, Submission


async def use() -> int:
    async with rtclient.connect("rt://127.0.0.1:7370", user="ann") as rt:
        likes: int = await rt.counter.add("likes:42", ack="synced", timeout=1.0)
        submission: Submission = await rt.board.submit("weekly", "ann", 310)
        place: int = submission.rank
        names: list[str] = [entry.member for entry in (await rt.board.top("weekly")).entries]
        async with rt.batch() as b:
            handle = b.counter.add("likes:42")
        total: int = handle.result()
        async with rt.channel.subscribe("room:1", since=("e", 5)) as messages:
            async for item in messages:
                if isinstance(item, rtclient.Gap):
                    print(item.lost, messages.position.offset)
                    continue
                print(item.data, item.sender)
        hold: Hold = await rt.sale.reserve("show", best={"count": 2}, pass_id="p")
        units: dict[str, int] = hold.items
        await rt.sale.confirm(hold.hold, "pay-1", {next(iter(units)): 1}, late="retake")
        free: int = (await rt.sale.status("show")).items["a1"].free
        orders: list[Order] = (await rt.sale.place("show")).orders
        async with rt.sale.watch("show") as sales:
            free += (await anext(sales)).total.free
        try:
            await rt.board.info("weekly")
        except rtclient.NotFound as error:
            print(error.code, error.retryable)
        return likes + place + total + len(names) + free + len(orders)


def use_blocking() -> int:
    with rtclient.sync.connect() as rt:
        likes: int = rt.counter.add("likes:42", 1, idempotency_key="k")
        with rt.sale.watch_place("show") as places:
            numbers = [place.position for place in places]
        with rt.sale.follow_ledger("show", since=("e", 5)) as steps:
            total = sum(step.seq for step in steps if isinstance(step, rtclient.Step))
        with rt.channel.subscribe("room:1") as messages:
            for item in messages:
                if isinstance(item, rtclient.Message):
                    print(item.offset)
        return likes + total + len(numbers) + rt.board.rank("weekly", "ann").error
"""

MISUSE = """
import rtclient


async def misuse(rt: rtclient.Client) -> None:
    await rt.counter.add(42)
    await rt.counter.add("x", acks="synced")
    await rt.counter.get("x", ack="synced")
    await rt.board.create("x", order="down")
    text: str = await rt.counter.get("x")
    (await rt.board.top("x")).entrys
    await rt.sale.reserve("x", items={"cup": "two"})
    (await rt.sale.status("x")).items["cup"].left
"""


def mypy(path):
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(path)],
        cwd=CLIENT.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_types_let_usage_pass_and_catch_misuse(tmp_path):
    pytest.importorskip("mypy")
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text(USAGE)
    bad.write_text(MISUSE)
    passed = mypy(good)
    assert passed.returncode == 0, passed.stdout
    lines = {line.split(":")[1] for line in mypy(bad).stdout.splitlines() if ": error:" in line}
    assert lines == {"6", "7", "8", "9", "10", "11", "12", "13"}
