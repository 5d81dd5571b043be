"""Describe an index in numbers, JSON-ready, and build Lance's vector indices over its columns when asked."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headwater.core.errors import StoreError, UsageError, unknown_name
from headwater.core.spec import code_of
from headwater.data.readings import Readings, reading_of
from headwater.index.failures import storing
from headwater.index.noted import is_local, lost_versions
from headwater.index.rows import READING_FIELDS, TEXT_FIELDS, vector_fields
from headwater.index.store import Index

KINDS = ("ivf_sq", "ivf_flat", "ivf_hnsw_sq")
"""Lance's kinds of vector index: partitions of 8-bit codes, of the plain vectors, and of a graph over 8-bit codes.

Lance's product codes are left out: training them on 2,200 vectors of 24,576 numbers took minutes.
"""

FEWEST_ROWS = 256
"""A smaller index gets no vector index, because exact search takes no time there."""


def build_approximate(
    index: Index, column: str | None = None, *, kind: str = "ivf_sq", partitions: int | None = None
) -> str:
    """Build a vector index for inner products over one vector column, and return the column's name.

    An earlier vector index of the column is replaced.

    Args:
        index: an index whose vectors are stored as plain numbers.
        column: the vector column; None for the first.
        kind: one of `KINDS`.
        partitions: how many cells the vectors are divided into; None for about √rows.

    Raises:
        UsageError: there is no such column or kind, or the column holds codes.
        StoreError: there are too few rows.
    """
    columns = {c.name: c for c in index.manifest.columns}
    name = column if column is not None else next(iter(columns))
    if name not in columns:
        raise unknown_name("vector column", name, columns, where=index.path)
    if kind not in KINDS:
        raise unknown_name("kind of vector index", kind, KINDS, where="--kind")
    if columns[name].coded:
        raise UsageError(f"'{name}' holds codes", where=index.path, remedy="use the index they were encoded from")
    if index.count < FEWEST_ROWS:
        what = f"{index.count:,} rows are too few for a vector index"
        raise StoreError(what, where=index.path, remedy="search them exactly")
    cells = partitions or max(round(math.sqrt(index.count)), 1)
    with index.writing(), storing(index.path):
        index.dataset.create_index(name, kind.upper(), metric="dot", replace=True, num_partitions=cells)
        index.refresh()
    return name


def approximate_columns(index: Index) -> dict[str, str]:
    """Column name to the kind of its vector index, for the columns that have one."""
    with storing(index.path):
        found = index.dataset.list_indices()
    kinds = {entry["fields"][0]: str(entry["type"]).lower() for entry in found}
    return {name: kinds[name] for name in index.vectors if name in kinds}


def describe(index: Index) -> dict[str, Any]:
    """Everything `index info` prints, JSON-ready.

    `bytes` counts the data files of the opened version, all columns; `bytes_on_disk` counts every file of a local
    index, earlier versions included (None on an object store). `bytes_per_row` splits `bytes` into vectors, text and
    the rest, and `vector_bytes` says what each vector column takes by its form. `code` is how vectors are stored, as
    `--code` says it. `reading` counts the rows and tokens that were cut or read in windows (None in an older index,
    which does not keep that). `warning` is that of `warning_of`.
    """
    manifest = index.manifest
    with storing(index.path):
        sizes = _column_bytes(index)
        deleted = int(index.dataset.stats.dataset_stats()["num_deleted_rows"])
        versions = [
            {"version": v["version"], "written": v["timestamp"].isoformat(timespec="seconds")}
            for v in index.dataset.versions()
        ]
    count, stored = index.count, max(index.count + deleted, 1)
    vectors = sum(sizes.get(field.name, 0) for field in vector_fields(manifest.columns))
    text = sum(sizes.get(name, 0) for name in TEXT_FIELDS)
    return {
        "path": index.path,
        "rows": count,
        "deleted_rows": deleted,
        "warning": warning_of(index),
        "bytes": sum(sizes.values()),
        "bytes_on_disk": disk_bytes(index.path),
        "bytes_per_row": {
            "vectors": round(vectors / stored, 1),
            "text": round(text / stored, 1),
            "other": round((sum(sizes.values()) - vectors - text) / stored, 1),
        },
        "vector_bytes": {column.name: column.row_bytes for column in manifest.columns},
        "code": code_of(manifest.columns),
        "covers": str(manifest.coverage),
        "reading": None if (read := readings(index)) is None else asdict(read),
        "column_names": list(index.dataset.schema.names),
        "vector_indices": approximate_columns(index),
        "versions": versions,
        **manifest.to_json(),
    }


def readings(index: Index) -> Readings | None:
    """How many rows and tokens of the index were cut or read in windows; None if the index does not keep that."""
    if not set(READING_FIELDS) <= set(index.dataset.schema.names):
        return None
    found = Readings()
    unusual = " OR ".join(f"{name} > {int(name == 'windows_read')}" for name in READING_FIELDS)
    for batch in index.batches(READING_FIELDS, where=unusual):
        for cells in batch.to_pylist():
            found.add(reading_of(cells))
    return found


def unfinished(index: Index) -> str | None:
    """A sentence about the build, addition or deletion that was interrupted; None when the index is complete."""
    if index.manifest.complete:
        return None
    action, remedy = _UNFINISHED[index.manifest.status]
    return f"{index.path} is unfinished: its {action} was interrupted at {index.count:,} rows; {remedy}"


def warning_of(index: Index) -> str | None:
    """What is wrong with the index as a whole: newest versions that are lost, or an interrupted change; else None."""
    with index.reading():
        latest = int(index.dataset.latest_version)
    return lost_versions(index.path, latest) or unfinished(index)


def disk_bytes(path: str) -> int | None:
    """The size of all files of a local index, earlier versions included; None on an object store."""
    if not is_local(path):
        return None
    return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())


def _column_bytes(index: Index) -> dict[str, int]:
    names = {field.id(): field.name() for field in index.dataset.lance_schema.fields()}
    fields = index.dataset.stats.data_stats().fields
    return {names[field.id]: int(field.bytes_on_disk) for field in fields if field.id in names}


_UNFINISHED = {
    "building": ("build", "go on with --resume"),
    "adding": ("addition", "run it again to go on"),
    "deleting": ("deletion", "run it again"),
    "compacting": ("compaction", "run it again; until then deleted rows may be in files on disk"),
}
