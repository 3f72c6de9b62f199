"""The cursor of an event stream or a long poll: where its reader is on every channel, as text.

`era~channel.birth.offset~...` in hexadecimal, with a checksum (CRC-32) in place of each channel's
name: 64 channels fit into a header. Epochs are `era.birth` (state.channels), so a cursor is good
after a restart, and of a channel that began anew it says so by itself. Positions of derived
channels belong to one start of the server and are left out.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping

__all__ = ["cursor_of", "positions_in"]

_CURSOR = re.compile(
    r"(?P<era>[0-9a-z]{0,32})(?P<places>(?:~[0-9a-f]{1,8}\.[0-9a-f]{1,16}\.[0-9a-f]{1,16})*)"
)


def cursor_of(positions: Mapping[str, tuple[str, int]]) -> str:
    """The cursor for {channel: (epoch, offset)}."""
    era = ""
    places = []
    for channel, (epoch, offset) in positions.items():
        life, dot, birth = epoch.partition(".")
        if dot and birth.isdigit():
            era = life
            places.append(f"~{_sum(channel):x}.{int(birth):x}.{offset:x}")
    return era + "".join(places)


def positions_in(cursor: str, channels: Iterable[str]) -> dict[str, list[str | int]]:
    """[epoch, offset] of the channels that the cursor names. Raises ValueError."""
    found = _CURSOR.fullmatch(cursor)
    if found is None or bool(found["era"]) != bool(found["places"]):
        raise ValueError("expected a cursor that this server gave out")
    places: dict[int, list[str | int]] = {}
    for place in found["places"].split("~")[1:]:
        checksum, birth, offset = (int(number, 16) for number in place.split("."))
        places[checksum] = [f"{found['era']}.{birth}", offset]
    return {name: places[_sum(name)] for name in channels if _sum(name) in places}


def _sum(channel: str) -> int:
    return zlib.crc32(channel.encode("utf-8"))
