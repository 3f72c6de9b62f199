"""The process that makes a snapshot, when its server is killed: it never meddles with the next."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from tests.process import ErrorReply, ServerProcess, cli, eventually


@pytest.fixture
def data(tmp_path):
    """A directory with enough in it that a snapshot takes a moment."""
    data = tmp_path / "data"
    with ServerProcess(data) as server, server.client() as client:
        for start in range(0, 200_000, 1_000):
            client.call("counter.add_many", [[f"c{n}", 1] for n in range(start, start + 1_000)])
    return data


def compactor_of(server):
    """The id of its child; None while there is none."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = path.read_text()
            if int(text.rpartition(")")[2].split()[1]) == server.pid:
                return int(text.split()[0])
    return None


def is_gone(pid):
    """Whether it has ended; somebody else's zombie has too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def stopped_compactor(server, data):
    """A snapshot in the making, stopped while it is written or read again."""
    with server.client() as client:
        client.send("server.snapshot")
        pid = eventually(lambda: compactor_of(server))
        deadline = time.monotonic() + 20
        while not list(data.glob("*.tmp")):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.kill(pid, signal.SIGSTOP)
    assert list(data.glob("*.tmp")), "it was too quick for this test"
    return pid


def test_it_ends_with_its_server(data):
    with ServerProcess(data) as server:
        pid = stopped_compactor(server, data)
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: is_gone(pid), 10)
    assert not list(data.glob("*.snap")), "it went on"


def test_one_that_outlives_its_server_keeps_the_next_from_writing_the_same_file(data):
    with ServerProcess(data) as server:
        pid = stopped_compactor(server, data)
    with ServerProcess(data) as server, server.client() as client:
        with pytest.raises(ErrorReply, match="another process makes a snapshot"):
            client.call("server.snapshot")
        os.kill(pid, signal.SIGCONT)
        eventually(lambda: is_gone(pid), 10)
        assert client.call("server.snapshot")["created"]
        assert server.stop() == 0
    assert cli("log", "check", data).returncode == 0
    assert cli("snapshot", "verify", data).returncode == 0
