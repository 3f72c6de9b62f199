"""The browser client's own tests, run by node, and what it must agree on with the server."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from rtserver.session.cursor import cursor_of, positions_in

HERE = Path(__file__).parent
CLIENT = HERE.parents[1] / "client" / "js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not here: the browser client's tests")

SUITES = sorted(HERE.glob("*.test.mjs"))
POSITIONS = {
    "room:1": ("5f2c9d01.1", 7),
    "é\N{SNOWMAN}": ("5f2c9d01.300", 2**40),
    "x" * 255: ("5f2c9d01.0", 0),
    "a%b": ("5f2c9d01.16", 255),
}


def node(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(NODE), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("suite", SUITES, ids=lambda path: path.name.split(".")[0])
def test_suite(suite):
    done = node("--test", "--test-reporter=spec", suite)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.skipif(shutil.which("tsc") is None, reason="tsc is not here: the client's types")
def test_types_let_usage_pass_and_catch_misuse():
    command = [str(shutil.which("tsc")), "--noEmit", "--strict", "--target", "es2022"]
    command += ["--module", "nodenext", "--lib", "es2023,dom", str(HERE / "usage.ts")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("pages", ["rtserver/demo/pages", "client/examples/flash_sale/pages"])
def test_pages_serve_the_one_source(pages):
    shown = HERE.parents[1] / pages / "client"
    assert {file.name for file in shown.iterdir()} == {file.name for file in CLIENT.glob("*.js")}
    for file in CLIENT.glob("*.js"):
        assert (shown / file.name).resolve() == file


def test_it_is_small():
    """The numbers that README states."""
    source = b"".join(file.read_bytes() for file in CLIENT.glob("*.js"))
    assert len(gzip.compress(source, 9)) < 19_000


def test_cursors_are_the_servers():
    program = f"""
        import {{ cursorOf, placeIn }} from "{(CLIENT / "cursor.js").as_uri()}";
        let text = "";
        for await (const chunk of process.stdin) text += chunk;
        const positions = JSON.parse(text);
        const cursor = cursorOf(positions);
        const places = positions.map(([name]) => placeIn(cursor, name));
        console.log(JSON.stringify({{ cursor, places }}));
    """
    done = node("--input-type=module", "-e", program, stdin=json.dumps(list(POSITIONS.items())))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["cursor"] == cursor_of(POSITIONS)
    assert said["places"] == [list(position) for position in POSITIONS.values()]
    read = positions_in(said["cursor"], POSITIONS)
    assert read == {name: list(position) for name, position in POSITIONS.items()}
