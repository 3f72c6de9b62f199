"""Replies that list things end at a bound of bytes, and say where to go on."""

from __future__ import annotations

from rtserver.state.chunks import fitting

__all__ = ["fitting", "name_bytes"]

_ROW_BYTES = 32  # of a listed thing beside its name


def name_bytes(name: str) -> int:
    """About what a named thing adds to a reply."""
    return len(name.encode("utf-8")) + _ROW_BYTES
