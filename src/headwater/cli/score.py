"""`headwater score`: score every row against every query, into a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli.console import emit_json, say
from headwater.cli.options import (
    Asked,
    By,
    Columns,
    EngineOptions,
    IndexPath,
    Json,
    LoadingOptions,
    Made,
    OtherModel,
    ScanMemory,
    Verify,
    Writes,
    open_index_to_search,
    pairs,
    scan_memory,
    with_groups,
)
from headwater.cli.progress import progress
from headwater.core.errors import UsageError


@with_groups
def score(
    index: IndexPath,
    loading: LoadingOptions,
    engine: EngineOptions,
    queries: Annotated[Path, typer.Option(help="Rows to score against: JSONL, CSV or Parquet.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write: `id`, then one float32 column a query."), Writes],
    by: By = None,
    max_memory: ScanMemory = None,
    columns: Columns = [],
    targets: Asked = "last",
    model: OtherModel = None,
    verify: Verify = False,
    as_json: Json = False,
) -> Made:
    """Score every row of the index against every query.

    Example:  headwater score runs/mine.lance --queries questions.jsonl --out scores.parquet
    """
    from headwater.api.tracing import write_scores

    if out.suffix in (".csv", ".jsonl", ".json", ".tsv", ".txt"):
        remedy = f"call it {out.with_suffix('.parquet')}; pandas and DuckDB turn it into others"
        raise UsageError(f"scores are written as Parquet, and not as {out.suffix}", where=f"--out {out}", remedy=remedy)
    opened = open_index_to_search(index)
    how: dict[str, Any] = {
        **scan_memory(max_memory),
        "columns": pairs(columns, "--column"),
        "targets": targets,
        "verify": verify,
        "engine": engine.open(),
    }
    with progress("scoring"):
        rows, count = write_scores(opened, queries, out, by=by, model=model, loading=loading.chosen, **how)
    if as_json:
        emit_json("score", {"out": str(out), "rows": rows, "queries": count})
    else:
        say(f"{out}: {rows:,} rows × {count:,} queries")
    return Made(out)
