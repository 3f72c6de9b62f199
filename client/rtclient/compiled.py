"""Which hot modules run in compiled form.

The package always runs as plain Python. Each module in MODULES is a twin of the module beside it
that has the same name without the underscore; it is built at install time where there is a C
compiler, and has the same names with the same behaviour. RTSERVER_PURE=1 switches the twins off.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any, Final

__all__ = ["MODULES", "active_modules", "pure", "take_over"]

MODULES: Final = ("rtclient._wire",)


def pure() -> bool:
    """Whether the environment asks for plain Python."""
    return os.environ.get("RTSERVER_PURE", "") not in ("", "0")


def active_modules() -> list[str]:
    """The modules that are compiled in this process."""
    if pure():
        return []
    return [name for name in MODULES if importlib.util.find_spec(name) is not None]


def take_over(module: dict[str, Any]) -> None:
    """Lets the twin's names stand for those of a module, given by its globals at its end, where
    there is a twin and it is not switched off."""
    package, _, name = module["__name__"].rpartition(".")
    path = f"{package}._{name}"
    if path in active_modules():
        twin = importlib.import_module(path)
        module.update((name, getattr(twin, name)) for name in module["__all__"])
