"""The options of a request: how it is to be applied, acknowledged and remembered."""

from __future__ import annotations

from typing import Any, Final, get_args

from rtserver.commands.kinds import NAME, at_most
from rtserver.commands.table import Ack
from rtserver.errors import INVALID_OPTION, RtError, shown
from rtserver.limits import INT64_MAX

__all__ = ["OPTION_NAMES", "Options", "parse_options"]

TIMEOUT_MS_MAX: Final = 3_600_000
_ACKS: Final = frozenset(get_args(Ack))


class Options:
    """What a request asks beside its parameters; None where it asked nothing."""

    __slots__ = ("ack", "address", "as_user", "idempotency_key", "source", "timeout_ms")

    def __init__(self) -> None:
        self.ack: Ack | None = None
        self.idempotency_key: str | list[Any] | None = None
        self.timeout_ms: int | None = None
        self.source: list[Any] | None = None
        self.as_user: str | None = None
        self.address: str | None = None


OPTION_NAMES: Final = frozenset(Options.__slots__)


def parse_options(raw: Any) -> Options | None:
    """Checked options, or None where there are none. Raises RtError invalid_option."""
    if not raw:
        return None
    if type(raw) is not dict:
        raise RtError(INVALID_OPTION, "options are a map")
    options = Options()
    for name, value in raw.items():
        check = _CHECKS.get(name)
        if check is None or value is None:
            continue  # unknown fields are ignored: a newer client may know more
        try:
            setattr(options, name, check(value))
        except ValueError as error:
            raise RtError(
                INVALID_OPTION, f"{name} is {shown(value)}, {error}", {"option": name}
            ) from None
    return options


def _ack(value: Any) -> Any:
    if type(value) is not str or value not in _ACKS:
        raise ValueError("expected memory, logged or synced")
    return value


def _key(value: Any) -> Any:
    if type(value) is not list:
        return NAME.check(value)
    if len(value) != 3:
        raise ValueError("expected text or [client, n, done]")
    client, number, done = value
    NAME.check(client)
    if not (_is_uint(number) and _is_uint(done) and done < number):
        raise ValueError("expected [client, n, done] with integers and done below n")
    return value


def _source(value: Any) -> Any:
    if type(value) is not list or len(value) != 3:
        raise ValueError("expected [name, partition, offset]")
    name, partition, offset = value
    NAME.check(name)
    if not (_is_uint(partition) and _is_uint(offset)):
        raise ValueError("expected [name, partition, offset] with integers of 0 or more")
    return value


def _is_uint(value: Any) -> bool:
    return type(value) is int and 0 <= value <= INT64_MAX


_CHECKS: Final = {
    "ack": _ack,
    "address": NAME.check,
    "as_user": NAME.check,
    "idempotency_key": _key,
    "source": _source,
    "timeout_ms": at_most(TIMEOUT_MS_MAX).check,
}
