"""Writes the SDKs' commands, results and errors from the server's tables.

    python client/generate.py            writes the modules named in `modules()`; needs ruff
    python client/generate.py --check    exits 1 when one of them is stale

The output is committed and is ordinary code: formatted, typed, with the table's own summaries as
docstrings. Left out are rows that only the server issues, and those that the client's connection
itself needs (_OWNED). Staleness is judged by syntax trees, so formatting is ruff's alone.
"""

from __future__ import annotations

import ast
import keyword
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from generate_js import js_modules
from rtserver.commands.kinds import SHAPES, VECTOR, Shape
from rtserver.commands.reference import public
from rtserver.commands.table import Command, Param, load
from rtserver.errors import ERRORS

_HERE: Final = Path(__file__).resolve().parent
TARGET: Final = _HERE / "rtclient"
JS_TARGET: Final = _HERE / "js"

# The client says hello and keeps subscriptions by itself, so that both survive reconnects.
_OWNED: Final = frozenset({"server.hello", "channel.subscribe", "channel.unsubscribe"})

# Pushes name their channel beside the fields of the shape; replies do not.
_MORE_FIELDS: Final = {"Message": {"channel": "text?"}}

# What the package offers at its top, beside the server's errors.
_PUBLIC: Final = {
    "rtclient.client": ["Client", "connect"],
    "rtclient.errors": [
        "Closed",
        "ConnectionLost",
        "Error",
        "LimitError",
        "RequestError",
        "RightsError",
        "ServerError",
        "StateError",
        "Timeout",
    ],
    "rtclient.items": ["Gap", "Join", "Leave"],
    "rtclient.options": ["Position"],
    "rtclient.results": ["Message", "Step", "UserPresence", "WholePlace"],
    "rtclient.states": ["BoardState", "CounterState", "SaleState"],
    "rtclient.subscription": ["Subscription"],
    "rtclient.watch": ["Watch"],
}

_TYPES: Final = {"int": "int", "number": "int | float", "text": "str", "bool": "bool"}
_GROUPS: Final = ("", "RequestError", "StateError", "LimitError", "RightsError", "ServerError")


def modules() -> dict[str, str]:
    """The source of each generated module, unformatted."""
    rows = _rows()
    results = Results(rows)
    return {
        "__init__.py": _package_module(),
        "server_errors.py": _errors_module(),
        "results.py": _results_module(results),
        "table.py": _table_module(rows, results),
        "commands.py": _commands_module(rows, results),
        "sync_commands.py": _sync_commands_module(rows, results),
    }


def _head(text: str, *imports: str) -> str:
    lines = [
        f'"""{text}',
        "",
        "Made by client/generate.py from the server's tables; change those, not this.",
        '"""',
        "from __future__ import annotations",
        *imports,
    ]
    return "\n".join(lines) + "\n"


def _all(names: Iterable[str]) -> str:
    return f"__all__ = {sorted(names, key=lambda name: (not name.isupper(), name))!r}\n"


def _tuple(items: list[str]) -> str:
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"


def _pascal(name: str) -> str:
    return "".join(word.title() for word in name.split("_"))


def _package_module() -> str:
    public = {**_PUBLIC, "rtclient.server_errors": [_pascal(name) for name in ERRORS]}
    head = _head(
        "The Python client of rtserver. Depends on msgpack only.\n\n"
        "`connect` is asyncio's way in, `rtclient.sync.connect` the blocking one, and\n"
        "`rtclient.testing` starts a real server for tests.",
        *(f"from {module} import {', '.join(names)}" for module, names in public.items()),
    )
    return head + _all(name for names in public.values() for name in names)


# --- errors ---


