"""Both servers hear the same of sales, and the scripts of the peer keep the rules of one."""

from __future__ import annotations

import shutil

import msgpack
import pytest

from bench import sales
from bench.buyers import HOLD, NUMBER
from bench.contest import WrongState
from bench.peers import Redis
from bench.report import OURS, THEIRS
from rtserver.errors import SOLD_OUT
from rtserver.wire.frames import HEADER_BYTES


def bodies(batches):
    for data, replies, _ in batches:
        count = 0
        while data:
            whole = HEADER_BYTES + int.from_bytes(data[:HEADER_BYTES], "big")
            yield msgpack.unpackb(data[HEADER_BYTES:whole])
            data = data[whole:]
            count += 1
        assert count == replies


def users_of(batches):
    data = b"".join(batch.data for batch in batches)
    return [word.decode() for word in data.split(b"\r\n") if word.startswith(b"u:")]


@pytest.mark.parametrize(
    ("supply", "arguments", "method"),
    [
        (sales.refusals, (300, 128), "sale.reserve"),
        (sales.joins, (300, 128), "sale.join"),
        (sales.places, (40, 300, 128), "sale.place"),
    ],
)
def test_both_servers_hear_of_the_same_users(supply, arguments, method):
    ours = list(bodies(supply(OURS, *arguments)))
    assert {body[2] for body in ours} == {method}
    assert [body[3][1] for body in ours] == users_of(supply(THEIRS, *arguments))
    assert len(ours) == 300


def test_everybody_comes_once():
    for supply in (sales.refusals, sales.joins):
        users = [body[3][1] for body in bodies(supply(OURS, 300, 128))]
        assert len(set(users)) == 300


def test_how_a_refusal_begins():
    reply = msgpack.packb((1, 0, (SOLD_OUT.code, SOLD_OUT.name, "sold out", {"final": True}), None))
    assert reply[3:].startswith(sales.REFUSED[OURS])


@pytest.mark.parametrize("confirms", [True, False])
def test_a_visit_has_the_places_that_the_program_fills(confirms):
    ours, theirs = (sales.visit(who, "logged", confirms) for who in (OURS, THEIRS))
    (body,) = bodies([(ours.reserve, 1, 0)])
    assert body == [
        *(0, 0, "sale.reserve"),
        ["bench", f"u:{NUMBER}", {"ticket": 1}],
        {"ack": "logged"},
    ]
    assert theirs.reserve.count(NUMBER.encode()) == 2
    if confirms:
        (body,) = bodies([(ours.confirm, 1, 0)])
        assert body == [0, 1, "sale.confirm", [HOLD], {"ack": "logged"}]
        assert theirs.confirm.count(NUMBER.encode()) == 2
    else:
        assert ours.confirm is theirs.confirm is None


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    with Redis(tmp_path_factory.mktemp("redis"), None) as peer:
        yield peer


@pytest.fixture
def shop(redis):
    redis.ask("FLUSHALL")
    sales.open_sale(redis, 2)
    return redis


def reserve(peer, user, now=None):
    words = list(sales._reserve_words(user, "t"))
    words[8] = words[8] if now is None else str(now)
    return int(peer.ask(*words))


def confirm(peer, user):
    return int(peer.ask(*sales._confirm_words(user, "t")))


def test_the_scripts_sell_each_user_one_unit_and_no_more_than_there_are(shop):
    assert confirm(shop, "ann") == -3  # she holds nothing
    assert reserve(shop, "ann") == 1
    assert reserve(shop, "ann") == -2  # hers is held
    assert confirm(shop, "ann") == 1  # order
    assert confirm(shop, "ann") == -3
    assert reserve(shop, "ann") == -2  # hers is sold
    assert reserve(shop, "ben") == 1
    assert reserve(shop, "cem") == -1  # sold out
    assert confirm(shop, "ben") == 2
    sales.verify_theirs(shop, 2)


def test_the_scripts_do_not_sell_what_has_expired(shop):
    assert reserve(shop, "ann", now=1) == 1
    assert confirm(shop, "ann") == -4


def test_a_unit_without_a_buyer_is_found(shop):
    shop.ask("DECR", "bench:stock")
    with pytest.raises(WrongState, match="1 units are gone, 0 users have 0"):
        sales.verify_theirs(shop, 2)


def test_selling_out(shop):
    sales.sell_out(shop, 2)
    sales.verify_theirs(shop, 2)
    assert reserve(shop, "ann") == -1


def test_who_waits_is_counted(shop):
    shop.ask("ZADD", "bench:queue", "NX", "1", "ann")
    sales.verify_waiting(shop, 1)
    with pytest.raises(WrongState, match="1 wait, expected 2"):
        sales.verify_waiting(shop, 2)


def test_an_error_of_redis_is_told(redis):
    with pytest.raises(RuntimeError, match=r"EVALSHA: -NOSCRIPT"):
        redis.ask("EVALSHA", "0" * 40, "0")
    assert redis.ask("SET", "key", "value") == "OK"
    assert redis.ask("GET", "key") == "value"
