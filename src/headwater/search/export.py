"""Scores of every row on every query, streamed to a Parquet file: `id`, then one float32 column per query."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import DataError
from headwater.core.files import whole_file
from headwater.index.store import Index
from headwater.search.metrics import Metrics
from headwater.search.scan import DEFAULT_MEMORY, PLAIN, scan


def write_scores(
    index: Index,
    probes: Mapping[str, Float[Tensor, "queries _dim"]],
    queries: Sequence[str],
    *,
    out: str | Path,
    where: str | None = None,
    max_memory: int = DEFAULT_MEMORY,
    metrics: Metrics = PLAIN,
) -> int:
    """Write every row's score on every query to `out`, row order kept, and return how many rows.

    The file appears under its name only when it is whole.

    Raises:
        DataError: two queries share a name, or one is called `id`.
        StoreError: the file cannot be written.
    """
    twice = [name for name, times in Counter(["id", *queries]).items() if times > 1]
    if twice:
        raise DataError(f"two columns of the scores would be called '{twice[0]}'", remedy="give queries distinct ids")
    schema = pa.schema([pa.field("id", pa.string()), *(pa.field(name, pa.float32()) for name in queries)])
    rows = 0
    with whole_file(out) as part, pq.ParquetWriter(part, schema) as writer:
        for block in scan(index, probes, where=where, max_memory=max_memory, with_ids=True, metrics=metrics):
            values = block.scores.cpu().numpy()
            writer.write_table(pa.table([pa.array(block.ids), *map(pa.array, values)], schema=schema))
            rows += len(block.ids)
    return rows
