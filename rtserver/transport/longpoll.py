"""Long polling: `GET /v1/poll` answers at once when something came after its cursor, else when
something comes or the time is up. The next request's cursor acknowledges what this one answered.

Between two polls nothing of the reader is kept here: what is published then comes from the history.
Watched things have none, so the cursor carries a checksum of each state that was told, and a poll
begins with the state only where it is another one.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import Any

from rtserver.errors import INVALID_PARAMS, RtError, shown
from rtserver.session.cursor import cursor_of
from rtserver.transport.engine import Progress
from rtserver.transport.exchange import Exchange, Socket
from rtserver.transport.following import SUBSCRIBE_COST, asked, refusal
from rtserver.wire import poll
from rtserver.wire.jsonform import to_json
from rtserver.wire.request import Request
from rtserver.wire.response import JSON, Responder

__all__ = ["LongPoll"]

_TIMEOUT_MS = 25_000
_STATES = "!"  # begins the part of a cursor that is about watched things


class LongPoll(Exchange):
    """One poll. Raises RtError where the request is none."""

    lasts = True

    def __init__(self, socket: Socket, request: Request, responder: Responder) -> None:
        cursor, _, states = request.query.get("cursor", "").partition(_STATES)
        self._is_first = "cursor" not in request.query
        self._asked = asked(request, cursor)
        self._states_told = frozenset(states.split("~"))
        self._timeout_ms = _timeout_ms(request, socket.engine.limits.poll_ms_max)
        self._channels: dict[str, Any] = {}  # subscribe replies that the answer carries
        self._refusal: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None
        super().__init__(socket, request, responder, poll, pushes=True)
        self.connection.stamp = bytes  # positions are asked for at the end

    def run(self) -> Progress:
        engine = self._engine
        if not self.begun:
            if engine.budget() <= 0:
                return Progress.MORE
            replies = engine.follow(self.connection, self._asked.since, self._asked.presence)
            self.begun = True
            engine.spent(SUBSCRIBE_COST * len(replies))
            problem = refusal(replies)
            if problem is not None:
                engine.metrics.count_error(problem.kind.name)
                self._refusal = self._responder.problem(problem)
            news = [self._take(name, reply) for name, reply in replies.items()]
            if any(news) or self._is_first or problem is not None or not self._timeout_ms:
                self.connection.send(poll.NOTHING)
            else:
                delay_s = self._timeout_ms / 1_000
                self._timer = asyncio.get_running_loop().call_later(delay_s, self._time_out)
        return Progress.BLOCKED  # until the answer has left

    def _take(self, name: str, reply: Mapping[str, Any]) -> bool:
        """What the subscribe reply of a channel says that is news to this reader; whether that is
        worth an answer: an error or a `transient` channel would end every poll at once."""
        since = self._asked.since[name]
        if since is not None and "error" not in reply:
            return self._resume(name, since, reply)
        if "state" in reply and _place(name, reply) in self._states_told:
            return False
        self._channels[name] = reply
        return "error" not in reply and ("state" in reply or reply["epoch"] != "")

    def _resume(self, name: str, since: Any, reply: Mapping[str, Any]) -> bool:
        push = self.connection.push
        messages = reply["messages"]
        if not reply["recovered"]:
            push("gap", {"channel": name, **_lost(since, reply)})
        for message in messages:
            push("message", {"channel": name, **message})
        return bool(messages) or not reply["recovered"]

    def _time_out(self) -> None:
        self._engine.turn.open()
        self.connection.send(poll.NOTHING)

    def write(self, data: bytes, /) -> None:
        """The first bytes that leave are the answer; what may follow comes by history."""
        if self.done:
            return
        if not self.begun:
            self.refuse()
            return
        if self._refusal is not None:
            self.answer(self._refusal)
            return
        body = b'{"messages":' + poll.joined(data) + b',"cursor":' + to_json(self._cursor())
        if self._channels:
            body += b',"channels":' + to_json(self._channels)
        self.answer(self._responder.response(200, JSON, body + b"}\n"))

    def _cursor(self) -> str:
        """Where the reader is once it has the answer."""
        cursor = cursor_of(self._engine.positions(self.connection))
        watched = {name: None for name in self.connection.subscriptions if name.startswith("$")}
        if not watched:
            return cursor
        states = self._engine.follow(self.connection, watched)  # as told up to now
        places = [_place(name, reply) for name, reply in states.items() if "state" in reply]
        return cursor + _STATES + "~".join(places)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().close()


def _timeout_ms(request: Request, most: int) -> int:
    text = request.query.get("timeout_ms", str(_TIMEOUT_MS))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RtError(
            INVALID_PARAMS,
            f"timeout_ms is {shown(text)}, expected milliseconds",
            {"param": "timeout_ms"},
        )
    return min(int(text), most)


def _lost(since: Any, reply: Mapping[str, Any]) -> dict[str, Any]:
    """What a `gap` push says of messages that cannot be told any more."""
    epoch, offset = since
    messages = reply["messages"]
    last = (messages[0]["offset"] if messages else reply["offset"] + 1) - 1
    if reply["epoch"] != epoch or last <= offset:
        return {"why": "epoch"}
    return {"from": offset + 1, "to": last, "why": "history"}


def _place(name: str, reply: Mapping[str, Any]) -> str:
    """A watched thing and its state, as checksums."""
    return f"{zlib.crc32(name.encode('utf-8')):x}.{zlib.crc32(to_json(reply['state'])):x}"
