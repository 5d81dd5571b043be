"""Exact search: score every row on every query in one pass over the index, in bounded memory.

    score(row, query) = Σ_columns ⟨row vector, probe⟩        (the probe includes the column's weight)

Arrow batches are read ahead and not copied; each gives one matrix product with all queries at once, accumulated in
float32. Rows with equal scores keep the row order, so the same index and probes always give the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from headwater.core.errors import MismatchError, NumericError, StoreError, UsageError
from headwater.core.scores import Scores
from headwater.core.spec import Column
from headwater.index.store import Index
from headwater.search.codes import stored_names, stored_vectors
from headwater.search.products import Metrics, Product, QueryVectors, product

DEFAULT_MEMORY = 1 << 29
"""How many bytes a scan may hold in blocks and scores; the store's read-ahead needs about 400 MiB more."""

PLAIN: Metrics = {}
"""Plain inner products in every column."""

_MOST_ROWS, _FEWEST_ROWS = 8192, 8


class Found(NamedTuple):
    """A row found for a query: its address (see `Index.at`) and its score."""

    address: int
    score: float


@dataclass(frozen=True)
class ScoredBlock:
    """Scores of consecutive rows.

    Attributes:
        addresses: int64 `[rows]`.
        scores: float32 `[queries, rows]`, on the probes' device.
        ids: the rows' ids, if the scan was made `with_ids`.
    """

    addresses: NDArray[np.int64]
    scores: Float[Tensor, "queries rows"]
    ids: tuple[str, ...] = ()


def top_k(
    index: Index,
    probes: QueryVectors,
    k: int,
    *,
    where: str | None = None,
    lowest: bool = False,
    max_memory: int = DEFAULT_MEMORY,
    metrics: Metrics = PLAIN,
    on_rows: Callable[[int], None] | None = None,
) -> list[list[Found]]:
    """The k rows of highest score for each query, best first; equal scores keep row order.

    Args:
        index: the index to search, without its deleted rows.
        probes: query vectors by column name, float32; products are computed on their device.
        k: rows for each query; fewer are returned if the index has fewer, or fewer meet `where`.
        where: an SQL condition over the index's columns, such as `source = 'wiki' AND tokens < 512`.
        lowest: return the rows of lowest score (opponents), lowest first.
        max_memory: bytes the scan may hold.
        metrics: the columns' metrics, which scale rows; they are applied to the probes already.
        on_rows: called after each block with the number of rows scored so far; what it raises ends the search.

    Raises:
        MismatchError: probes do not fit the index's columns.
        NumericError: a probe is not finite.
        StoreError: the queries do not fit in `max_memory`.
        UsageError: k is below 1.
    """
    best, done = Best(k, lowest=lowest), 0
    for block in scan(index, probes, where=where, max_memory=max_memory, metrics=metrics):
        best.add(block)
        done += len(block.addresses)
        if on_rows is not None:
            on_rows(done)
    return best.found(len(next(iter(probes.values()))))


def score_all(
    index: Index,
    probes: QueryVectors,
    *,
    queries: Sequence[str] | None = None,
    where: str | None = None,
    max_memory: int = DEFAULT_MEMORY,
    metrics: Metrics = PLAIN,
    through: Through | None = None,
) -> Scores:
    """Every row's score on every query, in memory, in row order.

    Args:
        index, probes, where, metrics: as in `top_k`.
        queries: names of the queries; None numbers them from 0.
        max_memory: bytes for the scan and, separately, for the result; `headwater.search.export` needs only the first.
        through: what makes the blocks of scores; None: this process.

    Raises:
        StoreError: the scores do not fit in `max_memory`; and the errors of `top_k`.
    """
    count = next(iter(probes.values())).shape[0]
    names = tuple(map(str, range(count))) if queries is None else tuple(queries)
    if 4 * index.count * count > max_memory and where is None:
        what = f"{index.count:,} rows times {count:,} queries do not fit in {max_memory:,} bytes"
        raise StoreError(what, where=index.path, remedy="write the scores to a file, or raise max_memory")
    ids: list[str] = []
    values = [np.empty((0, count), np.float32)]

    def take(block: ScoredBlock) -> None:
        ids.extend(block.ids)
        values.append(block.scores.T.cpu().numpy())

    (through or in_this_process)(take, index, probes, where=where, max_memory=max_memory, metrics=metrics)
    return Scores(tuple(ids), names, np.concatenate(values), index.manifest.method.name)


