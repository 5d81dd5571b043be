"""Write every row's score on every query to a Parquet file, in memory that does not grow with either number.

    parts of the queries ─▶ a scan each ─▶ scores aside ─▶ row groups of all queries ─▶ Parquet

A Parquet file is written by rows, and queries whose vectors do not fit together are scored one part after another. So
their scores wait in files beside the output, which take as much disk as the output. One part alone needs no such files.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from torch import Tensor

from headwater.core.errors import DataError
from headwater.core.files import whole_file
from headwater.core.progress import tell
from headwater.index.store import Index
from headwater.search.products import Metrics
from headwater.search.scan import DEFAULT_MEMORY, scan

Part = tuple[Mapping[str, Tensor], Metrics]
"""Column name to the vectors `[queries, dim]` of consecutive queries, and the metrics of columns that have one."""

_Block = tuple[Sequence[str], Float[np.ndarray, "rows queries"]]

_CELL_BYTES = 16
"""What a score takes while it is written: as read, as Arrow's, and encoded."""


def write_scores(
    index: Index,
    parts: Iterable[Part],
    queries: Sequence[str],
    *,
    out: str | Path,
    where: str | None = None,
    max_memory: int = DEFAULT_MEMORY,
) -> int:
    """Write the scores of rows, in row order, and return the number of rows.

    The file gets the name `out` only when it is complete.

    Args:
        index: the index.
        parts: the queries' vectors, in the order of `queries`; each part is made when the one before it is scored.
        queries: the names of all queries; the file has the column `id` and a float32 column for each of them.
        out: the file.
        where: SQL condition over the index's columns; None scores all rows.
        max_memory: bytes for blocks and scores.

    Raises:
        DataError: two queries have the same name, or one is called `id`.
        StoreError: the file cannot be written; and the errors of `headwater.search.scan.top_k`.
    """
    twice = [name for name, times in Counter(["id", *queries]).items() if times > 1]
    if twice:
        raise DataError(f"two columns of the scores would be called '{twice[0]}'", remedy="give queries distinct ids")
    rows, count, made = 0, index.count_where(where), iter(parts)
    first = next(made)
    with whole_file(out) as file, tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as aside:
        if len(next(iter(first[0].values()))) == len(queries):
            blocks, total = _blocks(index, first, where, max_memory), count
        else:
            blocks, total = _joined(index, itertools.chain([first], made), where, max_memory, Path(aside)), None
        with pq.ParquetWriter(file, _schema(queries)) as writer:
            for ids, scores in blocks:
                columns = [pa.array(ids), *map(pa.array, np.ascontiguousarray(scores.T))]
                writer.write_table(pa.table(columns, schema=writer.schema))
                rows += len(ids)
                tell("writing" if total is None else "scoring", rows, count)
    return rows


def _schema(queries: Sequence[str]) -> pa.Schema:
    return pa.schema([pa.field("id", pa.string()), *(pa.field(name, pa.float32()) for name in queries)])


def _blocks(index: Index, part: Part, where: str | None, max_memory: int) -> Iterator[_Block]:
    """The ids and scores of consecutive rows."""
    probes, metrics = part
    for block in scan(index, probes, where=where, max_memory=max_memory, with_ids=True, metrics=metrics):
        yield block.ids, block.scores.cpu().numpy().T


def _joined(index: Index, parts: Iterable[Part], where: str | None, max_memory: int, aside: Path) -> Iterator[_Block]:
    """The same for queries in parts, whose scores are put aside into files of `[rows, queries of the part]`."""
    ids: list[str] = []
    files: list[tuple[Path, int]] = []
    for number, part in enumerate(parts):
        queries, done = len(next(iter(part[0].values()))), 0
        files.append((aside / f"{number}.f32", queries))
        with files[-1][0].open("wb") as file:
            for names, scores in _blocks(index, part, where, max_memory):
                ids += names if number == 0 else ()
                done += len(names)
                file.write(np.ascontiguousarray(scores).tobytes())
                tell(f"scoring part {number + 1} of the queries", done, len(ids) if number else None)
    each = max(max_memory // (_CELL_BYTES * sum(queries for _, queries in files)), 1)
    for start in range(0, len(ids), each):
        names = ids[start : start + each]
        read = [
            np.fromfile(file, np.float32, len(names) * queries, offset=4 * start * queries).reshape(-1, queries)
            for file, queries in files
        ]
        yield names, np.concatenate(read, axis=1)
