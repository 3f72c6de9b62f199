"""Rows with a keeper and signed rows, on the way through dispatch, log and snapshot.

The commands are made up: a shop is a counter that lives until it is closed, and what was bought
in it is remembered as long.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.commands.kinds import NAME
from rtserver.commands.table import ROLES, Command, Effect, Param
from rtserver.errors import CONFLICT, NOT_FOUND, RtError
from rtserver.limits import Limits
from rtserver.session.identity import Identity
from tests.world import Peer, Refused, World

CLIENT_AGE = 3_600_000


def _known(store, shop):
    if store.counters.get(0, shop) == 0:
        raise RtError(NOT_FOUND, f"there is no shop {shop!r}")


def _open(store, ctx, shop):
    if store.counters.get(ctx.now, shop):
        raise RtError(CONFLICT, f"there is a shop {shop!r}")
    store.counters.add(ctx.now, shop, 1)
    return ctx.new_id()


def _buy(store, ctx, shop, what):
    _known(store, shop)
    return [store.counters.add(ctx.now, shop, 1), what, ctx.caller_name, ctx.service]


def _close(store, ctx, shop):
    _known(store, shop)
    store.counters.set(ctx.now, shop, 0)
    store.answers.forget_owner(f"shop {shop}")


def _keeper(store, args):
    return f"shop {args[0]}" if store.counters.get(0, args[0]) else None


class Shops(World):
    """A world with three more rows."""

    def __init__(self, limits=None):
        super().__init__(limits)
        shop, what = Param("shop", NAME), Param("what", NAME, None)
        for name, handler, params in [
            ("shop.open", _open, [shop]),
            ("shop.buy", _buy, [shop, what]),
            ("shop.close", _close, [shop]),
        ]:
            self.table[name] = Command(
                name,
                Effect.WRITE,
                handler,
                params=params,
                returns="data",
                summary="",
                right="user",
                key="shop",
                ack="synced",
                signed=True,
                keeper=_keeper,
            )
        self.back = Peer()
        self.back_end = self.connect(self.back)
        self.back_end.identify(Identity(ROLES["service"], service="till"))

    def buy(self, what, key, **options):
        return self.call("shop.buy", "a", what, idempotency_key=key, **options)

    def kept(self):
        return self.store.answers.owners.kept


@pytest.fixture
def world():
    world = Shops()
    yield world
    world.assert_same()


# --- keys for life ---


def test_a_key_lasts_as_long_as_its_owner(world):
    opened = world.call("shop.open", "a", idempotency_key="o")
    first = world.buy("x", "k")
    world.advance(10 * CLIENT_AGE)
    assert world.buy("x", "k") == first
    assert world.call("shop.open", "a", idempotency_key="o") == opened
    assert world.call("counter.get", "a") == 2
    assert world.kept() == 2
    assert world.call("shop.close", "a") is None
    assert world.kept() == 0
    with pytest.raises(Refused, match="not_found"):
        world.buy("x", "k")
    assert world.call("shop.open", "a", idempotency_key="o") != opened


def test_what_ends_an_owner_is_remembered_by_age(world):
    world.call("shop.open", "a")
    for _ in range(2):
        assert world.call("shop.close", "a", idempotency_key="c") is None
    assert (world.kept(), len(world.store.answers)) == (0, 1)
    world.advance(600_000)
    with pytest.raises(Refused, match="not_found"):
        world.call("shop.close", "a", idempotency_key="c")


def test_a_key_means_one_call_whatever_the_command(world):
    world.call("shop.open", "a")
    world.buy("x", "k")
    world.call("counter.add", "b", idempotency_key="l")
    for method, args, key in [
        ("shop.buy", ["a", "y"], "k"),
        ("counter.add", ["b"], "k"),
        ("shop.buy", ["a", "x"], "l"),
    ]:
        with pytest.raises(Refused, match="key_reused"):
            world.call(method, *args, idempotency_key=key)


def test_numbers_of_a_client_last_as_long_too(world):
    world.call("shop.open", "a")
    world.buy("x", ["c", 1, 0])
    second = world.buy("y", ["c", 2, 1])
    world.call("counter.add", "b", idempotency_key=["d", 1, 0])
    world.advance(CLIENT_AGE)
    world.advance(CLIENT_AGE)
    with pytest.raises(Refused, match="duplicate"):
        world.buy("x", ["c", 1, 0])
    assert world.buy("y", ["c", 2, 1]) == second
    assert world.call("counter.add", "b", idempotency_key=["d", 1, 0]) == 2


def test_the_two_tables_are_full_each_for_itself():
    world = Shops(Limits(idempotency_keys_max=1, sale_keys_max=1))
    world.call("shop.open", "a", idempotency_key="o")
    world.call("counter.add", "b", idempotency_key="k")
    with pytest.raises(Refused, match=r"overloaded.*sale_keys_max"):
        world.buy("x", "l")
    with pytest.raises(Refused, match=r"overloaded.*idempotency_keys_max"):
        world.call("counter.add", "b", idempotency_key="m")
    assert world.buy("x", None)[0] == 2
    world.call("shop.close", "a")
    assert world.call("shop.open", "c", idempotency_key="l")
    assert world.store.totals()["sale_keys"] == 1
    world.assert_same()


def test_the_memory_of_a_closed_shop_comes_back_in_slices(world):
    world.call("shop.open", "a")
    for number in range(50):
        world.buy("x", f"k{number}")
    world.call("shop.close", "a")
    text = world.store.answers.owners._text
    assert 0 < len(text) < 50
    while len(text):
        before = len(text)
        world.advance(1)
        assert before - len(text) <= 20


# --- signed rows ---


def call_as_back_end(world, method, *args, **options):
    return world.call_on(world.back_end, world.back, method, *args, **options)


def test_a_signed_record_says_which_back_end_called(world):
    call_as_back_end(world, "shop.open", "a")
    bought = call_as_back_end(world, "shop.buy", "a", "x")
    assert bought == [2, "x", "till", "till"]
    assert world.records()[-1][3] == {"v": "till"}
    bought = call_as_back_end(world, "shop.buy", "a", "x", as_user="ann")
    assert bought == [3, "x", "ann", "till"]
    assert world.records()[-1][3] == {"u": "ann", "v": "till"}
    call_as_back_end(world, "counter.set", "b", 1)
    assert len(world.records()[-1]) == 3


def test_replay_sees_who_called(world):
    call_as_back_end(world, "shop.open", "a")
    first = call_as_back_end(world, "shop.buy", "a", "x", idempotency_key="k")
    assert first[3] == "till"
    result = world.store.answers.owners.find("service till\0k").result
    for store in (world.replayed(), world.restored()):
        assert store.answers.owners.find("service till\0k").result == result


# --- both, across crashes ---

KEYS = (
    st.none()
    | st.sampled_from(["k1", "k2"])
    | st.tuples(st.just("c"), st.integers(1, 4), st.just(0)).map(list)
)
STEPS = st.one_of(
    st.tuples(st.just("buy"), st.sampled_from("ab"), st.sampled_from("xy"), KEYS),
    st.tuples(st.just("close"), st.sampled_from("ab")),
    st.tuples(st.just("advance"), st.sampled_from([1, 600_000, CLIENT_AGE])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_a_key_never_buys_twice_in_one_shop(steps):
    world = Shops()
    answers = {}
    for step in steps:
        if step[0] == "advance":
            world.advance(step[1])
        elif step[0] == "close":
            shop = step[1]
            if world.call("counter.get", shop):
                world.call("shop.close", shop)
                answers = {key: one for key, one in answers.items() if one[0][0] != shop}
        else:
            buy(world, answers, *step[1:])
    world.assert_same()


def buy(world, answers, shop, what, key):
    if not world.call("counter.get", shop):
        world.call("shop.open", shop)
    options = {} if key is None else {"idempotency_key": key}
    known = answers.get(str(key))
    if known is not None and known[0] == (shop, what):
        assert world.call("shop.buy", shop, what, **options) == known[1]
        return
    # What a client heard is known for a while although its shop was closed: no second buy.
    if known is not None or (type(key) is list and is_known(world, key)):
        with pytest.raises(Refused, match="key_reused"):
            world.call("shop.buy", shop, "z", **options)
        return
    value = world.call("shop.buy", shop, what, **options)
    if key is not None:
        answers[str(key)] = ((shop, what), value)


def is_known(world, key):
    """Whether a number of a client is still remembered."""
    return world.store.answers._find(world.now, "", key) is not None
