"""JSON Schemas of what commands print with `--json`, made from the types in `headwater.cli.results`.

    headwater schema trace        prints the schema of `headwater trace --json`

The field `schema` of a document names its command and version: `headwater/trace/1`. The version grows when a field
disappears or changes its meaning; new fields may come at any time.
"""

from __future__ import annotations

import types
from typing import Annotated, Any, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from headwater.cli.results import RESULTS

VERSIONS: dict[str, int] = {}
"""Command to the version of its document, where it is not 1."""

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_name(command: str) -> str:
    """The value of the field `schema`: `index build` is `headwater/index-build/1`."""
    return f"headwater/{command.replace(' ', '-')}/{VERSIONS.get(command, 1)}"


def json_schema(command: str) -> dict[str, Any]:
    """The JSON Schema of what a command prints with `--json`; `command` is one of `RESULTS`."""
    kind = RESULTS[command]
    shape = _of(kind)
    name = {"const": schema_name(command), "description": "The command and the version of this document."}
    return {
        "$schema": _DIALECT,
        "$id": schema_name(command),
        "title": f"headwater {command} --json",
        **({"description": " ".join(kind.__doc__.split())} if kind.__doc__ else {}),
        **shape,
        "properties": {"schema": name, **shape["properties"]},
        "required": ["schema", *shape["required"]],
    }


def _of(kind: Any) -> dict[str, Any]:
    """The schema of a type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return {**_of(inner[0]), "description": inner[1]}
    if origin in (Union, types.UnionType):
        return _either([_of(one) for one in inner])
    if origin is list:
        return {"type": "array", "items": _of(inner[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(inner[1])}
    if is_typeddict(kind):
        return _object(kind)
    return {} if kind is Any else {"type": _PLAIN[kind]}


def _object(kind: Any) -> dict[str, Any]:
    """The schema of a `TypedDict`; it has no other fields than those."""
    properties, required = {}, []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        optional = get_origin(hint) is NotRequired
        properties[name] = _of(get_args(hint)[0] if optional else hint)
        if not optional:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _either(shapes: list[dict[str, Any]]) -> dict[str, Any]:
    """The schema of a union; one of plain types is a list of their names."""
    if all(set(shape) == {"type"} for shape in shapes):
        return {"type": [shape["type"] for shape in shapes]}
    return {"anyOf": shapes}