def _errors_module() -> str:
    kinds = list(ERRORS.values())
    head = _head(
        "The errors that the server answers, one class each.",
        "from typing import ClassVar, Final",
        f"from rtclient.errors import Error, {', '.join(_GROUPS[1:])}",
        _all(["ERRORS", *(_pascal(kind.name) for kind in kinds)]),
    )
    classes = [
        f"class {_pascal(kind.name)}({_GROUPS[kind.code // 100]}):\n"
        f'    """{kind.advice}"""\n\n'
        f"    code = {kind.code}\n    name = {kind.name!r}\n    retryable = {kind.retryable}\n"
        f"    advice: ClassVar[str] = {kind.advice!r}\n"
        for kind in kinds
    ]
    table = "".join(f"{kind.name!r}: {_pascal(kind.name)}, " for kind in kinds)
    return head + "\n".join(classes) + f"ERRORS: Final[dict[str, type[Error]]] = {{{table}}}\n"


# --- results ---


class Results:
    """Which class each row's result has, and the source of all these classes."""

    def __init__(self, rows: Iterable[Command]) -> None:
        self._users: dict[str, list[Command]] = {}  # the rows that answer a shape
        self._order: dict[str, None] = {}  # shapes, parts before what holds them
        for row in rows:
            if isinstance(row.returns, Shape):
                self._users.setdefault(row.returns.name, []).append(row)
                self._visit(row.returns)

    def _visit(self, shape: Shape) -> None:
        for kind in shape.fields.values():
            part = SHAPES.get(_bare(kind))
            if part is not None:
                self._visit(part)
        self._order[shape.name] = None

    def annotation(self, row: Command) -> str:
        return self._class(row) if isinstance(row.returns, Shape) else _annotation(row.returns)

    def decoder(self, row: Command) -> str | None:
        return _decoder(self._class(row)) if isinstance(row.returns, Shape) else None

    def names(self, rows: Iterable[Command]) -> list[str]:
        return sorted({self._class(row) for row in rows if isinstance(row.returns, Shape)})

    def _class(self, row: Command) -> str:
        """Where only some users of a shape may have failed items, these have their own class."""
        assert isinstance(row.returns, Shape), "bare values have no class"
        name = row.returns.name
        shared = any(not _is_vector(user) for user in self._users[name])
        return f"{name}OrErrors" if _is_vector(row) and shared else name

    def classes(self) -> Iterator[tuple[str, str]]:
        """(name, source) of each."""
        for shape in self._order:
            answering: dict[str, list[Command]] = {}
            for row in self._users.get(shape, []):
                answering.setdefault(self._class(row), []).append(row)
            for name, rows in (answering or {shape: []}).items():
                yield name, _result_class(name, SHAPES[shape], rows)


def _is_vector(row: Command) -> bool:
    """Its items are applied one by one, and some may fail."""
    return row.is_write and any(param.kind is VECTOR for param in row.params)


def _results_module(results: Results) -> str:
    classes = dict(results.classes())
    head = _head(
        "What commands answer: typed and immutable; fields that a newer server adds are ignored.",
        "from dataclasses import dataclass",
        "from typing import Any",
        "from rtclient.decode import many, many_by_name, many_or_errors",
        "from rtclient.errors import Error",
        _all(classes),
    )
    return head + "\n".join(classes.values())


def _result_class(name: str, shape: Shape, rows: list[Command]) -> str:
    failing = any(_is_vector(row) for row in rows)
    fields = shape.fields | _MORE_FIELDS.get(shape.name, {})
    lines = ["@dataclass(frozen=True, slots=True)", f"class {name}:"]
    lines += [f'    """{_result_doc(shape, rows)}"""', ""]
    lines += [
        f"    {_python(field)}: {_annotation(kind, failing)}" for field, kind in fields.items()
    ]
    values = ", ".join(_decoded(field, kind, failing) for field, kind in fields.items())
    lines += [f"def {_decoder(name)}(raw: Any) -> {name}:", f"    return {name}({values})"]
    return "\n".join(lines) + "\n"


def _result_doc(shape: Shape, rows: list[Command]) -> str:
    if not rows:
        return _part_doc(shape)
    named = [f"`{row.name}`" for row in rows]
    return f"What {_listed(named)} {'answers' if len(named) == 1 else 'answer'}."


