"""Replies are counted right however the network cuts them; supplies are what they say."""

from __future__ import annotations

from collections import Counter

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import supplies
from bench.report import OURS, THEIRS
from bench.requests import RequestFailed, command, count_frames, count_lines, frame, reply_frame
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
    with pytest.raises(RequestFailed, match="MISCONF"):
        count_lines(b":1\r\n-MISCONF the disk is full\r\n")


def test_the_bytes_of_a_command_of_redis():
    assert command("INCR", "n") == b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n"


def test_requests_of_one_shape_have_one_size():
    made = {len(frame(n, "counter.add", supplies.name_of(n))) for n in (0, 127, 128, 99_999_999)}
    assert len(made) == 1


def decoded(batches):
    """Bodies of all requests, with the replies that the batches promise."""
    bodies = []
    for data, _ in batches:
        while data:
            length = int.from_bytes(data[:HEADER_BYTES], "big")
            bodies.append(msgpack.unpackb(data[HEADER_BYTES : HEADER_BYTES + length]))
            data = data[HEADER_BYTES + length :]
    assert len(bodies) == sum(replies for _, replies in batches)
    return bodies


def test_increments_use_every_key_equally_often_and_are_the_same_for_both():
    ours = [body[3][0] for body in decoded(supplies.increments(OURS, 300, 128))]
    uses = Counter(ours)
    assert set(uses) == {supplies.name_of(n) for n in range(300)}
    assert len(set(uses.values())) == 1
    theirs = b"".join(data for data, _ in supplies.increments(THEIRS, 300, 128))
    assert [word.decode() for word in theirs.split(b"\r\n") if word.startswith(b"n:")] == ours


def test_vectors_hold_every_entity_once():
    bodies = decoded(supplies.add_many(2_500))
    assert [len(body[3][0]) for body in bodies] == [1_000, 1_000, 500]
    names = [name for body in bodies for name, _ in body[3][0]]
    assert names == [supplies.name_of(n) for n in range(2_500)]


def test_members_and_scores_are_the_same_one_by_one_and_in_vectors():
    single = [tuple(body[3][1:]) for body in decoded(supplies.submitted(1_200, 128))]
    many = [tuple(item) for body in decoded(supplies.submit_many(1_200)) for item in body[3][1]]
    assert single == many
