"""A socket that its event loop lends to calling threads, so that a lone call needs no other thread.

While it is lent the loop neither reads nor writes it, and touches the ledger only after `reclaim`.
A thread that finds nobody at it leads: it sends its call and receives until its own reply is
there. Whatever else comes (a push, a part of a frame, a close, an error) goes back to the loop,
with the socket, in the order in which it came. Costs: a look whether something has come, a send, a
wait and a receive a call; no switch of threads.

An interrupt of a waiting leader gives up her call and the loan. One that falls between two steps
of her bookkeeping gives up the connection as well, because nobody can tell which bytes have left
or come; the loop opens another, and the ledger knows what to send again.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from rtclient import wire
from rtclient.command import Command, Promise, packed
from rtclient.ledger import Ledger

__all__ = ["AVAILABLE", "Line"]

AVAILABLE: Final = hasattr(select, "poll")
_RECEIVE_BYTES: Final = 64 * 1024
_REPLY: Final = 1
_TAKE_BYTES: Final = 1


class Line:
    """One loan. `feed` gets the bytes that a leader received and the loop has to deal with, in
    the loop's thread; `returned` is called before, when the loop is going to read again. Raises
    OSError where no descriptor is left."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        ledger: Ledger,
        feed: Callable[[bytes], None],
        returned: Callable[[], None],
        *,
        look_ms: int,
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._ledger = ledger
        self._feed = feed
        self._returned = returned
        self._look_ms = look_ms  # a waiting leader looks so often whether her call was ended
        self._lock = threading.Lock()  # whoever leads holds it while she uses the ledger
        self._lent = True
        self._leader: Promise | None = None  # of the call whose thread leads
        self._told = False  # the leader has given the loan back, and leads no longer
        self._over = False  # the loop reads again
        self._unsent = b""  # what the socket did not take of a leader's bytes
        self.uses = 0
        # A descriptor of its own: the loop may close the transport's while a leader reads.
        self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        self._socket.setblocking(False)
        transport.pause_reading()
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        self._poll = poll.poll

    # --- in calling threads ---

    def call(
        self,
        command: Command[Any],
        params: tuple[Any, ...],
        options: Mapping[str, Any],
        promise: Promise,
    ) -> bool:
        """Makes the call whose outcome goes to `promise`, and leads until it is there or left to
        the loop. False: nothing was done, for somebody leads or the loan is over. Raises what
        `Ledger.start` raises."""
        try:
            leads = self._begin(command, params, options, promise)
            if leads:
                self._lead(promise)
        except BaseException:
            if self._leader is promise and not self._told:
                self._abandon()
            raise
        return leads

    def _begin(
        self,
        command: Command[Any],
        params: tuple[Any, ...],
        options: Mapping[str, Any],
        promise: Promise,
    ) -> bool:
        """Sends the call, if the caller can lead."""
        ledger = self._ledger
        with self._lock:
            if not self._lent or self._leader is not None or len(ledger) or self._poll(0):
                return False
            self._leader = promise
            ledger.idle = False  # nobody has to be woken for what leaves here
            try:
                ledger.start(command, packed(ledger.pack_params, command, params), options, promise)
            except BaseException:
                if not len(ledger):
                    self._leader = None
                raise
            finally:
                ledger.idle = True
            self._send(ledger.take(_TAKE_BYTES))
        return True

    def _send(self, data: bytes) -> None:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return self._abandon()
        if sent < len(data):
            self._unsent = data[sent:]
            self._give_back(b"")

    def _lead(self, promise: Promise) -> None:
        """Receives until the call is over or the loop has to go on."""
        while not self._told:
            try:
                while not (ready := self._poll(self._look_ms)) and not promise.done():
                    pass
            except BaseException:
                self._give_back(b"")
                raise
            if not ready:
                return self._give_back(b"")
            if self._receive(promise):
                return

    def _receive(self, promise: Promise) -> bool:
        """Whether the caller leads no longer."""
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._abandon()
            return True
        reply = _only_reply(data)
        with self._lock:
            if not self._lent or reply is None:
                self._give_back(data)
                return True
            self._ledger.reply(reply[1], reply[2], reply[3])
            if not promise.done():  # a reply that nobody waits for
                return False
            self._leader = None
            self.uses += 1
        return True

    def _give_back(self, data: bytes) -> None:
        self._tell(self._go_on, data)

    def _abandon(self) -> None:
        """Gives the loan back together with the connection."""
        self._tell(self._cut)

    def _tell(self, work: Callable[..., None], *args: Any) -> None:
        self._lent = False
        try:
            self._loop.call_soon_threadsafe(work, *args)
        except RuntimeError:  # the client was closed meanwhile
            self._socket.close()
        self._told = True

    # --- in the loop's thread ---

    def reclaim(self) -> None:
        """Ends the loan: the ledger is the loop's again when this returns. The socket is read
        again when the thread that leads, if any, has left."""
        with self._lock:
            self._lent = False
            led = self._leader is not None
        self._write_unsent()
        if not led:
            self._go_on(b"")

    def reclaim_unused(self, uses: int) -> None:
        """Ends the loan if nobody has used it since it was used so often."""
        with self._lock:
            unused = self.uses == uses and self._leader is None
            if unused:
                self._lent = False
        if unused:
            self._go_on(b"")

    def _write_unsent(self) -> None:
        unsent, self._unsent = self._unsent, b""
        if unsent and not self._transport.is_closing():
            self._transport.write(unsent)

    def _go_on(self, data: bytes) -> None:
        """Nobody leads any more; reads on where she ended."""
        if self._over:
            return
        self._over = True
        self._write_unsent()
        self._socket.close()
        self._returned()
        if not self._transport.is_closing():
            if data:
                self._feed(data)
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _cut(self) -> None:
        self._unsent = b""
        self._go_on(b"")
        self._transport.abort()


def _only_reply(data: bytes) -> list[Any] | None:
    """The reply, where the bytes are one whole frame that holds one."""
    frames = wire.Frames()
    try:
        values, _ = frames.cut(data)
    except ValueError:
        return None
    if len(values) != 1 or not frames.between:
        return None
    value = values[0]
    is_reply = type(value) is list and len(value) == 4 and value[0] == _REPLY
    return value if is_reply and type(value[1]) is int and value[1] else None
