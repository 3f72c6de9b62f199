"""What was answered before, against a model: by age, as long as an owner lives, over snapshots."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rtserver.errors import RtError
from rtserver.state.answers import TIMER_KIND, Answers
from rtserver.state.settings import Settings
from rtserver.state.timers import Timers
from rtserver.wire.codec import pack, unpack_trusted

AGE = 100
CLIENT_AGE = 300


class Store:
    """Answers with what they stand on; forgetting happens in `advance`, as a turn does it."""

    def __init__(self):
        self.settings = Settings()
        self.settings.idempotency_age_ms = AGE
        self.settings.idempotency_client_age_ms = CLIENT_AGE
        self.timers = Timers()
        self.answers = Answers(self.settings, self.timers)
        self.now = 1_000

    def advance(self, ms):
        self.now += ms
        for _, _, (kind, what) in self.timers.pop_due(self.now, 1_000):
            assert kind == TIMER_KIND
            self.answers.fire(self.now, what)

    def remember(self, key, call=b"call", result=b"result", owner=None, scope="ann"):
        self.answers.check_room(scope, key, owned=owner is not None)
        self.answers.remember(self.now, scope, key, call, result, owner)

    def find(self, key, call=b"call", scope="ann"):
        return self.answers.find(self.now, scope, key, call)

    def chunks(self):
        return [unpack_trusted(pack(chunk)) for chunk in self.answers.dump()]

    def restored(self):
        other = Store()
        other.now = self.now
        for rows in self.timers.dump():
            other.timers.load(rows)
        other.timers.last_id = self.timers.last_id
        for chunk in self.chunks():
            other.answers.load(chunk)
        return other

    def assert_same(self):
        self.answers.check()
        other = self.restored()
        other.answers.check()
        assert other.chunks() == self.chunks()
        assert len(other.answers) == len(self.answers)
        assert other.answers.owners.kept == self.answers.owners.kept


@pytest.fixture
def store():
    store = Store()
    yield store
    store.assert_same()


# --- text keys ---


def test_a_key_of_an_owner_has_no_age(store):
    store.remember("k", owner="sale 1")
    store.remember("l")
    store.advance(50 * AGE)
    assert store.find("k") == b"result"
    assert store.find("l") is None
    assert len(store.answers) == 0
    assert store.answers.owners.kept == 1


def test_one_scope_for_all_keys(store):
    store.remember("k", owner="sale 1")
    store.remember("l")
    for key in ("k", "l"):
        with pytest.raises(RtError, match="belongs to a call with other arguments"):
            store.find(key, b"another")
    assert store.find("k", scope="bob") is None


def test_an_aged_key_may_become_one_of_an_owner_and_back(store):
    store.remember("k", result=b"1")
    store.now += AGE  # its timer has not fired
    assert store.find("k") is None
    store.remember("k", result=b"2", owner="sale 1")
    store.advance(AGE)
    assert store.find("k") == b"2"
    store.answers.forget_owner("sale 1")
    store.remember("k", result=b"3")
    store.answers.owners.reclaim(10)
    assert store.find("k") == b"3"


def test_the_keys_of_a_forgotten_owner_are_gone_at_once_and_freed_in_slices(store):
    owners = store.answers.owners
    for number in range(25):
        store.remember(f"k{number}", owner="sale 1")
    store.remember("other", owner="sale 2")
    store.answers.forget_owner("sale 1")
    store.answers.forget_owner("sale 1")
    store.answers.forget_owner("sale 9")
    assert owners.kept == 1
    assert all(store.find(f"k{number}") is None for number in range(25))
    store.remember("k24", result=b"new", owner="sale 2")  # before its memory is freed
    assert not owners.reclaim(10)
    assert not owners.reclaim(10)
    store.assert_same()
    assert owners.reclaim(10)
    assert len(owners._text) == 2
    assert store.find("k24") == b"new"
    assert store.find("other") == b"result"


def test_owners_have_a_bound_of_their_own(store):
    store.answers.keys_max = 1
    store.answers.owners.kept_max = 2
    store.remember("k")
    store.remember("l", owner="sale 1")
    store.remember(["c", 1, 0], owner="sale 1")  # counts twice: the client and its answer
    with pytest.raises(RtError, match=r"sale_keys_max"):
        store.remember("m", owner="sale 1")
    with pytest.raises(RtError, match=r"idempotency_keys_max"):
        store.remember("m")
    store.answers.forget_owner("sale 1")
    store.remember("m", owner="sale 2")


# --- the keys of SDK connections ---


def is_done(store, number, client="c"):
    with pytest.raises(RtError, match="reported done"):
        store.find([client, number, 0])
    return True


def test_done_and_unheard_answers_last_as_long_as_an_owner(store):
    store.remember(["c", 1, 0], owner="sale 1")
    store.remember(["c", 2, 1], result=b"2", owner="sale 1")
    store.remember(["c", 3, 1], result=b"3")
    store.remember(["d", 1, 0])
    assert (len(store.answers), store.answers.owners.kept) == (2, 2)
    for _ in range(5):
        store.advance(CLIENT_AGE)
    assert is_done(store, 1)
    assert store.find(["c", 2, 1]) == b"2"
    assert store.find(["c", 3, 1]) is None  # not of a sale
    assert store.find(["d", 1, 0]) is None
    assert (len(store.answers), store.answers.owners.kept) == (0, 2)


def test_numbers_may_come_in_any_order(store):
    for number in (5, 2, 4, 1):
        store.remember(["c", number, 0], result=str(number).encode(), owner="sale 1")
    assert [store.find(["c", n, 0]) for n in range(1, 7)] == [b"1", b"2", None, b"4", b"5", None]
    store.remember(["c", 6, 4])
    assert (len(store.answers), store.answers.owners.kept) == (1, 2)
    assert is_done(store, 4)
    assert store.find(["c", 5, 4]) == b"5"


def test_what_a_client_got_from_a_forgotten_owner_ages_like_the_rest(store):
    store.remember(["c", 1, 0], result=b"1", owner="sale 1")
    store.advance(5 * CLIENT_AGE)
    store.answers.forget_owner("sale 1")
    assert (len(store.answers), store.answers.owners.kept) == (1, 0)
    assert store.find(["c", 1, 0]) == b"1"
    store.assert_same()
    store.advance(CLIENT_AGE)
    assert store.find(["c", 1, 0]) is None
    assert (len(store.answers), store.answers.owners.kept) == (0, 0)


def test_a_client_lasts_as_long_as_the_last_of_its_owners(store):
    store.remember(["c", 1, 0], owner="sale 1")
    store.remember(["c", 2, 1], owner="sale 2")
    store.remember(["c", 3, 2], owner="sale 1")
    assert store.answers.owners.kept == 3
    store.answers.forget_owner("sale 1")
    assert store.answers.owners.kept == 1
    store.advance(2 * CLIENT_AGE)
    assert is_done(store, 2)
    assert store.find(["c", 3, 2]) is None  # its owner is gone and its age past
    store.answers.forget_owner("sale 2")
    store.advance(2 * CLIENT_AGE)
    assert store.find(["c", 2, 0]) is None


# --- snapshots ---


def test_a_snapshot_of_before_owners_is_loaded():
    older = [
        ["keys", [["ann\0k", b"call", b"1", 990]]],
        ["client", "ann\0c", 950, 3, 960, [[5, b"call", b"5", 960]]],
        ["sources", [["feed\x000", 7]]],
    ]
    store = Store()
    for chunk in older:
        store.answers.load(chunk)
    assert store.chunks() == older
    assert store.find("k") == b"1"
    assert store.find(["c", 5, 3]) == b"5"
    assert is_done(store, 3)


def test_without_owners_a_snapshot_is_what_it_was():
    store = Store()
    store.remember("k")
    store.remember(["c", 1, 0])
    assert store.chunks() == [
        ["keys", [["ann\0k", b"call", b"result", 1_000]]],
        ["client", "ann\0c", 1_000, 0, 1_000, [[1, b"call", b"result", 1_000]]],
        ["sources", []],
    ]


def test_many_keys_of_an_owner_leave_in_chunks(store):
    for number in range(2_500):
        store.remember(f"k{number}", owner="sale 1")
    kept = [chunk for chunk in store.chunks() if chunk[0] == "kept"]
    assert [len(rows) for _, _, rows in kept] == [1_000, 1_000, 500]


# --- the model ---

TEXT = st.sampled_from(["k1", "k2", "k3"])
CLIENT = st.sampled_from(["c", "d"])
OWNER = st.none() | st.sampled_from(["sale 1", "sale 2", "sale 3"])


class Model(RuleBasedStateMachine):
    """Against plain dicts that never forget. What is promised is compared: what must be known
    is, what must be forgotten is, and in between only the truth is told."""

    def __init__(self):
        super().__init__()
        self.store = Store()
        self.serial = 0
        self.born = dict.fromkeys(["sale 1", "sale 2", "sale 3"], 0)  # how often it was forgotten
        self.text = {}  # key -> (result, at, life of its owner or None)
        self.clients = {}  # client -> [done, used_at, {number: (result, life)}, {lives}]

    def life(self, owner):
        return None if owner is None else (owner, self.born[owner])

    def is_alive(self, life):
        return life is not None and self.born[life[0]] == life[1]

    @rule(key=TEXT, owner=OWNER)
    def write_under_a_text(self, key, owner):
        known = self.known_text(key)
        assert self.store.find(key) == known
        if known is None:
            self.serial += 1
            result = str(self.serial).encode()
            self.store.remember(key, result=result, owner=owner)
            self.text[key] = (result, self.store.now, self.life(owner))

    def known_text(self, key):
        if key not in self.text:
            return None
        result, at, life = self.text[key]
        if life is None:
            return result if self.store.now - at < AGE else None
        return result if self.is_alive(life) else None

    @rule(name=CLIENT, ahead=st.integers(-2, 2), hear=st.integers(0, 3), owner=OWNER)
    def write_as_a_client(self, name, ahead, hear, owner):
        done, _, answers, _ = self.clients.get(name, [0, 0, {}, set()])
        number = max(1, max([done, *answers]) + ahead)
        if self.look(name, number) is not None:
            return
        client = self.clients.setdefault(name, [0, self.store.now, {}, set()])
        if self.store.now - client[1] >= CLIENT_AGE:
            self.settle(name, client)
        hear = min(number - 1, client[0] + hear)
        self.serial += 1
        result = str(self.serial).encode()
        self.store.remember([name, number, hear], result=result, owner=owner)
        client[0] = max(client[0], hear)
        client[1] = self.store.now
        client[2] = {n: one for n, one in client[2].items() if n > client[0]}
        client[2][number] = (result, self.life(owner))
        client[3] |= {self.life(owner)} - {None}

    def settle(self, name, client):
        """What was past its age may have been forgotten or not: what is told now counts."""
        told = {number: self.look(name, number) for number in [client[0], *client[2]]}
        client[0] = client[0] if told[client[0]] == "duplicate" else 0
        client[2] = {n: one for n, one in client[2].items() if told[n] is not None}

    def must_be_known(self, client):
        _, used_at, _, lives = client
        return self.store.now - used_at < CLIENT_AGE or any(map(self.is_alive, lives))

    def look(self, name, number):
        """What is told of a number, after it was compared with what is promised."""
        try:
            told = self.store.find([name, number, 0])
        except RtError as error:
            told = error.kind.name
        client = self.clients.get(name)
        if client is None:
            assert told is None
            return told
        done, used_at, answers, _ = client
        result, life = answers.get(number, (None, None))
        if number <= done:
            expected, sure = "duplicate", self.must_be_known(client)
        else:
            expected = result
            sure = self.is_alive(life) or self.store.now - used_at < CLIENT_AGE
        assert told == expected or (told is None and not sure)
        return told

    @rule(owner=st.sampled_from(["sale 1", "sale 2", "sale 3"]))
    def delete(self, owner):
        self.store.answers.forget_owner(owner)
        self.born[owner] += 1

    @rule(entries=st.integers(1, 3))
    def reclaim(self, entries):
        self.store.answers.owners.reclaim(entries)

    @rule(ms=st.sampled_from([1, AGE - 1, AGE, CLIENT_AGE - 1, CLIENT_AGE, 3 * CLIENT_AGE]))
    def advance(self, ms):
        self.store.advance(ms)

    @rule()
    def restart(self):
        self.store.assert_same()
        self.store = self.store.restored()

    @invariant()
    def all_that_is_promised(self):
        self.store.answers.check()
        for key in ("k1", "k2", "k3"):
            assert self.store.find(key) == self.known_text(key)
        for name, client in self.clients.items():
            for number in [client[0], *client[2]]:
                if number:
                    self.look(name, number)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
