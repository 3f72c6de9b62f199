"""What a name is: of users, channels, counters, boards, clients; and a name within a name."""

from __future__ import annotations

import re

from rtserver.limits import NAME_BYTES_MAX

__all__ = ["NAME_RULE", "encode_part", "is_name"]

# Surrogates are half a character: text that has them cannot be written as UTF-8.
_NAME = re.compile(
    r"[^\x00-\x20\x7f-\xa0,\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ud800-\udfff]+"
)
_matches = _NAME.fullmatch
_CHARS_SAFE = NAME_BYTES_MAX // 4  # so many characters are never more than 255 bytes
NAME_RULE = f"1 to {NAME_BYTES_MAX} bytes of UTF-8 without control characters, spaces or commas"


def is_name(text: str) -> bool:
    """Whether a text may be a name."""
    if not _matches(text):
        return False
    return len(text) <= _CHARS_SAFE or len(text.encode("utf-8")) <= NAME_BYTES_MAX


def encode_part(name: str) -> str:
    """A name as it stands between the colons of another, such as a user's in `$inbox:<user>`."""
    return name.replace("%", "%25").replace(":", "%3A")
