"""Sockets: bytes in, calls out; each connection's outbox to its socket. One module a protocol."""
