"""The client that protocol.md prints works as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process import eventually

PROTOCOL = (Path(__file__).parents[2] / "protocol.md").read_text("utf-8")


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PROTOCOL, re.S | re.M)
    return [block for kind, block in found if kind == language]


@pytest.fixture(scope="module")
def printed():
    (code,) = [block for block in blocks("python") if "class Client" in block]
    assert len([line for line in code.splitlines() if line.strip()]) <= 34
    return code


def test_the_printed_client(server, printed):
    port = server.address[1]
    assert "port=7370" in printed
    program = printed.replace("port=7370", f"port={port}")
    for expected in ("1\n", "1\n"):  # the same idempotency key: the second start adds nothing
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.stdout, done.stderr) == (expected, "")
    assert server.inline("counter.get likes:42") == ["1"]


def test_the_printed_client_takes_pushes_and_errors(server, printed):
    names = {}
    definition = printed.partition("\nclient = Client()")[0]
    exec(definition, names)  # the document is the program under test
    client = names["Client"](port=server.address[1])
    assert client.call("channel.subscribe", "printed")["messages"] == []
    client.call("channel.publish", "printed", "hello")
    client.call("server.ping")
    ((method, message),) = client.pushes
    assert (method, message["data"]) == ("message", "hello")
    with pytest.raises(RuntimeError, match="not_found"):
        client.call("board.top", "none")


def test_the_printed_sale(server, printed):
    (code,) = [block for block in blocks("python") if "sale.create" in block]
    program = (
        f"{printed.partition('client = Client()')[0]}client = Client(port={server.address[1]})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program + code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    expected = re.search(r"^prints `(.*?)` and `(.*?)`", PROTOCOL, re.M).groups()
    assert (done.stdout.splitlines(), done.stderr) == (list(expected), "")


def test_the_printed_proof_of_a_queue(server, printed):
    names = {}
    (code,) = [block for block in blocks("python") if "def proved" in block]
    exec(printed.partition("\nclient = Client()")[0] + code, names)
    client = names["Client"](port=server.address[1])
    queue = {"rate_per_s": 1_000, "active_max": 1_000}
    created = client.call(
        "sale.create", "proof", {"floor": 100}, 1, 60_000, 4_000_000_000_000, None, queue
    )
    for number in range(40):
        client.call("sale.join", "proof", f"early-{number}", ack="logged")
    client.call("sale.leave", "proof", "early-7")
    client.call("sale.open", "proof")
    for number in range(10):
        client.call("sale.join", "proof", f"late-{number}", ack="logged")
    eventually(lambda: client.call("sale.status", "proof")["waiting"] == 0)
    assert names["proved"](client, "proof", created["seed_sha256"])
    assert not names["proved"](client, "proof", "0" * 64)
    assert not names["proved"](Cheat(client), "proof", created["seed_sha256"])


class Cheat:
    """A client whose ledger has two admissions in each other's place."""

    def __init__(self, client):
        self._client = client

    def call(self, method, *params):
        answer = self._client.call(method, *params)
        if method == "sale.ledger":
            admitted = [step for step in answer["items"] if step["step"] == "admitted"]
            admitted[3]["user"], admitted[4]["user"] = admitted[4]["user"], admitted[3]["user"]
        return answer


def test_the_printed_frames(server):
    sent, answered = [
        bytes.fromhex("".join(line[:36].strip() for line in block.splitlines()))
        for block in blocks("")
        if re.match(r"00 00 00", block)
    ]
    assert server.raw(sent) == answered


def test_the_printed_session_with_nc(server):
    (session,) = [block for block in blocks("") if block.startswith("$ nc ")]
    lines = session.splitlines()[1:]
    server.inline("counter.delete likes:42", "board.submit weekly ann 310")
    for asked, printed in zip(lines[::2], lines[1::2], strict=True):
        (answer,) = server.inline(asked)
        if printed.endswith("...") or "..." in printed:
            assert answer.startswith(printed.partition("...")[0])
        elif "epoch" in printed:
            assert re.sub(r'"epoch":"[^"]*"', "", answer) == re.sub(r'"epoch":"[^"]*"', "", printed)
        else:
            assert answer == printed
