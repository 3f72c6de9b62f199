"""`python -m bench --quick` runs every workload on real servers. No speed is asserted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import __main__ as main
from bench.contest import WrongState
from bench.wanted import WANTED
from bench.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]


def bench(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "bench", "--quick", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


def subjects(workload):
    return {measure["subject"] for measure in workload["measures"]}


def test_every_workload_reports(tmp_path):
    json_file, markdown = tmp_path / "run.json", tmp_path / "run.md"
    done = bench("--json", str(json_file), "--markdown", str(markdown))
    assert done.returncode == 0, done.stderr
    report = json.loads(json_file.read_text("utf-8"))
    assert [workload["name"] for workload in report["workloads"]] == list(WORKLOADS)
    assert {"machine", "rtserver", "redis", "generator", "revision"} <= set(report["facts"])
    for workload in report["workloads"]:
        assert workload["measures"], workload["name"]
        for measure in workload["measures"]:
            assert min(measure["samples"]) >= 0, measure
        assert f"== {workload['name']}" in done.stdout
        assert f"## {workload['name']}" in markdown.read_text("utf-8")
    if shutil.which("cc"):
        names = {(w["name"], m["quantity"]) for w in report["workloads"] for m in w["measures"]}
        assert not WANTED.keys() - names, "wanted of nothing that is measured"
    if shutil.which("redis-server"):
        assert subjects(report["workloads"][0]) == {"rtserver", "redis"}
        assert report["workloads"][0]["measures"][0]["ratio"] is not None


def test_without_redis_and_compiler_it_says_so_and_measures_the_rest(tmp_path):
    done = bench(
        *("counter", "latency", "pubsub", "fanout", "idle", "sale-soldout", "sale-pairs"),
        *("--json", str(tmp_path / "run.json")),
        PATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert "SKIPPED: no redis-server here" in done.stdout
    assert "no C compiler (cc): the generator is Python" in done.stdout
    assert "SKIPPED: subscribers need the compiled generator" in done.stdout
    assert done.stdout.count("SKIPPED: no C compiler (cc)") == 3
    report = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert subjects(report["workloads"][0]) == {"rtserver"}


@pytest.mark.parametrize("wrong", [["nonsense"], ["--rounds", "0"]])
def test_wrong_usage_is_refused(wrong):
    assert bench(*wrong).returncode == 2


def test_a_workload_that_fails_costs_only_itself(tmp_path, monkeypatch):
    def lie(_run):
        raise WrongState("10 was acknowledged, the counters hold 9")

    monkeypatch.setitem(main.WORKLOADS, "counter", lie)
    json_file = tmp_path / "run.json"
    arguments = ["--quick", "counter", "counter-hot", "--json", str(json_file)]
    done = CliRunner().invoke(main.main, arguments)
    assert done.exit_code == 1
    assert "no numbers of counter\n" in done.stderr
    failed, good = json.loads(json_file.read_text("utf-8"))["workloads"]
    assert failed["notes"] == ["WrongState: 10 was acknowledged, the counters hold 9"]
    assert good["measures"]


def test_without_matplotlib_a_picture_is_refused_before_the_run(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError", "utf-8")
    done = bench("--plot", str(tmp_path / "run.png"), PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "--plot needs matplotlib: pip install" in done.stderr
    assert done.stdout == ""
