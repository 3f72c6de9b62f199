"""What users of the package get for their tests."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rtclient.testing import start_server

USERS_TESTS = """
import rtclient.sync

pytest_plugins = ["rtclient.testing"]


async def test_time_moves_when_told(rt_server, rt_client):
    await rt_client.counter.add("likes:42", ttl_ms=60_000)
    rt_server.advance(59_999)
    assert await rt_client.counter.get("likes:42") == 1
    rt_server.advance(1)
    assert await rt_client.counter.get("likes:42") == 0


async def test_a_restart_keeps_url_and_state(rt_server, rt_client):
    assert await rt_client.counter.add("x") == 1
    before, url = rt_server.pid, rt_server.url
    rt_server.restart()
    assert rt_server.pid != before
    rt_server.restart(kill=False)
    assert rt_server.url == url
    assert await rt_client.counter.get("x") == 1


def test_each_test_has_its_own(rt_server):
    with rtclient.sync.connect(rt_server.url) as rt:
        assert rt.counter.get("x") == 0
"""


def test_the_plugin(tmp_path):
    (tmp_path / "test_users.py").write_text(USERS_TESTS)
    path = os.pathsep.join(filter(None, sys.path))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "3 passed" in ran.stdout, ran.stdout


def test_it_stops_and_leaves_nothing():
    with start_server() as server:
        pid, data = server.pid, server.data
        assert data.exists()
        server.stop()
        with pytest.raises(RuntimeError, match="not running"):
            _ = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not data.parent.exists()


def test_what_goes_wrong_is_told(tmp_path):
    with (
        start_server(manual_clock=False) as server,
        pytest.raises(RuntimeError, match="manual-clock"),
    ):
        server.advance(1)
    not_a_directory = tmp_path / "data"
    not_a_directory.write_text("a file")
    with pytest.raises(RuntimeError, match="did not start"), start_server(not_a_directory):
        pass