def _part_doc(part: Shape) -> str:
    """Of which fields it is a value."""
    many: list[str] = []
    single: list[str] = []
    for shape in SHAPES.values():
        for field, kind in shape.fields.items():
            if _bare(kind) == part.name and shape.name != "Subscribed":
                (single if kind[0].isalpha() else many).append(f"`{shape.name}.{field}`")
    found = [f"One of {_listed(many)}"] if many else []
    return ", or ".join([*found, *single]) + "."


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _bare(kind: str) -> str:
    return kind.strip("[]{}?")


def _annotation(kind: str, failing: bool = False) -> str:
    if kind == "data" or kind == "data?":
        return "Any"
    if kind[-1] == "?":
        return f"{_annotation(kind[:-1], failing)} | None"
    if kind[0] == "[":
        return f"list[{_annotation(kind[1:-1])}{' | Error' if failing else ''}]"
    if kind[0] == "{":
        return f"dict[str, {_annotation(kind[1:-1])}]"
    return _TYPES.get(kind, kind)


def _decoder(name: str) -> str:
    return "to" + "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _decoded(field: str, kind: str, failing: bool) -> str:
    """The expression that makes a field from the map `raw`."""
    value = f'raw.get("{field}")' if kind[-1] == "?" else f'raw["{field}"]'
    part = _bare(kind)
    decoder = _decoder(part) if part in SHAPES else None
    if kind[0] == "[" and failing:
        return f"many_or_errors({value}, {decoder})"
    if decoder is None:
        return value
    if kind[0] == "[":
        return f"many({value}, {decoder})"
    if kind[0] == "{":
        return f"many_by_name({value}, {decoder})"
    if kind == part:
        return f"{decoder}({value})"
    raise NotImplementedError(f"no decoder for a field of the type {kind}")


# --- commands ---


def _constant(row: Command) -> str:
    return row.name.replace(".", "_").upper()


def _table_module(rows: list[Command], results: Results) -> str:
    head = _head(
        "The commands that this SDK knows: effect, decoder and parameters of each.",
        "from typing import Any, Final",
        "from rtclient import results",
        "from rtclient.command import Command, Effect",
    )
    lines = [_row(row, results) for row in rows]
    named = ", ".join(f"{row.name!r}: {_constant(row)}" for row in rows)
    table = f"\nTABLE: Final[dict[str, Command[Any]]] = {{{named}}}\n"
    return head + "\n".join(lines) + table


def _row(row: Command, results: Results) -> str:
    effect = "DELTA" if row.coalesce is not None else row.effect.name
    is_shape = isinstance(row.returns, Shape)
    result = f"results.{results.annotation(row)}" if is_shape else results.annotation(row)
    decode = f"results.{results.decoder(row)}" if is_shape else "None"
    names = _tuple([repr(param.name) for param in row.params]) if row.params else "()"
    return (
        f"{_constant(row)}: Command[{result}] = "
        f"Command({row.name!r}, Effect.{effect}, {decode}, {names}, {_plain_count(row)})"
    )


def _plain_count(row: Command) -> int:
    """How many parameters come before the first that changes how the call is applied."""
    for place, param in enumerate(row.params):
        if not param.required and param.default is None:
            return place
    return len(row.params)


_CALLER: Final = '''
class Caller(Protocol):
    """Makes a call: {doc}"""

    def __call__(
        self, command: Command[T], params: tuple[Any, ...], options: Mapping[str, Any], /
    ) -> {answer}: ...
'''


def _commands_module(rows: list[Command], results: Results) -> str:
    return _nouns_module(
        rows,
        results,
        "The commands as methods that return futures: await them, or gather many.",
        "from asyncio import Future",
        _CALLER.format(doc="asyncio's way, with a future of the result.", answer="Future[T]"),
        lambda result: f"Future[{result}]",
    )


def _sync_commands_module(rows: list[Command], results: Results) -> str:
    return _nouns_module(
        rows,
        results,
        "The commands as methods that block until they are answered.",
        "",
        _CALLER.format(doc="the blocking way, with the result itself.", answer="T"),
        lambda result: result,
    )


