"""Audits of a real server: asked of it while it sells, and of its directory from outside."""

from __future__ import annotations

import json

import pytest

from tests.process import ServerProcess, cli

OK, FAILED, START, DAMAGED = 0, 1, 3, 5


def buy(client, numbers):
    """Buyers who confirm, cancel, or leave their hold as it is; what was sold."""
    sold = 0
    for number in numbers:
        held = client.call("sale.reserve", "show", f"user{number}", {"seat": 1, "drink": 2})
        if number % 3:
            client.call("sale.confirm", held["hold"], f"paid{number}")
            sold += 1
        elif number % 2:
            client.call("sale.cancel", held["hold"])
    return sold


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A directory that a kill -9 left behind, and how many orders were confirmed."""
    data = tmp_path_factory.mktemp("audit") / "data"
    with ServerProcess(data) as server:
        with server.client() as client:
            client.call("sale.create", "show", {"seat": 500, "drink": 1_000}, 0)
            client.call("sale.create", "other", {"x": 3})
            orders = buy(client, range(60))
            assert cli("snapshot", "create", data).returncode == OK
            orders += buy(client, range(60, 90))
            audit = client.call("sale.audit", "show")
            assert audit["ok"], audit
            running = cli("log", "audit-sales", data, "--json")
            assert running.returncode == OK, running.stderr
            report = json.loads(running.stdout)
            assert report["running"]
            assert report["sales"][0]["orders"] == orders
            assert report["sales"][0]["steps"] == audit["steps"]
            orders += buy(client, range(90, 120))
        server.kill()
    return data, orders


def test_what_a_kill_left_agrees(killed):
    data, orders = killed
    done = cli("log", "audit-sales", data, "--json")
    assert done.returncode == OK, done.stderr
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert [one["ok"] for one in report["snapshots"]] == [True]
    show, other = report["sales"]
    assert (show["name"], show["orders"], show["sold"]) == ("show", orders, 3 * orders)
    assert show["stock"] == show["free"] + show["held"] + show["sold"] == 1_500
    assert (other["name"], other["steps"], other["free"]) == ("other", 2, 3)


def test_the_table_is_readable(killed):
    data, orders = killed
    done = cli("log", "audit-sales", data)
    assert done.returncode == OK, done.stderr
    header, show, other, last = done.stdout.splitlines()
    assert header.split() == [
        "sale", "state", "stock", "free", "held", "sold", "orders", "steps", "items", "agrees",
    ]  # fmt: skip
    assert len(header) == len(show) == len(other)
    assert show.split()[:3] == ["show", "open", "1,500"]
    assert show.split()[6] == str(orders)
    assert last.startswith("records 1 to ")
    assert last.endswith("snapshots compared: 1; everything agrees")


def test_one_sale_and_none(killed):
    data, _ = killed
    one = cli("log", "audit-sales", data, "--sale", "other", "--json")
    assert [row["name"] for row in json.loads(one.stdout)["sales"]] == ["other"]
    none = cli("log", "audit-sales", data, "--sale", "none")
    assert none.returncode == FAILED
    assert "there is no sale 'none'" in none.stderr


def test_a_directory_without_data(tmp_path):
    assert cli("log", "audit-sales", tmp_path).returncode == START


def test_damage_is_told(killed, tmp_path):
    data, _ = killed
    copy = tmp_path / "data"
    copy.mkdir()
    for path in data.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    first = copy / "log-00000001.seg"
    content = bytearray(first.read_bytes())
    place = content.find(b"user7")
    content[place] ^= 1
    first.write_bytes(content)
    done = cli("log", "audit-sales", copy)
    assert done.returncode == DAMAGED
    assert "! log-00000001.seg is damaged at offset" in done.stdout
    assert "Traceback" not in done.stderr
