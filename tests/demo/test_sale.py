"""The sale demo: a small run agrees with itself, and one wrong line anywhere is found."""

from __future__ import annotations

import asyncio
import copy
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from rtserver.demo.sale.diary import Fate
from rtserver.demo.sale.plans import Kind, Times, draw
from rtserver.demo.sale.reconcile import reconcile, sold_out_after_ms
from rtserver.demo.sale.run import sell
from tests.process import cli, eventually

SECONDS = 6


@pytest.fixture(scope="module")
def run():
    """One small sale."""
    return asyncio.run(sell(buyers=500, seats=20, seed=1, seconds=SECONDS))


@pytest.fixture
def sold(run):
    """The same, for a test that forges it."""
    return copy.deepcopy(run)


def wrong(sold):
    """Names of the checks that found something."""
    return {finding.name for finding in reconcile(sold.diary, sold.books) if finding.problems}


def test_a_small_run_reconciles(run):
    assert [(f.name, f.problems) for f in reconcile(run.diary, run.books) if f.problems] == []


def test_it_is_like_life(run):
    steps = Counter(step.step for step in run.books.steps)
    assert steps["joined"] > 450
    assert steps["confirmed"] >= 5
    assert steps["expired"] >= 1, "how many is up to how busy the machine is"
    assert run.books.status.total.sold >= 10
    assert run.diary.retries > 10
    assert run.diary.refused["sold_out"] > 100
    assert run.diary.refused["limit_reached"] >= 1, "one address with many accounts"
    assert len(run.diary.reserves) > len(run.diary.holds)
    taken_ms, _ = sold_out_after_ms(run.books.steps)
    assert 0 < taken_ms < SECONDS * 1_000


# --- what must be found ---


def an_order(sold):
    return next(held for held in sold.diary.holds.values() if held.order and not held.refunded)


def drop_order(sold):
    sold.books.orders.remove(one_of_sale(sold, an_order(sold)))


def one_of_sale(sold, held):
    return next(order for order in sold.books.orders if order.order == held.order)


def add_order(sold):
    order = sold.books.orders[0]
    sold.books.orders.append(replace(order, order=order.order + "0"))


def repeat_order(sold):
    sold.books.orders.append(sold.books.orders[0])


def give_order_to_another(sold):
    order = sold.books.orders[0]
    sold.books.orders[0] = replace(order, user="mallory")


def tell_no_one_of_an_order(sold):
    held = an_order(sold)
    held.order, held.bought, held.fate = None, {}, Fate.HELD


def sell_a_seat_to_two(sold):
    """Told and booked: only the seats themselves contradict it."""
    first = an_order(sold)
    second = next(
        held
        for held in sold.diary.holds.values()
        if held.order and not held.refunded and held.user != first.user
    )
    place = sold.books.orders.index(one_of_sale(sold, second))
    second.bought = first.bought
    sold.books.orders[place] = replace(sold.books.orders[place], items=first.bought)


def forget_a_refund(sold):
    held = an_order(sold)
    held.refunded.update(held.bought)


def hold_a_seat_for_ever(sold):
    sku, balance = next(iter(sold.books.items.items()))
    sold.books.items[sku] = replace(balance, held=1, sold=0, free=0)


def lose_a_seat(sold):
    sold.books.items.pop(next(iter(sold.books.items)))


def make_a_seat_from_nothing(sold):
    sku, balance = next(iter(sold.books.items.items()))
    sold.books.items[sku] = replace(balance, stock=2, free=1, held=0, sold=1)


def drop_step(name):
    def drop(sold):
        """The first that is the only one of its kind for its hold: of a basket that was replaced
        the other would be left."""
        of_kind = [step for step in sold.books.steps if step.step == name]
        times = Counter(step.hold or step.user for step in of_kind)
        dropped = next(step for step in of_kind if times[step.hold or step.user] == 1)
        for steps in (sold.books.steps, sold.books.pushed):
            steps.remove(dropped)

    return drop


def swap_admissions(sold):
    places = [place for place, step in enumerate(sold.books.steps) if step.step == "admitted"]
    first, second = (sold.books.steps[place] for place in places[:2])
    for steps in (sold.books.steps, sold.books.pushed):
        steps[places[0]] = replace(first, user=second.user)
        steps[places[1]] = replace(second, user=first.user)


