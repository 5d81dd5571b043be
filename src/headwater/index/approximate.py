"""Build Lance's vector indices, which approximate search uses, over the vector columns of an index.

A vector index is a separate file, and building one makes a new version of the index. Rows that are added later are
still found: Lance compares them one by one. Compaction removes deleted rows from the vector index too.
"""

from __future__ import annotations

import math

from headwater.core.errors import StoreError, UsageError, unknown_name
from headwater.index.store import Index, storing

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
    if columns[name].scale is not None:
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
