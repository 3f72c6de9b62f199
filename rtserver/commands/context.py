"""What a handler may know beside the state and its arguments.

Owns one mutable object that is reused for every command, so that a call allocates nothing for
it. A handler reads `now`, `user`, `address`; it draws fresh ids with `new_id`; it says with
`log_as` or `log_nothing` when the record must differ from the call. Session handlers also see the
connection and the process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Coroutine
from typing import Any, Protocol

from rtserver.commands.rights import Rights
from rtserver.commands.table import ROLES, Access
from rtserver.errors import FORBIDDEN, INVALID_PARAMS, UNAUTHENTICATED, RtError
from rtserver.session.blocks import Blocks
from rtserver.session.connection import Connection
from rtserver.session.identity import Identity
from rtserver.session.router import Router
from rtserver.session.sessions import Sessions
from rtserver.state.channels import Channel
from rtserver.state.sales.audit import Audit
from rtserver.state.sales.sale import Sale

__all__ = ["Context", "Host"]

_ANONYMOUS_RANK = ROLES["anonymous"]
_SERVICE_RANK = ROLES["service"]


class Host(Protocol):
    """The process, as session commands see it."""

    subscriptions_max: int  # of one connection

    def info(self) -> dict[str, Any]: ...

    def stats(self) -> dict[str, Any]: ...

    def time(self) -> dict[str, Any]: ...

    def accept_time(self) -> dict[str, int]: ...

    def advance(self, ms: int) -> dict[str, int]: ...

    def hello_limits(self) -> dict[str, int]: ...

    sessions: Sessions

    blocks: Blocks
    dev: bool  # development mode: a user is believed without proof
    must_prove: bool  # who proves nothing may do nothing but that

    @property
    def unsettled(self) -> bool:
        """Whether a reply waits for its sync, or a block for its write: the state may show what
        is not safe yet."""

    def identify(self, token: str) -> Identity:
        """Who shows this token. Raises RtError."""

    def check_challenge(self, sale: str, user: str, token: str | None) -> None:
        """Raises RtError unless the token lets the user join the queue of the sale."""

    def act_as(self, connection: Connection, identity: Identity) -> None:
        """From now on the connection acts for this party."""

    def kick(self, user: str, channel: str | None, block_ms: int) -> int:
        """Sends a user away; how many connections or subscriptions that ended."""

    def keeps(self, channel: str) -> bool:
        """Whether messages of the channel are kept and numbered."""

    def open_channel(self, name: str) -> Channel:
        """The channel; one that does not exist yet is opened by a logged command."""

    def snapshot(self) -> Coroutine[Any, Any, dict[str, Any]]: ...

    def audit(self, audit: Audit) -> Coroutine[Any, Any, dict[str, Any]]:
        """Goes on with an audit piece by piece, a turn each, to its result."""


class Context:
    """The surroundings of the command that runs now."""

    __slots__ = (
        "_host",
        "_rights",
        "_router",
        "address",
        "addressed",
        "caller",
        "draws",
        "effect",
        "now",
        "replaying",
        "role",
        "seed",
        "service",
        "unlogged",
        "user",
    )

    def __init__(self) -> None:
        self.now = 0  # ms since 1970 UTC; one reading a turn
        self.user: str | None = None
        self.address: str | None = None
        self.service: str | None = None  # the back end that calls
        self.role = ROLES["internal"]
        self.replaying = False
        self.seed = b""  # chance of this turn, logged with its block
        self.draws = 0  # fresh ids drawn this turn
        self.effect: list[Any] | None = None  # what to log instead of the arguments
        self.unlogged = False  # nothing of this call needs to be logged
        self.addressed = False  # what this call did depends on the address
        self.caller: Connection | None = None  # whose user, address and role these are
        self._rights: Rights | None = None
        self._router: Router | None = None
        self._host: Host | None = None

    def new_id(self) -> str:
        """128 unguessable bits as text; the same on replay, because seed and place are logged."""
        self.draws += 1
        place = self.draws.to_bytes(8, "big")
        return hashlib.blake2b(place, key=self.seed, digest_size=16).hexdigest()

    def log_nothing(self) -> None:
        """The call changed nothing that a restart would miss (a key or a source is logged)."""
        self.unlogged = True

    def log_as(self, *args: Any) -> None:
        """The record holds these arguments: only what was really applied."""
        self.effect = list(args)

    def log_address(self) -> None:
        """The record says the address, also where nobody is known to have called."""
        self.addressed = True

    def need_proof(self, rank: int, what: str) -> None:
        """Raises RtError where it must be known who calls, and is not."""
        if rank == _ANONYMOUS_RANK and self.host.must_prove:
            raise RtError(
                UNAUTHENTICATED,
                f"{what} needs to know who is there: show a token with server.hello, or over HTTP"
                " as Authorization: Bearer",
            )

    def need_access(self, access: Access, command: str, channel: str) -> None:
        """Raises RtError forbidden where the caller may not do that on the channel, of which the
        table knows nothing because it is one among many. Not checked on replay."""
        if not self.replaying:
            self.need_proof(self.role, command)
            assert self._rights is not None, "only replay has no rights"
            self._rights.check_access(access, command, channel, self.role, self.user)

    @property
    def caller_name(self) -> str | None:
        """Who acts, as a ledger names it: the user, else the back end."""
        return self.user or self.service

    def acting_for(self, user: str | None) -> str:
        """The user that a command is about: the one named, else the caller. A user acts for
        nobody else. Raises RtError invalid_params, forbidden."""
        who = user or self.user
        if who is None:
            raise RtError(
                INVALID_PARAMS, "user is missing, and the caller is nobody", {"param": "user"}
            )
        self.need_own(who, f"what {who!r} has")
        return who

    def need_challenge(self, sale: str, user: str, token: str | None) -> None:
        """Raises RtError challenge_failed unless the token lets the user join that queue. Not
        checked on replay."""
        if not self.replaying:
            self.host.check_challenge(sale, user, token)

    def need_own(self, owner: str, what: str) -> None:
        """Raises RtError forbidden where a user acts on what is another's."""
        if self.role < _SERVICE_RANK and owner != self.user:
            raise RtError(
                FORBIDDEN,
                f"{what} belongs to somebody else: that needs the role service",
                {"role": "service"},
            )

    def note_seen(self, sale: Sale, user: str) -> None:
        """A command is about a user's place in a queue, which may hang on being seen: if it is she
        who calls, she was."""
        if not self.replaying and self.service is None and self.user == user:
            self.router.presence.grace.seen(sale, user, self.now)

    # --- for session commands ---

    def attach(self, router: Router, host: Host, rights: Rights) -> None:
        self._rights = rights
        self._router = router
        self._host = host

    def enter(self, connection: Connection) -> None:
        """The caller of the next command."""
        self.caller = connection
        self.user = connection.user
        self.service = connection.service
        self.address = connection.address
        self.role = connection.rank

    @property
    def connection(self) -> Connection:
        assert self.caller is not None, "only session commands see the connection"
        return self.caller

    @property
    def router(self) -> Router:
        assert self._router is not None, "replay has no router"
        return self._router

    @property
    def host(self) -> Host:
        assert self._host is not None, "replay has no process around it"
        return self._host
