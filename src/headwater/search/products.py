"""Inner products of stored rows with all queries: a matrix product of numbers, or of integers for codes of a rotation.

For these codes a query is rounded to 255 levels, which adds about one percent of error to the half that signs have
already. Its products with the rows' levels are then whole numbers, which are exact in whatever order they are summed:
the same ranks on every device and with every number of threads.

On a processor and on CUDA, each byte becomes its levels of one byte each by a table, some rows at a time, and they are
multiplied by 8-bit instructions. Elsewhere a row's score is the sum of one table entry for each byte of its code: a
byte contributes one of 256 sums of a few query numbers, and no bit is unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float, Int8
from torch import Tensor
from torch.nn.functional import embedding_bag

from headwater.core.spec import LEVEL_BITS, Column
from headwater.curvature.gram import FittedMetric, Metric, fit_metric
from headwater.index.store import Index
from headwater.search.codes import levels_of_byte, stored_names, stored_vectors, transform
from headwater.search.factors import vectors_of

QueryVectors = Mapping[str, Float[Tensor, "queries _dim"]]
"""Column name to float32 `[queries, dim]`: the vectors that the rows' vectors are multiplied with."""

Metrics = Mapping[str, FittedMetric]
"""Column name to the metric of its products; a column without a metric has plain inner products."""


def fit_metrics(
    index: Index, wanted: Mapping[str, Metric], device: torch.device | str = "cpu"
) -> dict[str, FittedMetric]:
    """Fit each column's metric on the present rows of the index, on a device; codes are decoded for it.

    What a code has lost adds to the second moment, nearly alike in all directions, and so acts as more damping.
    """
    stored = {column.name: column for column in index.manifest.columns}
    vectors = {name: _vectors(index, stored[name], device) for name in wanted}
    return {
        name: fit_metric(metric, vectors[name], where=f"{index.path}, column '{name}'")
        for name, metric in wanted.items()
    }


def apply_metrics(metrics: Metrics, vectors: QueryVectors) -> QueryVectors:
    """Precondition the query vectors of the columns that have a metric; the others stay as they are."""
    return {name: metrics[name].probes(v) if name in metrics else v for name, v in vectors.items()}


def _vectors(index: Index, column: Column, device: torch.device | str) -> Iterator[Float[Tensor, "rows dim"]]:
    for batch in index.batches(stored_names(column), rows=1024):
        yield stored_vectors(batch, column).to(device)


Product = Callable[[Tensor], Float[Tensor, "queries rows"]]
"""Takes stored rows `[rows, width]` and gives their float32 products with every query, not yet scaled."""

_CACHE_BYTES = 1 << 19
"""Bytes of float32 rows multiplied at once on a CPU: they fit its second-level cache (3 times faster for one query)."""

_FEWEST_ROWS = 64
_LEVEL_BYTES = {"cpu": 1 << 21, "cuda": 1 << 28}
"""Bytes of levels that are multiplied at once: on a CPU they stay in its cache. Other devices look sums up instead."""

_AS_ONE = {1: torch.int64, 2: torch.int32, 4: torch.int16}
"""The type of number whose bytes are the levels of one byte of code, by bits a level."""

_LEVELS = 127
_TABLES = 16
"""How many bytes of code are looked up at once: few enough that their tables stay in a processor's cache."""


def product(probes: Float[Tensor, "queries dim"], column: Column) -> Product:
    """A function that multiplies a column's stored rows with these queries, on the queries' device."""
    if column.dtype == "factors":
        return _of_factors(probes.float(), column)
    if column.dtype not in LEVEL_BITS:
        return _multiplied(probes.float())
    queries = transform(probes.cpu().double(), column)  # in float64, so that every device rounds alike
    step = queries.abs().amax(dim=1, keepdim=True) / _LEVELS
    levels = torch.round(queries / torch.where(step > 0, step, 1)).to(torch.int8)
    multiplied = probes.device.type == "cpu" or (probes.is_cuda and levels.shape[1] % 8 == 0)  # as CUDA demands
    way = by_integers if multiplied else by_tables
    multiply = way(levels.to(probes.device), LEVEL_BITS[column.dtype])
    scale = step.to(probes)

    def products(stored: Tensor) -> Tensor:
        return multiply(stored) * scale

    return products


