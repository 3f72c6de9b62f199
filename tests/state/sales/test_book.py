"""Deadlines of holds in a book of any size, and the end of one."""

from __future__ import annotations

import random

import pytest

from rtserver.compiled import twin
from rtserver.state.sales import book as plain
from rtserver.state.sales.book import CANCELLED, EXPIRED, HELD
from rtserver.state.sales.checks import check_book
from rtserver.state.sales.terms import ItemTerms

MODULES = [plain] + [module for module in [twin(plain.__name__)] if module]


@pytest.fixture(params=MODULES, ids=["pure", "compiled"][: len(MODULES)])
def book(request):
    made = request.param.Book(1, b"k" * 32)
    made.add_item("a", ItemTerms(1_000_000))
    return made


def reserve(book, now, user, hold_ms):
    return book.reserve(now, user, (book.items.get("a"),), (1,), now + hold_ms, None)


def test_the_first_deadline_is_known_whatever_was_held_sold_or_extended(book):
    """Over several pages of holds; once all of a span of them are gone but one."""
    random_ = random.Random(1)
    now = 0
    open_ = []
    for number in range(20_000):
        now += random_.randrange(3)
        hold = reserve(book, now, f"u{number % 100}", 1_000 if number < 12_000 else 700)
        if 6_000 < number < 11_000 or random_.random() < 0.5:
            book.sell(hold, now, None)
        else:
            open_.append(hold)
        if number % 50 == 0:
            moved = random_.choice(open_)
            book.extend(moved, moved.expires_at + random_.randrange(1, 5_000))
    check_book(book)
    while open_:
        open_.sort(key=lambda hold: (hold.expires_at, hold.number))
        assert book.next_due() is open_[0]
        for hold in open_[:97]:
            book.give_back(book.next_due(), EXPIRED, hold.expires_at)
        assert all(hold.state == EXPIRED for hold in open_[:97])
        del open_[:97]
    assert book.next_due() is None
    assert book.next_due() is None
    again = reserve(book, now, "late", 1)
    assert book.next_due() is again
    check_book(book)


def test_a_moved_hold_that_ends_leaves_nothing_behind(book):
    hold = reserve(book, 0, "ann", 100)
    for deadline in range(200, 300):
        book.extend(hold, deadline)
    assert book.next_due() is hold
    book.give_back(hold, CANCELLED, 50)
    assert book.next_due() is None
    check_book(book)


def test_a_book_is_freed_in_slices_to_the_last_entry(book):
    for number in range(9_000):
        hold = reserve(book, 0, f"u{number}", 100)
        if number % 3 == 0:
            book.sell(hold, 0, None)
        elif number % 3 == 1:
            book.give_back(hold, CANCELLED, 0)
        else:
            book.extend(hold, 200)
    for hold in [one for page in book.pages for one in page if one and one.state == HELD]:
        book.give_back(hold, CANCELLED, 0)
    calls = 1
    while not book.release(100):
        calls += 1
    assert calls >= 60, "no slice is larger than asked"
    assert not book.ended
    assert not book.pages
    assert not book.sequence
    assert not len(book.buyers)
    assert not len(book.items)