def _nouns_module(
    rows: list[Command],
    results: Results,
    title: str,
    extra: str,
    caller: str,
    answer: Callable[[str], str],
) -> str:
    nouns: dict[str, list[Command]] = {}
    for row in rows:
        nouns.setdefault(row.noun, []).append(row)
    head = _head(
        title,
        extra,
        "from collections.abc import Mapping, Sequence",
        "from typing import Any, Literal, Protocol, TypeVar, Unpack",
        "from rtclient import table",
        "from rtclient.command import Command",
        "from rtclient.options import ReadOptions, WriteOptions",
        f"from rtclient.results import {', '.join(results.names(rows))}",
        _all([*map(_pascal, nouns), "Caller", "Nouns"]),
        'T = TypeVar("T")',
    )
    classes = [
        _noun_class(noun, [_method(row, answer(results.annotation(row))) for row in commands])
        for noun, commands in nouns.items()
    ]
    return head + caller + "\n".join([*classes, _nouns_class(nouns)])


def _noun_class(noun: str, methods: Iterable[str]) -> str:
    return (
        f"class {_pascal(noun)}:\n"
        f'    """The commands `{noun}.*`."""\n\n'
        '    __slots__ = ("_call",)\n\n'
        "    def __init__(self, call: Caller) -> None:\n"
        "        self._call = call\n\n" + "\n".join(methods)
    )


def _nouns_class(nouns: Iterable[str]) -> str:
    return (
        'class Nouns:\n    """One of each noun, all calling in the same way."""\n\n'
        "    def __init__(self, call: Caller) -> None:\n"
        + "".join(f"        self.{noun} = {_pascal(noun)}(call)\n" for noun in nouns)
    )


def _method(row: Command, answer: str) -> str:
    verb = row.name.partition(".")[2]
    options = "WriteOptions" if row.is_write else "ReadOptions"
    params = ["self", *map(_parameter, row.params), f"**options: Unpack[{options}]"]
    names = _tuple([_python(param.name) for param in row.params]) if row.params else "()"
    return (
        f"    def {verb}({', '.join(params)}) -> {answer}:\n"
        + _method_doc(row)
        + f"        return self._call(table.{_constant(row)}, {names}, options)\n"
    )


def _parameter(param: Param) -> str:
    name = _python(param.name)
    kind = param.kind.python
    if param.required:
        return f"{name}: {kind}"
    if param.default is None and kind != "Any":
        kind += " | None"
    return f"{name}: {kind} = {param.default!r}"


def _python(name: str) -> str:
    """The name where Python has no word of its own that is spelled so."""
    return f"{name}_" if keyword.iskeyword(name) else name


def _method_doc(row: Command) -> str:
    notes = [f"        {param.name}: {param.doc}\n" for param in row.params if param.doc]
    if not notes:
        return f'        """{row.summary}"""\n'
    return f'        """{row.summary}\n\n{"".join(notes)}        """\n'


# --- files ---


def stale() -> list[str]:
    """The modules whose committed source says something else than the tables."""
    python = [name for name, source in modules().items() if not _same(TARGET / name, source)]
    return python + [name for name, source in _js().items() if _read(JS_TARGET / name) != source]


def _js() -> dict[str, str]:
    return js_modules(_rows())


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _rows() -> list[Command]:
    return [row for row in public(load()) if row.name not in _OWNED]


def _same(path: Path, source: str) -> bool:
    if not path.exists():
        return False
    return _meaning(path.read_text()) == _meaning(source)


def _meaning(source: str) -> list[str]:
    """All statements but the imports, which ruff sorts."""
    body = ast.parse(source).body
    return [ast.dump(node) for node in body if not isinstance(node, ast.Import | ast.ImportFrom)]


def write() -> None:
    """Writes all modules, and formats those in Python."""
    for name, source in _js().items():
        (JS_TARGET / name).write_text(source)
    paths = []
    for name, source in modules().items():
        path = TARGET / name
        path.write_text(source)
        paths.append(str(path))
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "check", "--fix", "--quiet", "--select", "I,F401", *paths], check=True)
    subprocess.run([*ruff, "format", "--quiet", *paths], check=True)


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        names = stale()
        for name in names:
            sys.stderr.write(f"{name} is stale: run python client/generate.py\n")
        return 1 if names else 0
    if arguments:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
