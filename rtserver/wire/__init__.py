"""Bytes to values and back, without any I/O: frames, msgpack, JSON, inline text."""
