"""Medians, ranges and ratios, in all three forms."""

from __future__ import annotations

import json

import pytest

from bench.plot import PlotImpossible, plot
from bench.report import BARE, NCHAN, OURS, THEIRS, Measure, Report, Result, as_text, ratio
from bench.wanted import WANTED, Wanted
from bench.workloads import WORKLOADS

MEASURES = [
    Measure("increments", OURS, "ops/s", [100_000, 300_000, 200_000]),
    Measure("increments", THEIRS, "ops/s", [1_000_000, 1_000_000, 400_000]),
    Measure("longest turn", OURS, "ms", [12.5]),
]


def result(measures):
    return Result("counter", "what it does", measures, ["a note"])


def test_the_ratio_is_of_the_medians_and_ranges_over_rounds_that_met():
    assert ratio(MEASURES, "increments") == (0.2, 0.1, 0.5)
    assert ratio(MEASURES, "longest turn") is None


@pytest.mark.parametrize("peer", [THEIRS, NCHAN, BARE])
def test_each_quantity_has_its_own_peer(peer):
    alone = Measure("increments", "canned replies", "ops/s", [1])
    assert ratio([MEASURES[0], alone], "increments") is None
    made = Measure("increments", peer, "ops/s", [100_000, 100_000, 100_000])
    assert ratio([MEASURES[0], alone, made], "increments") == (2, 1, 3)


def test_text_shows_median_range_and_ratio():
    lines = as_text(result(MEASURES)).splitlines()
    assert lines[0] == "== counter: what it does"
    ours = next(line for line in lines if "200,000" in line)
    assert "100,000 - 300,000" in ours
    assert "0.200 (0.100 - 0.500)" in ours
    assert lines[-1] == "- a note"


def test_nothing_compared_needs_no_column():
    assert "ratio" not in as_text(result(MEASURES[2:]))


def test_json_and_markdown_hold_the_command_the_facts_and_every_sample():
    report = Report("python -m bench counter", {"machine": "two cores"}, [result(MEASURES)])
    made = json.loads(report.as_json())
    assert made["command"] == "python -m bench counter"
    assert made["facts"] == {"machine": "two cores"}
    first = made["workloads"][0]["measures"][0]
    assert first["samples"] == [100_000, 300_000, 200_000]
    assert (first["median"], first["min"], first["max"]) == (200_000, 100_000, 300_000)
    assert first["ratio"] == [0.2, 0.1, 0.5]
    assert first["wanted"] == ["ratio >= 2: missed"]
    text = report.as_markdown()
    assert text.startswith("# `python -m bench counter`\n\n- machine: two cores\n")
    assert "| increments | rtserver | 200,000 | 100,000 - 300,000 | ops/s | 0.200" in text


@pytest.mark.parametrize(
    ("wanted", "samples", "ratio", "verdict"),
    [
        (Wanted(2.0), [1.0], 2.0, "reached"),
        (Wanted(2.0), [1.0], 1.99, "missed"),
        (Wanted(2.0), [9.0], None, "not compared"),
        (Wanted(2.0, reach=3.0), [1.0], 2.9, "reached"),
        (Wanted(2.0, reach=3.0), [1.0], 3.0, "reached, and beyond"),
        (Wanted(1.5, at_most=True), [1.0], 1.6, "missed"),
        (Wanted(1.5, reach=1.0, at_most=True), [1.0], 0.9, "reached, and beyond"),
        (Wanted(10.0, is_ratio=False), [1.0, 10.0, 99.0], None, "reached"),
        (Wanted(10.0, is_ratio=False), [9.0, 9.9, 99.0], 5.0, "missed"),
        (Wanted(5.0, is_ratio=False, at_most=True), [1.0, 1.0, 5.1], None, "missed"),
        (Wanted(5.0, is_ratio=False, at_most=True), [1.0, 1.0, 5.0], None, "reached"),
    ],
)
def test_a_verdict(wanted, samples, ratio, verdict):
    assert wanted.verdict(samples, sorted(samples)[len(samples) // 2], ratio) == verdict


def test_the_verdict_stands_beside_the_measure_of_ours():
    lines = as_text(result(MEASURES)).splitlines()
    assert lines[2].split()[-1] == "wanted"
    assert lines[3].endswith("ratio >= 2: missed")
    assert not lines[4].endswith("missed")


def test_a_bound_says_what_it_bounds():
    assert str(Wanted(2.0, reach=3.0)) == "ratio >= 2, reach for 3"
    assert str(Wanted(1_000_000, is_ratio=False)) == ">= 1,000,000"
    assert str(Wanted(5, is_ratio=False, at_most=True)) == "<= 5"


def test_wanted_names_workloads():
    assert {workload for workload, _ in WANTED} <= set(WORKLOADS)


def test_a_picture_of_the_ratios(tmp_path):
    pytest.importorskip("matplotlib")
    report = Report("python -m bench counter", {}, [result(MEASURES)])
    plot(report, tmp_path / "made" / "run.png")
    assert (tmp_path / "made" / "run.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(PlotImpossible, match="nothing was compared"):
        plot(Report("", {}, [result(MEASURES[2:])]), tmp_path / "none.png")
