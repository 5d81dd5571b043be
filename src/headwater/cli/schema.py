"""`headwater schema`: the form of what a command prints with `--json`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from headwater.cli.console import emit_pairs, out
from headwater.cli.options import with_groups
from headwater.core.errors import unknown_name


@with_groups
def schema(
    command: Annotated[
        list[str] | None, typer.Argument(help="The command's words; without them, all are named.")
    ] = None,
) -> None:
    """Print the JSON Schema of what a command prints with --json.

    Example:  headwater schema index info
    """
    from headwater.cli.results import RESULTS
    from headwater.cli.schemas import json_schema, schema_name

    words = " ".join(command or ())
    if not words:
        emit_pairs({name: schema_name(name) for name in RESULTS})
        return
    if words not in RESULTS:
        raise unknown_name("command", words, RESULTS, where="headwater schema")
    out(json.dumps(json_schema(words), indent=2, ensure_ascii=False))
