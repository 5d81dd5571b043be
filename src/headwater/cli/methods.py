"""`headwater methods`: what there is to choose from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from headwater.cli.arguments import Json
from headwater.cli.console import emit_json, emit_paragraph


def methods(as_json: Json = False) -> None:
    """Every method: what it reads, what it costs, where it is from.

    Example:  headwater methods
    """
    from headwater.methods.catalog import CATALOG, STREAMING

    entries: list[Any] = [*CATALOG.values(), *STREAMING.values()]
    if as_json:
        described = [
            {
                **{name: getattr(e, name) for name in ("name", "summary", "reads", "stores", "cost", "source")},
                "index": e.name in CATALOG,
                "presets": {name: asdict(options) for name, options in e.presets.items()},
            }
            for e in entries
        ]
        emit_json(described)
        return
    for e in entries:
        emit_paragraph(
            e.name,
            [
                e.summary,
                f"reads {e.reads}",
                f"stores {e.stores} a row" if e.name in CATALOG else "needs no index",
                f"costs {e.cost} a row",
                f"presets {', '.join(e.presets)}",
                e.source,
            ],
        )
