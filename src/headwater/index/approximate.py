"""Lance's vector indices over a vector column: built when the user asks, for approximate search.

A vector index is a file of its own beside the rows, one version later; rows added since are still searched, one by
one. Compaction takes deleted rows out of it too.
"""

from __future__ import annotations

import math

from headwater.core.errors import StoreError, UsageError, unknown_name
from headwater.index.store import Index, storing

KINDS = ("ivf_sq", "ivf_flat", "ivf_hnsw_sq")
"""Partitions of 8-bit codes, of the vectors once more, and of a graph over 8-bit codes.

Lance's product codes are left out: training them on vectors of 24,576 numbers took minutes for 2,200 rows.
"""

FEWEST_ROWS = 256
"""Fewer rows are searched exactly in no time."""


def build_approximate(
    index: Index, column: str | None = None, *, kind: str = "ivf_sq", partitions: int | None = None
) -> str:
    """Build a vector index for inner products over one vector column, in place of an earlier one; returns the column.

    Args:
        index: an index of plain numbers.
        column: the vector column; the first unless given.
        kind: one of `KINDS`.
        partitions: cells the vectors are put into; about √rows unless given.

    Raises:
        UsageError: no such column or kind, or the column holds codes.
        StoreError: there are too few rows.
    """
    columns = {c.name: c for c in index.manifest.columns}
    name = column if column is not None else next(iter(columns))
    if name not in columns:
        raise unknown_name("vector column", name, columns, where=index.path)
    if kind not in KINDS:
        raise unknown_name("kind of vector index", kind, KINDS, where="--kind")
    if columns[name].scale is not None:
        raise UsageError(f"'{name}' holds codes", where=index.path, remedy="use the index they were encoded from")
    if index.count < FEWEST_ROWS:
        raise StoreError(
            f"{index.count:,} rows are too few for a vector index", where=index.path, remedy="search them exactly"
        )
    cells = partitions or max(round(math.sqrt(index.count)), 1)
    with index.writing(), storing(index.path):
        index.dataset.create_index(name, kind.upper(), metric="dot", replace=True, num_partitions=cells)
        index.refresh()
    return name


def approximate_columns(index: Index) -> dict[str, str]:
    """The vector columns that have a vector index, and its kind."""
    with storing(index.path):
        found = index.dataset.list_indices()
    kinds = {entry["fields"][0]: str(entry["type"]).lower() for entry in found}
    return {name: kinds[name] for name in index.vectors if name in kinds}
