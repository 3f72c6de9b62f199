"""rtserver: one process that holds, keeps and pushes the live state of an application.

ARCHITECTURE.md beside this file is the map; it walks one request from socket to log to reply.
"""

from __future__ import annotations

__all__ = ["PROTOCOL_VERSION", "__version__"]

__version__ = "0.1.0"
PROTOCOL_VERSION = 1
