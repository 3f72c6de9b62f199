"""kill -9 of a process that writes to a log: every record that it said was logged is there, once.

The log alone, so many more records and kills than a whole server gets through.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rtserver.persist.files import Files
from rtserver.persist.inspect import check
from tests.persist.states import read

ROOT = Path(__file__).parents[2]


def run_and_kill(directory: Path, lines: int) -> int:
    """Lets a victim write so many records; the last number that it said was logged."""
    victim = subprocess.Popen(
        [sys.executable, "-m", "tests.recovery.victim", str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert victim.stdout is not None
    try:
        assert victim.stdout.readline() == "ready\n"
        said = [victim.stdout.readline() for _ in range(lines)]
        victim.send_signal(signal.SIGKILL)
        said += victim.stdout.readlines()
    finally:
        victim.kill()
        victim.wait(30)
        victim.stdout.close()
    whole = [line for line in said if line.endswith("\n")]
    return int(whole[-1]) if whole else 0


def kill_again_and_again(directory: Path, rounds: int, chance: random.Random) -> None:
    logged = 0
    for number in range(rounds):
        logged = max(logged, run_and_kill(directory, chance.randrange(1_500)))
        records, recovered = read(Files(), directory)
        assert len(records) >= logged, f"round {number}"
        for seq, record in enumerate(records, 1):
            assert record[0] in (seq, "closing"), f"round {number}"
        assert recovered.same_boot
        assert not recovered.new_epochs
        assert not recovered.clean
    assert check(directory, Files())["ok"]
    assert logged > 0


def test_killed_again_and_again(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path / "store", 6, random.Random())


@pytest.mark.torture
def test_killed_very_often(tmp_path: Path) -> None:
    for number in range(20):
        kill_again_and_again(tmp_path / str(number), 15, random.Random())
