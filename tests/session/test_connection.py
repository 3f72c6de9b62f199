"""A connection that is lost is freed at once: automatic collection is off in the server."""

from __future__ import annotations

import gc
import weakref

import pytest

from rtserver.errors import CLOSE_SLOW
from rtserver.session.connection import Connection
from rtserver.session.router import Router
from tests.world import Peer, World


class Sink(Peer):
    """A transport that refers to its connection, as real ones do."""


def count() -> int:
    """The connections that are alive."""
    return sum(type(one) is Connection for one in gc.get_objects())


@pytest.mark.parametrize("closed_first", [False, True])
def test_nothing_keeps_a_lost_connection(closed_first):
    world = World()
    sink = Sink()
    connection = world.connect(sink)
    sink.connection = connection
    world.call_on(connection, sink, "channel.subscribe", "room:1")
    gone = weakref.ref(sink)
    before = count()
    gc.disable()
    try:
        if closed_first:
            connection.close(CLOSE_SLOW, "slow")
        connection.lost()
        world.router.leave(connection)
        world.dirty.clear()
        world.dispatcher.ctx.enter(world.connection)
        del connection, sink
        assert gone() is None
        assert count() == before - 1
    finally:
        gc.enable()


def test_the_router_forgets_who_left():
    world = World()
    assert isinstance(world.router, Router)
    connection = world.connect(Peer())
    world.router.leave(connection)
    assert world.router.subscriptions == 0
