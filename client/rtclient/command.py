"""What a command is to the client, and how the arguments of a call become bytes.

Owns no state. A command says what it does as far as sending it again is concerned, and how its
result is made from what the reply holds.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Generic, Protocol, TypeVar

from rtclient import wire

__all__ = ["UNFIT", "Command", "Effect", "Promise", "packed", "unfit"]

T = TypeVar("T")

UNFIT: Final = (TypeError, ValueError, OverflowError)  # what packing raises
_ARRAY_HEAD: Final = 0x90


class Effect(Enum):
    """What a command does, as far as sending it again is concerned."""

    READ = "read"  # may be sent again
    WRITE = "write"  # may be sent again under a key
    DELTA = "delta"  # an increment: without a key while plain, too frequent for one
    SESSION = "session"  # about this connection or process: never sent again


class Command(Generic[T]):
    """One command of the server.

    decode: makes the result of what the reply holds. params: names, in order. plain: that many
    parameters a call may have to be a plain delta, or an item of a vector command.
    """

    __slots__ = ("decode", "effect", "keyed_above", "name", "packed_name", "params", "plain")

    def __init__(
        self,
        name: str,
        effect: Effect,
        decode: Callable[[Any], T] | None = None,
        params: tuple[str, ...] = (),
        plain: int = 0,
    ) -> None:
        self.name = name
        self.effect = effect
        self.decode = decode
        self.params = params
        self.plain = plain
        self.packed_name = wire.Packer().pack(name)
        self.keyed_above = _keyed_above(effect, plain)


def _keyed_above(effect: Effect, plain: int) -> int:
    """Packed parameters whose first byte, which counts them, is above this need a key."""
    if effect is Effect.WRITE:
        return -1
    return _ARRAY_HEAD + plain if effect is Effect.DELTA else 0xFF


class Promise(Protocol):
    """Where the outcome of a call goes: an asyncio future, or something a thread waits for."""

    def done(self) -> bool: ...

    def set_result(self, result: Any, /) -> None: ...

    def set_exception(self, exception: BaseException, /) -> None: ...


def packed(
    pack_params: Callable[[tuple[Any, ...]], bytes], command: Command[Any], params: tuple[Any, ...]
) -> bytes:
    """The parameters of a call. Raises TypeError or ValueError where a value cannot be sent."""
    try:
        return pack_params(params)
    except UNFIT as error:
        raise unfit(command, error) from error


def unfit(command: Command[Any], error: Exception) -> Exception:
    """What the caller is told of a value that msgpack cannot carry."""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"{command.name} cannot be sent: {error}")
