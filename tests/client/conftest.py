"""One real server for the tests of a module; names in them are their own."""

from __future__ import annotations

import pytest

from rtclient import link
from rtclient.testing import start_server


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """Nobody waits 20 seconds here before she reconnects."""
    monkeypatch.setattr(link, "_WAIT_MIN_S", 0.01)
    monkeypatch.setattr(link, "_WAIT_MAX_S", 0.1)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with start_server(tmp_path_factory.mktemp("server") / "data") as server:
        yield server
