"""Who may do what: the matrix of commands, roles and names."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.commands.rights import Rights, check_rows
from rtserver.commands.table import ROLES, load
from rtserver.config import ConfigError, RightsRow
from rtserver.errors import FORBIDDEN, RtError
from rtserver.session.watches import parts_of
from rtserver.state.settings import Settings
from tests.world import Peer, Refused, World

TABLE = load()


def rights(*rows):
    made = Settings()
    made.configure("open", {"subscribe": "user", "publish": "anonymous", "presence": "service"})
    return Rights(TABLE, [RightsRow(**row) for row in rows], made.channel_rules)


def may(table, role, user, command, *args):
    try:
        table.check(TABLE[command], TABLE[command].bind(list(args)), ROLES[role], user)
    except RtError as error:
        return error.kind is not FORBIDDEN or error.details["role"] not in error.message
    return True


MATRIX = [
    # command, args, roles that may
    ("counter.add", ["likes"], "service admin"),
    ("server.kick", ["ann"], "service admin"),
    ("server.stats", [], "admin"),
    ("channel.configure", ["open"], "admin"),
    ("channel.configure", ["$inbox:ann"], "admin"),
    ("channel.configure", ["$presence:bob"], "admin"),
    ("channel.publish_many", [[["open:1", 1]]], "anonymous user service admin"),
    ("counter.get_many", [["likes"]], "service admin"),
    ("counter.list", [], "service admin"),
    ("server.auth", ["x"], "anonymous user service admin"),
    ("presence.get", [["bob"]], "user service admin"),
    ("server.ping", [], "anonymous user service admin"),
    ("channel.subscribe", ["room:1"], "service admin"),
    ("channel.subscribe", ["open:1"], "user service admin"),
    ("channel.history", ["open:1"], "user service admin"),
    ("channel.publish", ["open:1", 1], "anonymous user service admin"),
    ("channel.publish", ["room:1", 1], "service admin"),
    ("channel.presence", ["open:1"], "service admin"),
    ("channel.subscribe", ["$inbox:ann"], "user service admin"),
    ("channel.subscribe", ["$inbox:bob"], "service admin"),
    ("channel.subscribe", ["$inbox"], "service admin"),
    ("channel.subscribe", ["$inbox:ann:x"], "service admin"),
    ("channel.subscribe", ["$presence:bob"], "user service admin"),
    ("channel.subscribe", ["$counter:likes"], "service admin"),
    ("channel.subscribe", ["$sale:s"], "user service admin"),
    ("channel.subscribe", ["$sale:a%3Ab"], "user service admin"),
    ("channel.subscribe", ["$sale:ann"], "user service admin"),
    ("channel.subscribe", ["$sale:s:user:ann"], "user service admin"),
    ("channel.subscribe", ["$sale:a%3Ab%25:user:ann"], "user service admin"),
    ("channel.subscribe", ["$sale:s:user:bob"], "service admin"),
    ("channel.subscribe", ["$sale:s:user:*"], "service admin"),
    ("channel.subscribe", ["$sale:s:user:$self"], "service admin"),
    ("channel.subscribe", ["$sale:*:user:bob"], "service admin"),
    ("channel.subscribe", ["$sale:s:user:ann:bob"], "service admin"),
    ("channel.subscribe", ["$sale:s:user:bob:ann"], "service admin"),
    ("channel.subscribe", ["$sale:s:bob:user:ann"], "service admin"),
    ("channel.subscribe", ["$sale:s:user:bob:user:ann"], "service admin"),
    ("channel.subscribe", ["$sale:s:User:ann"], "service admin"),
    ("channel.subscribe", ["$sale:s:user"], "service admin"),
    ("channel.subscribe", ["$sale:s:user:"], "service admin"),
    ("channel.subscribe", ["$sale:s:"], "service admin"),
    ("channel.subscribe", ["$sale:s:ledger"], "service admin"),
    ("channel.subscribe", ["$sale:s%3Aledger"], "user service admin"),  # the name of a sale
    ("channel.subscribe", ["$sale:s:%6Cedger"], "service admin"),
    ("channel.subscribe", ["$sal%65:s:ledger"], "service admin"),
    ("channel.subscribe", ["$sale:s:use%72:b%6Fb"], "service admin"),
    ("channel.subscribe", ["$sale"], "service admin"),
    ("channel.subscribe", ["$sales:s"], "service admin"),
    ("channel.subscribe", ["$board:b:top:3"], "service admin"),
]


@pytest.mark.parametrize(("command", "args", "allowed"), [row for row in MATRIX if row[2]])
def test_the_matrix(command, args, allowed):
    table = rights()
    for role in ("anonymous", "user", "service", "admin"):
        user = "ann" if role == "user" else None
        assert may(table, role, user, command, *args) == (role in allowed.split()), role


def test_self_is_compared_after_decoding_and_only_as_a_whole():
    table = rights()
    assert may(table, "user", "a:b", "channel.subscribe", "$inbox:a%3Ab")
    assert not may(table, "user", "a:b", "channel.subscribe", "$inbox:a:b")
    assert not may(table, "user", "a", "channel.subscribe", "$inbox:a:b")
    assert not may(table, "user", "a%3Ab", "channel.subscribe", "$inbox:a%3Ab")
    assert not may(table, "user", "$self", "channel.subscribe", "$inbox:ann")
    assert not may(table, "user", "*", "channel.subscribe", "$inbox:ann")
    assert not may(table, "anonymous", None, "channel.subscribe", "$inbox:None")


def test_rows_of_the_configuration_come_first():
    table = rights(
        {"command": "counter.add", "name": "likes:secret:*", "role": "admin"},
        {"command": "counter.*", "name": "likes:*", "role": "user"},
        {"command": "channel.subscribe", "name": "user:$self:*", "role": "user"},
        {"command": "channel.subscribe", "name": "open:closed", "role": "admin"},
        {"command": "board.top", "role": "anonymous"},
    )
    assert may(table, "user", "ann", "counter.add", "likes:1")
    assert may(table, "user", "ann", "counter.set", "likes:1:2", 3)
    assert not may(table, "user", "ann", "counter.add", "likes:secret:1")
    assert not may(table, "user", "ann", "counter.add", "other")
    assert may(table, "user", "ann", "channel.subscribe", "user:ann:mail")
    assert not may(table, "user", "ann", "channel.subscribe", "user:bob:mail")
    assert not may(table, "user", "ann", "channel.subscribe", "open:closed")
    assert may(table, "anonymous", None, "board.top", "b")
    assert may(table, "service", None, "counter.add", "likes:secret:1"), "rows bind users"


def test_a_pattern_may_spell_watched_names_as_they_are_spelled():
    table = rights(
        {"command": "channel.subscribe", "name": "$counter:a%3Ab", "role": "user"},
        {"command": "channel.subscribe", "name": "$board:secret:*", "role": "admin"},
        {"command": "channel.subscribe", "name": "$board:*", "role": "user"},
    )
    assert may(table, "user", "ann", "channel.subscribe", "$counter:a%3Ab")
    assert may(table, "user", "ann", "channel.subscribe", "$counter:%61%3ab")
    assert not may(table, "user", "ann", "channel.subscribe", "$counter:a:b")
    assert may(table, "user", "ann", "channel.subscribe", "$board:weekly:top:3")
    assert not may(table, "user", "ann", "channel.subscribe", "$board:secret:top:3")
    assert not may(table, "user", "ann", "channel.subscribe", "$board:secre%74:top:3")
    assert not may(table, "user", "ann", "channel.subscribe", "$boar%64:secret:top:3")


def test_a_star_between_colons_is_any_one_part():
    table = rights(
        {"command": "channel.subscribe", "name": "room:*:public", "role": "user"},
        {"command": "channel.subscribe", "name": "team:*:$self:*", "role": "user"},
        {"command": "channel.subscribe", "name": "a*b:c", "role": "user"},
        {"command": "channel.subscribe", "name": "$board:%2A:top:3", "role": "user"},
    )

    def opened(name):
        return may(table, "user", "ann", "channel.subscribe", name)

    assert opened("room:1:public")
    assert opened("room::public")
    assert opened("room:*:public")
    assert not opened("room:public")
    assert not opened("room:1:2:public")
    assert not opened("room:1:public:x")
    assert not opened("room:1:private")
    assert opened("team:7:ann:x:y")
    assert not opened("team:7:bob:ann:x")
    assert not opened("team:7:ann")
    assert opened("a*b:c")
    assert not opened("axb:c"), "only as a whole part"
    assert opened("$board:*:top:3")
    assert not opened("$board:x:top:3"), "an encoded star is one"


NAME_TEXT = st.text(st.sampled_from("ab%:$*3A5"), min_size=1, max_size=6)


@given(owner=NAME_TEXT, caller=NAME_TEXT)
def test_nobody_is_taken_for_another(owner, caller):
    """Whatever the names are made of: the encoded name fits its owner only, in both kinds."""
    table = rights({"command": "channel.subscribe", "name": "user:$self:mail", "role": "user"})
    encoded = quote(owner, safe="")
    strange = "".join(f"%{byte:02x}" for byte in owner.encode())
    plain = owner.replace("%", "%25").replace(":", "%3A")
    for name in (f"$inbox:{encoded}", f"$inbox:{strange}", f"user:{plain}:mail"):
        assert may(table, "user", caller, "channel.subscribe", name) == (owner == caller), name


@given(spelled=NAME_TEXT, caller=NAME_TEXT)
def test_no_spelling_reaches_an_inbox_but_that_of_the_user_it_decodes_to(spelled, caller):
    parts = parts_of(f"$inbox:{spelled}")
    allowed = may(rights(), "user", caller, "channel.subscribe", f"$inbox:{spelled}")
    assert allowed == (parts == ["inbox", caller])


@given(spelled=st.lists(NAME_TEXT, max_size=4), caller=NAME_TEXT)
def test_no_spelling_reaches_more_of_a_sale_than_it_and_ones_own_place(spelled, caller):
    name = ":".join(["$sale", *spelled])
    parts = parts_of(name)
    allowed = may(rights(), "user", caller, "channel.subscribe", name)
    own = len(parts) == 4 and parts[2:] == ["user", caller]
    assert allowed == (own or len(parts) == 2)


def test_what_names_many_needs_what_the_strictest_row_asks():
    closed = {"command": "counter.*", "name": "secret:*", "role": "admin"}
    table = rights(closed, {"command": "counter.*", "role": "user"})
    assert may(table, "user", "ann", "counter.get", "likes")
    assert not may(table, "user", "ann", "counter.get", "secret:1")
    assert not may(table, "user", "ann", "counter.get_many", ["secret:1"])
    assert not may(table, "user", "ann", "counter.list")
    table = rights({"command": "counter.get", "role": "user"})
    assert may(table, "user", "ann", "counter.get_many", ["likes"]), "a row is for its _many too"
    assert not may(table, "user", "ann", "counter.add_many", [["likes", 1]])
    table = rights({"command": "counter.*", "name": "likes:*", "role": "user"})
    assert not may(table, "user", "ann", "counter.get_many", ["likes:1"]), "not for all names"


def test_a_row_may_open_administration_for_services_too():
    table = rights({"command": "server.stats", "role": "user"})
    assert may(table, "user", "ann", "server.stats")
    assert may(table, "service", None, "server.stats")
    assert not may(table, "anonymous", None, "server.stats")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"command": "counter.ad", "role": "user"}, "no command; did you mean counter.add"),
        ({"command": "sails.*", "role": "user"}, "'sails.*', which is no command"),
        ({"command": "channel.publish_many", "role": "user"}, "write 'channel.publish'"),
        ({"command": "counter.add", "name": "u:$self*", "role": "user"}, "as a whole part"),
        ({"command": "counter.add", "name": "u-$self", "role": "user"}, "as a whole part"),
    ],
)
def test_rows_that_mean_nothing_are_refused(row, why):
    with pytest.raises(ConfigError, match=re.escape(why)):
        check_rows(TABLE, [RightsRow(**row)])
    check_rows(TABLE, [RightsRow(command="*", name="$self:*", role="user")])


def test_a_row_for_publish_holds_for_each_item_of_many():
    row = RightsRow(command="channel.publish", name="open:closed", role="admin")
    world = World(rights=[row])
    world.call("channel.configure", "open", *[None] * 5, None, "user")
    peer = Peer()
    user = world.connect(peer, role="user")
    items = [["open:closed", 1], ["open:1", 2]]
    first, second = world.call_on(user, peer, "channel.publish_many", items)["items"]
    assert first["error"][1] == "forbidden"
    assert first["error"][3] == {
        "role": "admin",
        "command": "channel.publish",
        "name": "open:closed",
    }
    assert second["offset"] == 1
    world.assert_same()


def test_each_item_of_a_vector_is_looked_at():
    world = World()
    world.call("channel.configure", "open", *[None] * 5, None, "user")
    peer = Peer()
    user = world.connect(peer, role="user")
    items = [["open:1", 1], ["room:1", 2]]
    first, second = world.call_on(user, peer, "channel.publish_many", items)["items"]
    assert first["offset"] == 1
    assert second["error"][1] == "forbidden"
    world.assert_same()


def test_presence_needs_a_right_of_its_own():
    world = World()
    world.call("channel.configure", "open", *[None] * 5, "user")
    peer = Peer()
    user = world.connect(peer, role="user")
    with pytest.raises(Refused, match="needs the role service"):
        world.call_on(user, peer, "channel.subscribe", "open:1", None, True)
    assert user.subscriptions == {}
