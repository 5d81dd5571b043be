"""`headwater score`: every row against every query, as a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli.console import emit_json, say
from headwater.cli.options import (
    By,
    IndexPath,
    Json,
    LoadingOptions,
    Made,
    OtherModel,
    ScanMemory,
    parse_bytes,
    with_groups,
)


@with_groups
def score(
    index: IndexPath,
    loading: LoadingOptions,
    queries: Annotated[Path, typer.Option(help="Rows to score against: JSONL, CSV or Parquet.")],
    out: Annotated[Path, typer.Option(help="Parquet file: `id`, then one float32 column a query.")],
    by: By = None,
    max_memory: ScanMemory = None,
    model: OtherModel = None,
    as_json: Json = False,
) -> Made:
    """Score every row of the index against every query.

    Example:  headwater score runs/mine.lance --queries questions.jsonl --out scores.parquet
    """
    from headwater.api.tracing import write_scores
    from headwater.index.info import unfinished
    from headwater.index.store import open_index

    opened = open_index(index)
    if warning := unfinished(opened):
        say(f"warning: {warning}")
    memory: dict[str, Any] = {} if max_memory is None else {"max_memory": parse_bytes(max_memory, where="--max-memory")}
    rows, columns = write_scores(opened, queries, out, by=by, model=model, loading=loading.chosen, **memory)
    if as_json:
        emit_json({"out": str(out), "rows": rows, "queries": columns})
    else:
        say(f"{out}: {rows:,} rows × {columns:,} queries")
    return Made(out)
