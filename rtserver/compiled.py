"""Which hot modules run in compiled form.

The tree always runs as plain Python. Each module in MODULES is written for Cython and built at
install time where there is a C compiler. It is a twin of the module beside it that has the same
name without the underscore, and holds the same names with the same behaviour (the same tests run
on both), or it serves twins only and says so. RTSERVER_PURE=1 switches the twins off.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

__all__ = ["MODULES", "active_modules", "pure", "twin"]

MODULES: tuple[str, ...] = (
    "rtserver.structs._names",
    "rtserver.structs._ranking",
    "rtserver.structs._skiplist",
)


def pure() -> bool:
    """Whether the environment asks for plain Python."""
    return os.environ.get("RTSERVER_PURE", "") not in ("", "0")


def twin(module: str) -> Any:
    """The compiled twin of a module, by the module's own name; None where it is not built or
    switched off."""
    package, _, name = module.rpartition(".")
    path = f"{package}._{name}"
    if pure() or importlib.util.find_spec(path) is None:
        return None
    return importlib.import_module(path)


def active_modules() -> list[str]:
    """The modules that are compiled in this process."""
    if pure():
        return []
    return [name for name in MODULES if importlib.util.find_spec(name) is not None]
