"""Audits that take many turns: others go on meanwhile, one runs at a time, and all are ended."""

from __future__ import annotations

import asyncio
import logging

import pytest

from rtserver.audits import Audits
from rtserver.limits import Limits
from rtserver.state.sales.audit import Audit
from tests.transport.rig import Rig, request, say

ITEMS = 2_000


@pytest.fixture
async def rig():
    """A sale with as many steps and items as one turn does not audit."""
    rig = Rig(Limits(sale_audits_max=2, turn_ms_max=1_000))
    rig.audits = Audits(rig.turn, rig.store.sales, rig.limits)
    rig.dispatcher.ctx.host.audit = rig.audits.finish
    client = rig.connect()
    say(client, request(1, "sale.create", "s", {"a": 1_000_000}, 0))
    for start in range(0, ITEMS, 1_000):
        items = {f"i{number}": 5 for number in range(start, start + 1_000)}
        say(client, request(2, "sale.restock", "s", items))
    for number in range(500):
        say(client, request(3, "sale.reserve", "s", f"u{number}", {"a": 1}))
    await finish(rig, client, 503)
    return rig


async def finish(rig, client, number):
    """The frames of a client, when there are so many."""
    frames = []
    for _ in range(2_000):
        await asyncio.sleep(0)
        rig.sync()
        frames += client.frames()
        if len(frames) >= number:
            break
    assert not rig.failures
    assert len(frames) == number
    return frames


def errors(frames):
    return [error[1] for _, _, error, _ in frames if error is not None]


async def test_others_go_on_between_the_pieces(rig):
    client, other = rig.connect(), rig.connect()
    say(client, request(1, "sale.audit", "s"))
    steps = len(rig.store.sales.find("s").ledger)
    turns = 0
    while not (answer := client.frames()):
        say(other, request(turns, "sale.reserve", "s", "eve", {"a": 1}, ack="memory"))
        await asyncio.sleep(0)
        turns += 1
        assert turns < 500
    ((_, _, error, result),) = answer
    assert error is None
    assert result["ok"], result
    assert turns > 5
    assert result["steps"] > steps + 5
    assert len(errors(other.frames())) == 0


async def test_a_small_sale_is_answered_in_its_own_turn(rig):
    client = rig.connect()
    say(client, request(1, "sale.create", "small", {"a": 3}), request(2, "sale.audit", "small"))
    await asyncio.sleep(0)
    ((_, answered, error, result),) = client.frames()  # the write waits for its sync
    assert (answered, error) == (2, None)
    assert result == {"ok": True, "steps": 2, "items": 1, "problems": []}


async def test_so_many_may_wait_for_one_another(rig):
    client = rig.connect()
    say(client, *(request(number, "sale.audit", "s") for number in range(4)))
    frames = await finish(rig, client, 4)
    assert errors(frames) == ["overloaded", "overloaded"]
    say(client, request(5, "sale.audit", "s"))
    assert errors(await finish(rig, client, 1)) == []


async def test_a_sale_that_is_deleted_meanwhile_is_not_found(rig):
    client = rig.connect()
    say(client, request(1, "sale.audit", "s"))
    await asyncio.sleep(0)
    say(client, request(2, "sale.close", "s", True), request(3, "sale.delete", "s"))
    frames = await finish(rig, client, 3)
    assert errors(frames) == ["not_found"]


async def test_a_stop_ends_it(rig):
    client = rig.connect()
    say(client, request(1, "sale.audit", "s"), request(2, "sale.audit", "s"))
    await asyncio.sleep(0)
    rig.audits.stop()
    assert errors(await finish(rig, client, 2)) == ["overloaded", "overloaded"]


async def test_a_defect_of_an_audit_is_its_own_trouble(rig, monkeypatch, caplog):
    client = rig.connect()
    say(client, request(1, "sale.audit", "s"))
    await asyncio.sleep(0)
    monkeypatch.setattr(Audit, "proceed", lambda _: 1 // 0)
    with caplog.at_level(logging.CRITICAL):
        assert errors(await finish(rig, client, 1)) == ["internal_error"]
