"""The table in words: `help` for people at a terminal, and the reference in protocol.md."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from rtserver.commands.kinds import SHAPES, Shape
from rtserver.commands.table import Command
from rtserver.errors import CLOSES, ERRORS

__all__ = ["help_text", "public", "reference"]


def public(table: Mapping[str, Command]) -> list[Command]:
    """The rows that clients may call, in the table's order."""
    return [row for row in table.values() if row.right != "internal"]


def help_text(table: Mapping[str, Command], topic: str | None) -> str:
    """`help` lists the commands, `help board.top` explains one, `help board` one noun."""
    rows = public(table)
    if topic is None:
        return _overview(rows)
    exact = [row for row in rows if row.name == topic]
    if exact:
        return _explanation(exact[0])
    noun = [row for row in rows if row.noun == topic]
    if noun:
        return _overview(noun)
    near = difflib.get_close_matches(topic, [row.name for row in rows], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "try: help"
    return f"there is no command {topic!r}; {hint}\n"


def _overview(rows: Iterable[Command]) -> str:
    lines = [f"{row.signature()}\n    {row.summary}\n" for row in rows]
    nouns = " ".join(dict.fromkeys(row.noun for row in rows))
    return (
        "".join(lines)
        + "options of any write: idempotency_key=, ack=memory|logged|synced, timeout_ms=,"
        + " source=[name,partition,offset], as_user=, address=\n"
        + f"more: `help NOUN` ({nouns}), `help board.top`\n"
    )


def _explanation(row: Command) -> str:
    lines = [row.signature(), f"    {row.summary}"]
    for param in row.params:
        need = "required" if param.required else "optional"
        kind = param.kind.doc.replace("\\|", "|")
        lines.append(f"    {param.name}: {kind}, {need} {param.doc}".rstrip())
    lines.append(f"    answers {_returns(row)}")
    lines.append(f"    {row.effect.value}, needs the role {_right(row)}")
    return "\n".join(lines) + "\n"


def _right(row: Command) -> str:
    if row.access is None:
        return row.right
    return f"that `{row.access}` of the namespace names"


def _returns(row: Command) -> str:
    if isinstance(row.returns, Shape):
        return _fields(row.returns)
    return {"int": "an integer", "data": "a map"}.get(row.returns, row.returns)


def _fields(shape: Shape) -> str:
    return "{" + ", ".join(f"{name}: {kind}" for name, kind in shape.fields.items()) + "}"


# --- protocol.md ---


def reference(table: Mapping[str, Command]) -> str:
    """The command, shape, error and close-code reference as Markdown."""
    rows = public(table)
    parts = ["### Commands\n"]
    for noun in dict.fromkeys(row.noun for row in rows):
        parts.append(_noun_section(noun, [row for row in rows if row.noun == noun]))
    parts += [_shape_section(), _error_section(), _close_section()]
    return "\n".join(parts)


def _noun_section(noun: str, rows: Iterable[Command]) -> str:
    return f"#### {noun}\n\n" + "\n".join(_row_section(row) for row in rows)


def _row_section(row: Command) -> str:
    returns = f"`{row.returns.name}`" if isinstance(row.returns, Shape) else row.returns
    ack = f", ack {row.ack}" if row.is_write else ""
    lines = [
        f"**`{row.signature()}`** → {returns}  ",
        f"{row.summary} *({row.effect.value}{ack}, role {_right(row)})*",
        "",
    ]
    lines += [f"- `{p.name}`: {p.kind.doc}{f' {p.doc}' if p.doc else ''}" for p in row.params]
    return "\n".join([*lines, ""]) if row.params else "\n".join(lines)


def _shape_section() -> str:
    lines = ["### Shapes\n", "| shape | fields |", "|---|---|"]
    for name, shape in sorted(SHAPES.items()):
        fields = ", ".join(f"`{field}`: {kind}" for field, kind in shape.fields.items())
        lines.append(f"| {name} | {fields} |")
    return "\n".join([*lines, ""])


def _error_section() -> str:
    lines = [
        "### Errors\n",
        "| code | name | HTTP | retryable | what to do |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in sorted(ERRORS.values(), key=lambda kind: kind.code):
        retryable = "yes" if kind.retryable else "no"
        cells = (str(kind.code), f"`{kind.name}`", str(kind.status), retryable, kind.advice)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _close_section() -> str:
    lines = ["### Close codes\n", "| code | name | reconnect | why |", "|---|---|---|---|"]
    for kind in sorted(CLOSES.values(), key=lambda kind: kind.code):
        verdict = "yes" if kind.resume else "no"
        lines.append(f"| {kind.code} | `{kind.name}` | {verdict} | {kind.advice} |")
    return "\n".join([*lines, ""])
