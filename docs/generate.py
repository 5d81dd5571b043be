"""Rewrite the parts of the documents that are made from the code: the table of methods and the command reference.

Run:  make docs
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from headwater.cli.main import command_tree
from headwater.cli.results import RESULTS
from headwater.cli.schemas import json_schema
from headwater.methods.catalog import CATALOG
from headwater.report import markdown_table

DOCS = Path(__file__).parent

EVERYWHERE = ("--help", "--json", "--config")
"""Options of every command, which the page explains once."""


def method_table() -> str:
    """The catalog as a Markdown table; each name links to the method's page."""
    rows = [[f"[`{e.name}`]({e.name}.md)", e.summary, e.stores, e.cost] for e in CATALOG.values()]
    return markdown_table(["method", "what it is", "bytes a row", "cost a row"], rows)


def command_reference() -> str:
    """A section for each command: what it does, its example, its arguments and options."""
    return "\n\n".join(_section(path, command) for path, command in _commands("headwater", command_tree()))


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command that can be run, with the words that call it, depth first."""
    inner = getattr(command, "commands", {})
    if not inner or getattr(command, "invoke_without_command", False):
        yield path, command
    for name, sub in inner.items():
        yield from _commands(f"{path} {name}", sub)


def _section(path: str, command: Any) -> str:
    text, _, example = (command.help or "").partition("Example:")
    parts = [f"## `{path}`", " ".join(text.split("\n\n")[0].split())]
    parts += [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")[1:]]
    if example:
        parts.append(f"```\n{' '.join(example.split())}\n```")
    rows = [row for row in map(_parameter, command.params) if row]
    if rows:
        parts.append(markdown_table(["argument or option", "default", "what it is"], rows))
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _parameter(param: Any) -> list[str] | None:
    """A line of a command's table; None for the options of every command."""
    if set(EVERYWHERE) & set(param.opts) or getattr(param, "hidden", False):
        return None
    if param.param_type_name == "argument":
        return [f"`{(param.metavar or param.name).upper()}`", "required" if param.required else "", param.help or ""]
    name = max((o for o in param.opts if o.startswith("--")), key=len, default=param.opts[0])
    if not param.is_flag:
        return [f"`{name}`", "required" if param.required else _default(param.default), param.help or ""]
    return [f"`{name}`", "", param.help or ""]


def _default(value: Any) -> str:
    shown = value() if callable(value) else value
    return "" if shown is None or shown in ("", [], ()) else f"`{_plain(shown)}`"


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def json_fields() -> str:
    """A table of the fields of each command's JSON document."""
    parts = []
    for command in RESULTS:
        schema = json_schema(command)
        head = f"## `headwater {command} --json`\n\n`{schema['$id']}`. {schema.get('description', '')}"
        rows = [[f"`{name}`", kind, text] for name, kind, text in _fields(schema)]
        parts.append(f"{head}\n\n{markdown_table(['field', 'type', 'what it is'], rows)}")
    return "\n\n".join(parts)


def _fields(schema: dict[str, Any], before: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each field, those of nested objects with dots and `[]`."""
    for name, inner in schema["properties"].items():
        if inner.get("const"):
            continue
        yield before + name, _kind(inner), inner.get("description", "")
        for one in [inner, *inner.get("anyOf", [])]:
            items = one.get("items", {})
            if "properties" in one:
                yield from _fields(one, f"{before}{name}.")
            if "properties" in items:
                yield from _fields(items, f"{before}{name}[].")


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_kind(schema['items'])}"
    return " or ".join(kind) if isinstance(kind, list) else kind


GENERATED: dict[str, tuple[str, Callable[[], str]]] = {
    "methods/index.md": ("methods", method_table),
    "reference/cli.md": ("commands", command_reference),
    "reference/json.md": ("fields", json_fields),
}
"""Document to the name of its generated part and what makes it."""


def rewritten(document: str, text: str) -> str:
    """The text of a document with its generated part made anew."""
    name, make = GENERATED[document]
    begin, end = f"<!-- {name}:begin (make docs) -->", f"<!-- {name}:end -->"
    if begin not in text or end not in text:
        raise ValueError(f"{document}: the lines '{begin}' and '{end}' are not both there")
    pattern = f"{re.escape(begin)}.*{re.escape(end)}"
    return re.sub(pattern, lambda _: f"{begin}\n\n{make().strip()}\n\n{end}", text, flags=re.DOTALL)


if __name__ == "__main__":
    for document in GENERATED:
        path = DOCS / document
        path.write_text(rewritten(document, path.read_text(encoding="utf-8")), encoding="utf-8")
