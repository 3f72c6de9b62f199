"""The browser client's generated modules: its commands, and their types.

Part of client/generate.py, which writes them and tells when they are stale.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import takewhile
from typing import Final

from rtserver.commands.kinds import SHAPES, VECTOR, Shape
from rtserver.commands.table import Command, Param

__all__ = ["js_modules"]

_HEAD: Final = "/** {title} Made by client/generate.py from the server's tables; change those. */\n"

_ROW: Final = """
/** {method: {effect, params, required}}; what reads may be sent again, what writes under a key. */
export const COMMANDS = Object.fromEntries(ROWS.trim().split("\\n").map(row));

function row(line) {
  const [effect, method, ...params] = line.split(" ");
  const required = params.filter((name) => !name.endsWith("?")).length;
  const names = params.map((name) => name.replace("?", ""));
  return [method, { effect, params: names, required }];
}
"""

_TYPES: Final = {
    "int": "number",
    "number": "number",
    "text": "string",
    "bool": "boolean",
    "data": "any",
}
_PARAM_TYPES: Final = {
    "int": "Int",
    "int | float": "Int",
    "str": "string",
    "bool": "boolean",
    "Any": "Data",
    "Sequence[str]": "readonly string[]",
    "Sequence[Any]": "readonly Data[]",
    "Mapping[str, int]": "Readonly<Record<string, Int>>",
    "Mapping[str, Any]": "Readonly<Record<string, Data>>",
}

_RESERVED: Final = frozenset({"class", "default", "delete", "for", "function", "in", "new", "with"})

_TYPES_HEAD: Final = """
/** Any value that the protocol carries. */
export type Data =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly Data[]
  | { readonly [key: string]: Data | undefined };

/** An integer; beyond 2^53 as bigint. Results are bigint there, too, whatever their type says. */
export type Int = number | bigint;

/** [code, name, message, details] of an item that failed where others did not. */
export interface ItemError {
  error: [number, string, string, any];
}

/** Lists of which single items may have failed. */
export type OrErrors<T> = {
  [K in keyof T]: T[K] extends (infer Item)[] ? (Item | ItemError)[] : T[K];
};

/** timeout_ms: that the call may take in all, reconnecting included; 0: for ever. */
export interface ReadOptions {
  timeout_ms?: number;
}

/** What a write may ask beside its parameters (protocol.md section 3). */
export interface WriteOptions extends ReadOptions {
  idempotency_key?: string;
  ack?: "memory" | "logged" | "synced";
  source?: readonly [name: string, partition: Int, offset: Int];
  as_user?: string;
  address?: string;
}
"""


def js_modules(rows: Iterable[Command]) -> dict[str, str]:
    """{name: source} of the modules in client/js."""
    rows = list(rows)
    return {"commands.js": _commands_js(rows), "commands.d.ts": _commands_types(rows)}


def _commands_js(rows: list[Command]) -> str:
    lines = "".join(f"{_line(row)}\n" for row in rows)
    return _HEAD.format(title="The commands.") + f"\nconst ROWS = `\n{lines}`;\n" + _ROW


def _line(row: Command) -> str:
    params = [param.name + ("" if param.required else "?") for param in row.params]
    return " ".join([row.effect.value, row.name, *params])


# --- types ---


def _commands_types(rows: list[Command]) -> str:
    nouns: dict[str, list[Command]] = {}
    for row in rows:
        nouns.setdefault(row.noun, []).append(row)
    shapes = "".join(_shape(shape) for shape in _shapes(rows))
    classes = "".join(_noun(noun, commands) for noun, commands in nouns.items())
    fields = "".join(f"  readonly {noun}: {noun.title()};\n" for noun in nouns)
    every = f"\nexport interface Nouns {{\n{fields}}}\n"
    head = _HEAD.format(title="The commands and what they answer.")
    return head + _TYPES_HEAD + shapes + classes + every


def _shapes(rows: Iterable[Command]) -> list[Shape]:
    """Those that are answered, parts before what holds them; what subscribing answers, too."""
    found: dict[str, Shape] = {}

    def visit(shape: Shape) -> None:
        for kind in shape.fields.values():
            part = SHAPES.get(kind.strip("[]{}?"))
            if part is not None:
                visit(part)
        found[shape.name] = shape

    for row in rows:
        if isinstance(row.returns, Shape):
            visit(row.returns)
    visit(SHAPES["Subscribed"])
    return list(found.values())


def _shape(shape: Shape) -> str:
    fields = "".join(f"  {name}{_field(kind)};\n" for name, kind in shape.fields.items())
    return f"\nexport interface {shape.name} {{\n{fields}}}\n"


def _field(kind: str) -> str:
    """`?: type` where the server may leave it out or say nil."""
    return f"?: {_result(kind[:-1])} | null" if kind[-1] == "?" else f": {_result(kind)}"


def _result(kind: str) -> str:
    if kind[0] == "[":
        return f"{_result(kind[1:-1])}[]"
    if kind[0] == "{":
        return f"Record<string, {_result(kind[1:-1])}>"
    return _TYPES.get(kind, kind)


def _noun(noun: str, rows: Iterable[Command]) -> str:
    methods = "".join(_method(row) for row in rows)
    return f"\n/** The commands `{noun}.*`. */\nexport interface {noun.title()} {{\n{methods}}}\n"


def _method(row: Command) -> str:
    """By position, and with the optional ones by name among the options."""
    verb = row.name.partition(".")[2]
    options = "WriteOptions" if row.is_write else "ReadOptions"
    needed = [f"{_place(param)}: {_param(param)}" for param in row.params if param.required]
    rest = [param for param in row.params if not param.required]
    fields = "; ".join(f"{param.name}?: {_param(param)}" for param in rest)
    named = f"{{ {fields} }} & {options}" if rest else options
    answer = f"Promise<{_answer(row)}>"
    lines = [
        f"  /** {row.summary} */\n  {verb}({_joined(needed, f'options?: {named}')}): {answer};\n"
    ]
    if rest:
        places = [f"{_place(param)}?: {_param(param)}" for param in _placed(rest)]
        if places:
            everything = _joined([*needed, *places], f"options?: {options}")
            lines.append(f"  {verb}({everything}): {answer};\n")
    return "".join(lines)


def _placed(rest: Iterable[Param]) -> list[Param]:
    """The optional ones that may be given by position: a map there would be taken for options."""
    return list(takewhile(lambda param: not param.kind.python.startswith("Mapping["), rest))


def _place(param: Param) -> str:
    """Its name in a list of parameters, where some words are reserved (ECMA-262)."""
    return f"{param.name}_" if param.name in _RESERVED else param.name


def _joined(params: list[str], options: str) -> str:
    return ", ".join([*params, options])


def _answer(row: Command) -> str:
    if not isinstance(row.returns, Shape):
        return _result(row.returns)
    if not row.is_write or all(param.kind is not VECTOR for param in row.params):
        return row.returns.name
    return f"OrErrors<{row.returns.name}>"


def _param(param: Param) -> str:
    kind = param.kind.python
    words = re.fullmatch(r"Literal\[(.*)\]", kind)
    if words is not None:
        return words[1].replace(", ", " | ")
    known = _PARAM_TYPES.get(kind)
    if known is None:
        raise NotImplementedError(f"no TypeScript type for a parameter of the type {kind}")
    return known
