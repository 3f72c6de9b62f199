"""The script that proves a queue: on ledgers that are right, on some that were tampered with, and
on a sale of a real server."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import rtclient.sync
from rtclient.testing import start_server

SCRIPT = Path(__file__).parents[2] / "client" / "examples" / "verify_queue.py"
SEED = "drawn by lot"
STATUS = {"seed": SEED, "seed_sha256": hashlib.sha256(SEED.encode()).hexdigest()}


def _loaded():
    spec = importlib.util.spec_from_file_location("verify_queue", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


verify_queue = _loaded()


class Sale:
    """Writes a ledger as a fair sale does, in its own way: by sorting texts."""

    def __init__(self):
        self.steps = []
        self.early, self.late = [], []
        self.opened = False
        self.note("created")

    def note(self, step, user=None):
        self.steps.append({"seq": len(self.steps) + 1, "step": step, "user": user})

    def open(self):
        self.opened = True
        self.note("opened")

    def join(self, user):
        self.note("joined", user)
        (self.late if self.opened else self.early).append(user)
        self.early.sort(key=lambda one: hashlib.sha256(f"{SEED}:{one}".encode()).hexdigest())

    def leave(self, user, step="left"):
        self.note(step, user)
        (self.early if user in self.early else self.late).remove(user)

    def admit(self):
        self.note("admitted", (self.early or self.late).pop(0))


def fair(seed=1, count=40):
    """Joins before and after, leaves, second joins, admissions in between."""
    chance, sale = random.Random(seed), Sale()
    for number in range(count):
        sale.join(f"early{number}")
    for user in chance.sample(sale.early, count // 8):
        sale.leave(user)
        if chance.random() < 0.5:
            sale.join(user)
    sale.open()
    for number in range(count):
        if chance.random() < 0.7:
            sale.join(f"late{number}")
        if chance.random() < 0.6:
            sale.admit()
            sale.note("reserved", "whoever")
        if chance.random() < 0.2:
            sale.leave(chance.choice(sale.early + sale.late), "abandoned")
    return sale.steps


def broken(steps, seed=SEED):
    return list(verify_queue.problems(seed, steps))


def places(steps, step):
    return [place for place, one in enumerate(steps) if one.get("step") == step]


@pytest.mark.parametrize("seed", range(8))
def test_a_fair_queue_is_proved(seed):
    kept, said = verify_queue.verdict(STATUS, fair(seed), STATUS["seed_sha256"].upper())
    assert kept, said
    assert "its hash is the one published" in said[0]


@pytest.mark.parametrize("seed", range(8))
def test_two_admissions_that_changed_places_are_seen(seed):
    steps = fair(seed)
    first, second = random.Random(seed).sample(places(steps, "admitted"), 2)
    steps[first], steps[second] = (
        {**steps[first], "user": steps[second]["user"]},
        {**steps[second], "user": steps[first]["user"]},
    )
    assert any(f"step {min(first, second) + 1}:" in one for one in broken(steps))


def test_one_who_is_let_in_before_her_turn_is_named():
    sale = Sale()
    for user in ("ann", "bob", "cleo"):
        sale.join(user)
    sale.open()
    *_, last = sale.early
    sale.note("admitted", last)
    assert broken(sale.steps) == [
        f"step 6: {last} was admitted, and it was the turn of {sale.early[0]}"
    ]


def test_a_late_one_may_not_pass_an_early_one():
    sale = Sale()
    sale.join("ann")
    sale.open()
    sale.join("bob")
    sale.note("admitted", "bob")
    assert broken(sale.steps) == ["step 5: bob was admitted, and it was the turn of ann"]


def test_a_step_that_was_taken_out_is_seen():
    sale = Sale()
    for user in ("ann", "bob", "cleo"):
        sale.join(user)
    first, *_ = sale.early
    sale.leave(first)
    sale.open()
    sale.admit()
    assert not broken(sale.steps)
    without = [step for step in sale.steps if step["step"] != "left"]
    assert "step 6 follows step 4: the ledger has a hole" in broken(without)
    numbered = [{**step, "seq": seq} for seq, step in enumerate(without, 1)]
    assert [one for one in broken(numbered) if f"it was the turn of {first}" in one]


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (["opened -", "admitted ann"], "step 2: ann was admitted, and did not wait"),
        (["joined ann", "admitted ann"], "step 2: ann was admitted before the opening"),
        (["joined ann", "joined ann"], "step 2: ann joined and waited already, since 1"),
    ],
)
def test_what_no_queue_does_is_seen(steps, says):
    rows = [one.split() for one in steps]
    assert broken(
        [{"seq": seq, "step": step, "user": user} for seq, (step, user) in enumerate(rows, 1)]
    ) == [says]


def test_another_seed_than_the_published_one_proves_nothing():
    steps = fair()
    for status, published in (
        ({**STATUS, "seed": "another"}, None),
        (STATUS, "0" * 64),
        ({**STATUS, "seed": None}, None),
    ):
        kept, said = verify_queue.verdict(status, steps, published)
        assert not kept, said
    assert broken(steps, "another"), "and orders them in another way"


def run(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def test_a_sale_of_a_real_server_is_proved_and_its_file_too(tmp_path):
    kept = tmp_path / "sale.jsonl"
    with start_server(tmp_path / "data") as server, rtclient.sync.connect(server.url) as rt:
        opens_at = rt.server.time().now + 60_000
        queue = {"rate_per_s": 100, "active_max": 1_000}
        made = rt.sale.create("show", {"seat": 1_000}, opens_at=opens_at, queue=queue)
        for number in range(30):
            rt.sale.join("show", f"early{number}")
        rt.sale.leave("show", "early7")
        early = run(server.url, "show")
        assert early.returncode == 1
        assert "not opened yet" in early.stdout
        server.advance(60_000)
        for number in range(30):
            rt.sale.join("show", f"late{number}")
        for _ in range(5):
            server.advance(100)
        told = run(server.url, "show", "--published", made.seed_sha256, "--save", kept)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "30 joined before the opening and 30 after" in told.stdout
    assert "PROVED" in told.stdout
    assert run("--file", kept).returncode == 0
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    first, second, *_ = places(rows, "admitted")
    rows[first]["user"], rows[second]["user"] = rows[second]["user"], rows[first]["user"]
    kept.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tampered = run("--file", kept)
    assert tampered.returncode == 1
    assert "it was the turn of" in tampered.stdout
