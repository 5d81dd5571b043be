"""Describe an index in numbers, JSON-ready: rows, bytes, versions, coverage, fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headwater.index.approximate import approximate_columns
from headwater.index.rows import TEXT_FIELDS, vector_fields
from headwater.index.store import Index, is_local, storing


def describe(index: Index) -> dict[str, Any]:
    """Everything `index info` prints, JSON-ready.

    `bytes` counts the data files of the opened version, all columns; `bytes_on_disk` counts every file of a local
    index, earlier versions included (None on an object store). `bytes_per_row` splits `bytes` into vectors, text and
    the rest. `warning` says what is unfinished, or is None.
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
        "warning": unfinished(index),
        "bytes": sum(sizes.values()),
        "bytes_on_disk": disk_bytes(index.path),
        "bytes_per_row": {
            "vectors": round(vectors / stored, 1),
            "text": round(text / stored, 1),
            "other": round((sum(sizes.values()) - vectors - text) / stored, 1),
        },
        "covers": str(manifest.coverage),
        "column_names": list(index.dataset.schema.names),
        "vector_indices": approximate_columns(index),
        "versions": versions,
        **manifest.to_json(),
    }


def unfinished(index: Index) -> str | None:
    """A sentence about the build, addition or deletion that was interrupted; None when the index is complete."""
    if index.manifest.complete:
        return None
    action, remedy = _UNFINISHED[index.manifest.status]
    return f"{index.path} is unfinished: its {action} was interrupted at {index.count:,} rows; {remedy}"


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
