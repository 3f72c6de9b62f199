"""Dispatch: shapes, rights, idempotency keys, sources, options, room in the log."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.commands.dispatch import BrokenState
from rtserver.commands.replay import Replay, ReplayFailed
from rtserver.errors import ProtocolError
from rtserver.limits import Limits
from rtserver.state.answers import CLIENT_KEYS_MAX
from rtserver.state.store import Store
from tests.world import Peer, Refused, World


@pytest.fixture
def world():
    world = World()
    yield world
    world.assert_same()


# --- shapes and rights ---


@pytest.mark.parametrize(
    "body",
    [
        None,
        7,
        {},
        [],
        [0],
        [0, 1, "counter.add"],
        [0, -1, "counter.add", []],
        [0, 2**64, "counter.add", []],
        [0, "1", "counter.add", []],
        [0, None, "counter.add", []],
        [0, 1, None, []],
        [0, 1, b"counter.add", []],
        [0, 1, "counter.add", [], {}, 1],
        [1, 1, None, 5],
        [2, "counter.add"],
        [2, 5, []],
        [3, 1, "counter.add", []],
    ],
)
def test_what_is_no_request_is_a_protocol_error(world, body):
    with pytest.raises(ProtocolError):
        world.dispatcher.frame(world.connection, body, 10)


def test_a_reused_id_is_answered_twice(world):
    world.open_turn()
    for _ in range(2):
        world.dispatcher.frame(world.connection, [0, 9, "counter.add", ["a"]], 10)
    world.end_turn()
    assert world.peer.take() == [[1, 9, None, 1], [1, 9, None, 2]]


def test_params_by_name_ignore_unknown_fields(world):
    world.open_turn()
    params = {"delta": 5, "name": "a", "later": [1]}
    world.dispatcher.frame(world.connection, [0, 1, "counter.add", params, {"later": 1}], 10)
    world.end_turn()
    assert world.peer.take() == [[1, 1, None, 5]]


def test_a_notification_is_not_answered_but_its_error_is_counted(world):
    world.open_turn()
    world.dispatcher.frame(world.connection, [2, "counter.add", ["a", 3]], 10)
    world.dispatcher.frame(world.connection, [2, "counter.add", ["a b"]], 10)
    world.end_turn()
    assert world.peer.take() == []
    assert world.call("counter.get", "a") == 3
    assert world.metrics.notification_errors == 1


@pytest.mark.parametrize("method", ["nope", "counter", "timers.fire", "counter.sum", "log.totals"])
def test_unknown_and_internal_methods(world, method):
    with pytest.raises(Refused, match="unknown_method"):
        world.call(method, 1)


def test_a_near_name_is_proposed(world):
    with pytest.raises(Refused, match=r"did you mean board\.submit\?"):
        world.call("board.sumbit", 1)


def test_params_are_an_array_or_a_map(world):
    world.open_turn()
    world.dispatcher.frame(world.connection, [0, 1, "counter.add", "a"], 10)
    world.end_turn()
    assert world.peer.take()[0][2][1] == "invalid_params"


def test_roles_are_given_up_not_taken(world):
    peer = Peer()
    connection = world.connect(peer, role="service")
    with pytest.raises(Refused, match="forbidden"):
        world.call_on(connection, peer, "server.stats")
    with pytest.raises(Refused, match="forbidden"):
        world.call_on(connection, peer, "server.hello", None, None, None, "admin")
    world.call_on(connection, peer, "server.hello", None, "ann", None, "user")
    with pytest.raises(Refused, match="needs the role service"):
        world.call_on(connection, peer, "counter.add", "a")
    with pytest.raises(Refused, match="forbidden"):
        world.call_on(connection, peer, "server.hello", None, None, None, "service")


# --- idempotency ---


def test_the_first_success_is_replayed(world):
    first = world.call("counter.add", "a", 5, idempotency_key="k")
    assert world.call("counter.add", "a", 5, idempotency_key="k") == first == 5
    assert world.call("counter.add", "a", idempotency_key="other") == 6
    assert world.call("counter.get", "a") == 6


def test_another_call_under_the_key_is_refused(world):
    world.call("counter.add", "a", 5, idempotency_key="k")
    for method, args in [("counter.add", ["a", 6]), ("counter.set", ["a", 5])]:
        with pytest.raises(Refused, match="key_reused"):
            world.call(method, *args, idempotency_key="k")


def test_defaults_are_resolved_before_calls_are_compared(world):
    world.call("counter.add", "a", idempotency_key="k")
    assert world.call("counter.add", "a", 1, None, idempotency_key="k") == 1


def test_a_refusal_is_not_remembered(world):
    with pytest.raises(Refused, match="not_found"):
        world.call("board.delete", "b", idempotency_key="k")
    world.call("board.create", "b")
    assert world.call("board.delete", "b", idempotency_key="k") == {"deleted": True}
    assert world.call("board.delete", "b", idempotency_key="k") == {"deleted": True}


def test_keys_are_scoped_to_who_acts(world):
    world.call("counter.add", "a", idempotency_key="k")
    assert world.call("counter.add", "a", idempotency_key="k", as_user="ann") == 2
    assert world.call("counter.add", "a", idempotency_key="k", as_user="ann") == 2
    world.call("server.hello", None, "ann")
    assert world.call("counter.add", "a", idempotency_key="k") == 2


def test_a_key_is_forgotten_after_its_age_and_not_before(world):
    world.call("counter.add", "a", idempotency_key="k")
    world.advance(599_999)
    assert world.call("counter.add", "a", idempotency_key="k") == 1
    world.advance(1)
    assert len(world.store.answers) == 0
    assert world.call("counter.add", "a", idempotency_key="k") == 2


def test_a_full_table_refuses_keyed_writes_only():
    world = World(Limits(idempotency_keys_max=2))
    world.call("counter.add", "a", idempotency_key="1")
    world.call("counter.add", "a", idempotency_key="2")
    with pytest.raises(Refused, match=r"overloaded.*idempotency_keys_max"):
        world.call("counter.add", "a", idempotency_key="3")
    assert world.call("counter.add", "a", idempotency_key="2") == 2
    assert world.call("counter.add", "a") == 3
    world.advance(600_000)
    assert world.call("counter.add", "a", idempotency_key="3") == 4
    world.assert_same()


def test_client_keys_are_forgotten_when_done(world):
    assert world.call("counter.add", "a", idempotency_key=["c", 1, 0]) == 1
    assert world.call("counter.add", "a", idempotency_key=["c", 1, 0]) == 1
    assert world.call("counter.add", "a", idempotency_key=["c", 2, 1]) == 2
    assert len(world.store.answers) == 1
    with pytest.raises(Refused, match="duplicate"):
        world.call("counter.add", "a", idempotency_key=["c", 1, 0])
    assert world.call("counter.add", "a", idempotency_key=["d", 1, 0]) == 3
    world.advance(86_400_000)
    assert len(world.store.answers) == 0


def test_a_client_with_many_unheard_answers_goes_on_when_it_reports_them():
    world = World()
    answers = world.store.answers
    for number in range(1, CLIENT_KEYS_MAX + 1):
        answers.remember(world.now, "", ["c", number, 0], b"", b"")
    with pytest.raises(Refused, match="not reported done"):
        world.call("counter.add", "a", idempotency_key=["c", CLIENT_KEYS_MAX + 1, 0])
    key = ["c", CLIENT_KEYS_MAX + 1, CLIENT_KEYS_MAX]
    world.dispatcher.ctx.now = world.now
    answers.check_room("", key)


def test_a_call_that_cannot_be_packed_is_refused(world):
    with pytest.raises(Refused, match="invalid_params"):
        world.call_frame([0, 1, "counter.add_many", [[[2**70, 1]]], {"idempotency_key": "k"}])


def test_a_vector_with_failed_items_replays_the_same_answer(world):
    items = [["a", 1], ["b c", 1], ["a", 2]]
    first = world.call("counter.add_many", items, idempotency_key="k")
    assert world.call("counter.add_many", items, idempotency_key="k") == first
    found = world.replayed().answers
    again = found._text.get("\0k")
    assert again.result == world.store.answers._text.get("\0k").result


@pytest.mark.parametrize(
    "options",
    [
        {"idempotency_key": ""},
        {"idempotency_key": 5},
        {"idempotency_key": ["c", 1]},
        {"idempotency_key": ["c", 1, 1]},
        {"idempotency_key": ["c", -1, -2]},
        {"ack": "disk"},
        {"timeout_ms": 0},
        {"source": ["s", 0]},
        {"source": ["s", "0", 1]},
        {"as_user": "a b"},
    ],
)
def test_wrong_options_are_named(world, options):
    with pytest.raises(Refused, match="invalid_option"):
        world.call("counter.add", "a", **options)


# --- sources ---


def test_a_source_offset_is_applied_once(world):
    def add(*source):
        return world.call("counter.add", "a", source=list(source))

    assert add("flights", 0, 10) == 1
    with pytest.raises(Refused, match="duplicate") as refused:
        add("flights", 0, 10)
    assert refused.value.details == {"stored": 10}
    with pytest.raises(Refused, match="duplicate"):
        add("flights", 0, 9)
    assert add("flights", 1, 9) == 2
    assert add("flights", 0, 11) == 3


def test_a_duplicate_is_answered_only_when_the_original_is_synced(world):
    world.open_turn()
    for _ in range(2):
        world.send("counter.add", "a", options={"source": ["s", 0, 1], "ack": "synced"})
    world.end_turn()
    assert world.peer.take() == []
    world.sync()
    first, second = world.peer.take()
    assert first[3] == 1
    assert second[2][1] == "duplicate"


def test_a_refused_command_does_not_move_its_source(world):
    with pytest.raises(Refused, match="not_found"):
        world.call("board.delete", "b", source=["s", 0, 1])
    world.call("board.create", "b")
    world.call("board.delete", "b", source=["s", 0, 1])


# --- acting for others, deadlines, syncs ---


def test_acting_for_another_needs_the_service_role(world):
    world.call("channel.publish", "open:1", 1, as_user="ann", address="10.0.0.1")
    assert world.records()[-1][3] == {"u": "ann", "a": "10.0.0.1"}
    assert world.call("channel.history", "open:1")["messages"][0]["sender"] == "ann"


def test_a_service_reads_for_a_user_too(world):
    world.call("sale.create", "s", {"a": 5})
    hold = world.call("sale.reserve", "s", None, {"a": 1}, as_user="ann")
    assert world.call("sale.place", "s", as_user="ann")["holds"] == [hold]
    assert world.call("sale.place", "s", as_user="bob")["holds"] == []
    with pytest.raises(Refused, match="invalid_params"):
        world.call("sale.place", "s")


def test_a_user_reads_for_nobody_else(world):
    world.call("sale.create", "s", {"a": 5})
    world.call("server.hello", None, "ann", None, "user")
    for options in ({"as_user": "bob"}, {"as_user": "ann"}, {"address": "10.0.0.1"}):
        with pytest.raises(Refused, match="forbidden"):
            world.call("sale.place", "s", **options)


def test_past_its_timeout_nothing_is_done(world):
    world.connection.last_heard_ms = world.now - 50
    with pytest.raises(Refused, match="deadline_exceeded"):
        world.call("counter.add", "a", timeout_ms=50)
    assert world.call("counter.add", "a", timeout_ms=51) == 1


def test_a_synced_reply_waits_and_later_ones_do_not(world):
    world.open_turn()
    world.send("counter.add", "a", options={"ack": "synced"})
    world.send("counter.add", "a")
    world.end_turn()
    assert [frame[3] for frame in world.peer.take()] == [2]
    assert world.connection.waiting == 1
    world.sync()
    assert [frame[3] for frame in world.peer.take()] == [1]
    assert world.connection.waiting == 0


# --- room in the log and failures ---


def test_without_room_writes_are_refused_before_anything_is_touched(world):
    world.open_turn()
    world.dispatcher.journal.limit = 1_500
    for _ in range(100):
        world.send("channel.publish", "a", "x" * 50)
    world.send("counter.get", "a")
    world.end_turn()
    frames = world.peer.take()
    refused = [frame[2][1] for frame in frames if frame[2]]
    assert set(refused) == {"disk_full"}
    assert frames[-1][3] == 0
    published = len(frames) - len(refused) - 1
    assert world.store.channels.get("a").history.top == published >= 1


def test_an_unexpected_error_in_a_write_stops_everything(world):
    class Broken:
        def add(self, *_args):
            raise ZeroDivisionError

    counters = world.store.counters
    world.store.counters = Broken()
    with pytest.raises(BrokenState):
        world.send("counter.add", "a")
    world.store.counters = counters


def test_a_result_that_cannot_be_kept_under_its_key_stops_everything():
    """What was done is not remembered: the same key would do it once more."""
    world = World()
    counters = world.store.counters

    class Broken:
        def add(self, *args):
            counters.add(*args)
            return 2**64

    world.store.counters = Broken()
    with pytest.raises(BrokenState):
        world.send("counter.add", "a", options={"idempotency_key": "k"})


def test_an_unexpected_error_in_a_read_is_an_error_reply(world, caplog):
    counters = world.store.counters
    world.store.counters = None
    with pytest.raises(Refused, match="internal_error"):
        world.call("counter.get", "a")
    world.store.counters = counters
    assert "counter.get failed" in caplog.text


def test_replay_refuses_records_of_a_newer_program(world):
    replay = Replay(world.table, Store())
    for record in (["future.command", 1, []], ["counter.set", 2, ["a", 1]]):
        with pytest.raises(ReplayFailed, match="newer"):
            replay.apply(record, 1, world.now)


def test_replay_stops_at_a_record_that_fails(world):
    replay = Replay(world.table, Store())
    with pytest.raises(ReplayFailed, match=r"record 7 \(board\.delete version 1\) fails"):
        replay.apply(["board.delete", 1, ["missing"]], 7, world.now)


def test_replay_compares_totals(world):
    world.call("counter.add", "a")
    totals = world.store.totals()
    Replay(world.table, world.replayed()).apply(["log.totals", 1, [totals]], 9, world.now)
    with pytest.raises(ReplayFailed, match="TotalsDiffer"):
        Replay(world.table, Store()).apply(["log.totals", 1, [totals]], 9, world.now)


KEYS = (
    st.none()
    | st.sampled_from(["k1", "k2"])
    | st.tuples(st.just("c"), st.integers(1, 6), st.just(0)).map(list)
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2), KEYS), max_size=30))
def test_keyed_writes_happen_once_also_across_a_crash(calls):
    world = World()
    oracle = {"a": 0, "b": 0}
    answers: dict[str, tuple[tuple[str, int], int]] = {}
    for name, delta, key in calls:
        known = answers.get(str(key)) if key else None
        options = {"idempotency_key": key} if key else {}
        if known is not None and known[0] != (name, delta):
            with pytest.raises(Refused, match="key_reused"):
                world.call("counter.add", name, delta, **options)
            continue
        value = world.call("counter.add", name, delta, **options)
        if known is not None:
            assert value == known[1]
            continue
        oracle[name] += delta
        assert value == oracle[name]
        if key:
            answers[str(key)] = ((name, delta), value)
    world.assert_same()
