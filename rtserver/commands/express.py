"""Short ways of the frequent commands: only the compiled form has them, see _express.pyx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtserver.commands.dispatch import Dispatcher
from rtserver.commands.table import Command
from rtserver.compiled import twin
from rtserver.state.store import Store

__all__ = ["new_express"]


def new_express(table: Mapping[str, Command], store: Store, dispatcher: Dispatcher) -> Any:
    """The short ways of one server, for compiled readers of frames; None in plain Python."""
    compiled = twin(__name__)
    return None if compiled is None else compiled.Express(table, store, dispatcher)
