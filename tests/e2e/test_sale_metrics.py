"""What Prometheus reads of sales."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from rtserver.limits import SALES_IN_METRICS_MAX
from tests.process import ErrorReply, ServerProcess


def metrics(server):
    """{(name, label values...): value}"""
    raw = server.raw(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    text = raw.partition(b"\r\n\r\n")[2].decode()
    return {
        (sample.name.removeprefix("rtserver_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_sale_in_numbers(tmp_path):
    with ServerProcess(tmp_path / "data") as server, server.client() as client:
        queue = {"rate_per_s": 1, "active_max": 1}
        client.call("sale.create", "queued", {"x": 1}, 1, 60_000, 2**52, None, queue)
        client.call("sale.join", "queued", "ann")
        client.call("sale.create", "show", {"seat": 5, "drink": 5})
        held = [client.call("sale.reserve", "show", f"u{n}", {"seat": 1}) for n in range(3)]
        client.call("sale.confirm", held[0]["hold"])
        for wanted in ({"seat": 3}, {"seat": 3}, {"none": 1}):
            try:
                client.call("sale.reserve", "show", "eve", wanted)
            except ErrorReply:
                continue
            raise AssertionError("it was refused")
        found = metrics(server)
        assert found["sales",] == 2
        units = {state: found["sale_units", "show", state] for state in ("free", "held", "sold")}
        assert units == {"free": 7, "held": 2, "sold": 1}
        of_show = {
            name: found[f"sale_{name}", "show"]
            for name in ("stock", "imbalance", "waiting", "active", "orders_total", "steps_total")
        }
        assert of_show == {
            "stock": 10,
            "imbalance": 0,
            "waiting": 0,
            "active": 0,
            "orders_total": 1,
            "steps_total": 6,
        }
        assert found["sale_refusals_total", "sold_out", "show"] == 2  # labels by name
        assert found["sale_waiting", "queued"] == 1
        assert found["log_archive_bytes",] == found["log_archive_held_bytes",] == 0


def test_so_many_sales_are_told_apart(tmp_path):
    with ServerProcess(tmp_path / "data") as server, server.client() as client:
        names = [f"s{number:03}" for number in range(SALES_IN_METRICS_MAX + 5)]
        for name in reversed(names):
            client.call("sale.create", name, {"x": 1}, ack="memory")
        found = metrics(server)
        told = sorted(key[1] for key in found if key[0] == "sale_stock")
        assert told == names[:SALES_IN_METRICS_MAX]
        assert found["sales",] == len(names)
