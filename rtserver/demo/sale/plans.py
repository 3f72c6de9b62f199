"""Who comes to a sale and what they will do, drawn before anything happens.

Promises: the same seed gives the same buyers with the same intentions at the same times. What
comes of them depends on the others, the server and the network. Costs: one tuple a buyer.

The shares are the ones that shops speak of: most come around the opening, many holds are never
bought, few do anything unusual. The unusual is drawn more often than it happens, so that a small
run has some of each.
"""

from __future__ import annotations

import random
from enum import Enum
from typing import Final, NamedTuple, TypeVar

__all__ = ["PARTY_MAX", "PER_ADDRESS", "Course", "Kind", "Plan", "Refund", "Times", "draw"]

PARTY_MAX: Final = 4  # seats that one buyer may have
PER_ADDRESS: Final = 8  # places in the queue that one address may take
_FARM: Final = "203.0.113."  # where one person's many accounts come from
_FARM_SHARE: Final = 0.02  # of all buyers
_FARM_ACCOUNTS: Final = 125  # that share one address
_HOUSEHOLD: Final = 3  # ordinary buyers that share one address
_OWN_EVERY: Final = 250  # one buyer of so many has a connection of her own
_OWN_MIN: Final = 4
_OWN_MAX: Final = 200

T = TypeVar("T")


class Kind(Enum):
    """How a buyer reaches the server."""

    SHOP = "shop"  # the shop's back end acts for her
    OWN = "own"  # a connection of her own, with a token of her own
    FARM = "farm"  # one of many accounts behind one address, quicker than people are


class Course(Enum):
    """What becomes of a hold."""

    BUYS = "buys"
    WALKS = "walks"  # away: nobody says so, the hold runs out
    CANCELS = "cancels"
    LATE = "late"  # pays when the hold is over already
    PART = "part"  # buys a part of it
    SWAPS = "swaps"  # takes other seats instead, then buys
    EXTENDS = "extends"  # asks for more time, then buys
    LEAVES = "leaves"  # looks around, holds nothing


_COURSES: Final = {
    Course.BUYS: 42,
    Course.WALKS: 30,
    Course.CANCELS: 7,
    Course.LATE: 5,
    Course.PART: 4,
    Course.SWAPS: 4,
    Course.EXTENDS: 4,
    Course.LEAVES: 4,
}
_PARTIES: Final = {1: 15, 2: 50, 3: 15, 4: 20}
_ZONES: Final = {"stalls": 35, "balcony": 15, None: 50}


class Times(NamedTuple):
    """How long things take, in seconds: all of it scales with the length of the sale."""

    whole: float  # from the first who may join to the close
    opens: float  # after the first
    hold: float
    grant: float  # a pass
    grace: float  # of a place whose user has no connection
    dwell: float  # from the admission to the first reserve

    @classmethod
    def of(cls, whole: float) -> Times:
        return cls(whole, whole / 6, whole / 15, whole / 10, whole / 20, min(0.1, whole / 400))


class Refund(NamedTuple):
    """What a buyer gives back: all, or one seat, which is sold again or not."""

    after: float
    whole: bool
    restock: bool


class Plan(NamedTuple):
    """One buyer. Times are seconds: `comes` from the begin, the others from what they follow."""

    user: str
    address: str
    kind: Kind
    comes: float
    party: int
    zone: str | None
    course: Course
    looks: float  # around, once admitted
    pays: float  # so long after the reserve
    twice: bool  # sends each request twice, as who clicks again
    again: bool  # tries once more after a hold that came to nothing
    refund: Refund | None
    leaves: float | None  # the queue, so long after joining
    pushes: float | None  # reserves without a pass, so long after joining
    cut: float | None  # her connection breaks so long after joining
    back: float | None  # and comes back after that; None: never


def draw(seed: int, buyers: int, times: Times) -> list[Plan]:
    """All buyers, by when they come."""
    chance = random.Random(seed)
    own_every = max(1, buyers // min(_OWN_MAX, max(_OWN_MIN, buyers // _OWN_EVERY)))
    plans = [_plan(chance, number, own_every, times) for number in range(buyers)]
    return sorted(plans, key=lambda plan: plan.comes)


def _plan(chance: random.Random, number: int, own_every: int, times: Times) -> Plan:
    kind = Kind.SHOP
    address = f"10.{number // _HOUSEHOLD >> 16}.{number // _HOUSEHOLD >> 8 & 255}"
    address += f".{number // _HOUSEHOLD & 255}"
    if number % own_every == 0:
        kind = Kind.OWN
    elif chance.random() < _FARM_SHARE:
        kind = Kind.FARM
        address = f"{_FARM}{number // int(_FARM_ACCOUNTS / _FARM_SHARE) % 256}"
    whole = times.whole
    cut = chance.uniform(0, whole / 4) if kind is Kind.OWN and chance.random() < 0.4 else None
    returns = chance.random() < 0.6
    return Plan(
        user=f"{kind.value}-{number}",
        address=address,
        kind=kind,
        comes=_comes(chance, times),
        party=_one_of(chance, _PARTIES),
        zone=_one_of(chance, _ZONES),
        course=_one_of(chance, _COURSES),
        looks=0.0 if kind is Kind.FARM else chance.uniform(1.5 * times.dwell, whole / 40),
        pays=chance.uniform(whole / 200, times.hold * 0.7),
        twice=chance.random() < 0.1,
        again=chance.random() < 0.3,
        refund=_refund(chance, whole) if chance.random() < 0.06 else None,
        leaves=chance.uniform(0, whole / 2) if chance.random() < 0.05 else None,
        pushes=chance.uniform(0, whole / 2) if chance.random() < 0.15 else None,
        cut=cut,
        back=chance.uniform(0, 0.5 * times.grace) if cut is not None and returns else None,
    )


def _refund(chance: random.Random, whole: float) -> Refund:
    return Refund(chance.uniform(0, whole / 20), chance.random() < 0.6, chance.random() < 0.8)


def _comes(chance: random.Random, times: Times) -> float:
    """Most wait for the opening, many come in the seconds after it, few later."""
    wave = chance.random()
    if wave < 0.55:
        return chance.triangular(0, times.opens, times.opens * 0.8)
    if wave < 0.9:
        return times.opens + min(chance.expovariate(25 / times.whole), times.whole / 4)
    return times.opens + chance.uniform(0, times.whole / 2)


def _one_of(chance: random.Random, weights: dict[T, int]) -> T:
    return chance.choices(list(weights), list(weights.values()))[0]
