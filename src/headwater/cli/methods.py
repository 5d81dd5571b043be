"""`headwater methods`: list all methods."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from headwater.cli.console import emit_json, emit_paragraph
from headwater.cli.options import Json, with_groups

if TYPE_CHECKING:
    from headwater.cli.results import MethodFacts
    from headwater.methods.method import MethodEntry


@with_groups
def methods(as_json: Json = False) -> None:
    """List every method: what it reads and stores, what it can do, the meaning of a score, its cost and its source.

    Example:  headwater methods
    """
    from headwater.methods.catalog import CATALOG

    described = [_facts(entry) for entry in CATALOG.values()]
    if as_json:
        emit_json("methods", {"methods": described})
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


def _facts(entry: MethodEntry[Any]) -> MethodFacts:
    method = entry.typical()
    return {
        "name": entry.name,
        "summary": entry.summary,
        "reads": entry.reads,
        "stores": entry.stores,
        "cost": entry.cost,
        "source": entry.source,
        "capabilities": list(method.capabilities()),
        "meaning": method.meaning.text,
        "signed": method.meaning.signed,
        "index": method.vectors is not None,
        "presets": {name: asdict(options) for name, options in entry.presets.items()},
    }
