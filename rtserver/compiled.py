"""Which hot modules run in compiled form.

The tree always runs as plain Python. The modules in MODULES are written for Cython and built at
install time where there is a C compiler. Most are twins: they hold what the module beside them,
of the same name without the underscore, chooses by `twin`, with the same behaviour (the same tests
run on both). Some are parts that only other compiled modules use. They lean on one another, so
either all of them are used or none. RTSERVER_PURE=1 switches them off.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from typing import Any

__all__ = ["MODULES", "active_modules", "pure", "twin"]

MODULES: tuple[str, ...] = (
    "rtserver.structs._names",
    "rtserver.structs._sharded_map",
    "rtserver.structs._tally",
    "rtserver.structs._skiplist",
    "rtserver.structs._ranking",
    "rtserver.state._boards",
    "rtserver.state.sales._book",
    "rtserver.state.sales._ledger",
    "rtserver.commands._journal",
    "rtserver.commands._sale_ways",
    "rtserver.commands._express",
    "rtserver.commands._replay",
    "rtserver.transport._binary",
)


def pure() -> bool:
    """Whether the environment asks for plain Python."""
    return os.environ.get("RTSERVER_PURE", "") not in ("", "0")


@cache
def _built() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in MODULES)


def twin(module: str) -> Any:
    """The compiled twin of a module, by the module's own name; None where the compiled form is not
    built or switched off."""
    if pure() or not _built():
        return None
    package, _, name = module.rpartition(".")
    return importlib.import_module(f"{package}._{name}")


def active_modules() -> list[str]:
    """The modules that are compiled in this process."""
    return [] if pure() or not _built() else list(MODULES)
