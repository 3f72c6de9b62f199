"""The shape of the tree: floors, sizes, one place for each thing.

A module imports only lower floors, packages of one floor never import each other, and nothing in
the lower floors does I/O, reads a clock or draws chance.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "rtserver"

# From the bottom. A name is a package or a module of rtserver.
FLOORS = [
    ["errors", "limits", "clock", "metrics", "compiled", "config", "loop", "pages", "memory"],
    ["wire"],
    ["structs"],
    ["state"],
    ["persist"],
    ["session"],
    ["commands"],
    ["transport"],
    ["tick"],
    ["hub", "snapshots", "audits", "log_audit", "exposition", "listeners"],
    ["host", "drain"],
    ["server"],
    ["demo"],
    ["cli_demo", "cli_log", "cli_token"],
    ["cli"],
    ["__main__"],
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
DETERMINISTIC = ["structs", "state"]
IMPURE = {"time", "random", "secrets", "socket", "asyncio", "logging", "os", "datetime"}
LINES_MAX = 600
FUNCTION_LINES_MAX = 70

MODULES = sorted(path for path in SERVER.rglob("*.py") if path.name != "__init__.py")


def imports(path: Path) -> set[str]:
    """The dotted names of everything a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def room(path: Path) -> str:
    """`rtserver/state/boards.py` is in the room `state`."""
    return path.relative_to(SERVER).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_down(path):
    own = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "rtserver" or len(parts) < 2 or parts[1] not in FLOOR_OF:
            continue
        other = parts[1]
        assert other == own or FLOOR_OF[other] < FLOOR_OF[own] or _same_floor(own, other), (
            f"{own} imports {other}, which is on a higher floor"
        )


def _same_floor(own: str, other: str) -> bool:
    """The words and numbers at the bottom may use each other."""
    return FLOOR_OF[own] == FLOOR_OF[other] == 0


def test_every_module_has_a_floor():
    assert {room(path) for path in MODULES} <= set(FLOOR_OF)


@pytest.mark.parametrize("package", sorted({path.parent for path in MODULES}), ids=str)
def test_no_cycles_inside_a_package(package):
    graph = {}
    for path in package.glob("*.py"):
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        graph[dotted] = imports(path)
    done: set[str] = set()
    while ready := [
        name for name in graph if name not in done and not (graph[name] & graph.keys() - done)
    ]:
        done.update(ready)
    assert not set(graph) - done, f"these import each other: {sorted(set(graph) - done)}"


@pytest.mark.parametrize("package", DETERMINISTIC)
def test_state_and_structures_are_deterministic(package):
    for path in (SERVER / package).glob("*.py"):
        roots = {name.partition(".")[0] for name in imports(path)}
        assert not roots & IMPURE, f"{path.name} imports {roots & IMPURE}"
        assert "async " not in path.read_text("utf-8")


def test_the_client_never_imports_the_server():
    for path in (ROOT / "client" / "rtclient").rglob("*.py"):
        assert not any(name.split(".")[0] == "rtserver" for name in imports(path)), path


def test_only_the_demo_imports_the_client():
    for path in MODULES:
        if any(name.split(".")[0] == "rtclient" for name in imports(path)):
            assert room(path) == "demo", path


def test_only_files_knows_fsync():
    for path in MODULES:
        if path.name != "files.py":
            text = path.read_text("utf-8")
            assert "os.fsync" not in text, path
            assert "os.fdatasync" not in text, path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes_and_docstrings(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= LINES_MAX
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it owns"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines"


def test_no_leftovers():
    for path in [*MODULES, *(ROOT / "client").rglob("*.py")]:
        text = path.read_text("utf-8")
        for word in ("TODO", "FIXME", "XXX", "type: ignore", "noqa", "pragma: no cover"):
            assert word not in text, f"{path} has {word}"


def test_dispatch_asks_for_no_command_by_name():
    for name in ("dispatch.py", "journal.py", "replay.py", "table.py"):
        for node in ast.walk(ast.parse((SERVER / "commands" / name).read_text("utf-8"))):
            if isinstance(node, ast.Compare):
                for side in [node.left, *node.comparators]:
                    value = getattr(side, "value", None)
                    assert not (isinstance(value, str) and "." in value), f"{name}: {value}"
