"""Pages for people that a development server shows: the files of a directory, read once.

Nothing of the file system is touched afterwards, so no path of a request can leave the directory.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from pathlib import Path

from rtserver.config import ConfigError

__all__ = ["read_pages"]

_BYTES_MAX = 16 * 1024 * 1024
_TEXT = ("text/", "application/json")
_SCRIPT = "text/javascript"


def read_pages(directory: Path) -> Mapping[str, tuple[str, bytes]]:
    """{path: (media type, content)} of all files below a directory. Raises ConfigError."""
    if not directory.is_dir():
        raise ConfigError(f"--pages is {directory}, expected a directory")
    pages = {}
    size = 0
    for file in sorted(directory.rglob("*")):
        if not file.is_file():
            continue
        size += file.stat().st_size
        if size > _BYTES_MAX:
            raise ConfigError(f"--pages: {directory} holds more than {_BYTES_MAX} bytes")
        pages[f"/{file.relative_to(directory).as_posix()}"] = (_type(file), file.read_bytes())
    return pages


def _type(file: Path) -> str:
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    if file.suffix in (".js", ".mjs"):
        kind = _SCRIPT
    return f"{kind}; charset=utf-8" if kind.startswith(_TEXT) else kind