@runtime_checkable
class Through(Protocol):
    """What makes the scores of all rows and hands them over block by block, in row order."""

    def __call__(self, take: Callable[[ScoredBlock], None], index: Index, probes: QueryVectors, /, **how: Any) -> None:
        """Call `take` with each block, which has its ids; `how` are further arguments of `scan`."""
        ...


def in_this_process(take: Callable[[ScoredBlock], None], index: Index, probes: QueryVectors, /, **how: Any) -> None:
    """Score all rows here; see `Through`."""
    for block in scan(index, probes, with_ids=True, **how):
        take(block)


def scan(
    index: Index,
    probes: QueryVectors,
    *,
    where: str | None = None,
    max_memory: int = DEFAULT_MEMORY,
    with_ids: bool = False,
    metrics: Metrics = PLAIN,
    fragments: Collection[int] | None = None,
) -> Iterator[ScoredBlock]:
    """Scores of all rows, block by block in row order; arguments and errors as in `top_k`.

    With `fragments`, only of the rows in these; fragments that are scanned apart give the bits of a scan over all.
    """
    columns = _checked_columns(index, probes)
    products = {column: product(probes[column.name], column) for column in columns}
    queries, device = len(probes[columns[0].name]), probes[columns[0].name].device
    wanted = [name for column in columns for name in stored_names(column)]
    scaled = {name: metric for name, metric in metrics.items() if metric.scales_rows}
    wanted += ["loss"] if scaled else []
    rows = rows_per_block(columns, queries, max_memory, index.path)
    names = [*(["id"] if with_ids else []), *wanted]
    for batch in index.batches(names, where=where, rows=rows, fragments=fragments):
        total = torch.zeros(queries, batch.num_rows, device=device)
        for column, multiply in products.items():
            part = scores_in(batch, column, multiply)
            if column.name in scaled:
                losses = from_dlpack(batch.column("loss"))
                part *= scaled[column.name].row_scale(stored_vectors(batch, column), losses).to(device)
            total += part
        _require_finite(index, batch, total)
        ids = tuple(batch.column("id").to_pylist()) if with_ids else ()
        yield ScoredBlock(batch.column("_rowaddr").to_numpy().astype(np.int64), total, ids)


def scores_in(batch: pa.RecordBatch, column: Column, multiply: Product) -> Float[Tensor, "queries rows"]:
    """One column's products of a batch's rows with the probes of `multiply`, without the column's metric."""
    part = multiply(from_dlpack(batch.column(column.name).flatten()).view(batch.num_rows, -1))
    if column.scale is not None:
        part *= from_dlpack(batch.column(column.scale)).to(part.device)
    return part


def _require_finite(index: Index, batch: pa.RecordBatch, scores: Float[Tensor, "queries rows"]) -> None:
    """Raise `NumericError` naming the first row with a score that is not finite: its vector is damaged."""
    if not scores.numel() or torch.isfinite(scores.sum()):  # the sum of finite scores may still overflow
        return
    bad = (~torch.isfinite(scores)).any(dim=0).nonzero()
    if bad.numel():
        address = batch.column("_rowaddr")[int(bad[0])].as_py()
        row = index.at([address], ["id"])["id"][0].as_py()
        remedy = "headwater index verify lists all damage; delete the row, or build the index again"
        raise NumericError("the row's score is not finite: its vector is damaged", where=f"row '{row}'", remedy=remedy)


def _checked_columns(index: Index, probes: QueryVectors) -> list[Column]:
    """The columns of the index that the probes are for, after checking that the probes fit and are finite."""
    dims = {column.name: column.dim for column in index.manifest.columns}
    found = {name: probe.shape[1] for name, probe in probes.items()}
    unfit = tuple(name for name, dim in found.items() if dims.get(name) != dim)
    if unfit or not found:
        what = f"query vectors of {found} for an index of {dims} (column: dimension)"
        remedy = "make the query vectors with the index's own method"
        raise MismatchError(what, fields=unfit, where=index.path, remedy=remedy)
    for name, probe in probes.items():
        bad = (~torch.isfinite(probe)).any(dim=1).nonzero()
        if bad.numel():
            raise NumericError("the query vector has values that are not finite", where=f"query {int(bad[0])}, {name}")
    return [column for column in index.manifest.columns if column.name in probes]