def _multiplied(probes: Float[Tensor, "queries dim"]) -> Product:
    def products(stored: Tensor) -> Tensor:
        """Multiply all rows with all queries; on a CPU in pieces, so that a piece's float32 copy stays in the cache."""
        rows, width = stored.shape
        piece = rows if probes.is_cuda else min(rows, max(_FEWEST_ROWS, _CACHE_BYTES // (4 * width)))
        total = torch.empty(len(probes), rows, device=probes.device)
        single = torch.empty(piece, width, device=probes.device)
        for start in range(0, rows, piece):
            part = stored[start : start + piece]
            torch.mm(probes, single[: len(part)].copy_(part).T, out=total[:, start : start + piece])
        return total

    return products


def _of_factors(probes: Float[Tensor, "queries dim"], column: Column) -> Product:
    def products(stored: Tensor) -> Tensor:
        """Multiply rows out in pieces, whose float32 entries stay in a processor's cache, with all queries."""
        piece = max(_FEWEST_ROWS, _CACHE_BYTES // (4 * column.dim))
        parts = [vectors_of(part.to(probes.device), column) for part in stored.split(piece)]
        return torch.cat([probes @ part.T for part in parts], dim=1)

    return products


def by_integers(queries: Int8[Tensor, "queries kept"], each: int = 1) -> Product:
    """Exact products with codes of `each` bits a coordinate: levels of one byte, multiplied as integers."""
    count, kept = queries.shape
    device = queries.device
    right = _right_factor(queries)
    table = levels_of_byte(each).view(_AS_ONE[each]).flatten().to(device)

    def products(stored: Tensor) -> Tensor:
        rows, width = stored.shape
        piece = min(_multiple(rows), max(_FEWEST_ROWS, _LEVEL_BYTES[device.type] // kept))
        total = torch.empty(rows, right.shape[1], dtype=torch.int32, device=device)
        held = torch.zeros(piece * width, dtype=table.dtype, device=device)
        for start in range(0, rows, piece):
            part = stored[start : start + piece].to(device)
            torch.index_select(table, 0, part.reshape(-1).to(torch.int32), out=held[: part.numel()])
            levels = held.view(torch.int8).view(piece, kept)
            if device.type == "cpu":
                torch._int_mm(levels[: len(part)], right, out=total[start : start + piece])
            else:  # whole pieces: CUDA multiplies multiples of 8 rows, and more than 16
                total[start : start + piece] = torch._int_mm(levels, right)[: len(part)]
        return total[:, :count].T.float()

    return products


def _right_factor(queries: Int8[Tensor, "queries kept"]) -> Int8[Tensor, "kept padded"]:
    """The queries as columns; CUDA wants a multiple of 8 of them, and a query's numbers next to each other."""
    if queries.device.type == "cpu":
        return queries.T.contiguous()
    padding = queries.new_zeros(_multiple(len(queries)) - len(queries), queries.shape[1])
    return torch.cat([queries, padding]).T


def _multiple(rows: int) -> int:
    """The next multiple of 8 that is above 16."""
    return max(24, -(-rows // 8) * 8)


def by_tables(queries: Int8[Tensor, "queries kept"], each: int = 1) -> Product:
    """Exact products with codes on any device: the sum of a table entry for each byte of the code."""
    count, size = len(queries), queries.shape[1] * each // 8
    levels = levels_of_byte(each).to(queries.device)
    largest = (_LEVELS * queries.shape[1]) << each
    exact = torch.float32 if largest < 1 << 24 else torch.float64
    by_byte = torch.einsum("si,qbi->bsq", levels.to(exact), queries.to(exact).view(count, size, 8 // each))
    tables = by_byte.split(size if by_byte.is_cuda else _TABLES)

    def products(stored: Tensor) -> Tensor:
        total = torch.zeros(len(stored), count, dtype=exact, device=by_byte.device)
        start = 0
        for table in tables:
            part = stored[:, start : start + len(table)].to(by_byte.device, torch.int32)
            places = part + 256 * torch.arange(len(table), dtype=torch.int32, device=by_byte.device)
            total += embedding_bag(places, table.reshape(-1, count), mode="sum")
            start += len(table)
        return total.T.float()

    return products