def take_another_seed(sold):
    sold.books.status = replace(sold.books.status, seed=sold.books.status.seed + "0")


def miss_a_push(sold):
    sold.books.pushed.pop(7)


def admit_who_never_was(sold):
    sold.diary.admitted["shop-0"] += 5


def tell_of_a_hold_that_is_not(sold):
    sold.diary.reserved("shop-1", "h1-ffff-0000000000000000", {"stalls-0001-01": 1})


def tell_cancelled_what_expired(sold):
    expired = {step.hold for step in sold.books.steps if step.step == "expired"}
    held = next(held for held in sold.diary.holds.values() if held.id in expired and not held.order)
    held.fate = Fate.CANCELLED


def contradict(sold):
    sold.diary.contradictions.append("told one thing, then another")


def fail_the_audit(sold):
    sold.books.audit = replace(sold.books.audit, ok=False)


def log_twice(sold):
    record = next(iter(sold.books.log.confirms))
    sold.books.log.confirms[record] += 1


def log_never(sold):
    sold.books.log.confirms.popitem()


def log_another_sum(sold):
    sold.books.log.audited["sold"] += 1


@pytest.mark.parametrize(
    ("forge", "finder"),
    [
        (drop_order, "orders"),
        (add_order, "orders"),
        (repeat_order, "orders"),
        (give_order_to_another, "orders"),
        (tell_no_one_of_an_order, "orders"),
        (sell_a_seat_to_two, "tickets"),
        (forget_a_refund, "orders"),
        (hold_a_seat_for_ever, "seats"),
        (lose_a_seat, "seats"),
        (make_a_seat_from_nothing, "seats"),
        (drop_step("confirmed"), "holds"),
        (drop_step("reserved"), "holds"),
        (drop_step("expired"), "seats"),
        (drop_step("joined"), "places"),
        (drop_step("admitted"), "line"),
        (swap_admissions, "line"),
        (take_another_seed, "line"),
        (miss_a_push, "ledger"),
        (admit_who_never_was, "places"),
        (tell_of_a_hold_that_is_not, "holds"),
        (tell_cancelled_what_expired, "holds"),
        (contradict, "answers"),
        (fail_the_audit, "audit"),
        (log_twice, "log"),
        (log_never, "log"),
        (log_another_sum, "log_audit"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_is_wrong_is_found(sold, forge, finder):
    forge(sold)
    assert finder in wrong(sold)


# --- the crowd ---


def test_a_seed_draws_the_same_crowd():
    times = Times.of(45)
    plans = draw(7, 2_000, times)
    assert plans == draw(7, 2_000, times)
    assert plans != draw(8, 2_000, times)
    kinds = Counter(plan.kind for plan in plans)
    assert kinds[Kind.OWN] == 8
    assert 0 < kinds[Kind.FARM] < 100
    assert len({plan.user for plan in plans}) == 2_000
    before = sum(plan.comes < times.opens for plan in plans)
    assert 0.5 < before / 2_000 < 0.6


# --- the command ---


def test_the_command_prints_a_verdict(tmp_path):
    data = tmp_path / "data"
    done = cli(
        *("demo", "sale", "--buyers", "60", "--seats", "10", "--seconds", "3", "--seed", "2"),
        *("--data", data),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^all [0-9,]+ comparisons agree$", done.stdout, re.M)
    assert "WRONG" not in done.stdout
    assert " came 60," in done.stderr, "plain lines where there is no terminal"
    assert "\x1b" not in done.stderr
    again = cli("demo", "sale", "--data", data)
    assert again.returncode == 2
    assert "is not empty" in again.stderr


def test_options_of_the_other_demo_are_refused():
    done = cli("demo", "--exit", "sale")
    assert done.returncode == 2
    assert "--exit" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_whoever_ends_it_leaves_no_server(number, code):
    command = [sys.executable, "-m", "rtserver", "demo", "sale", "--buyers", "200", "--seats", "20"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = []

        def came():
            lines.append(child.stderr.readline())
            return re.search(r" came [1-9]", lines[-1])

        eventually(came)
        child.send_signal(number)
        rest = child.communicate(timeout=20)
    finally:
        child.kill()
    assert child.returncode == code, lines + list(rest)
    assert "Traceback" not in rest[1]
    host, port = re.search(r"rt://([^:]+):(\d+)", "".join(lines)).groups()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)
