"""`headwater score`: every row against every query, as a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli.arguments import By, Device, DeviceMap, Json, OtherModel, ScanMemory, parse_bytes
from headwater.cli.console import emit_json, say


def score(
    index: Annotated[str, typer.Argument(help="The index.")],
    queries: Annotated[Path, typer.Option(help="Rows to score against: JSONL, CSV or Parquet.")],
    out: Annotated[Path, typer.Option(help="Parquet file: `id`, then one float32 column a query.")],
    by: By = None,
    max_memory: ScanMemory = None,
    model: OtherModel = None,
    device: Device = "auto",
    device_map: DeviceMap = None,
    as_json: Json = False,
) -> None:
    """Score every row of the index against every query.

    Example:  headwater score runs/mine.lance --queries questions.jsonl --out scores.parquet
    """
    from headwater.api.verbs import write_scores
    from headwater.index.info import unfinished
    from headwater.index.store import open_index

    opened = open_index(index)
    if warning := unfinished(opened):
        say(f"warning: {warning}")
    placement = {"device": device, "device_map": device_map}
    memory: dict[str, Any] = {} if max_memory is None else {"max_memory": parse_bytes(max_memory, where="--max-memory")}
    rows, columns = write_scores(opened, queries, out, by=by, model=model, placement=placement, **memory)
    if as_json:
        emit_json({"out": str(out), "rows": rows, "queries": columns})
    else:
        say(f"{out}: {rows:,} rows × {columns:,} queries")
