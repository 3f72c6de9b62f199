"""The compiled form and plain Python agree on sales, byte for byte: replies, records, state.

The streams know the ids of holds, because both forms make the same ones from the same secret.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.compiled import twin
from rtserver.wire.codec import pack
from tests.transport.test_agreement import Side, mostly, wide
from tests.world import content

pytestmark = pytest.mark.skipif(
    twin("rtserver.transport.binary") is None,
    reason="SKIPPED: there is no compiled form here to compare with",
)

SALES = ["s", "t", "nope"]
USERS = ["ann", "bob", "cid", "dora"]
ODD_USERS = ["", "two words", "é", "a,b", None, 7, "x" * 255, "x" * 256, "\x7f", "$x"]
ITEMS = ["a", "b", "limited", "A1", "none"]
ODD_BASKETS = [{}, {"a": 0}, {"a": 1, "b": 1}, {"a": 2**20}, {"a": "1"}, None, [], {"a": -1}]
REFERENCES = [None, "r1", "r2", "é", "", "x" * 255, "x" * 256, "tab\t", 5]

sale = mostly(["s", "s", "t"], SALES)
user = mostly(USERS, ODD_USERS)
basket = st.one_of(
    st.builds(lambda item, n: {item: n}, st.sampled_from(ITEMS), st.integers(1, 3)),
    st.builds(lambda item: {item: 1}, st.sampled_from(["a", "b"])),
    mostly([{"a": 1}], ODD_BASKETS),
)
# Holds are named by their number; the test puts the id in its place.
hold = st.builds(
    lambda number, kind: f"{kind}{number}", st.integers(1, 12), mostly(["h"], ["o", "x"])
)
reference = mostly([None, "r1"], REFERENCES)

QUEUE = {"rate_per_s": 50, "active_max": 2, "pass_ms": 30, "grace_ms": 10}
queued = mostly(["q", "full", "early"], ["asks", "s", "nope"])

calls = st.one_of(
    st.tuples(st.just("sale.join"), st.tuples(queued, user).map(list)),
    st.tuples(st.just("sale.join"), st.tuples(queued, user).map(list)),
    st.tuples(st.just("sale.join"), st.tuples(queued, user, st.none()).map(list)),
    st.tuples(st.just("sale.leave"), st.tuples(queued, user).map(list)),
    st.tuples(st.just("sale.place"), st.tuples(queued, user).map(list)),
    st.tuples(st.sampled_from(["sale.pause", "sale.open"]), st.tuples(queued).map(list)),
    st.tuples(st.just("sale.close"), st.tuples(queued).map(list)),
    st.tuples(
        st.just("sale.configure"),
        st.tuples(queued, *[st.none()] * 4, st.just({"active_max": 3})).map(list),
    ),
    st.tuples(st.just("sale.reserve"), st.tuples(sale, user, basket).map(list)),
    st.tuples(st.just("sale.reserve"), st.tuples(sale, user, basket).map(list)),
    st.tuples(
        st.just("sale.reserve"),
        st.tuples(sale, user, basket, st.none(), st.none(), st.one_of(st.none(), hold)).map(list),
    ),
    st.tuples(st.just("sale.confirm"), st.tuples(hold).map(list)),
    st.tuples(st.just("sale.confirm"), st.tuples(hold, reference).map(list)),
    st.tuples(
        st.just("sale.confirm"),
        st.tuples(hold, reference, st.one_of(st.none(), basket), st.just("retake")).map(list),
    ),
    st.tuples(st.just("sale.cancel"), st.tuples(hold).map(list)),
    st.tuples(st.just("sale.extend"), st.tuples(hold, st.integers(1, 40)).map(list)),
    st.tuples(st.just("sale.refund"), st.tuples(hold).map(list)),
    st.tuples(st.just("sale.get"), st.tuples(hold).map(list)),
    st.tuples(st.just("sale.restock"), st.tuples(sale, st.just({"a": 2})).map(list)),
    st.tuples(st.sampled_from(["sale.pause", "sale.open"]), st.tuples(sale).map(list)),
    st.tuples(st.just("sale.configure"), st.tuples(sale, st.integers(0, 3)).map(list)),
    st.tuples(st.just("sale.status"), st.tuples(sale).map(list)),
    st.tuples(st.just("sale.close"), st.tuples(st.just("t"), st.booleans()).map(list)),
    st.tuples(st.just("sale.delete"), st.tuples(st.just("t")).map(list)),
)
ACKS = [None, {}, {"ack": "synced"}, {"ack": "logged"}, {"idempotency_key": "k"}, {"as_user": "x"}]
options = mostly([...] * 10 + ACKS, [{"ack": "never"}, 5, []])


@st.composite
def request(draw: st.DrawFn) -> tuple[list[object], bool]:
    method, params = draw(calls)
    body = [0, draw(st.integers(0, 300)), method, params]
    given_options = draw(options)
    if given_options is not ...:
        body.append(given_options)
    return body, draw(st.integers(0, 9)) == 0


def with_ids(body: list[object], side: Side) -> list[object]:
    """The same request with the ids of the sale `s` in place of the numbers of its holds."""
    found = side.world.store.sales.get("s")
    params = body[3]
    assert isinstance(params, list)
    for place, value in enumerate(params):
        if type(value) is str and value[:1] in "hox" and value[1:].isdigit():
            number = int(value[1:])
            tag = found.book.tag_of(number)
            params = [
                *params[:place],
                f"{value[0]}{1:x}-{number:x}-{tag:016x}",
                *params[place + 1 :],
            ]
    return [*body[:3], params, *body[4:]]


ITEM_TERMS = {
    "a": 3,
    "b": 2,
    "limited": {"stock": 4, "per_user": 1},
    "A1": {"stock": 1, "row": "A", "seat": 1},
}


@settings(deadline=None, max_examples=200)
@given(
    requests=st.lists(request(), min_size=10, max_size=40),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=10),
    who=st.tuples(
        st.sampled_from([(None, None), ("ann", None), (None, "shop")]),
        st.sampled_from([None, "192.0.2.7"]),
    ),
    full=st.sets(st.integers(0, 20), max_size=4),
)
def test_both_forms_say_log_and_hold_the_same(requests, sizes, who, full):
    with pytest.MonkeyPatch.context() as monkeypatch:
        sides = []
        for pure in (False, True):
            (user, service), address = who
            side = Side(monkeypatch, pure=pure, user=user)
            side.connection.service = service
            side.connection.address = address
            side.world.call("sale.create", "s", ITEM_TERMS, 2, 25)
            side.world.call("sale.create", "t", {"a": 2}, 0, 10)
            later = side.world.now + 60
            side.world.call("sale.create", "q", {"a": 1}, 1, 10, None, None, QUEUE)
            side.world.call(
                "sale.create", "full", {"a": 9}, 1, 10, None, None, {**QUEUE, "active_max": 1}
            )
            side.world.call("sale.create", "early", {"a": 1}, 1, 10, later, None, QUEUE)
            asking = {**QUEUE, "joins_per_user": 1}
            side.world.call("sale.create", "asks", {"a": 1}, 1, 10, None, None, asking)
            sides.append(side)
        turn = 0
        while requests:
            size = sizes[turn % len(sizes)]
            batch, requests = requests[:size], requests[size:]
            said = [
                side.turn(
                    b"".join(_framed(with_ids(body, side), wide_form) for body, wide_form in batch),
                    full=turn in full,
                )
                for side in sides
            ]
            assert said[0] == said[1]
            assert said[0][1] is None
            turn += 1
        compiled, plain = (side.world for side in sides)
        assert compiled.metrics.errors == plain.metrics.errors
        assert [one.summary() for one in compiled.store.sales.all()] == [
            one.summary() for one in plain.store.sales.all()
        ]
        assert compiled.blocks == plain.blocks
        assert content(compiled.store) == content(plain.store)
        monkeypatch.setenv("RTSERVER_PURE", "0")
        compiled.assert_same()
        monkeypatch.setenv("RTSERVER_PURE", "1")
        plain.assert_same()


def _framed(body: list[object], wide_form: bool) -> bytes:
    packed = wide(body) if wide_form else pack(body)
    return struct.pack(">I", len(packed)) + packed
