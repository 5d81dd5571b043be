"""`headwater index encode`, `retention` and `ann`: quicker or smaller than exact search, and what that loses."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.arguments import Device, DeviceMap, IndexPath, Json, OtherModel
from headwater.cli.console import emit_json, progress

if TYPE_CHECKING:
    from headwater.search.retention import Retention

Measured = Annotated[
    Path | None, typer.Option("--queries", help="Measure what is kept of exact search on these queries.")
]
Relevant = Annotated[str | None, typer.Option(help="SQL condition: which rows count as right, for P@10.")]


def encode(
    index: IndexPath,
    code: Annotated[str, typer.Option(help="int8, sign (1 KiB a row) or sign:BITS.")],
    out: Annotated[str, typer.Option(help="The coded index to make.")],
    queries: Measured = None,
    relevant: Relevant = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted encoding.")] = False,
    model: OtherModel = None,
    device: Device = "auto",
    device_map: DeviceMap = None,
    as_json: Json = False,
) -> None:
    """Write the index's rows to a new index whose vectors are codes. No model is needed but to measure.

    Example:  headwater index encode runs/mine.lance --code sign --out runs/small.lance --queries questions.jsonl
    """
    from headwater.api import care
    from headwater.index.info import describe
    from headwater.index.store import open_index

    opened = open_index(index)
    with progress("encoding rows", quiet=as_json) as advance:
        made = care.encode(opened, out, code=code, resume=resume, progress=lambda done, total: advance(done, total, ""))
    facts = describe(made)
    kept = None
    if queries is not None:
        placement = {"device": device, "device_map": device_map}
        kept = care.retention(made, queries, exact=opened, relevant=relevant, model=model, placement=placement)
    if as_json:
        sizes = {name: facts[name] for name in ("rows", "bytes", "bytes_per_row")}
        emit_json({"index": index, "out": out, "code": code, **sizes, "retention": retention_facts(kept)})
        return
    print(f"{out}: {facts['rows']:,} rows, {facts['bytes_per_row']['vectors']:,.0f} bytes of vectors a row")
    if kept is not None:
        print(f"{code}: {kept}")


def retention(
    index: IndexPath,
    queries: Annotated[Path, typer.Option(help="Queries to measure on: JSONL, CSV or Parquet.")],
    exact: Annotated[str | None, typer.Option(help="The index it was encoded from; else rows are read again.")] = None,
    relevant: Relevant = None,
    sample: Annotated[int, typer.Option(help="Rows read again where there is no exact index.", min=10)] = 2000,
    model: OtherModel = None,
    device: Device = "auto",
    device_map: DeviceMap = None,
    as_json: Json = False,
) -> None:
    """Measure what an index of codes keeps of exact search: top-10 agreement and, with --relevant, P@10.

    Example:  headwater index retention runs/small.lance --exact runs/mine.lance --queries questions.jsonl
    """
    from headwater.api import care

    kept = care.retention(
        index,
        queries,
        exact=exact,
        relevant=relevant,
        sample=sample,
        model=model,
        placement={"device": device, "device_map": device_map},
    )
    if as_json:
        emit_json({"index": index, **(retention_facts(kept) or {})})
    else:
        print(f"{index}: {kept}")


def ann(
    index: IndexPath,
    column: Annotated[str | None, typer.Option(help="Vector column; the first unless given.")] = None,
    kind: Annotated[str, typer.Option(help="ivf_sq, ivf_flat or ivf_hnsw_sq.")] = "ivf_sq",
    partitions: Annotated[
        int | None, typer.Option(help="Cells; about the root of the rows unless given.", min=1)
    ] = None,
    as_json: Json = False,
) -> None:
    """Build a vector index for approximate search (`headwater trace --engine ann`), in place of an earlier one.

    Example:  headwater index ann runs/mine.lance --column rise
    """
    from headwater.index.approximate import build_approximate
    from headwater.index.info import disk_bytes
    from headwater.index.store import open_index

    built = build_approximate(open_index(index), column, kind=kind, partitions=partitions)
    size = disk_bytes(index)
    if as_json:
        emit_json({"index": index, "column": built, "kind": kind, "bytes_on_disk": size})
    else:
        print(f"{index}: '{built}' has a vector index, {kind}" + ("" if size is None else f"; {size:,} bytes in all"))


def retention_facts(kept: Retention | None) -> dict[str, Any] | None:
    """The numbers, JSON-ready."""
    return None if kept is None else {**asdict(kept), "precision_kept": kept.precision_kept}
