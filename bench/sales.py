"""What the workloads of sales send, and how both servers are set up for it.

The peer is redis as a shop would use it: one script reserves and one confirms, called by their
SHA-1, each with as few commands as the same guarantees need. Who bought is remembered in a set. A
hold is a member of a sorted set that names user and token, scored by its deadline; an order is a
record at the end of a list. Whatever gives back what has expired would be one more program, which
does not run here, and nothing expires. The queue of redis is a sorted set by arrival.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator

import msgpack

from bench.buyers import HOLD, NUMBER, Visit
from bench.contest import FRAMING, WrongState
from bench.peers import Redis, Rtserver
from bench.report import OURS, THEIRS
from bench.requests import Batch, command, frame
from bench.supplies import in_batches
from rtserver.errors import SOLD_OUT

__all__ = [
    "REFUSED",
    "joins",
    "open_queue",
    "open_sale",
    "places",
    "refusals",
    "sell_out",
    "verify_ours",
    "verify_theirs",
    "verify_waiting",
    "visit",
]

_SALE, _ITEM = "bench", "ticket"
_STOCK, _BUYERS, _HOLDS, _ORDERS, _QUEUE = (
    f"{_SALE}:{what}" for what in ("stock", "buyers", "holds", "orders", "queue")
)
_HOLD_MS = 3_600_000  # nothing expires while something is measured
_DAY_MS = 86_400_000
_SEED = 20130104

_RESERVE = """
if tonumber(redis.call('GET', KEYS[1])) < 1 then return -1 end
if redis.call('SADD', KEYS[2], ARGV[1]) == 0 then return -2 end
redis.call('DECR', KEYS[1])
redis.call('ZADD', KEYS[3], ARGV[3] + ARGV[4], ARGV[1] .. ':' .. ARGV[2])
return 1
"""
_CONFIRM = """
local hold = ARGV[1] .. ':' .. ARGV[2]
local deadline = redis.call('ZSCORE', KEYS[1], hold)
if not deadline then return -3 end
if tonumber(deadline) <= tonumber(ARGV[3]) then return -4 end
redis.call('ZREM', KEYS[1], hold)
return redis.call('RPUSH', KEYS[2], hold .. ':' .. ARGV[3])
"""

# How a reply begins that says so, a frame behind its id.
REFUSED = {
    OURS: b"\x94" + msgpack.packb(SOLD_OUT.code) + msgpack.packb(SOLD_OUT.name),
    THEIRS: b":-1\r",
}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _user(number: int | str) -> str:
    """By number, or by what stands for its digits."""
    return f"u:{number:08}" if isinstance(number, int) else f"u:{number}"


# --- one request of either server ---


def _sha(script: str) -> str:
    return hashlib.sha1(script.encode()).hexdigest()


def _reserve_words(user: str, token: str) -> tuple[str, ...]:
    arguments = (user, token, str(_now_ms()), str(_HOLD_MS))
    return ("EVALSHA", _sha(_RESERVE), "3", _STOCK, _BUYERS, _HOLDS, *arguments)


def _confirm_words(user: str, token: str) -> tuple[str, ...]:
    return ("EVALSHA", _sha(_CONFIRM), "2", _HOLDS, _ORDERS, user, token, str(_now_ms()))


def _reserve(subject: str, n: int, user: str) -> bytes:
    if subject == THEIRS:
        return command(*_reserve_words(user, f"9c1f07d3{n:08}"))
    return frame(n, "sale.reserve", _SALE, user, {_ITEM: 1})


def _join(subject: str, n: int, user: str) -> bytes:
    if subject == THEIRS:
        return command("ZADD", _QUEUE, "NX", str(n), user)
    return frame(n, "sale.join", _SALE, user, ack="logged")


def _place(subject: str, n: int, user: str) -> bytes:
    if subject == THEIRS:
        return command("ZRANK", _QUEUE, user)
    return frame(n, "sale.place", _SALE, user)


# --- supplies ---


def refusals(subject: str, users: int, depth: int) -> Iterator[Batch]:
    """One reserve of each of `users`, who get nothing."""
    return in_batches((_reserve(subject, n, _user(n)) for n in range(users)), depth)


def joins(subject: str, users: int, depth: int) -> Iterator[Batch]:
    """Each of `users` joins once."""
    return in_batches((_join(subject, n, _user(n)) for n in range(users)), depth)


def places(subject: str, users: int, draws: int, depth: int) -> Iterator[Batch]:
    """Where random ones of `users` are."""
    draw = random.Random(_SEED)
    return in_batches(
        (_place(subject, n, _user(draw.randrange(users))) for n in range(draws)), depth
    )


def visit(subject: str, ack: str, confirms: bool) -> Visit:
    """What each buyer sends."""
    user = _user(NUMBER)
    if subject == THEIRS:
        token = f"9c1f07d3{NUMBER}"
        reserve = command(*_reserve_words(user, token))
        confirm = command(*_confirm_words(user, token))
    else:
        reserve = frame(0, "sale.reserve", _SALE, user, {_ITEM: 1}, ack=ack)
        confirm = frame(1, "sale.confirm", HOLD, ack=ack)
    return Visit(FRAMING[subject], reserve, confirm if confirms else None)


# --- what is there before ---


def open_sale(peer: Rtserver | Redis, stock: int) -> None:
    """A sale of one item; one unit to each user."""
    if isinstance(peer, Rtserver):
        terms = f"per_user=1 hold_ms={_HOLD_MS}"
        peer.ask(f'sale.create {_SALE} items={{"{_ITEM}":{stock}}} {terms}')
        return
    peer.ask("SET", _STOCK, str(stock))
    for script in (_RESERVE, _CONFIRM):
        peer.ask("SCRIPT", "LOAD", script)


def sell_out(peer: Rtserver | Redis, stock: int) -> None:
    """All that open_sale put there."""
    for number in range(stock):
        user = f"early:{number}"
        if isinstance(peer, Rtserver):
            held = peer.ask(f'sale.reserve {_SALE} {user} items={{"{_ITEM}":1}}')
            peer.ask(f"sale.confirm {held['hold']}")
        else:
            peer.ask(*_reserve_words(user, user))
            peer.ask(*_confirm_words(user, user))


def open_queue(peer: Rtserver | Redis, is_early: bool) -> None:
    """A waiting room that next to nobody leaves; early: before the opening, in a drawn order."""
    if isinstance(peer, Rtserver):
        opens = f" opens_at={_now_ms() + _DAY_MS}" if is_early else ""
        queue = 'queue={"rate_per_s":1,"active_max":1}'
        peer.ask(f'sale.create {_SALE} items={{"{_ITEM}":1}} {queue}{opens}')


# --- what must be there afterwards ---


def verify_ours(ours: Rtserver, stock: int, held: int = 0, sold: int = 0) -> None:
    """The balance of the sale."""
    found = ours.ask(f"sale.status {_SALE}")["total"]
    expected = {"stock": stock, "free": stock - held - sold, "held": held, "sold": sold}
    if found != expected:
        raise WrongState(f"the sale holds {found}, expected {expected}")


def verify_theirs(theirs: Redis, stock: int) -> None:
    """Each unit that left the stock of redis has a buyer, and a hold or an order."""
    gone = stock - int(theirs.ask("GET", _STOCK))
    buyers = int(theirs.ask("SCARD", _BUYERS))
    kept = int(theirs.ask("ZCARD", _HOLDS)) + int(theirs.ask("LLEN", _ORDERS))
    if not gone == buyers == kept:
        raise WrongState(f"redis: {gone} units are gone, {buyers} users have {kept}")


def verify_waiting(peer: Rtserver | Redis, users: int) -> None:
    """All who joined are in the queue; one may have been let in."""
    if isinstance(peer, Rtserver):
        status = peer.ask(f"sale.status {_SALE}")
        found = status["waiting"] + status["active"]
    else:
        found = int(peer.ask("ZCARD", _QUEUE))
    if found != users:
        raise WrongState(f"{found} wait, expected {users}")
