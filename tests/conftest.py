"""Options and fixtures that several kinds of tests share."""

from __future__ import annotations

import pytest

from tests.process import ServerProcess


def pytest_addoption(parser):
    parser.addoption("--torture", action="store_true", help="long runs: hundreds of kills")
    parser.addoption("--seed", type=int, help="the random source of a kill test, as it printed it")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--torture"):
        skip = pytest.mark.skip(reason="a long run; start it with --torture")
        for item in items:
            if "torture" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for all tests of a module; every test leaves it well."""
    with ServerProcess(tmp_path_factory.mktemp("server") / "data") as process:
        yield process
