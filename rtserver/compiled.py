"""Which hot modules run in compiled form.

The tree always runs as plain Python; a module listed in MODULES may also be compiled at install
time. RTSERVER_PURE=1 switches compiled forms off.
"""

from __future__ import annotations

import importlib
import os

__all__ = ["MODULES", "active_modules", "pure"]

MODULES: tuple[str, ...] = ()


def pure() -> bool:
    """Whether the environment asks for plain Python."""
    return os.environ.get("RTSERVER_PURE", "") not in ("", "0")


def active_modules() -> list[str]:
    """The modules that are compiled in this process."""
    files = ((name, importlib.import_module(name).__file__ or "") for name in MODULES)
    return [name for name, file in files if not file.endswith(".py")]
