"""Inline text: one command a line, typed or piped by a person (protocol.md section 4).

Lines have no ids, so they are answered in the order they came: after a command whose reply waits
for a sync, the next line waits too.
"""

from __future__ import annotations

import asyncio
import difflib
from typing import Any

from rtserver.commands.options import OPTION_NAMES
from rtserver.errors import CLOSE_TOO_LARGE, FRAME_TOO_LARGE, INVALID_PARAMS, ProtocolError, RtError
from rtserver.transport.engine import Engine, Progress
from rtserver.transport.stream import Stream
from rtserver.wire import inline

__all__ = ["InlineStream"]

_NO_ID = 0  # replies carry none in this form
_SIZE_FACTOR = 9  # one character of a line becomes at most so many bytes of a record


class InlineStream(Stream):
    """A connection that speaks lines of text and hears lines of JSON."""

    __slots__ = ("_buffer", "_position")
    form = inline

    def __init__(self, engine: Engine, transport: asyncio.Transport, address: str | None) -> None:
        self._buffer = b""
        self._position = 0  # of the next line; what is before it was run
        super().__init__(engine, transport, address)

    def receive(self, data: bytes) -> None:
        self._buffer += data

    def kept(self) -> int:
        return len(self._buffer)

    def run(self) -> Progress:
        try:
            return self._run_lines()
        finally:
            self._buffer = self._buffer[self._position :]
            self._position = 0

    def _run_lines(self) -> Progress:
        engine = self._engine
        connection = self.connection
        budget = engine.budget()
        while connection.is_open:
            if connection.congested or connection.waiting:
                return Progress.BLOCKED
            if budget <= 0:
                return Progress.MORE
            line = self._next_line()
            if line is None:
                return Progress.IDLE
            cost = self._run_line(line)
            budget -= cost
            if engine.spent(cost):
                budget = 0
        return Progress.IDLE

    def _next_line(self) -> bytes | None:
        start = self._position
        end = self._buffer.find(b"\n", start)
        length = (len(self._buffer) if end < 0 else end) - start
        bound = self._engine.limits.inline_line_bytes_max
        if length > bound:
            why = f"a line of {length} bytes or more, at most {bound} are accepted"
            self._give_up(ProtocolError(why, FRAME_TOO_LARGE, CLOSE_TOO_LARGE))
            return None
        if end < 0:
            return None
        self._position = end + 1
        return self._buffer[start:end]

    def _give_up(self, error: ProtocolError) -> None:
        """Nothing more of this peer is read."""
        self._engine.metrics.count_error(error.kind.name)
        self.connection.reply_error(None, error)
        self.connection.close(error.close, error.message)
        self._buffer = b""

    def _run_line(self, line: bytes) -> int:
        try:
            text = line.decode("utf-8").strip()
            if not text:
                return 1
            if inline.is_request_line(text):
                self._give_up(ProtocolError("this is HTTP, with a method that nobody knows here"))
                return 1
            method, positional, named = inline.parse_line(text)
        except UnicodeDecodeError:
            return self._refuse(RtError(INVALID_PARAMS, "the line is not valid UTF-8"))
        except ValueError as error:
            return self._refuse(RtError(INVALID_PARAMS, str(error)))
        if method == "help":
            topic = str(positional[0]) if positional else None
            self.connection.send(self._engine.help(topic).encode("utf-8"))
            return 1
        return self._call(method, positional, named, len(line))

    def _call(self, method: str, positional: list[Any], named: dict[str, Any], size: int) -> int:
        options = {name: named.pop(name) for name in OPTION_NAMES & named.keys()}
        try:
            params = self._params(method, positional, named)
        except RtError as error:
            return self._refuse(error)
        return self._engine.call(
            self.connection, _NO_ID, method, params, options or None, size * _SIZE_FACTOR
        )

    def _params(
        self, method: str, positional: list[Any], named: dict[str, Any]
    ) -> list[Any] | dict[str, Any]:
        """Positional and named values as one. A mistyped name is an error for a person."""
        if not named:
            return positional
        names = self._engine.parameters(method)
        if names is None:
            return positional  # an unknown method is refused by dispatch
        params = dict(zip(names, positional, strict=False))
        for name, value in named.items():
            if name not in names:
                raise RtError(INVALID_PARAMS, f"{name} is not a parameter{_near(name, names)}")
            if name in params:
                raise RtError(INVALID_PARAMS, f"{name} is given twice, by place and by name")
            params[name] = value
        return params

    def _refuse(self, error: RtError) -> int:
        self._engine.metrics.count_error(error.kind.name)
        self.connection.reply_error(_NO_ID, error)
        return 1


def _near(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, [*names, *OPTION_NAMES], n=1)
    return f"; did you mean {near[0]}?" if near else f", expected one of {', '.join(names)}"
