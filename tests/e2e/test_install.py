"""What is installed is whole: the demo runs from an empty folder, without the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ["rtserver", "client/rtclient", "pyproject.toml", "README.md", "LICENSE"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the two packages as pip installs them, and nothing else of the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        source, target = ROOT / name, tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*command, "--target", str(site), str(tree)], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        pytest.skip(f"pip cannot build here: {done.stderr.strip()[-300:]}")
    return site


def run(site: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_the_demo_runs_from_an_empty_folder(installed, tmp_path):
    done = run(installed, tmp_path, "-m", "rtserver", "demo", "--exit")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "numbers agree with a recount of the file" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_packages_are_the_installed_ones_and_typed(installed, tmp_path):
    code = "import rtserver, rtclient; print(rtserver.__file__); print(rtclient.__file__)"
    found = run(installed, tmp_path, "-c", code).stdout.split()
    assert [Path(file).parent for file in found] == [installed / "rtserver", installed / "rtclient"]
    for package in ("rtserver", "rtclient"):
        assert (installed / package / "py.typed").exists()
    assert (installed / "rtserver" / "ARCHITECTURE.md").exists()
    pages = installed / "rtserver" / "demo" / "pages"
    assert "<title>" in (pages / "index.html").read_text("utf-8")
    client = (ROOT / "client" / "js" / "rtserver.js").read_text("utf-8")
    assert (pages / "client" / "rtserver.js").read_text("utf-8") == client
