"""`headwater methods`: list all methods."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from headwater.cli.console import emit_json, emit_paragraph
from headwater.cli.options import Json, with_groups


@with_groups
def methods(as_json: Json = False) -> None:
    """List every method: what it reads and stores, what it can do, the meaning of a score, its cost and its source.

    Example:  headwater methods
    """
    from headwater.methods.catalog import CATALOG

    described: list[dict[str, Any]] = []
    for entry in CATALOG.values():
        method = entry.typical()
        described.append(
            {
                **{name: getattr(entry, name) for name in ("name", "summary", "reads", "stores", "cost", "source")},
                "capabilities": list(method.capabilities()),
                "meaning": method.meaning.text,
                "signed": method.meaning.signed,
                "index": method.vectors is not None,
                "presets": {name: asdict(options) for name, options in entry.presets.items()},
            }
        )
    if as_json:
        emit_json(described)
        return
    for one in described:
        lines = [
            one["summary"],
            f"score: {one['meaning']}",
            f"reads {one['reads']}",
            f"can: {', '.join(one['capabilities'])}" if one["capabilities"] else "",
            f"stored per row: {one['stores']}" if one["index"] else "cannot fill an index; headwater value uses it",
            f"cost per row: {one['cost']}",
            f"presets {', '.join(one['presets'])}",
            one["source"],
        ]
        emit_paragraph(one["name"], [line for line in lines if line])
