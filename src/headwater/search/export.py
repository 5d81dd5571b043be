"""Write every row's score on every query to a Parquet file, in memory that does not grow with either number.

    parts of the queries ─▶ a scan each ─▶ scores aside ─▶ row groups of all queries ─▶ Parquet

A Parquet file is written by rows, and queries whose vectors do not fit together are scored one part after another. So
their scores wait in files beside the output, which take as much disk as the output. One part alone needs no such files.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from headwater.search.scan import DEFAULT_MEMORY, ScoredBlock, Through, in_this_process

Part = tuple[Mapping[str, Tensor], Metrics]
"""Column name to the vectors `[queries, dim]` of consecutive queries, and the metrics of columns that have one."""

_RowScores = Float[np.ndarray, "rows queries"]

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
    through: Through = in_this_process,
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
        through: what makes the blocks of scores.

    Raises:
        DataError: two queries have the same name, or one is called `id`.
        StoreError: the file cannot be written; and the errors of `headwater.search.scan.top_k`.
    """
    twice = [name for name, times in Counter(["id", *queries]).items() if times > 1]
    if twice:
        raise DataError(f"two columns of the scores would be called '{twice[0]}'", remedy="give queries distinct ids")
    made = iter(parts)
    first, scan_part = next(made), _Scan(index, through, where, max_memory)
    with (
        whole_file(out) as file,
        tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as aside,
        pq.ParquetWriter(file, _schema(queries)) as writer,
    ):
        whole = len(next(iter(first[0].values()))) == len(queries)
        rows = _Rows(writer, "scoring" if whole else "writing", index.count_where(where))
        if whole:
            scan_part(first, rows.write)
        else:
            for ids, scores in _joined(scan_part, itertools.chain([first], made), Path(aside)):
                rows.write(ids, scores)
    return rows.written


class _Rows:
    """Writes row groups, and tells how many rows are done."""

    def __init__(self, writer: pq.ParquetWriter, stage: str, total: int) -> None:
        self._writer, self._stage, self._total = writer, stage, total
        self.written = 0

    def write(self, ids: Sequence[str], scores: _RowScores) -> None:
        """Write consecutive rows."""
        columns = [pa.array(ids), *map(pa.array, np.ascontiguousarray(scores.T))]
        self._writer.write_table(pa.table(columns, schema=self._writer.schema))
        self.written += len(ids)
        tell(self._stage, self.written, self._total)


def _schema(queries: Sequence[str]) -> pa.Schema:
    return pa.schema([pa.field("id", pa.string()), *(pa.field(name, pa.float32()) for name in queries)])


@dataclass(frozen=True)
class _Scan:
    """Scores all rows on a part of the queries."""

    searched: Index
    through: Through
    where: str | None
    max_memory: int

    def __call__(self, part: Part, take: Callable[[Sequence[str], _RowScores], None]) -> None:
        """Call `take` with the ids and scores of consecutive rows."""

        def block(found: ScoredBlock) -> None:
            take(found.ids, found.scores.cpu().numpy().T)

        how: dict[str, Any] = {"where": self.where, "max_memory": self.max_memory, "metrics": part[1]}
        self.through(block, self.searched, part[0], **how)


def _joined(scan_part: _Scan, parts: Iterable[Part], aside: Path) -> Iterator[tuple[Sequence[str], _RowScores]]:
    """Ids and scores of consecutive rows on all parts; these wait in files of `[rows, queries of the part]`."""
    ids: list[str] = []
    files: list[tuple[Path, int]] = []
    for number, part in enumerate(parts):
        files.append((aside / f"{number}.f32", len(next(iter(part[0].values())))))
        _put_aside(scan_part, part, files[-1][0], number, ids)
    each = max(scan_part.max_memory // (_CELL_BYTES * sum(queries for _, queries in files)), 1)
    for start in range(0, len(ids), each):
        names = ids[start : start + each]
        read = [
            np.fromfile(file, np.float32, len(names) * queries, offset=4 * start * queries).reshape(-1, queries)
            for file, queries in files
        ]
        yield names, np.concatenate(read, axis=1)


def _put_aside(scan_part: _Scan, part: Part, path: Path, number: int, ids: list[str]) -> None:
    """Write a part's scores to a file; the first part says the rows' ids."""
    done = 0
    with path.open("wb") as file:

        def take(names: Sequence[str], scores: _RowScores) -> None:
            nonlocal done
            ids.extend(names if number == 0 else ())
            done += len(names)
            file.write(np.ascontiguousarray(scores).tobytes())
            tell(f"scoring part {number + 1} of the queries", done, len(ids) if number else None)

        scan_part(part, take)
