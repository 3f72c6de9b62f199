"""A round counts only when the server holds what it acknowledged."""

from __future__ import annotations

import pytest

from bench import contest
from bench.contest import Round, WrongState, check_counters, check_members
from bench.load import Outcome
from bench.report import OURS, THEIRS, Result
from bench.requests import frame
from bench.supplies import increments, name_of


class Liar:
    """A server that says what the test wants."""

    def __init__(self):
        self.total, self.counters, self.members, self.errors = 0, 3, 5, {}

    def ask(self, line):
        assert line == "server.stats"
        state = {
            "counter_total": str(self.total),
            "counters": self.counters,
            "members": self.members,
        }
        return {"state": state, "errors": self.errors}


def a_round(operations, busy=0.1, waited=0.0):
    outcome = Outcome(operations, 1, 0, 2.0, 1, 1, 1, 1, 1, 0, busy, 0.5, waited)
    return Round(outcome, operations)


def test_counters_hold_what_was_acknowledged_since_the_check_was_made():
    liar = Liar()
    liar.total = 100
    check = check_counters(liar, 3)
    liar.total += 10
    check(a_round(10))
    liar.total += 9
    with pytest.raises(WrongState, match="120 was acknowledged, the counters hold 119"):
        check(a_round(10))


def test_only_the_share_that_are_increments_is_expected():
    liar = Liar()
    check = check_counters(liar, 3, share=77 / 128)
    liar.total = 77 * 1_001
    check(a_round(128 * 1_001))


@pytest.mark.parametrize(("field", "value"), [("errors", {"overloaded": 1}), ("counters", 4)])
def test_a_refusal_and_a_counter_too_many_are_found(field, value):
    liar = Liar()
    check = check_counters(liar, 3)
    setattr(liar, field, value)
    with pytest.raises(WrongState):
        check(a_round(0))


def test_a_board_keeps_its_members():
    liar = Liar()
    check = check_members(liar, 5)
    check(a_round(10))
    liar.members = 4
    with pytest.raises(WrongState, match="4 members, expected 5"):
        check(a_round(10))


def test_rates_are_by_time_and_by_processor_time():
    result = Result("counter", "")
    contest.rates(result, "increments", {OURS: [a_round(100)], THEIRS: [a_round(400)]})
    found = {(made.quantity, made.subject): made.samples for made in result.measures}
    assert found["increments", OURS] == [50]
    assert found["increments", THEIRS] == [200]
    assert found["increments, by processor time", OURS] == [200]
    assert "LIMIT" not in result.notes[0]


def test_who_else_is_in_the_numbers_is_said():
    result = Result("counter", "")
    rounds = {OURS: [a_round(100, waited=0.5)], THEIRS: [a_round(100), a_round(9, busy=0.99)]}
    contest.rates(result, "increments", rounds)
    assert result.notes == [
        "increments, of a round at most: rtserver: generator busy 10%, core taken by others 25%;"
        " redis: generator busy 99%, core taken by others 0%; THE GENERATOR WAS THE LIMIT"
    ]


def test_the_sample_that_canned_replies_answer_has_the_size_of_every_request():
    assert contest._SAMPLE[OURS][0] == frame(0, "counter.add", name_of(0))
    for subject in (OURS, THEIRS):
        size = len(contest._SAMPLE[subject][0])
        assert all(len(b.data) == size * b.replies for b in increments(subject, 200, 128))
