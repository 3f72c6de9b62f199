"""Replies are counted right however the network cuts them; supplies are what they say."""

from __future__ import annotations

from collections import Counter

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import fallback, supplies
from bench.fallback import count_frames, count_lines
from bench.report import OURS, THEIRS
from bench.requests import Batch, command, frame, reply_frame, write_batches
from rtserver.wire.frames import HEADER_BYTES

results = st.integers(0, 2**63 - 1) | st.text(max_size=400) | st.lists(st.integers(0, 99))


def counted(count, stream, cuts):
    """Feeds a stream in pieces, keeping what was not counted, as the generator does."""
    total, rest, start = 0, b"", 0
    for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        data = rest + stream[start:cut]
        start = cut
        number, stop = count(data)
        total += number
        rest = data[stop:]
    assert rest == b""
    return total


@given(st.lists(results, max_size=20), st.lists(st.integers(0, 5_000), max_size=8))
def test_frames_are_counted_whole(values, cuts):
    stream = b"".join(reply_frame(n, value) for n, value in enumerate(values))
    assert counted(count_frames, stream, cuts) == len(values)


@given(st.lists(st.integers(0, 2**63 - 1), max_size=20), st.lists(st.integers(0, 500), max_size=8))
def test_lines_are_counted_whole(values, cuts):
    stream = "".join(f":{value}\r\n" for value in values).encode()
    assert counted(count_lines, stream, cuts) == len(values)


def test_an_error_of_redis_is_not_a_reply():
    with pytest.raises(fallback.Refused, match="MISCONF"):
        count_lines(b":1\r\n-MISCONF the disk is full\r\n")


def test_the_bytes_of_a_command_of_redis():
    assert command("INCR", "n") == b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n"


def test_requests_of_one_shape_have_one_size():
    made = {len(frame(n, "counter.add", supplies.name_of(n))) for n in (0, 127, 128, 99_999_999)}
    assert len(made) == 1


def decoded(batches):
    """Bodies of all requests, with the replies that the batches promise."""
    bodies = []
    batches = list(batches)
    for data, _, _ in batches:
        while data:
            length = int.from_bytes(data[:HEADER_BYTES], "big")
            bodies.append(msgpack.unpackb(data[HEADER_BYTES : HEADER_BYTES + length]))
            data = data[HEADER_BYTES + length :]
    assert len(bodies) == sum(batch.replies for batch in batches)
    return bodies


def test_increments_use_every_key_equally_often_and_are_the_same_for_both():
    ours = [body[3][0] for body in decoded(supplies.increments(OURS, 300, 128))]
    uses = Counter(ours)
    assert set(uses) == {supplies.name_of(n) for n in range(300)}
    assert len(set(uses.values())) == 1
    theirs = b"".join(batch.data for batch in supplies.increments(THEIRS, 300, 128))
    assert [word.decode() for word in theirs.split(b"\r\n") if word.startswith(b"n:")] == ours


def test_vectors_hold_every_entity_once():
    bodies = decoded(supplies.add_many(2_500))
    assert [len(body[3][0]) for body in bodies] == [1_000, 1_000, 500]
    names = [name for body in bodies for name, _ in body[3][0]]
    assert names == [supplies.name_of(n) for n in range(2_500)]


def test_members_and_scores_are_the_same_one_by_one_and_in_vectors():
    single = [tuple(body[3][1:]) for body in decoded(supplies.submitted(OURS, 1_200, 1_200, 128))]
    many = [tuple(item) for body in decoded(supplies.submit_many(1_200)) for item in body[3][1]]
    assert single == many


def test_vectors_add_what_single_increments_add():
    single = [body[3][0] for body in decoded(supplies.increments(OURS, 300, 100))]
    many = [name for body in decoded(supplies.vectors(300, 100, 8)) for name, _ in body[3][0]]
    assert many == single


def words(batches):
    """The commands of redis in batches."""
    stream = b"".join(batch.data for batch in batches).decode()
    parts = iter(stream.split("\r\n"))
    for head in parts:
        if head:
            yield [next(parts) for _ in range(2 * int(head[1:]))][1::2]


def test_both_servers_move_the_same_members_to_the_same_scores():
    ours = [tuple(body[3]) for body in decoded(supplies.moves(OURS, 50, 400, 128))]
    theirs = [
        (board, member, int(score))
        for _, board, score, member in words(supplies.moves(THEIRS, 50, 400, 128))
    ]
    assert ours == theirs
    assert len({score for _, _, score in ours}) > 390


def test_both_servers_get_the_same_members():
    ours = [tuple(item) for body in decoded(supplies.members(OURS, 1_200)) for item in body[3][1]]
    theirs = [
        (member, int(score))
        for _, _, *items in words(supplies.members(THEIRS, 1_200))
        for score, member in zip(items[::2], items[1::2], strict=True)
    ]
    assert ours == theirs


REDIS = {
    "counter.add": "INCR",
    "board.submit": "ZADD",
    "board.rank": "ZREVRANK",
    "channel.publish": "PUBLISH",
    "counter.get": "GET",
}


def test_every_batch_of_the_mix_has_the_same_shares():
    size = sum(supplies.MIX.values())
    ours, theirs = (list(supplies.mixed(who, 100, 50, 7)) for who in (OURS, THEIRS))
    assert [batch[1:] for batch in ours] == [(size, supplies.MIX["publish"])] * 7
    for batch in ours:
        kinds = Counter(body[2].split(".")[1] for body in decoded([batch]))
        assert kinds == supplies.MIX
    methods = [REDIS[body[2]] for body in decoded(ours)]
    assert methods == [command[0] for command in words(theirs)]


def test_a_synced_increment_asks_for_it():
    for body in decoded(supplies.increments(OURS, 10, 4, "synced")):
        assert body[4] == {"ack": "synced"}


def test_the_file_of_batches(tmp_path):
    batches = [Batch(b"abc", 1), Batch(b"", 0, 2), Batch(b"x" * 70_000, 300, 70_000)]
    write_batches(tmp_path / "file", batches)
    assert list(fallback._read_batches(tmp_path / "file")) == batches