def rows_per_block(columns: Sequence[Column], queries: int, max_memory: int, where: str) -> int:
    """How many rows to read at once, so that the blocks read ahead, a float32 copy and the scores fit the memory."""
    stored = 6 * sum(column.row_bytes for column in columns)
    widest = 4 * max(column.width for column in columns)
    rows = max_memory // (stored + widest + 16 * queries)
    if rows < _FEWEST_ROWS:
        wide = sum(column.row_bytes for column in columns)
        what = f"{queries:,} queries at once, and rows of {wide:,} bytes, need more than {max_memory:,} bytes"
        remedy = "trace fewer queries at a time, raise max_memory, or store fewer bytes (headwater index quantise)"
        raise StoreError(what, where=where, remedy=remedy)
    return int(min(_MOST_ROWS, rows))


class Best:
    """The k best rows for each query of the blocks so far, which are added in row order; of equal scores the earlier.

    Attributes:
        k: rows for each query.
        scores: float32 `[queries, ≤ k]`, best first, their sign turned if the lowest are wanted; None at first.
        addresses: int64 `[queries, ≤ k]`.
    """

    def __init__(self, k: int, *, lowest: bool = False) -> None:
        if k < 1:
            raise UsageError(f"top {k} rows were asked for", remedy="ask for 1 or more")
        self.k, self._sign = k, -1.0 if lowest else 1.0
        self.scores: Float[Tensor, "queries _"] | None = None
        self.addresses: Int[Tensor, "queries _"] | None = None

    def add(self, block: ScoredBlock) -> None:
        """Take in a block's rows."""
        scores = block.scores * self._sign
        addresses = torch.from_numpy(block.addresses).to(scores.device)
        if self.scores is not None and self.scores.shape[1] == self.k:
            promising = (scores > self.scores[:, -1:]).any(dim=0)
            scores, addresses = scores[:, promising], addresses[promising]
        scores, order = _top_in_order(scores, self.k)
        self._join(scores, addresses[order])

    def join(self, found: Sequence[Sequence[Found]]) -> None:
        """Take in the best rows of later blocks, as `found` gave them for each query."""
        pairs = [[(self._sign * hit.score, hit.address) for hit in hits] for hits in found]
        scores = torch.tensor([[score for score, _ in hits] for hits in pairs], dtype=torch.float32)
        self._join(scores, torch.tensor([[address for _, address in hits] for hits in pairs], dtype=torch.int64))

    def found(self, queries: int) -> list[list[Found]]:
        """The best rows of each of the queries, best first."""
        if self.scores is None or self.addresses is None:
            return [[] for _ in range(queries)]
        both = zip(self.addresses.tolist(), self.scores.tolist(), strict=True)
        return [[Found(a, self._sign * s) for a, s in zip(*one, strict=True)] for one in both]

    def _join(self, scores: Float[Tensor, "queries _"], addresses: Int[Tensor, "queries _"]) -> None:
        if self.scores is not None and self.addresses is not None:
            scores, addresses = torch.cat([self.scores, scores], 1), torch.cat([self.addresses, addresses], 1)
        final = scores.argsort(dim=1, descending=True, stable=True)[:, : self.k]
        self.scores, self.addresses = scores.gather(1, final), addresses.gather(1, final)


def _top_in_order(
    scores: Float[Tensor, "queries rows"], k: int
) -> tuple[Float[Tensor, "queries _"], Int[Tensor, "queries _"]]:
    """The k highest scores and their positions; of equal scores the earlier.

    `topk` promises no order among ties, so it gets integers that have none. The upper half of each integer holds the
    score's bits, changed so that they order as integers do; the lower half holds the position, counted down.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes -0.0 the same as 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    last = scores.shape[1] - 1
    countdown = torch.arange(last, -1, -1, device=scores.device)
    keys = (ordered.long() << 32) | countdown
    position = last - (keys.topk(min(k, last + 1), dim=1).values & 0xFFFFFFFF)
    return scores.gather(1, position), position
