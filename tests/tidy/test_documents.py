"""protocol.md says what the tables say, and its examples are true."""

from __future__ import annotations

import re
from pathlib import Path

import msgpack
import pytest

from rtserver.commands.options import OPTION_NAMES
from rtserver.commands.reference import public, reference
from rtserver.commands.table import load
from rtserver.wire import frames

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "protocol.md").read_text("utf-8")
BEGIN = "<!-- reference: begin (made by `rtserver reference`) -->\n"
END = "<!-- reference: end -->"


def test_the_reference_is_the_table():
    written = PROTOCOL.partition(BEGIN)[2].partition(END)[0]
    assert written == reference(load()), "run `rtserver reference` and paste it into protocol.md"


def test_options_are_documented_and_no_parameter_has_their_names():
    for option in OPTION_NAMES:
        assert f"`{option}`" in PROTOCOL
    for row in public(load()):
        assert not {param.name for param in row.params} & OPTION_NAMES, row.name


@pytest.mark.parametrize("row", public(load()), ids=lambda row: row.name)
def test_rows_are_complete(row):
    assert row.summary.endswith(".")
    assert len(row.summary) <= 100
    seen_optional = False
    for param in row.params:
        assert not (param.required and seen_optional), "required parameters come first"
        seen_optional = not param.required


def test_the_example_bytes_are_true():
    block = re.search(r"^00 00 00 17.*?```", PROTOCOL, re.S | re.M)
    assert block is not None
    words = re.findall(r"^((?:[0-9a-f]{2} ?)+)(?= |$)", block.group(), re.M)
    data = bytes.fromhex("".join(words))
    assert len(data) == 4 + 23
    assert msgpack.unpackb(data[4:]) == [0, 1, "counter.add", ["likes", 1]]
    assert frames.encode_reply(1, 1) == bytes.fromhex("00 00 00 05  94 01 01 c0 01")


def test_links_of_the_contents_lead_somewhere():
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower().lstrip("# ")).replace(" ", "-")
        for line in PROTOCOL.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(#([^)]+)\)", PROTOCOL):
        assert target in headings, target
