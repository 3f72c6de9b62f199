"""Finite floats as int64 keys in the same order, and back.

The bits of a positive double, read as an integer, ascend with it; those of a negative one descend,
so its lower 63 bits are turned over. -0.0 becomes 0.0; every other value comes back exactly.
"""

from __future__ import annotations

from struct import Struct

__all__ = ["float_of", "key_of"]

_LOWER_BITS = 2**63 - 1
_double = Struct("<d")
_int64 = Struct("<q")


def key_of(value: float) -> int:
    """The key of a float; NaN has none that means anything."""
    (bits,) = _int64.unpack(_double.pack(value + 0.0))
    return int(bits if bits >= 0 else bits ^ _LOWER_BITS)


def float_of(key: int) -> float:
    """The float of a key that `key_of` made."""
    (value,) = _double.unpack(_int64.pack(key if key >= 0 else key ^ _LOWER_BITS))
    return float(value)
