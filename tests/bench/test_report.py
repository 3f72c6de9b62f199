"""Medians, ranges and ratios, in all three forms."""

from __future__ import annotations

import json

import pytest

from bench.report import OURS, THEIRS, Measure, Report, Result, as_text, ratio
from bench.workloads import counter

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
    text = report.as_markdown()
    assert text.startswith("# `python -m bench counter`\n\n- machine: two cores\n")
    assert "| increments | rtserver | 200,000 | 100,000 - 300,000 | ops/s | 0.200" in text


def test_what_is_not_comparable_has_no_ratio_even_to_nothing():
    measures = [
        Measure("waited", subject, "% of time", [0.0], compared=False) for subject in (OURS, THEIRS)
    ]
    assert "ratio" not in as_text(result(measures))


@pytest.mark.parametrize(
    ("ours", "theirs", "waited", "verdict"),
    [
        (200_000, 2_000_000, 50.0, "reached"),
        (199_999, 799_000, 1.0, "reached"),
        (199_999, 2_000_000, 1.0, "missed"),
        (199_999, 700_000, 50.0, "undecided"),
        (199_999, None, 1.0, "missed"),
    ],
)
def test_the_verdict_on_increments(ours, theirs, waited, verdict):
    measures = [Measure(counter._INCREMENTS, OURS, "ops/s", [ours])]
    if theirs is not None:
        measures.append(Measure(counter._INCREMENTS, THEIRS, "ops/s", [theirs]))
    measures.append(Measure(counter._WAITED, OURS, "% of time", [waited], compared=False))
    assert verdict in counter._verdict(measures)
